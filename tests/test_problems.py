"""MiniMATH's rows, the loaders on real data, and the judging of responses."""

from __future__ import annotations

import contextlib
import json
import random
import re
import socket
import warnings
from collections import Counter
from itertools import islice
from statistics import median

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest
from minimath import TEMPLATES, make_row, pretraining_rows, slipped_work, solution_text, write_minimath
from minimath_answers import ROUTES, find_answer, plain

from rlvr_utils.problems import (
    CATEGORIES,
    MINIMATH,
    RepairedData,
    all_rows,
    check_steps,
    classify_response,
    evaluation_rows,
    find_steps,
    load_problems,
    math_row,
    overlap,
    question_of,
    worked_example,
)
from rlvr_utils.problems import rows as problem_rows
from rlvr_utils.problems import test_data_dir as data_dir
from rlvr_utils.problems.prompts import RLVR_MATH_EXEMPLARS, build_prompt
from rlvr_utils.profiles import get_profile
from rlvr_utils.verifier import last_boxed, verify

SIZES = {"train": 2000, "test": 500, "ood": 250}
FIELDS = {"id", "problem", "solution", "ground_truth", "subject", "level", "template", "params", "answer_form"}
SUBJECTS = {
    "Prealgebra",
    "Algebra",
    "Number Theory",
    "Counting & Probability",
    "Geometry",
    "Intermediate Algebra",
    "Precalculus",
}
FORMS = {
    "integer",
    "fraction",
    "square root",
    "tuple",
    "interval",
    "set",
    "polynomial",
    "multiple of pi",
    "degrees",
    "percent",
    "complex",
}


@pytest.fixture(scope="module")
def splits() -> dict[str, list[dict]]:
    return {split: load_problems("minimath", split) for split in SIZES}


@pytest.fixture(scope="module")
def rows(splits) -> list[dict]:
    return [row for split in splits.values() for row in split]


# --- every row --------------------------------------------------------------------------------------------------------


def test_every_row_has_the_fields_of_the_schema(rows):
    assert all(set(row) == FIELDS and all(row[field] not in (None, "") for field in FIELDS) for row in rows)


def test_the_last_box_of_every_solution_is_the_ground_truth(rows):
    assert [row["id"] for row in rows if last_boxed(row["solution"]) != row["ground_truth"]] == []


def test_every_step_of_every_solution_is_found_and_true(rows):
    assert [row["id"] for row in rows if len(find_steps(row["solution"])) != row["solution"].count("=")] == []
    assert [row["id"] for row in rows if not all(check_steps(row, row["solution"]))] == []


def test_an_independent_program_confirms_every_answer(rows):
    assert set(ROUTES) == set(TEMPLATES)
    wrong = [(row["id"], find_answer(row)) for row in rows if find_answer(row) != plain(row["ground_truth"])]
    assert wrong == []


def test_every_row_matches_its_parameters(rows):
    assert [row["id"] for row in rows if make_row(TEMPLATES[row["template"]], row["params"]) != row] == []


def test_the_independent_program_rejects_wrong_answers_and_questions():
    row = worked_example()
    changed = row["problem"].replace(f"f({row['params']['k']})", f"f({row['params']['k'] + 1})")
    assert changed != row["problem"]
    assert find_answer({**row, "problem": changed}) != plain(row["ground_truth"])


# --- the splits -------------------------------------------------------------------------------------------------------


def test_split_sizes(splits):
    assert {split: len(rows) for split, rows in splits.items()} == SIZES


def test_no_problem_occurs_twice_by_text_or_by_parameters(rows):
    assert len({row["problem"] for row in rows}) == len(rows)
    assert len({row["id"] for row in rows}) == len(rows)
    assert len({(row["template"], tuple(sorted(row["params"].items()))) for row in rows}) == len(rows)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_split_is_diverse(splits, split):
    rows = splits[split]
    templates, subjects, levels = (Counter(row[key] for row in rows) for key in ("template", "subject", "level"))
    assert len(templates) >= 24
    assert set(subjects) == SUBJECTS and set(levels) == {1, 2, 3, 4, 5}
    assert max(templates.values()) <= 0.08 * len(rows)
    assert min(subjects.values()) >= 0.05 * len(rows)
    assert min(levels.values()) >= 0.05 * len(rows)


@pytest.mark.parametrize("split", ["train", "test", "ood"])
def test_from_level_three_on_the_median_solution_has_three_steps(splits, split):
    for level in (3, 4, 5):
        steps = [len(find_steps(row["solution"])) for row in splits[split] if row["level"] == level]
        assert not steps or median(steps) >= 3, (split, level)


@pytest.mark.parametrize("split", ["train", "test"])
def test_answers_come_in_every_form(splits, split):
    by_form = {form: [r["ground_truth"] for r in splits[split] if r["answer_form"] == form] for form in FORMS}
    assert {row["answer_form"] for row in splits[split]} == FORMS
    marks = {
        "fraction": r"\frac",
        "square root": r"\sqrt",
        "multiple of pi": r"\pi",
        "degrees": r"^\circ",
        "percent": r"\%",
        "set": r"\{",
        "tuple": "(",
        "polynomial": "x^2",
        "complex": "i",
    }
    for form, mark in marks.items():
        assert all(mark in answer for answer in by_form[form]), form
    assert {answer[0] for answer in by_form["interval"]} == {"(", "["}
    assert any(answer.startswith("-") for answer in by_form["integer"])


def test_ood_has_templates_that_training_never_sees_and_larger_numbers(splits):
    known = {row["template"] for split in ("train", "test") for row in splits[split]}
    unseen = {row["template"] for row in splits["ood"]} - known
    assert len(unseen) >= 4 and unseen == {name for name, template in TEMPLATES.items() if template.ood}
    for row in splits["ood"]:
        if row["template"] in known:
            highest = {name: top for name, (_, top) in TEMPLATES[row["template"]].ranges.items()}
            beyond = [name for name in highest if row["params"][name] > highest[name]]
            assert len(beyond) == 1, row["id"]


def test_the_generator_reproduces_the_included_files(tmp_path):
    write_minimath(tmp_path, seed=0)
    for split in SIZES:
        assert (tmp_path / f"{split}.jsonl").read_bytes() == (MINIMATH / f"{split}.jsonl").read_bytes(), split


def test_another_seed_gives_other_problems(splits, tmp_path):
    write_minimath(tmp_path, seed=1)
    other = [json.loads(line)["id"] for line in (tmp_path / "test.jsonl").read_text().splitlines()]
    assert len(set(other) & {row["id"] for row in splits["test"]}) < 250


# --- slips and the pretraining stream ---------------------------------------------------------------------------------


def test_a_solution_with_an_error_is_wrong_and_has_a_false_step(splits):
    rng = random.Random(0)
    for row in splits["test"]:
        text = solution_text(*slipped_work(TEMPLATES[row["template"]], row["params"], rng))
        assert not verify(text, row["ground_truth"]).correct, (row["id"], text)
        assert classify_response(row, text) == "slipped_step", (row["id"], text)


def test_the_pretraining_stream_never_yields_a_forbidden_problem(splits):
    forbidden = {row["id"] for split in ("test", "ood") for row in splits[split]}
    drawn = islice(pretraining_rows(random.Random(0), forbidden), 30_000)
    seen = {f"{template.name}-" + "-".join(map(str, params.values())) for template, params in drawn}
    assert not seen & forbidden
    assert not any(TEMPLATES[name.split("-")[0]].ood for name in seen)
    unguarded = islice(pretraining_rows(random.Random(0), set()), 30_000)
    would = {f"{template.name}-" + "-".join(map(str, params.values())) for template, params in unguarded}
    assert would & forbidden, "without the guard, test problems must occur"


# --- loaders ----------------------------------------------------------------------------------------------------------


def test_rlvr_math_loads(real_data):
    loaded = load_problems(str(real_data / "rlvr_math_sample.parquet"))
    truths = {row["problem"].strip(): row["answer"] for row in read_lines(real_data / "math_test.jsonl")}
    assert len(loaded) == 256 and all(set(row) >= FIELDS for row in loaded)
    assert len({row["id"] for row in loaded}) == 256
    assert sum(truths.get(row["problem"]) == row["ground_truth"] for row in loaded) == 256


def test_math_loads(real_data):
    loaded = load_problems(str(real_data / "math_test.jsonl"))
    assert len(loaded) == 5000 and {row["level"] for row in loaded} == {1, 2, 3, 4, 5}
    assert {row["subject"] for row in loaded} == SUBJECTS
    assert all(isinstance(row["ground_truth"], str) and row["problem"] for row in loaded)


def test_a_hub_row_may_use_other_columns_for_level_and_subject():
    row = math_row({"problem": "p", "solution": r"so \boxed{7}", "type": "Geometry", "level": "Level ?"}, 3, "math")
    assert (row["id"], row["ground_truth"], row["subject"], row["level"]) == ("math-3", "7", "Geometry", None)
    assert math_row({"problem": "p", "answer": 7}, 0, "math")["ground_truth"] == "7"


@pytest.mark.parametrize(
    "problem",
    [
        "What is $1 + 1$?",
        'A form asks "Question: how old?" How many words are in the question?',
        "A sheet says\n\nQuestion: what is $2$?\nAnswer: two.\n\nIs it right?",
    ],
)
def test_a_problem_may_contain_the_word_question(problem):
    message = build_prompt(problem, RLVR_MATH_EXEMPLARS, chat=True)[0]["content"]
    assert question_of(message) == problem


@pytest.mark.parametrize("shots", [0, 1, 3])
def test_a_message_with_fewer_examples_is_parsed(shots):
    problem = "Read the Question: what is $1 + 1$?"
    assert question_of(build_prompt(problem, RLVR_MATH_EXEMPLARS[:shots], chat=True)[0]["content"]) == problem
    assert question_of("What is $1 + 1$?") == "What is $1 + 1$?"


def test_unknown_splits_files_and_columns_raise_clear_errors(tmp_path):
    with pytest.raises(ValueError, match="no split 'validation'. Choose from ood, test, train"):
        load_problems("minimath", "validation")
    with pytest.raises(ValueError, match="no file .*absent.jsonl"):
        load_problems(str(tmp_path / "absent.jsonl"))
    (tmp_path / "other.jsonl").write_text('{"text": "x", "label": 1}\n')
    with pytest.raises(ValueError, match="other.jsonl: 1 of 1 rows .* Line 1: .* Its columns are label, text"):
        load_problems(str(tmp_path / "other.jsonl"))


def test_an_unreachable_hub_raises_a_clear_error(monkeypatch):
    import datasets

    def refuse(*args, **options):
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(ValueError, match="Could not load 'allenai/RLVR-MATH' .*Check the network"):
        load_problems("allenai/RLVR-MATH")


def test_rlvr_math_is_loaded_at_a_fixed_revision(monkeypatch):
    import datasets

    asked = []
    row = {"problem": "p", "answer": "1"}
    monkeypatch.setattr(datasets, "load_dataset", lambda name, **options: asked.append((name, options)) or [row])
    assert len(load_problems("allenai/RLVR-MATH")) == 1
    assert asked[0][1]["split"] == "train" and len(asked[0][1]["revision"]) == 40


def test_loaded_rows_are_copies():
    load_problems("minimath", "test")[0]["problem"] = "changed"
    assert load_problems("minimath", "test")[0]["problem"] != "changed"


def test_the_directory_of_real_data_is_configurable(monkeypatch, tmp_path):
    monkeypatch.setenv("RLVR_TEST_DATA", str(tmp_path))
    assert data_dir() == tmp_path


# --- judging responses ------------------------------------------------------------------------------------------------

QUADRATIC = make_row(TEMPLATES["evaluate_quadratic"], {"a": 2, "b": 3, "c": 5, "k": 4})
LINE = make_row(TEMPLATES["point_on_line"], {"a": 1, "b": 2, "c": -1, "d": 3, "t": 4})
WORK = r"$4^2 = 16$. $2 \cdot 16 = 32$. $3 \cdot 4 = 12$. $32 + 12 = 44$. $44 + 5 = 49$."
SLIP = r"$4^2 = 16$. $2 \cdot 16 = 34$. $3 \cdot 4 = 12$. $34 + 12 = 46$. $46 + 5 = 51$."


@pytest.mark.parametrize(
    "row, response, cut_off, category",
    [
        (QUADRATIC, WORK + r" The answer is $\boxed{49}$.", False, "correct"),
        (QUADRATIC, r"The answer is $\boxed{49}$.", False, "correct"),
        (QUADRATIC, WORK + " The answer is $49$.", False, "no_box"),
        (QUADRATIC, "The answer is $49$.", False, "no_box"),
        (QUADRATIC, r"$4^2 = 16$. $2 \cdot 16", True, "truncated"),
        (QUADRATIC, r"$4^2 = 16$. The answer is $\boxed{4", True, "truncated"),
        (QUADRATIC, WORK + r" The answer is $\boxed{94}$.", False, "correct_steps_wrong_box"),
        (
            LINE,
            r"$2 \cdot 4 = 8$. $8 + 1 = 9$. $3 \cdot 4 = 12$. $12 - 1 = 11$. The answer is $\boxed{(11, 9)}$.",
            False,
            "correct_steps_wrong_box",
        ),
        (QUADRATIC, SLIP + r" The answer is $\boxed{51}$.", False, "slipped_step"),
        (QUADRATIC, r"$2 \cdot 4 = 8$. $8 + 5 = 13$. The answer is $\boxed{13}$.", False, "wrong_method"),
        (QUADRATIC, r"The answer is $\boxed{48}$.", False, "direct_answer"),
        (QUADRATIC, r"The answer {{ is \boxed{48}", False, "not_language"),
        (QUADRATIC, SLIP + r" The answer is \boxed{51}$.", False, "slipped_step"),
        (QUADRATIC, r"The answer is \boxed{48}$.", False, "direct_answer"),
        (QUADRATIC, "and " * 40 + r"$\boxed{3}$", False, "not_language"),
        (QUADRATIC, "and " * 40, True, "not_language"),
        (QUADRATIC, "  ", False, "not_language"),
    ],
)
def test_each_category_of_response(row, response, cut_off, category):
    assert category in CATEGORIES
    assert classify_response(row, response, cut_off=cut_off) == category


def test_reference_solutions_are_correct_and_direct_answers_have_no_steps(rows):
    for row in rows:
        assert classify_response(row, row["solution"]) == "correct"
        assert find_steps(solution_text([], row["ground_truth"])) == []


def test_steps_are_only_found_inside_formulas():
    assert find_steps("$1 + 1 = 2$ and $x$ = 5 and $y$. $$2 + 2 = 5$$") == [("1 + 1", "2"), ("2 + 2", "5")]
    assert find_steps(r"It costs \$5, so $5 \cdot 2 = 10$, and $3 + 4 =") == [(r"5 \cdot 2", "10")]
    assert find_steps(r"$\boxed{x = 3}$ $a = b = c$ $= 4$") == []
    assert check_steps(QUADRATIC, "$1 + 1 = 2$. $2 + 2 = 5$. $1 / 0 = 3$.") == [True, False, False]


def test_reading_a_response_is_linear_in_its_length():
    assert find_steps("$" * 200_000 + "=" * 200_000) == []
    assert find_steps("$a=" * 100_000) is not None


def test_the_worked_example_is_an_algebra_problem_of_the_test_split(splits):
    assert worked_example() in splits["test"]
    assert worked_example()["subject"] == "Algebra" and len(find_steps(worked_example()["solution"])) >= 3


def read_lines(path) -> list[dict]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def test_the_data_card_lists_every_template_with_its_counts(splits):
    card = (MINIMATH.parent / "README.md").read_text(encoding="utf-8")
    counts = {split: Counter(row["template"] for row in rows) for split, rows in splits.items()}
    for name, template in TEMPLATES.items():
        shown = " | ".join(str(counts[split][name] or "") for split in SIZES)
        line = f"| `{name}` | {template.subject} | {template.level} | {template.answer_form} | {shown} |"
        assert re.sub(" +", " ", line) in card
    listed = [line for line in card.splitlines() if line.count("|") == 8]
    assert len(listed) == len(TEMPLATES) + 2


# --- a learner's own data ---------------------------------------------------------------------------------------------


def written(folder, *rows, name="mine.jsonl") -> str:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(folder / name)


GOOD = {"problem": "What is $1 + 1$?", "ground_truth": "2"}


@pytest.mark.parametrize(
    "field, value",
    [
        ("ground_truth", value)
        for value in (
            None,
            "",
            "  ",
            float("nan"),
            float("inf"),
            [4],
            {"a": 1},
            True,
            "nan",
            "#### ",
            "\ud800",
            "None",
            "#### None",
            "N/A",
            "[]",
            "['4']",
            "\u200b",
            "\ufeff",
        )
    ]
    + [("problem", value) for value in (None, "", 3, ["p"], {"a": 1}, "half \udc00", "None", "nan", "\u200b \u2060")],
)
def test_a_value_that_is_not_text_raises_with_file_line_and_field(tmp_path, field, value):
    with pytest.raises(ValueError, match=rf"mine.jsonl: 1 of 3 rows cannot be used. Line 2: `{field}` is .*"):
        load_problems(written(tmp_path, GOOD, GOOD | {field: value}, GOOD))


@pytest.mark.parametrize(
    "row, truth",
    [
        ({"ground_truth": 4}, "4"),
        ({"ground_truth": 4.0}, "4"),
        ({"answer": 2.5}, "2.5"),
        ({"answer": 1e-7}, "0.0000001"),
        ({"answer": 10**400}, "1" + "0" * 400),
        ({"answer": "none"}, "none"),
        ({"answer": "2 + 2 = 4\n#### 4"}, "4"),
        ({"answer": None, "solution": r"So \boxed{9}."}, "9"),
        ({"answer": " 4 "}, "4"),
    ],
)
def test_repairs_are_made_and_reported_once(tmp_path, row, truth):
    problem_rows._told.clear()
    file = written(tmp_path, {"problem": "p"} | row)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert {load_problems(file)[0]["ground_truth"] for _ in range(3)} == {truth}
    assert [str(warning.message).startswith("mine.jsonl: ") for warning in told] == [True] * (row != {"answer": "none"})


def test_columns_with_reserved_names_are_renamed(tmp_path):
    problem_rows._told.clear()
    mine = {"id": "q-7", "level": "hard", "template": "t", "params": [1], "answer_form": "x"}
    with pytest.warns(RepairedData, match="column `id` was renamed to `own_id`"):
        [row] = load_problems(written(tmp_path, GOOD | mine))
    assert {f"own_{name}": row[f"own_{name}"] for name in mine} == {f"own_{name}": value for name, value in mine.items()}
    assert row["id"].endswith("-0") and row["template"] is None


@pytest.mark.filterwarnings("ignore::rlvr_utils.problems.RepairedData")
def test_the_problem_of_chat_data_is_the_last_user_message(tmp_path):
    turns = [("system", "s"), ("user", "first"), ("assistant", "a"), ("user", "second"), ("assistant", r"\boxed{5}")]
    row = {"messages": [{"role": role, "content": content} for role, content in turns]}
    (loaded,) = load_problems(written(tmp_path, row))
    assert (loaded["problem"], loaded["ground_truth"]) == ("second", "5")
    with pytest.raises(ValueError, match="no message of role 'user'"):
        load_problems(written(tmp_path, {"messages": row["messages"][:1], "ground_truth": "1"}))


@pytest.mark.filterwarnings("ignore::rlvr_utils.problems.RepairedData")
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_and_blank_lines_are_skipped(tmp_path, encoding):
    line = json.dumps(GOOD | {"problem": "Größe?"}, ensure_ascii=False)
    (tmp_path / "mine.jsonl").write_text(f"{line}\n\n{line}", encoding=encoding)
    assert [row["problem"] for row in load_problems(str(tmp_path / "mine.jsonl"))] == ["Größe?"] * 2


@pytest.mark.parametrize(
    "data, said",
    [
        (b"", "contains no problems"),
        (b"\n \n", "contains no problems"),
        (b'[{"problem": "p"}]', "contains one JSON list"),
        (b'{"problem": "p", "ground_tru', "Line 1: it ends in the middle"),
        (b"7\n", "Line 1: found 7"),
        ('{"problem": "é"}'.encode("latin-1"), "Line 1: it is not UTF-8"),
        (json.dumps(GOOD).encode("utf-16-le"), "as UTF-16 does"),
        (b'{"a":' * 100_000, "Line 1: it cannot be read"),
        (b"\xff\xfeabc", "byte order mark of UTF-16"),
    ],
)
def test_an_invalid_jsonl_file_raises_a_clear_error(tmp_path, data, said):
    (tmp_path / "mine.jsonl").write_bytes(data)
    with pytest.raises(ValueError, match=f"mine.jsonl.*{said}"):
        load_problems(str(tmp_path / "mine.jsonl"))


@pytest.mark.parametrize("seed", range(20))
def test_a_damaged_file_raises_only_value_errors(tmp_path, seed):
    chance = random.Random(seed)
    for suffix in (".jsonl", ".parquet"):
        file = tmp_path / f"mine{suffix}"
        pd.DataFrame([GOOD] * 5).to_parquet(file) if suffix == ".parquet" else written(tmp_path, *[GOOD] * 5)
        data = bytearray(file.read_bytes())
        for _ in range(3):
            data[chance.randrange(len(data))] = chance.randrange(256)
        file.write_bytes(data[: chance.randrange(len(data) + 1)])
        with warnings.catch_warnings(), contextlib.suppress(ValueError):
            warnings.simplefilter("ignore")
            assert all(row["problem"] and row["ground_truth"] for row in load_problems(str(file)))


@pytest.mark.parametrize("truths", [["1", None], [1.0, float("nan")]])
def test_a_null_in_parquet_is_not_the_answer_nan(tmp_path, truths):
    pd.DataFrame({"problem": ["a", "b"], "ground_truth": truths}).to_parquet(tmp_path / "mine.parquet")
    with pytest.raises(ValueError, match="1 of 2 rows cannot be used. Row 1: `ground_truth` is n"):
        load_problems(str(tmp_path / "mine.parquet"))


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_a_float32_in_parquet_keeps_its_shortest_decimal(tmp_path, kind):
    pd.DataFrame({"problem": ["a", "b"], "ground_truth": np.array([0.1, 2.25], kind)}).to_parquet(tmp_path / "mine.parquet")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert [row["ground_truth"] for row in load_problems(str(tmp_path / "mine.parquet"))] == ["0.1", "2.25"]


def test_parquet_dates_out_of_range_raise_a_clear_error(tmp_path):
    far = pyarrow.array([10**15], pyarrow.timestamp("ms"))
    table = pyarrow.table({"problem": ["a"], "ground_truth": ["1"], "when": far})
    pyarrow.parquet.write_table(table, tmp_path / "mine.parquet")
    with pytest.raises(ValueError, match="mine.parquet cannot be read as parquet .* dates as text"):
        load_problems(str(tmp_path / "mine.parquet"))


def test_one_file_is_one_split_and_a_directory_has_one_file_per_split(tmp_path):
    file = written(tmp_path, GOOD)
    with pytest.raises(ValueError, match="is one file, so it is one split"):
        evaluation_rows(get_profile("mini", eval_dataset=file, eval_splits="test,ood"), "test")
    assert get_profile("mini", eval_dataset=file).eval_splits == ("test",)
    with pytest.raises(ValueError, match="All 1 evaluation problems of split 'test' are training problems"):
        all_rows(get_profile("mini", dataset=file, eval_dataset=file))
    assert all_rows(get_profile("mini", dataset=file, eval_dataset=file, eval_splits="train"))
    folder = tmp_path / "mine"
    folder.mkdir()
    written(folder, GOOD, name="train.jsonl")
    written(folder, GOOD | {"problem": "what IS  $1 + 1$?"}, GOOD | {"problem": "Other?"}, name="test.jsonl")
    assert overlap(*all_rows(get_profile("mini", dataset=folder, eval_dataset=folder))) == {"test": 1}
    with pytest.raises(ValueError, match=r"one file for split 'ood'.*contains test.jsonl, train.jsonl"):
        load_problems(str(folder), "ood")


def test_a_missing_split_on_the_hub_is_not_reported_as_a_network_error(monkeypatch) -> None:
    import datasets

    def refuse(*names, **options):
        raise ValueError("Unknown split \"ood\". Should be one of ['test'].")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(ValueError, match=r"has no split 'ood' on the hub. .*one of \['test'\]") as told:
        load_problems("HuggingFaceH4/MATH-500", "ood")
    assert "network" not in str(told.value)

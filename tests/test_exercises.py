"""The exercises: each solution passes, typical mistakes are caught by name, stubs stop nothing, progress is kept."""

from __future__ import annotations

import ast
import json
import re

import nbformat
import numpy as np
import pytest
from exercise_cells import NOTEBOOKS, exercise_of, function_in, namespace, read, run, solutions, stubs, with_solutions
from wrong_answers import WRONG

from rlvr_utils import exercises
from rlvr_utils.exercises import attempts
from rlvr_utils.exercises.attempts import BY_ID

CHECKS = {function.exercise.id: function for name, function in vars(exercises).items() if name.startswith("check_")}
EXERCISES = attempts.in_order()
IDS = [exercise.id for exercise in EXERCISES]


@pytest.fixture(autouse=True)
def file(tmp_path, monkeypatch):
    """The checks of the tests write their progress elsewhere."""
    monkeypatch.setattr(attempts, "FILE", tmp_path / "runs" / "exercises.json")
    return attempts.FILE


@pytest.fixture(scope="module")
def notebooks() -> dict[str, nbformat.NotebookNode]:
    return {number: read(number) for number in NOTEBOOKS}


def cells_of(notebooks, name: str) -> tuple[nbformat.NotebookNode, int]:
    """The notebook of an exercise and where its stub stands."""
    notebook = notebooks[BY_ID[name].notebook]
    return notebook, dict(stubs(notebook))[name]


# --- the notebooks ---


def test_every_check_has_its_exercise_and_its_wrong_answers() -> None:
    assert sorted(CHECKS) == sorted(IDS) == sorted(WRONG)
    assert {name: len(wrong) for name, wrong in WRONG.items() if len(wrong) < 2} == {}


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_stubs_and_solutions_are_tied_one_to_one(number: str, notebooks) -> None:
    wanted = [exercise.id for exercise in EXERCISES if exercise.notebook == number]
    assert [name for name, _ in stubs(notebooks[number])] == wanted
    assert [name for name, _ in solutions(notebooks[number])] == wanted
    assert number == "00" or len(wanted) >= 4


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_every_notebook_has_an_open_experiment_and_shows_the_progress(number: str, notebooks) -> None:
    texts = [cell.source for cell in notebooks[number].cells]
    assert sum("## An experiment of your own" in text and "**Predict first:**" in text for text in texts) == 1
    call = "exercises.progress()" if number == "05" else f'exercises.progress("{number}")'
    assert texts.count(call) == 1
    assert texts.index(call) > max(index for _, index in stubs(notebooks[number]))


@pytest.mark.parametrize("name", IDS)
def test_an_exercise_is_a_task_a_stub_one_line_of_check_hints_and_a_solution(name: str, notebooks) -> None:
    notebook, index = cells_of(notebooks, name)
    exercise = BY_ID[name]
    before = [cell for cell in notebook.cells[:index] if cell.cell_type == "markdown"][-1].source
    assert before.startswith(f"### Exercise {exercise.name}\n")
    assert f"*Difficulty {exercise.difficulty} of 5, about {exercise.minutes} minutes.*" in before
    assert "**Why it matters.**" in before
    stub, check, folded = (cell.source for cell in notebook.cells[index : index + 3])
    function = function_in(notebook, stub)
    assert re.fullmatch(rf"exercises\.{CHECKS[name].__name__}\({function.__name__}\)", check)
    assert folded.count("<summary>Hint") >= 1 and folded.count("<summary>Solution</summary>") == 1
    assert folded.count("```python") == 1, "exactly one block of code: the solution"
    assert folded.count("<details>") == folded.count("</details>")


@pytest.mark.parametrize("name", IDS)
def test_a_solution_keeps_the_name_the_arguments_and_the_docstring_of_its_stub(name: str, notebooks) -> None:
    notebook, index = cells_of(notebooks, name)

    def contract(code: str) -> tuple:
        (function,) = (node for node in ast.parse(code).body if isinstance(node, ast.FunctionDef))
        assert function.name.startswith("my_"), "a notebook's own names must not be overwritten"
        return function.name, ast.unparse(function.args), ast.get_docstring(function)

    stub, solution = notebook.cells[index].source, dict(solutions(notebook))[name]
    assert contract(stub) == contract(solution)
    assert contract(stub)[2]


# --- right, wrong, not attempted ---


@pytest.mark.parametrize("name", IDS)
def test_the_solution_is_right(name: str, notebooks) -> None:
    notebook, _ = cells_of(notebooks, name)
    report = CHECKS[name](function_in(notebook, dict(solutions(notebook))[name]))
    assert report.state == "right", report
    assert len(report.held) >= 3
    assert f"✓ Exercise {BY_ID[name].name}: right. {len(report.held)} properties hold." == repr(report)
    assert "✓ Right." in report._repr_html_(), "in a notebook: with a tick, in a colour and a word"


@pytest.mark.parametrize("name", IDS)
def test_the_untouched_cells_run_and_say_not_attempted(name: str, notebooks, capsys) -> None:
    notebook, index = cells_of(notebooks, name)
    stub, check = notebook.cells[index].source, notebook.cells[index + 1].source
    names = namespace(notebook, f"{stub}\n{check}")
    run(f"{stub}\nreport = {check}", names)
    assert names["report"].state == "not attempted"
    assert "not attempted. Replace the dots" in repr(names["report"])
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "mistake", "function", "words"),
    [pytest.param(name, *wrong, id=f"{name}: {wrong[0]}") for name in IDS for wrong in WRONG[name]],
)
def test_a_typical_mistake_is_caught_by_name(name: str, mistake: str, function, words: str) -> None:
    report = CHECKS[name](function)
    assert report.state == "not right yet", mistake
    assert words in report.broken, report
    assert report.tried or report.saw, "what was seen must be said"
    assert report.broken not in report.held
    assert f"  broken    {report.broken}\n" in repr(report)


def test_a_report_names_the_property_the_input_and_what_came_out() -> None:
    report = exercises.check_mixed_groups(lambda pass_rates, share: 5)
    assert repr(report).splitlines() == [
        "✗ Exercise 4.2 How large must a group be?: not right yet.",
        "  broken    at p = 0.5, half of the groups of 2 are mixed",
        "  tried     your function([0.5], 0.5) -> 5",
        "  expected  2",
    ]


def test_what_a_learner_wrote_is_shown_as_text() -> None:
    report = exercises.check_shotgun(lambda low, high: "<img src=x onerror=alert(1)>")
    assert report.state == "not right yet"
    assert "&lt;img" in report._repr_html_() and "<img" not in report._repr_html_()


# --- whatever a learner gives ---


def raises(*args, **keywords):
    raise KeyError("a name that is not there")


def leaves(*args, **keywords):
    raise SystemExit("enough")


HANDED_IN = {
    "raises": (raises, "runs without an error"),
    "exits": (leaves, "runs without an error"),
    "another number of arguments": (lambda: 1, "runs without an error"),
    "nothing": (lambda *args, **keywords: None, "returns something"),
    "an object": (lambda *args, **keywords: object(), ""),
    "an empty list": (lambda *args, **keywords: [], ""),
    "NaN": (lambda *args, **keywords: float("nan"), ""),
    "a result in place of the function": (0.5, "the function itself"),
}


@pytest.mark.parametrize("name", IDS)
@pytest.mark.parametrize("kind", HANDED_IN)
def test_a_check_reports_and_never_raises(name: str, kind: str) -> None:
    function, words = HANDED_IN[kind]
    report = CHECKS[name](function)
    assert report.state == "not right yet" and words in report.broken, report


@pytest.mark.parametrize("blank", [None, ..., lambda *args: ..., lambda *args: (..., ...), lambda *args: {"a": ...}])
def test_blanks_are_not_mistakes(blank) -> None:
    assert exercises.check_wilson(blank).state == "not attempted"
    assert exercises.check_wilson().state == "not attempted"


def test_the_habit_of_other_courses_counts_as_a_blank_too() -> None:
    def my_wilson(successes, n):
        raise NotImplementedError

    assert exercises.check_wilson(my_wilson).state == "not attempted"


def test_long_things_are_shown_by_their_beginning() -> None:
    brief = exercises.attempts.brief
    assert brief(list(range(100))) == "[0, 1, 2, 3, 4, 5, 6, 7, ... 100 in all]"
    assert len(brief("x" * 10_000)) < 200
    assert brief(r"\frac{1}{2}") == r"'\frac{1}{2}'"
    assert brief({"a": (1.0, 0.123456789)}) == "{'a': [1, 0.123457]}"


# --- facts that the checks rely on ---


def test_the_count_is_that_of_real_adapters() -> None:
    from rlvr_utils.exercises.lora import LLAMA_8B as SHAPE
    from rlvr_utils.exercises.lora import lora_count
    from rlvr_utils.models import LLAMA_8B, lora_parameter_count

    assert SHAPE == (
        LLAMA_8B.hidden_size,
        LLAMA_8B.intermediate_size,
        LLAMA_8B.num_attention_heads,
        LLAMA_8B.num_key_value_heads,
        LLAMA_8B.num_hidden_layers,
    )
    assert lora_count(*SHAPE, 16) == lora_parameter_count(LLAMA_8B, 16) == 41_943_040


def test_the_bytes_are_those_of_the_memory_estimate() -> None:
    from rlvr_utils import memory
    from rlvr_utils.models import LLAMA_8B, lora_parameter_count
    from rlvr_utils.profiles import get_profile

    for adapter, n_lora in (("lora", lora_parameter_count(LLAMA_8B, 32)), ("none", None)):
        parts = memory.estimate(get_profile("llama-8b", adapter=adapter, use_vllm="never"), LLAMA_8B).phases["update"]
        found = sum(parts.get(part, 0) for part in ("weights", "adapter", "gradients", "optimizer"))
        n_model = memory.parameter_count(LLAMA_8B)
        assert found == (8 * n_model if n_lora is None else 2 * n_model + 16 * n_lora)


def test_the_categories_are_the_courses_own() -> None:
    from rlvr_utils.exercises.results import ROW, WHY
    from rlvr_utils.exercises.results import WRONG as RESPONSES
    from rlvr_utils.problems import CATEGORIES, classify_response

    assert set(WHY) == set(CATEGORIES) - {"correct", "not_language"}
    assert {category for category, *_ in RESPONSES} == set(WHY)
    for category, response, cut_off in RESPONSES:
        assert classify_response(ROW, response, cut_off) == category


def test_a_numerical_optimiser_may_fit_the_projection() -> None:
    def fitted(steps, rewards, at, start, scale):
        from scipy.optimize import curve_fit

        curve = lambda t, gain: start + gain * (1 - np.exp(-t / scale))  # noqa: E731
        (gain,), _ = curve_fit(curve, steps, rewards, p0=[0.5 * (1 - start)], bounds=([0], [1 - start]))
        return curve(at, gain)

    assert exercises.check_projection(fitted).state == "right"


# --- progress ---


def test_nothing_is_done_at_the_start(file, capsys) -> None:
    table = exercises.progress()
    assert table.index.tolist() == [exercise.name for exercise in EXERCISES]
    assert set(table["state"]) == {"not attempted"}
    n = len(EXERCISES)
    assert capsys.readouterr().out == f"{n} exercises: 0 right, 0 not right yet, {n} not attempted.\n"
    assert not file.exists(), "looking writes nothing"


def test_checks_write_the_progress_and_what_is_right_stays_right(file, notebooks) -> None:
    right = function_in(notebooks["04"], dict(solutions(notebooks["04"]))["04-mixed-groups"])
    written = []
    for attempt in (..., lambda p, size: p, ..., right, lambda p, size: p, ...):
        exercises.check_mixed_groups(attempt)
        written.append(json.loads(file.read_text())["04-mixed-groups"])
    assert written == ["not attempted", "not right yet", "not right yet", "right", "right", "right"]
    table = exercises.progress("04")
    assert table["state"].tolist().count("right") == 1 and len(table) == 5
    assert [path.name for path in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '{"04-mixed-groups": 7, "99-gone": "right"}', "\x00"])
def test_a_spoiled_file_is_a_new_start(file, text: str) -> None:
    file.parent.mkdir()
    file.write_text(text)
    assert set(exercises.progress()["state"]) == {"not attempted"}
    exercises.check_mixed_groups(lambda p, size: p)
    assert set(json.loads(file.read_text())) == set(IDS)


def test_a_place_that_cannot_be_written_to_stops_nothing(tmp_path, monkeypatch) -> None:
    (tmp_path / "runs").write_text("a file, not a folder")
    assert exercises.check_mixed_groups(lambda p, size: p).state == "not right yet"
    assert (tmp_path / "runs").read_text() == "a file, not a folder"


def test_an_unknown_notebook_is_refused() -> None:
    with pytest.raises(ValueError, match="Notebook '99' has no exercises. Pass one of 00, 01, 02"):
        exercises.progress("99")


def test_progress_is_written_where_git_does_not_look() -> None:
    from rlvr_utils import REPO

    ignored = (REPO / ".gitignore").read_text().splitlines()
    assert "runs/" in ignored
    source = (REPO / "rlvr_utils" / "exercises" / "attempts.py").read_text()
    assert 'FILE = REPO / "runs" / "exercises.json"' in source


# --- solutions in the place of stubs ---


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_with_solutions_changes_the_stubs_and_nothing_else(number: str, notebooks) -> None:
    notebook, solved = notebooks[number], with_solutions(notebooks[number])
    for old, new in zip(notebook.cells, solved.cells, strict=True):
        assert (old.source != new.source) == bool(exercise_of(old))
        assert old.id == new.id and old.metadata == new.metadata
    assert notebooks[number] == read(number), "the notebook that was given stays as it is"

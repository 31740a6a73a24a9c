"""Exercises: solutions pass, typical mistakes fail the expected property, stubs never raise, progress is saved."""

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
    """Redirect the progress file to a temporary directory."""
    monkeypatch.setattr(attempts, "FILE", tmp_path / "runs" / "exercises.json")
    return attempts.FILE


@pytest.fixture(scope="module")
def notebooks() -> dict[str, nbformat.NotebookNode]:
    return {number: read(number) for number in NOTEBOOKS}


def cells_of(notebooks, name: str) -> tuple[nbformat.NotebookNode, int]:
    """Return the notebook of an exercise and the index of its stub."""
    notebook = notebooks[BY_ID[name].notebook]
    return notebook, dict(stubs(notebook))[name]


# --- the notebooks ---


def test_every_check_has_an_exercise_and_wrong_answers() -> None:
    assert sorted(CHECKS) == sorted(IDS) == sorted(WRONG)
    assert {name: len(wrong) for name, wrong in WRONG.items() if len(wrong) < 2} == {}


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_every_stub_has_exactly_one_solution(number: str, notebooks) -> None:
    wanted = [exercise.id for exercise in EXERCISES if exercise.notebook == number]
    assert [name for name, _ in stubs(notebooks[number])] == wanted
    assert [name for name, _ in solutions(notebooks[number])] == wanted
    assert number == "00" or len(wanted) >= 4


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_every_notebook_has_an_open_experiment_and_a_progress_table(number: str, notebooks) -> None:
    texts = [cell.source for cell in notebooks[number].cells]
    assert sum("## An experiment of your own" in text and "**Predict first:**" in text for text in texts) == 1
    call = "exercises.progress()" if number == "05" else f'exercises.progress("{number}")'
    assert texts.count(call) == 1
    assert texts.index(call) > max(index for _, index in stubs(notebooks[number]))


@pytest.mark.parametrize("name", IDS)
def test_an_exercise_has_a_task_a_stub_a_check_hints_and_a_solution(name: str, notebooks) -> None:
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
def test_a_solution_has_the_signature_and_docstring_of_its_stub(name: str, notebooks) -> None:
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
def test_the_solution_passes_its_check(name: str, notebooks) -> None:
    notebook, _ = cells_of(notebooks, name)
    report = CHECKS[name](function_in(notebook, dict(solutions(notebook))[name]))
    assert report.state == "right", report
    assert len(report.held) >= 3
    assert f"✓ Exercise {BY_ID[name].name}: right. {len(report.held)} properties hold." == repr(report)
    assert "✓ Right." in report._repr_html_(), "in a notebook: with a tick, in a colour and a word"


@pytest.mark.parametrize("name", IDS)
def test_unchanged_stubs_run_and_report_not_attempted(name: str, notebooks, capsys) -> None:
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
def test_a_typical_mistake_fails_the_expected_property(name: str, mistake: str, function, words: str) -> None:
    report = CHECKS[name](function)
    assert report.state == "not right yet", mistake
    assert words in report.broken, report
    assert report.tried or report.saw, "the report must show what was seen"
    assert report.broken not in report.held
    assert f"  broken    {report.broken}\n" in repr(report)


def test_a_report_shows_property_input_and_output() -> None:
    report = exercises.check_mixed_groups(lambda pass_rates, share: 5)
    assert repr(report).splitlines() == [
        "✗ Exercise 4.2 How large must a group be?: not right yet.",
        "  broken    at p = 0.5, half of the groups of 2 are mixed",
        "  tried     your function([0.5], 0.5) -> 5",
        "  expected  2",
    ]


def test_learner_output_is_escaped() -> None:
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
def test_stub_results_count_as_not_attempted(blank) -> None:
    assert exercises.check_wilson(blank).state == "not attempted"
    assert exercises.check_wilson().state == "not attempted"


def test_not_implemented_error_counts_as_not_attempted() -> None:
    def my_wilson(successes, n):
        raise NotImplementedError

    assert exercises.check_wilson(my_wilson).state == "not attempted"


def test_long_values_are_truncated() -> None:
    brief = exercises.attempts.brief
    assert brief(list(range(100))) == "[0, 1, 2, 3, 4, 5, 6, 7, ... 100 in all]"
    assert len(brief("x" * 10_000)) < 200
    assert brief(r"\frac{1}{2}") == r"'\frac{1}{2}'"
    assert brief({"a": (1.0, 0.123456789)}) == "{'a': [1, 0.123457]}"


# --- facts that the checks rely on ---


def test_the_lora_count_matches_real_adapters() -> None:
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


def test_the_bytes_match_the_memory_estimate() -> None:
    from rlvr_utils import memory
    from rlvr_utils.models import LLAMA_8B, lora_parameter_count
    from rlvr_utils.profiles import get_profile

    for adapter, n_lora in (("lora", lora_parameter_count(LLAMA_8B, 32)), ("none", None)):
        parts = memory.estimate(get_profile("llama-8b", adapter=adapter, use_vllm="never"), LLAMA_8B).phases["update"]
        found = sum(parts.get(part, 0) for part in ("weights", "adapter", "gradients", "optimizer"))
        n_model = memory.parameter_count(LLAMA_8B)
        assert found == (8 * n_model if n_lora is None else 2 * n_model + 16 * n_lora)


def test_the_categories_match_classify_response() -> None:
    from rlvr_utils.exercises.results import ROW, WHY
    from rlvr_utils.exercises.results import WRONG as RESPONSES
    from rlvr_utils.problems import CATEGORIES, classify_response

    assert set(WHY) == set(CATEGORIES) - {"correct", "not_language"}
    assert {category for category, *_ in RESPONSES} == set(WHY)
    for category, response, cut_off in RESPONSES:
        assert classify_response(ROW, response, cut_off) == category


def test_a_numerical_optimiser_passes_the_projection_check() -> None:
    def fitted(steps, rewards, at, start, scale):
        from scipy.optimize import curve_fit

        curve = lambda t, gain: start + gain * (1 - np.exp(-t / scale))  # noqa: E731
        (gain,), _ = curve_fit(curve, steps, rewards, p0=[0.5 * (1 - start)], bounds=([0], [1 - start]))
        return curve(at, gain)

    assert exercises.check_projection(fitted).state == "right"


# --- progress ---


def test_progress_starts_with_everything_not_attempted(file, capsys) -> None:
    table = exercises.progress()
    assert table.index.tolist() == [exercise.name for exercise in EXERCISES]
    assert set(table["state"]) == {"not attempted"}
    n = len(EXERCISES)
    assert capsys.readouterr().out == f"{n} exercises: 0 right, 0 not right yet, {n} not attempted.\n"
    assert not file.exists(), "progress() must not write"


def test_checks_save_progress_and_keep_the_best_state(file, notebooks) -> None:
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
def test_a_damaged_progress_file_counts_as_empty(file, text: str) -> None:
    file.parent.mkdir()
    file.write_text(text)
    assert set(exercises.progress()["state"]) == {"not attempted"}
    exercises.check_mixed_groups(lambda p, size: p)
    assert set(json.loads(file.read_text())) == set(IDS)


def test_an_unwritable_directory_is_ignored(tmp_path, monkeypatch) -> None:
    (tmp_path / "runs").write_text("a file, not a folder")
    assert exercises.check_mixed_groups(lambda p, size: p).state == "not right yet"
    assert (tmp_path / "runs").read_text() == "a file, not a folder"


def test_an_unknown_notebook_raises() -> None:
    with pytest.raises(ValueError, match="Notebook '99' has no exercises. Pass one of 00, 01, 02"):
        exercises.progress("99")


def test_the_progress_file_is_ignored_by_git() -> None:
    from rlvr_utils import REPO

    ignored = (REPO / ".gitignore").read_text().splitlines()
    assert "/runs/" in ignored
    source = (REPO / "rlvr_utils" / "exercises" / "attempts.py").read_text()
    assert 'FILE = REPO / "runs" / "exercises.json"' in source


# --- solutions in the place of stubs ---


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_with_solutions_changes_only_the_stubs(number: str, notebooks) -> None:
    notebook, solved = notebooks[number], with_solutions(notebooks[number])
    for old, new in zip(notebook.cells, solved.cells, strict=True):
        assert (old.source != new.source) == bool(exercise_of(old))
        assert old.id == new.id and old.metadata == new.metadata
    assert notebooks[number] == read(number), "the input notebook must not change"

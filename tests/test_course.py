"""The runner on small notebooks, and the whole course end to end: all notebooks, a model that learns, one report."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest
from exercise_cells import solve_folder, stubs
from outputs import has_outputs, moved

from rlvr_utils.course import CourseError, run_course, write_report
from rlvr_utils.course.runner import ProgressLine, in_words, what_was_learned
from rlvr_utils.runs import RunWriter

REPO = Path(__file__).resolve().parent.parent
NAMES = [path.stem for path in sorted((REPO / "notebooks").glob("[0-9][0-9]_*.ipynb"))]

# --- the runner, on notebooks of a few cells --------------------------------------------------------------------------


def write_notebook(path: Path, *code: str, parameters: str = 'profile = "mini"\nseed = 0') -> Path:
    new = nbformat.v4
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = new.new_notebook(metadata={"kernelspec": kernel})
    text = f"# {path.stem[:2]}. Title of {path.stem}\n\nGo on with [the next](01_next.ipynb).\n\n## A *section*"
    tagged = new.new_code_cell(parameters, metadata={"tags": ["parameters"]})
    notebook.cells = [new.new_markdown_cell(text), tagged, *map(new.new_code_cell, code)]
    nbformat.write(notebook, path)
    return path


def printed(path: Path) -> str:
    cells = nbformat.read(path, as_version=4).cells
    return "".join(out.get("text", "") for cell in cells for out in cell.get("outputs", []))


@pytest.fixture(scope="module")
def small_run(tmp_path_factory) -> Path:
    """Run two notebooks. The first prints its environment, the second shows a figure, a widget and a rewritten line."""
    folder = tmp_path_factory.mktemp("small")
    # One value per line, because the paths may contain spaces.
    tell = "import sys, rlvr_utils\nprint(sys.executable, rlvr_utils.REPO, profile, seed, steps, sep='\\n')"
    show = 'from IPython.display import HTML\nHTML(\'<figure><img alt="a line" src="data:,"></figure>\')'
    count = "for i in range(4):\n    print(f'\\rstep {i}', end='', flush=True)"
    notebooks = [
        write_notebook(folder / "00_start.ipynb", tell, parameters='profile = "mini"\nseed = 0\nsteps = None'),
        write_notebook(folder / "01_next.ipynb", show, count, "import ipywidgets\nipywidgets.IntSlider()"),
    ]
    lines: list[str] = []
    run_course(notebooks=notebooks, output_dir=folder / "out", parameters={"seed": 7, "steps": 50}, log=lines.append)
    (folder / "out" / "log.txt").write_text("\n".join(lines))
    return folder / "out"


def test_parameters_reach_the_notebooks_that_have_them(small_run: Path) -> None:
    assert printed(small_run / "00_start.ipynb").splitlines()[2:] == ["mini", "7", "50"]


def test_the_kernel_is_this_interpreter_with_this_package(small_run: Path) -> None:
    assert printed(small_run / "00_start.ipynb").splitlines()[:2] == [sys.executable, str(REPO)]
    assert "PYTHONPATH" not in os.environ or str(REPO) not in os.environ["PYTHONPATH"].split(os.pathsep)


def test_the_closing_lines_contain_the_path_of_the_report(small_run: Path) -> None:
    lines = (small_run / "log.txt").read_text()
    assert "2 notebooks ran" in lines and "report.html" in lines


def test_the_report_is_one_file_with_a_table_of_contents(small_run: Path) -> None:
    page = (small_run / "report.html").read_text()
    contents = re.search(r"<nav.*?</nav>", page, re.S)[0]
    links = re.findall(r'href="#([^"]+)"[^>]*>([^<]+)<', contents)
    assert [title for _, title in links] == ["00. Title of 00_start", "A section", "01. Title of 01_next", "A section"]
    for anchor, _ in links:
        assert page.count(f'id="{anchor}"') == 1
    assert '<a href="#01_next">the next</a>' in page, "links between notebooks must lead inside the report"
    assert 'alt="a line"' in page


def test_the_report_needs_nothing_from_the_network(small_run: Path) -> None:
    page = (small_run / "report.html").read_text()
    remote = re.findall(r'(?:src|href)="?(https?://[^">\s]+)|url\((https?:[^)]+)\)|@import', page)
    assert [url for pair in remote for url in pair if url] == []
    assert "mathjax" not in page.lower().replace("mathjax_process", "").replace("mathjax_ignore", "")


def report_on(tmp_path: Path, *cells, summary=()) -> str:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# 00. A"), *cells])
    nbformat.write(notebook, tmp_path / "00_a.ipynb")
    return write_report([tmp_path / "00_a.ipynb"], tmp_path / "report.html", summary).read_text()


def test_formulas_are_in_the_report_as_mathml(tmp_path: Path) -> None:
    text = r"Inline $\frac{a}{b}$, code `$x$`, and\n\n$$\sum_{k=1}^{r} \lVert x_k \rVert_1$$"
    page = report_on(tmp_path, nbformat.v4.new_markdown_cell(text.replace("\\n", "\n")))
    assert page.count("<math ") == 2 and "<mfrac>" in page and 'display="block"' in page
    assert "<code>$x$</code>" in page


def test_every_formula_of_the_course_can_be_converted() -> None:
    from rlvr_utils.course.report import formula

    failed = []
    for path in (REPO / "notebooks").glob("*.ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            text = re.sub(r"```.*?```|`[^`\n]*`", "", cell.source, flags=re.S) if cell.cell_type == "markdown" else ""
            found = re.findall(r"\$\$(.+?)\$\$|\$([^$\n]+)\$", text, re.S)
            failed += [f"{path.stem}: {a or b}" for a, b in found if not formula(a or b, "inline").startswith("<math")]
    assert failed == []


def test_the_report_starts_with_title_result_and_summary(tmp_path: Path) -> None:
    page = report_on(tmp_path, summary=["It <rose>.", "Profile: mini."])
    top = re.search(r"<header>.*?</header>", page, re.S)[0]
    assert "<h1>The RLVR course</h1>" in top and '<p class="result">It &lt;rose&gt;.</p><p>Profile: mini.</p>' in top
    assert page.index("<header>") < page.index("<nav") < page.index("<main>")


def test_code_is_folded_in_the_report_and_outputs_are_not(small_run: Path) -> None:
    page = (small_run / "report.html").read_text()
    assert page.count('<details class="code">') == len(re.findall(r'class="cm-editor', page)) > 3
    assert not re.search(r'<details class="code">(?:(?!</details>).)*<figure', page, re.S)


def test_a_rewritten_line_shows_its_last_state(small_run: Path) -> None:
    page = (small_run / "report.html").read_text()
    assert "<pre>step 3</pre>" in page and "step 2" not in page


def test_a_widget_is_replaced_by_its_text(small_run: Path) -> None:
    page = (small_run / "report.html").read_text()
    assert "IntSlider(value=0)" in page and "jupyter.widget-view" not in page


def test_an_unknown_parameter_raises_before_any_notebook_runs(tmp_path: Path) -> None:
    notebook = write_notebook(tmp_path / "00_start.ipynb", "1 / 0")
    with pytest.raises(ValueError, match="No notebook has a parameter 'sede'. Did you mean 'seed'"):
        run_course(notebooks=[notebook], output_dir=tmp_path / "out", parameters={"sede": 1})
    with pytest.raises(ValueError, match="Choose from profile, seed"):
        run_course(notebooks=[notebook], output_dir=tmp_path / "out", parameters={"xyz": 1})
    assert not (tmp_path / "out").exists()


def test_a_missing_notebook_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no notebook .*07_gone"):
        run_course(notebooks=[tmp_path / "07_gone.ipynb"], output_dir=tmp_path)


def test_a_failing_notebook_raises_and_is_kept(tmp_path: Path) -> None:
    notebook = write_notebook(tmp_path / "00_start.ipynb", "print('before')", "1 / seed", "print('after')")
    with pytest.raises(CourseError) as stopped:
        run_course(notebooks=[notebook], output_dir=tmp_path / "out")
    message = str(stopped.value)
    assert "00_start stopped at In [4]: ZeroDivisionError: division by zero." in message and "\n" not in message
    assert "before" in printed(tmp_path / "out" / "00_start.ipynb")
    assert "after\n" not in printed(tmp_path / "out" / "00_start.ipynb")


def test_a_dead_kernel_raises_a_clear_error(tmp_path: Path) -> None:
    notebook = write_notebook(tmp_path / "00_start.ipynb", "import os\nos._exit(1)")
    with pytest.raises(CourseError, match="00_start stopped because its kernel died"):
        run_course(notebooks=[notebook], output_dir=tmp_path / "out")


def test_headings_in_fenced_code_are_not_in_the_contents(tmp_path: Path) -> None:
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_markdown_cell("# 00. A\n\n```\n# a comment\n```\n\n### deep\n\n## B & C")]
    nbformat.write(notebook, tmp_path / "00_a.ipynb")
    page = write_report([tmp_path / "00_a.ipynb"], tmp_path / "report.html").read_text()
    contents = re.search(r"<nav.*?</nav>", page, re.S)[0]
    assert re.findall(r">([^<]+)</a>", contents) == ["00. A", "B &amp; C"]


@pytest.mark.parametrize("home", ["course", "a course (mine)"])
def test_links_to_repository_files_work_from_the_report(tmp_path: Path, monkeypatch, home: str) -> None:
    monkeypatch.setattr("rlvr_utils.course.report.REPO", tmp_path / home)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# 00. A\n\n[words](../GLOSSARY.md)")])
    nbformat.write(notebook, tmp_path / "00_a.ipynb")
    report = write_report([tmp_path / "00_a.ipynb"], tmp_path / "report.html")
    [link] = re.findall(r'href="([^"]*GLOSSARY.md)"', report.read_text())
    assert (tmp_path / unquote(link)).resolve() == tmp_path / home / "GLOSSARY.md"


def test_folded_details_stay_folded(tmp_path: Path) -> None:
    notebook = nbformat.v4.new_notebook()
    folded = "<details><summary>Answer</summary>\n\n<!-- solution: x -->\n```python\nhidden = 1\n```\n\n</details>\n\nafter"
    notebook.cells = [nbformat.v4.new_markdown_cell(f"# 00. A\n\n{folded}")]
    nbformat.write(notebook, tmp_path / "00_a.ipynb")
    page = write_report([tmp_path / "00_a.ipynb"], tmp_path / "report.html").read_text()
    inside = re.search(r"<details><summary>Answer</summary>(.*?)</details>", page, re.S)[1]
    assert "hidden" in inside and "after" not in inside


def test_the_prose_has_no_external_pictures() -> None:
    for path in (REPO / "notebooks").glob("*.ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            assert cell.cell_type == "code" or not re.search(r"!\[|<img", cell.source), f"{path.name}: {cell.source[:40]}"


def test_the_closing_lines_report_the_first_split(tmp_path: Path, monkeypatch) -> None:
    writer = RunWriter(tmp_path / "run")
    writer.write_config({"profile": "mini", "eval_splits": ["heldout"], "shots": 0})
    for step, shots, accuracy in ((0, 0, 0.125), (20, 0, 0.5), (20, 4, 0.75)):
        row = {"step": step, "split": "heldout", "shots": shots, "decoding": "sampled", "n_problems": 8, "n_samples": 4}
        writer.log_evaluation(row | {"accuracy": accuracy, "accuracy_low": 0.0, "accuracy_high": 1.0}, [])
    monkeypatch.setattr("rlvr_utils.runs.newest_run", lambda profile: writer.path)
    told = "\n".join(what_was_learned("mini"))
    assert "8 heldout problems" in told and "12.5 %" in told and "50.0 %" in told and "75.0 %" not in told


# --- progress ---------------------------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_time_left_adapts_to_the_machine() -> None:
    clock = Clock()
    progress = ProgressLine(["a", "b"], {"a": 60, "b": 240}, io.StringIO(), clock)
    assert progress.seconds_left() == 300
    progress.start_notebook("a", cells=3)
    clock.now = 20
    assert progress.seconds_left() == 280
    clock.now = 120
    progress.finish_notebook()
    # 120 s instead of the expected 60 s, with a weight of 60 s for the table: (120 + 60) / (60 + 60) = 1.5.
    assert progress.seconds_left() == 1.5 * 240
    progress.start_notebook("b", cells=3)
    clock.now = 10_000
    assert progress.seconds_left() == 0


def test_without_expected_times_no_time_left_is_shown() -> None:
    out = io.StringIO()
    progress = ProgressLine(["a"], None, out, Clock())
    progress.start_notebook("a", cells=2)
    assert progress.seconds_left() is None and "left" not in out.getvalue()


def test_a_log_file_gets_occasional_lines_with_the_last_printed_text() -> None:
    clock, out = Clock(), io.StringIO()
    progress = ProgressLine(["a"], {"a": 100}, out, clock)
    progress.start_notebook("a", cells=2)
    for clock.now in range(1, 60):
        progress.write(f"\rstep {clock.now}")
    lines = out.getvalue().splitlines()
    assert lines[0].startswith("[1/1] a  cell 0/2") and len(lines) == 3
    assert lines[1].endswith("about 80 s left  | step 20") and lines[2].endswith("| step 40")


def test_a_terminal_gets_one_rewritten_line() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    progress = ProgressLine(["a"], {"a": 100}, out, Clock())
    progress.start_notebook("a", cells=1)
    progress.start_cell()
    progress.write("step 1\n" + "x" * 500)
    progress.finish_notebook()
    assert out.getvalue().count("\n") == 1 and out.getvalue().count("\r\x1b[K") == 4
    assert max(map(len, re.split(r"[\r\n]", out.getvalue()))) < 120


@pytest.mark.parametrize(("seconds", "words"), [(4, "4 s"), (89, "89 s"), (400, "7 min"), (7800, "2 h 10 min")])
def test_durations_are_formatted(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


# --- the course end to end --------------------------------------------------------------------------------------------

#: Enough steps for a significant gain, but few, because this runs on every change. (In the included runs the mean reward is
#: 0.14 to 0.18 over the first ten steps and 0.59 to 0.62 over steps 21 to 30.)
STEPS = 30
SETTINGS = {"max_steps": STEPS, "own_steps": 10, "own_trainer_seconds": 10}
#: An address without a server, because the default path must work without a network.
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(scope="session")
def course(tmp_path_factory) -> tuple[Path, str]:
    """Run the course with solved exercises on a copy of the repository, without a network.

    Returns the directory and the printed text.
    """
    if len(NAMES) < 6:
        pytest.fail(f"the course has six notebooks, and only {NAMES} are there")
    folder = tmp_path_factory.mktemp("course") / "repository"
    left_out = (".git", ".venv", "runs", "work", "build", "dist", "__pycache__", ".*_cache", ".hypothesis", "*.egg-info")
    shutil.copytree(REPO, folder, ignore=shutil.ignore_patterns(*left_out))
    solve_folder(folder / "notebooks")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB_", "HF_"))}
    environment |= {"http_proxy": NOWHERE, "https_proxy": NOWHERE, "HTTP_PROXY": NOWHERE, "HTTPS_PROXY": NOWHERE}
    settings = [word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")]
    command = [sys.executable, "-m", "rlvr_utils", "course", *settings]
    made = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=1500
    )
    print(made.stdout)
    assert made.returncode == 0, made.stdout[-3000:]
    return folder, made.stdout


def executed(course: tuple[Path, str]) -> dict[str, nbformat.NotebookNode]:
    folder = course[0] / "runs" / "course"
    return {name: nbformat.read(folder / f"{name}.ipynb", as_version=4) for name in NAMES}


def outputs(notebook: nbformat.NotebookNode) -> list:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def pictures(notebook: nbformat.NotebookNode) -> list[dict]:
    return [output.data for output in outputs(notebook) if is_picture(output)]


def is_picture(output) -> bool:
    return "<figure" in output.get("data", {}).get("text/html", "") or "image/png" in output.get("data", {})


def test_course_the_model_learns(course) -> None:
    from rlvr_utils.runs import load_run, newest_run

    table = load_run(newest_run("mini", course[0] / "runs")).evaluations
    table = table[(table["split"] == "test") & (table["decoding"] == "sampled") & (table["shots"] == 0)]
    before, after = table.iloc[0], table.iloc[-1]
    assert (before["step"], after["step"]) == (0, STEPS)
    assert after["accuracy_low"] > before["accuracy_high"], "the gain is not significant"
    assert after["boxed_rate"] > before["boxed_rate"]
    rates = table[["accuracy", "accuracy_low", "accuracy_high", "boxed_rate", "accuracy_if_boxed", "worked_rate"]]
    assert ((rates >= 0) & (rates <= 1)).all(axis=None)
    assert (table["accuracy_low"] <= table["accuracy"]).all() and (table["accuracy"] <= table["accuracy_high"]).all()
    assert (table["accuracy"] <= table["boxed_rate"]).all(), "every correct answer must be boxed"
    assert table["mean_tokens"].between(1, 96).all()


def test_course_metrics_are_in_range(course) -> None:
    from rlvr_utils.runs import load_run, newest_run

    metrics = load_run(newest_run("mini", course[0] / "runs")).metrics
    assert metrics["step"].tolist() == list(range(1, STEPS + 1))
    assert metrics["reward"].between(0, 1).all()
    assert metrics["grad_norm"].notna().all()


def test_course_every_cell_ran_without_a_warning(course) -> None:
    for name, notebook in executed(course).items():
        code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
        assert [cell.source[:40] for cell in code if cell.execution_count is None] == [], name
        for output in outputs(notebook):
            assert output.output_type != "error", name
            assert output.get("name") != "stderr", f"{name} shows a learner: {output.get('text', '')[:300]}"
            assert "Warning:" not in output.get("text", ""), name


def test_course_every_exercise_is_right_with_its_solution(course) -> None:
    states = json.loads((course[0] / "runs" / "exercises.json").read_text())
    assert {name for name, state in states.items() if state != "right"} == set()
    for name, notebook in executed(course).items():
        for exercise, index in stubs(notebook):
            (report,) = notebook.cells[index + 1].outputs
            assert re.search(r"^✓ Exercise .+: right\.", report["data"]["text/plain"]), f"{name}, {exercise}"


def test_course_every_figure_is_there_with_alt_text_and_caption(course) -> None:
    for name, notebook in executed(course).items():
        figures = [figure.get("text/html", "") for figure in pictures(notebook)]
        for cell in notebook.cells:
            # An indented call may be in a branch that does not run, or made by a slider.
            asked = len(re.findall(r"^(?:plots\.)?show\(", cell.source, re.M)) if cell.cell_type == "code" else 0
            drawn = sum(map(is_picture, cell.get("outputs", [])))
            assert drawn >= asked, f"{name} calls show() {asked} times and draws {drawn} figures: {cell.source[:60]}"
        for figure in figures:
            assert re.search(r'alt="[^"]{10,}"', figure) and re.search(r"<figcaption>.{10,}", figure), name
    assert sum(len(pictures(notebook)) for notebook in executed(course).values()) >= 6


def test_course_outputs_contain_no_local_paths(course) -> None:
    for name, notebook in executed(course).items():
        shown = "".join(output.get("text", "") for output in outputs(notebook))
        assert str(course[0]) not in shown and str(Path.home()) + "/" not in shown, name


@pytest.mark.parametrize("name", NAMES[:4])  # later notebooks depend on the length of the training
def test_course_key_numbers_are_the_committed_ones(course, name: str) -> None:
    """The intervals of this run's numbers overlap the committed ones."""
    committed = nbformat.read(REPO / "notebooks" / f"{name}.ipynb", as_version=4)
    if not has_outputs(committed):
        pytest.skip("no outputs committed: `make course outputs` puts them in")
    assert moved(committed, executed(course)[name]) == []


def test_course_report_and_closing_lines(course) -> None:
    folder, log = course
    page = (folder / "runs" / "course" / "report.html").read_text()
    contents = re.search(r"<nav.*?</nav>", page, re.S)[0]
    assert [link for link in re.findall(r'href="#([^"]+)"', contents) if link in NAMES] == NAMES
    for words in ("report.html", "500 test problems", "95 % interval", "before training", f"after {STEPS:4d} steps"):
        assert words in log
    assert re.search(r"min left|s left", log)
    assert "Traceback" not in log and "Warning" not in log

"""The learner's copies (no outputs, edits never overwritten, new versions next to edited copies), and the timetable."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import nbformat
import pytest

from rlvr_utils import REPO
from rlvr_utils.course.copies import RECORD, place_copies, without_outputs
from rlvr_utils.course.runner import course_notebooks
from rlvr_utils.course.timetable import PARTS, one_day_hours, timetable, total_hours
from rlvr_utils.exercises.attempts import BY_ID
from rlvr_utils.system.paths import run_folder

NAME = "00_start.ipynb"


def write(path: Path, code: str, output: str = "a result") -> Path:
    new = nbformat.v4
    cell = new.new_code_cell(code, id="a", execution_count=3, outputs=[new.new_output("stream", text=output)])
    cell.metadata["execution"] = {"iopub.status.busy": "2026-01-01"}
    nbformat.write(new.new_notebook(cells=[cell], metadata={"papermill": {"duration": 1}}), path)
    return path


def code_of(path: Path) -> str:
    return nbformat.read(path, as_version=4).cells[0].source


def edit(path: Path, code: str) -> None:
    """Save a copy like JupyterLab, with the learner's code and outputs."""
    write(path, code, "my own result")


@pytest.fixture
def source(tmp_path) -> Path:
    return write(tmp_path / NAME, "1 + 1")


@pytest.fixture
def work(tmp_path) -> Path:
    return tmp_path / "work"


def test_a_copy_has_no_outputs(source, work) -> None:
    assert place_copies([source], work) == []
    (cell,) = nbformat.read(work / NAME, as_version=4).cells
    assert (cell.source, cell.outputs, cell.execution_count, cell.metadata) == ("1 + 1", [], None, {})
    assert "papermill" not in nbformat.read(work / NAME, as_version=4).metadata


def test_a_new_output_stamp_is_not_a_change(source, work) -> None:
    """The stamp contains a hash of the included data, so new data change it without any change to the code."""
    place_copies([source], work)
    edit(work / NAME, "my answer")
    notebook = nbformat.read(source, as_version=4)
    notebook.metadata["rlvr_outputs"] = {"code": "0", "data": "1"}
    nbformat.write(notebook, source)
    assert place_copies([source], work) == [] and [path.name for path in work.glob("*.ipynb")] == [NAME]


def test_edits_are_kept(source, work) -> None:
    place_copies([source], work)
    edit(work / NAME, "my answer")
    saved = (work / NAME).read_bytes()
    assert place_copies([source], work) == place_copies([source], work) == []
    assert (work / NAME).read_bytes() == saved and sorted(p.name for p in work.glob("*.ipynb")) == [NAME]


def test_new_outputs_are_not_a_new_version(source, work) -> None:
    place_copies([source], work)
    edit(work / NAME, "my answer")
    write(source, "1 + 1", "another result")
    assert place_copies([source], work) == []


def test_an_unedited_copy_is_updated(source, work) -> None:
    place_copies([source], work)
    write(source, "1 + 2")
    assert place_copies([source], work) == [] and code_of(work / NAME) == "1 + 2"
    write(source, "1 + 1")  # back to the previous version
    assert place_copies([source], work) == [] and code_of(work / NAME) == "1 + 1"


def test_a_changed_notebook_is_placed_once_next_to_an_edited_copy(source, work) -> None:
    place_copies([source], work)
    edit(work / NAME, "my answer")
    write(source, "1 + 2")
    (sentence,) = place_copies([source], work)
    assert code_of(work / NAME) == "my answer"
    (new,) = work.glob("00_start.new-*.ipynb")
    assert code_of(new) == "1 + 2" and f"work/{new.name}" in sentence and "kept" in sentence
    edit(new, "my second answer")
    assert place_copies([source], work) == [], "the message must appear once"
    assert code_of(new) == "my second answer"
    new.unlink()  # the learner has merged it
    assert place_copies([source], work) == [] and not new.exists()


def test_a_deleted_copy_is_placed_again(source, work) -> None:
    place_copies([source], work)
    edit(work / NAME, "my answer")
    (work / NAME).unlink()
    assert place_copies([source], work) == [] and code_of(work / NAME) == "1 + 1"


@pytest.mark.parametrize("record", ["", "[]", "{"])
def test_without_a_readable_record_no_copy_is_overwritten(source, work, record: str) -> None:
    place_copies([source], work)
    edit(work / NAME, "my answer")
    (work / RECORD).write_text(record)
    place_copies([source], work)
    assert code_of(work / NAME) == "my answer"


def test_the_courses_notebooks_can_be_copied_and_git_ignores_the_copies(tmp_path) -> None:
    assert place_copies(folder=tmp_path) == []
    names = [path.name for path in course_notebooks()]
    assert sorted(path.name for path in tmp_path.glob("*.ipynb")) == names
    assert sorted(json.loads((tmp_path / RECORD).read_text())) == names
    assert not any(cell.get("outputs") for path in course_notebooks() for cell in without_outputs(path).cells)
    if (REPO / ".git").exists():
        assert subprocess.run(["git", "check-ignore", "-q", f"work/{names[0]}"], cwd=REPO).returncode == 0


def test_a_copy_and_its_notebook_use_the_same_run_path(monkeypatch, tmp_path) -> None:
    for folder in ("notebooks", "work", "."):
        (tmp_path / folder).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / folder)
        monkeypatch.setattr("rlvr_utils.system.paths.REPO", tmp_path)
        assert run_folder("runs/new") == tmp_path / "runs" / "new"


# --- the timetable ---


def test_every_notebook_has_times_and_a_link_in_the_table() -> None:
    names = [part.name for part in PARTS]
    there = [path.stem for path in course_notebooks()]
    assert [name for name in names if name in there] == there, "add the notebook to course/timetable.py"
    table = timetable("notebooks/", one_day=True)
    assert [name for name in names if f"(notebooks/{name}.ipynb)" in table] == there
    assert len({line.count("|") for line in table.splitlines()}) == 1


def test_an_opening_that_says_how_long_the_reading_takes_agrees_with_the_timetable() -> None:
    said = {}
    for path in course_notebooks():
        opening = json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"]
        if found := re.search(r"Reading takes about (\d+) minutes", "".join(opening)):
            said[path.stem] = int(found[1])
    assert said == {part.name: part.reading for part in PARTS if part.name in said}
    assert "06_reward_hacking" in said


def test_the_times_add_up() -> None:
    minutes = sum(exercise.minutes for exercise in BY_ID.values())
    assert sum(part.exercises for part in PARTS) == minutes, "an exercise of a notebook that is not in the timetable"
    assert f"{minutes // 60} h {minutes % 60:02d} min" in timetable("")
    assert 0 < one_day_hours() < total_hours()

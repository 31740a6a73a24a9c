"""Committed notebook outputs are normalised, stamped and up to date."""

from __future__ import annotations

import copy
from pathlib import Path

import nbformat
import pytest
from outputs import (
    SHOWN,
    STAMP,
    PrintedEstimate,
    commit_outputs,
    estimates,
    has_outputs,
    moved,
    normalised,
    stale,
    strip_outputs,
)

from rlvr_utils import REPO
from rlvr_utils.system.threads import Load, Threads

new = nbformat.v4
PATHS = sorted((REPO / "notebooks").glob("*.ipynb"))


def read(path: Path):
    return nbformat.read(path, as_version=4)


# --- what is committed ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=PATHS, ids=lambda path: path.stem)
def committed(request):
    """Return a notebook with outputs. Skips if no notebook has outputs, and fails if only some have."""
    with_outputs = [path.stem for path in PATHS if has_outputs(read(path))]
    if not with_outputs:
        pytest.skip("no outputs committed: `make course outputs` puts them in")
    assert request.param.stem in with_outputs, f"only {with_outputs} have outputs: `make course outputs`"
    return read(request.param)


def test_committed_outputs_are_not_older_than_code_and_data(committed) -> None:
    assert stale(committed) == [], "changed since the outputs were made: `make course outputs` makes them again"


def test_committed_outputs_are_normalised(committed) -> None:
    for cell in committed.cells:
        if cell.cell_type == "code":
            assert cell.execution_count is None and cell.outputs == normalised(cell.outputs), cell.id


# --- how they are made ------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a repository with one notebook, some data, and an executed copy of the notebook."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rows.jsonl").write_text("{}")
    shown = new.new_output("stream", name="stdout", text="accuracy 0.70 [0.65, 0.75]\n")
    cells = [new.new_code_cell("seed = 0"), new.new_code_cell("print(seed)"), new.new_code_cell("machine()")]
    cells[2].metadata["tags"] = ["volatile"]
    notebook = new.new_notebook(cells=cells)
    nbformat.write(notebook, tmp_path / "00_a.ipynb")
    done = copy.deepcopy(notebook)
    injected = new.new_code_cell('profile = "mini"', metadata={"tags": ["injected-parameters"]}, execution_count=2)
    done.cells[1].update(outputs=[shown], execution_count=3)
    done.cells[2].outputs = [new.new_output("stream", name="stdout", text="64 GiB")]
    done.cells.insert(1, injected)
    done.metadata["papermill"] = {"parameters": {"profile": "mini"}, "duration": 1.5}
    (tmp_path / "done").mkdir()
    nbformat.write(done, tmp_path / "done" / "00_a.ipynb")
    return tmp_path


def commit(folder: Path):
    [path] = commit_outputs(folder / "done", [folder / "00_a.ipynb"], repo=folder)
    return read(path)


def test_only_outputs_are_copied(folder: Path) -> None:
    before, after = read(folder / "00_a.ipynb"), commit(folder)
    assert [cell.id for cell in after.cells] == [cell.id for cell in before.cells]
    assert after.cells[1].outputs[0].text == "accuracy 0.70 [0.65, 0.75]\n"
    assert after.cells[1].execution_count is None and "papermill" not in after.metadata
    strip_outputs(after)
    assert after == before


def test_volatile_outputs_are_not_committed(folder: Path) -> None:
    text = commit(folder).cells[2].outputs[0].text
    assert "64 GiB" not in text and "Not stored" in text


def test_committing_twice_changes_nothing(folder: Path) -> None:
    commit(folder)
    first = (folder / "00_a.ipynb").read_bytes()
    commit(folder)
    assert (folder / "00_a.ipynb").read_bytes() == first


def test_changed_code_and_changed_data_make_outputs_stale(folder: Path) -> None:
    notebook = commit(folder)
    assert stale(notebook, folder) == []
    notebook.cells[0].source = "seed = 1"
    assert stale(notebook, folder) == ["code"]
    notebook.cells[0].source = "seed = 0"
    (folder / "data" / "README.md").write_text("prose does not count")
    assert stale(notebook, folder) == []
    (folder / "data" / "rows.jsonl").write_text("{} ")
    assert stale(notebook, folder) == ["data"]
    del notebook.metadata[STAMP]
    assert stale(notebook, folder) == ["code", "data"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda done: done.cells[2].update(source="print(1)"), "00_a has changed since it was executed"),
        (lambda done: done.metadata.papermill.update(parameters={"profile": "mini", "seed": 3}), "executed with .*seed"),
    ],
)
def test_outputs_of_another_notebook_raise(folder: Path, spoil, message: str) -> None:
    done = read(folder / "done" / "00_a.ipynb")
    spoil(done)
    nbformat.write(done, folder / "done" / "00_a.ipynb")
    before = (folder / "00_a.ipynb").read_bytes()
    with pytest.raises(ValueError, match=message):
        commit(folder)
    assert (folder / "00_a.ipynb").read_bytes() == before


def test_a_notebook_that_was_not_executed_is_named(folder: Path) -> None:
    (folder / "done" / "00_a.ipynb").unlink()
    with pytest.raises(ValueError, match="00_a was not executed. Run `make course`"):
        commit(folder)


def displayed(**data: str):
    return new.new_output("display_data", data={kind.replace("_", "/", 1): value for kind, value in data.items()})


def only(output):
    [kept] = normalised([output])
    assert normalised([kept]) == [kept], "normalising must be idempotent"
    return kept


def test_times_counters_and_rewritten_lines_are_removed() -> None:
    progress = new.new_output("stream", name="stdout", text="\rstep 1\rstep 2  2:05 gone, about 0:00 left\nin 41 s\n")
    assert only(progress).text == "step 2  … gone, about … left\nin … s\n"
    lines = [new.new_output("stream", name="stdout", text=f"line {i}\n") for i in range(2)]
    assert [output.text for output in normalised(lines)] == ["line 0\nline 1\n"]
    result = new.new_output("execute_result", data={"text/plain": "1"}, execution_count=7, metadata={"x": 1})
    assert (only(result).execution_count, only(result).metadata) == (None, {})


def test_messages_about_a_busy_machine_are_removed() -> None:
    texts: list[str] = []
    Threads(2, read=lambda: Load(0, 0, 0), apply=lambda n: None, say=texts.append).change(1)
    busy, told = (new.new_output("stream", name="stdout", text=text) for text in (f"{texts[0]}\n", f"{texts[0]}\nstep 1\n"))
    assert normalised([busy]) == []
    assert normalised([told])[0].text == "step 1\n"


def test_local_paths_are_removed() -> None:
    text = f"{REPO}/runs/mini-seed0 {Path.home()}/x offline-run-20260101_120000-ab12cd34"
    output = only(new.new_output("stream", name="stdout", text=text))
    assert output.text == "runs/mini-seed0 ~/x offline-run-…"


def test_random_ids_of_tables_become_ids_of_their_contents() -> None:
    page = '<style>#T_{0} th {{}}</style><table id="T_{0}"><td id="T_{0}_row0_col0">{1}</td></table>'
    first, again = (only(displayed(text_html=page.format(name, "a"))) for name in ("ab12f", "99999"))
    other = only(displayed(text_html=page.format("ab12f", "b")))
    assert first == again != other and "ab12f" not in first.data["text/html"]
    assert first.data["text/html"].count(first.data["text/html"][8:15]) == 3


def test_a_widget_is_replaced_by_its_static_twin() -> None:
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "VBox()"}
    assert normalised([new.new_output("display_data", data=view)]) == []
    with_twin = new.new_output("display_data", data=view | {"text/html": "<p>twin</p>"})
    assert set(only(with_twin).data) == {"text/html", "text/plain"}


def numbers(*texts: str):
    cells = [new.new_code_cell("", id=f"c{i}", outputs=[displayed(text_markdown=text)]) for i, text in enumerate(texts)]
    return new.new_notebook(cells=cells)


def test_numbers_with_intervals_are_parsed() -> None:
    found = list(
        estimates(
            numbers(
                "boxed 39% (95 % interval 35% to 44%), accuracy **0.70** [0.65, 0.75]",
                "a difference of -0.012 [-0.030, +0.006]; from 12 % (11 to 13 %)",
                "no interval: 3 of 4 (really), f(2, 3)",
            )
        )
    )
    assert found == [
        ("c0", PrintedEstimate(39, 35, 44)),
        ("c0", PrintedEstimate(0.70, 0.65, 0.75)),
        ("c1", PrintedEstimate(-0.012, -0.030, 0.006)),
        ("c1", PrintedEstimate(12, 11, 13)),
    ]


def test_a_number_outside_its_interval_is_reported() -> None:
    old = numbers("0.70 [0.65, 0.75]", "0.20 [0.15, 0.25]")
    assert moved(old, numbers("0.74 [0.69, 0.79]", "0.20 [0.15, 0.25]")) == []
    [sentence] = moved(old, numbers("0.70 [0.65, 0.75]", "0.31 [0.26, 0.36]"))
    assert sentence == "cell c1: committed 0.2 (0.15 to 0.25), now 0.31 (0.26 to 0.36)"
    assert "2 numbers with intervals are committed, but 1 are shown" in moved(old, numbers("0.70 [0.65, 0.75]"))[0]


def test_every_result_that_a_notebook_reads_is_in_the_stamp():
    code = "".join(cell.source for path in PATHS for cell in read(path).cells if cell.cell_type == "code")
    results = (REPO / "studies" / "results").glob("*.json")
    assert {f"studies/results/{file.name}" for file in results if f'"{file.name}"' in code} <= set(SHOWN)

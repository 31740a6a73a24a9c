"""Copy normalised outputs of an executed course into the committed notebooks, with a stamp.

``make course outputs`` runs the course and copies its outputs into ``notebooks/``, so that you can read the notebooks
without running them. We remove everything that differs between runs (counters, times, ids, paths, widget state). The
stamp contains a hash of the code cells and one of the data. If either changes, the outputs are stale and a test fails.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from rlvr_utils import REPO
from rlvr_utils.course import course_notebooks

STAMP = "rlvr_outputs"
#: Tag of cells whose output describes the reader's machine or progress. We do not store these outputs.
VOLATILE = "volatile"
ELSEWHERE = "(Not stored: run the cell to see yours.)\n"
#: Directories and files that a notebook may show. Markdown files in them are not part of the stamp.
SHOWN = ("data", *(f"studies/results/{name}.json" for name in ("verifier", "red_team", "faithfulness")))
WIDGETS = "application/vnd.jupyter.widget-"

# pandas gives each styled table a random id, and W&B names an offline run by its time and a random suffix.
_TABLE_ID = re.compile(r"\bT_[0-9a-f]{5}(?![0-9a-z])")
_WANDB_RUN = re.compile(r"offline-run-\d{8}_\d{6}-\w+")
_DURATION = re.compile(r"\b\d+:\d\d\b(?= gone| left)|\b\d+(?:\.\d+)?(?= (?:ms|s|min|minutes|seconds)\b)")
_BUSY = re.compile(r"Other programs are using the CPU: [^\n]*\n?")  # printed by rlvr_utils.system.threads on a busy machine
_NUMBER = r"([+-]?\d+(?:\.\d+)?) ?%?"
_ESTIMATE = re.compile(rf"{_NUMBER}\**,? [(\[](?:95 % interval )?{_NUMBER}(?: to |, ){_NUMBER}[)\]]")


class PrintedEstimate(NamedTuple):
    """A number with its interval, parsed from a notebook's output."""

    mean: float
    low: float
    high: float


def commit_outputs(executed: Path, notebooks: Sequence[Path] | None = None, repo: Path = REPO) -> list[Path]:
    """Copy the outputs of the notebooks in ``executed`` to ``notebooks`` (default: all notebooks of the course).

    Returns:
        The paths of the written notebooks.

    Raises:
        ValueError: a notebook was not executed, or its code has changed since. Then no file is written.
    """
    import nbformat

    paths = list(notebooks or course_notebooks())
    filled = [_filled(path, Path(executed) / path.name, repo) for path in paths]
    for path, notebook in zip(paths, filled, strict=True):
        nbformat.write(notebook, path)
    return paths


def strip_outputs(notebook) -> None:
    """Remove outputs, execution counts and the stamp in place."""
    for cell in _code(notebook):
        cell.outputs, cell.execution_count = [], None
    notebook.metadata.pop(STAMP, None)


def has_outputs(notebook) -> bool:
    """Return whether any cell has an output."""
    return any(cell.outputs for cell in _code(notebook))


def stamp(notebook, repo: Path = REPO) -> dict[str, str]:
    """Return the hashes ``code`` (the code cells, in order) and ``data`` (the files of :data:`SHOWN`)."""
    code = hashlib.sha256("\0".join(cell.source for cell in _code(notebook)).encode())
    data = hashlib.sha256()
    for path in sorted(path for name in SHOWN for path in (repo / name, *(repo / name).rglob("*"))):
        if path.is_file() and path.suffix != ".md":
            data.update(path.relative_to(repo).as_posix().encode() + b"\0" + path.read_bytes())
    return {"code": code.hexdigest()[:16], "data": data.hexdigest()[:16]}


def stale(notebook, repo: Path = REPO) -> list[str]:
    """Return which of ``code`` and ``data`` have changed since the outputs were made, both if there is no stamp."""
    made_from = notebook.metadata.get(STAMP, {})
    return [part for part, value in stamp(notebook, repo).items() if made_from.get(part) != value]


def normalised(outputs: Sequence, repo: Path = REPO) -> list:
    """Return outputs without anything that differs between runs. Idempotent."""
    import nbformat

    kept = []
    for output in map(nbformat.from_dict, outputs):
        if kept and output.output_type == "stream" and output.get("name") == kept[-1].get("name"):
            output.text = kept.pop().text + output.text  # merge consecutive printed lines
        if "data" in output:
            view = any(kind.startswith(WIDGETS) for kind in output.data)
            data = {kind: value for kind, value in output.data.items() if not kind.startswith(WIDGETS)}
            if view and "text/html" not in data:
                continue  # a widget without a static twin
            output.data = {kind: _clean(value, repo) for kind, value in data.items()}
            output.metadata = {}
        if "execution_count" in output:
            output.execution_count = None
        if output.output_type == "stream":
            output.text = _DURATION.sub("…", _last_state(_clean(_BUSY.sub("", output.text), repo)))
            if not output.text:
                continue
        kept.append(output)
    return kept


def estimates(notebook) -> Iterator[tuple[str, PrintedEstimate]]:
    """Yield (cell id, estimate) for every number that is shown with its interval, in order."""
    for cell in _code(notebook):
        for output in cell.outputs:
            text = output.get("text", "") or output.get("data", {}).get("text/markdown", "")
            for found in _ESTIMATE.finditer(text):
                yield cell.id, PrintedEstimate(*map(float, found.groups()))


def moved(committed, fresh) -> list[str]:
    """Return a message per number whose intervals in ``committed`` and ``fresh`` do not overlap."""
    old, new = list(estimates(committed)), list(estimates(fresh))
    if [cell for cell, _ in old] != [cell for cell, _ in new]:
        return [f"{len(old)} numbers with intervals are committed, but {len(new)} are shown now, or in other cells"]
    return [
        f"cell {cell}: committed {a.mean:g} ({a.low:g} to {a.high:g}), now {b.mean:g} ({b.low:g} to {b.high:g})"
        for (cell, a), (_, b) in zip(old, new, strict=True)
        if a.high < b.low or b.high < a.low
    ]


def _filled(path: Path, made: Path, repo: Path):
    """Return the notebook at ``path`` with the outputs of its executed copy ``made``."""
    import nbformat

    again = "Run `make course` before `make outputs`"
    if not made.is_file():
        raise ValueError(f"{path.stem} was not executed. {again}.")
    notebook, executed = (nbformat.read(file, as_version=4) for file in (path, made))
    parameters = executed.metadata.get("papermill", {}).get("parameters", {})
    if parameters not in ({}, {"profile": "mini"}):
        raise ValueError(f"{path.stem} was executed with {dict(parameters)} instead of the defaults. {again}.")
    ran = [cell for cell in _code(executed) if "injected-parameters" not in cell.metadata.get("tags", [])]
    if [(cell.id, cell.source) for cell in ran] != [(cell.id, cell.source) for cell in _code(notebook)]:
        raise ValueError(f"{path.stem} has changed since it was executed. {again}.")
    for cell, done in zip(_code(notebook), ran, strict=True):
        volatile = VOLATILE in cell.metadata.get("tags", [])
        elsewhere = [nbformat.v4.new_output("stream", name="stdout", text=ELSEWHERE)]
        cell.outputs = elsewhere if volatile and done.outputs else normalised(done.outputs, repo)
        cell.execution_count = None
    notebook.metadata[STAMP] = stamp(notebook, repo)
    return notebook


def _code(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _clean(value, repo: Path):
    """Return text without this machine's paths and random ids of tables. Return other values unchanged."""
    if not isinstance(value, str):
        return value
    for place, name in ((f"{repo}/", ""), (str(repo), "."), (str(Path.home()), "~")):
        value = value.replace(place, name)
    name = hashlib.sha256(_TABLE_ID.sub("T_", value).encode()).hexdigest()[:5]  # tables on one page need different ids
    return _WANDB_RUN.sub("offline-run-…", _TABLE_ID.sub(f"T_{name}", value))


def _last_state(text: str) -> str:
    """Return the last state of lines that were rewritten."""
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))


if __name__ == "__main__":
    try:
        for written in commit_outputs(REPO / "runs" / "course"):
            print(f"{written.name}: {written.stat().st_size / 1000:.0f} KB with outputs")
    except ValueError as error:
        sys.exit(f"No file was changed: {error}")

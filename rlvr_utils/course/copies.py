"""The learner's own copies of the notebooks, in ``work/``: without outputs, and never overwritten.

The committed notebooks hold their outputs, so that they can be read on a website. Someone who works through them should
predict a result before seeing it. ``make lab`` therefore opens copies without outputs, in a folder that git ignores.
Run:  python -m rlvr_utils.course.copies   (``make lab`` does)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import nbformat

from rlvr_utils import REPO

#: Where the copies are kept. One level below the repository, as ``notebooks/`` is, so that relative links stay valid.
WORK = REPO / "work"
#: Written beside the copies: which version of a notebook was placed last, and under which file names.
RECORD = ".placed.json"
#: What a copy keeps of a notebook's metadata.
KEPT = ("kernelspec", "language_info")


def without_outputs(path: Path) -> nbformat.NotebookNode:
    """The notebook of ``path`` with no output, no execution count, and no record of how its outputs were made."""
    notebook = nbformat.read(path, as_version=4)
    # Only what opens it: others write when it ran, and which data its outputs show.
    notebook.metadata = {name: notebook.metadata[name] for name in KEPT if name in notebook.metadata}
    for cell in notebook.cells:
        for key in ("execution", "papermill", "ExecuteTime"):
            cell.metadata.pop(key, None)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return notebook


def place_copies(notebooks: Sequence[Path] | None = None, folder: Path = WORK) -> list[str]:
    """Put a copy of each notebook into ``folder`` where it is missing; return what a learner should know, as sentences.

    A copy that the learner has saved is never overwritten. If the course's notebook has changed since it was copied, an
    untouched copy is replaced, and beside an edited one the new version is placed under another name, once. A copy that
    was deleted is placed again, so deleting is the way to start afresh. Changed outputs alone are no change.

    Args:
        notebooks: the notebooks to copy; the course's own where it is None.
        folder: where to put them; it is made if it is missing.
    """
    from .runner import course_notebooks

    folder.mkdir(parents=True, exist_ok=True)
    record, told = _read_record(folder), []
    for source in notebooks or course_notebooks():
        text = nbformat.writes(without_outputs(source)) + "\n"
        version, copy = _digest(text), folder / source.name
        placed = record.get(source.name, {})  # file name -> digest of what we wrote there
        if not copy.exists() or _digest(copy.read_text(encoding="utf-8")) in placed.values():
            if not copy.exists() or version not in placed.values():
                copy.write_text(text, encoding="utf-8")
            placed = {source.name: version}
        elif version not in placed.values():
            new = folder / f"{source.stem}.new-{version[:7]}.ipynb"
            new.write_text(text, encoding="utf-8")
            placed = placed | {new.name: version}
            told.append(
                f"{source.name} has changed in the course since you began it. Your copy in {folder.name}/ is kept as it is, "
                f"and the new version is beside it: {folder.name}/{new.name}"
            )
        record[source.name] = placed
    (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return told


def _read_record(folder: Path) -> dict[str, dict[str, str]]:
    """What was placed before; nothing where the file is missing or was damaged (then every copy counts as edited)."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


if __name__ == "__main__":
    for sentence in place_copies():
        print(sentence)
    print("Your own copies of the notebooks are in work/. Delete a copy to start it afresh.")

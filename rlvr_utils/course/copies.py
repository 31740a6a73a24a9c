"""Copy the notebooks to ``work/`` without outputs. Edited copies are never overwritten.

The committed notebooks contain outputs, so that you can read them online. Learners should predict a result before they
see it, so ``make lab`` opens copies without outputs, in a directory that git ignores.
Run:  python -m rlvr_utils.course.copies   (``make lab`` runs it)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import nbformat

from rlvr_utils import REPO

#: Directory of the copies. Like ``notebooks/``, it is one level below the repository, so relative links stay valid.
WORK = REPO / "work"
#: File in ``work/`` that records the last placed version of each notebook and its file names.
RECORD = ".placed.json"
#: Notebook metadata that a copy keeps.
KEPT = ("kernelspec", "language_info")


def without_outputs(path: Path) -> nbformat.NotebookNode:
    """Return the notebook at ``path`` without outputs, execution counts and execution metadata."""
    notebook = nbformat.read(path, as_version=4)
    # Drop metadata that other tools write, such as execution times and the stamp of the outputs.
    notebook.metadata = {name: notebook.metadata[name] for name in KEPT if name in notebook.metadata}
    for cell in notebook.cells:
        for key in ("execution", "papermill", "ExecuteTime"):
            cell.metadata.pop(key, None)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return notebook


def place_copies(notebooks: Sequence[Path] | None = None, folder: Path = WORK) -> list[str]:
    """Copy each missing notebook to ``folder`` and return messages for the learner.

    An edited copy is never overwritten. If a notebook of the course has changed since it was copied, an unedited copy is
    replaced. Next to an edited copy, the new version is placed once under another name. A deleted copy is placed again,
    so delete a copy to start over. Changes to outputs alone do not count.

    Args:
        notebooks: the notebooks to copy, by default all notebooks of the course.
        folder: the target directory, created if missing.
    """
    from .runner import course_notebooks

    folder.mkdir(parents=True, exist_ok=True)
    record, told = _read_record(folder), []
    for source in notebooks or course_notebooks():
        text = nbformat.writes(without_outputs(source)) + "\n"
        version, copy = _digest(text), folder / source.name
        placed = record.get(source.name, {})  # file name -> digest of the version that we wrote
        if not copy.exists() or _digest(copy.read_text(encoding="utf-8")) in placed.values():
            if not copy.exists() or version not in placed.values():
                copy.write_text(text, encoding="utf-8")
            placed = {source.name: version}
        elif version not in placed.values():
            new = folder / f"{source.stem}.new-{version[:7]}.ipynb"
            new.write_text(text, encoding="utf-8")
            placed = placed | {new.name: version}
            told.append(
                f"{source.name} has changed in the course since you started it. Your copy in {folder.name}/ is kept. "
                f"The new version is in {folder.name}/{new.name}."
            )
        record[source.name] = placed
    (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return told


def _read_record(folder: Path) -> dict[str, dict[str, str]]:
    """Return the record of placed versions, empty if the file is missing or damaged. Then every copy counts as edited."""
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
    print("Your copies of the notebooks are in work/. Delete a copy to start it over.")

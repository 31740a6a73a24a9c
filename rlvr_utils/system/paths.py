"""Every path that a learner gives, settled once at the door: ``~`` expanded, absolute, whatever the working directory."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from .. import REPO


def current_directory_last(add: bool = False) -> None:
    """Put the current directory at the end of ``sys.path``, where it is on it (``python -m``, PYTHONPATH).

    A learner's own ``datasets.py`` there must not be taken for the library. ``add``: also where it is not on it, for a
    reward of one's own.
    """
    here = os.getcwd()
    there = [path for path in sys.path if os.path.abspath(path) == here]
    if there or add:
        sys.path[:] = [path for path in sys.path if path not in there] + [here]


def expanded(path: str | os.PathLike) -> Path:
    """``path`` with ``~`` and ``~name`` expanded.

    Raises:
        ValueError: nobody on this machine has that name.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{path}: there is no such home directory. Write the path out, or begin it with ~/.") from error


def run_folder(path: str | os.PathLike) -> Path:
    """The absolute path of a run: a relative one is taken from the current directory, or from the repository.

    Notebooks work in ``notebooks/`` and commands anywhere, and both print ``runs/mini-seed0``. The current directory comes
    first where it has such a path. A path that neither has yet belongs to the repository when we are inside of it.
    """
    path, here = expanded(path), Path.cwd()
    bases = [base for base in (here, REPO) if (base / path).exists()]
    base = bases[0] if bases else REPO if here.is_relative_to(REPO) else here
    return (base / path).resolve()


def local_or_name(value: str, is_there: Callable[[Path], bool] = Path.exists) -> str:
    """A setting that is a local path or a name on the hub: the path in full, from the repository's root where it lies there.

    So a run goes on from another working directory, and its configuration stays true when the repository is moved. A
    relative path is the repository's, else the current directory's, and what neither has is a name.
    """
    path = expanded(value)
    if not path.is_absolute():
        base = next((base for base in (REPO, Path.cwd()) if is_there(base / path)), None)
        if base is None:
            return value
        path = base / path
    path = Path(os.path.abspath(path))
    return path.relative_to(REPO).as_posix() if path.is_relative_to(REPO) else str(path)


def local_path(value: str) -> Path:
    """The path behind such a setting."""
    path = expanded(value)
    return REPO / path if (REPO / path).exists() else path

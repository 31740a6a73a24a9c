"""Resolve paths given by the user: ``~`` is expanded, and the result does not depend on the working directory."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from .. import REPO


def current_directory_last(add: bool = False) -> None:
    """Put the current directory at the end of ``sys.path``, where it is on it (``python -m``, PYTHONPATH).

    Otherwise a file ``datasets.py`` in that directory would shadow the library. With ``add`` it is added if it is missing,
    so that a custom reward can be imported.
    """
    here = os.getcwd()
    there = [path for path in sys.path if os.path.abspath(path) == here]
    if there or add:
        sys.path[:] = [path for path in sys.path if path not in there] + [here]


def expanded(path: str | os.PathLike) -> Path:
    """``path`` with ``~`` and ``~name`` expanded.

    Raises:
        ValueError: this machine has no user of that name.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{path}: there is no such home directory. Use an absolute path, or start it with ~/.") from error


def run_folder(path: str | os.PathLike) -> Path:
    """The absolute path of a run: a relative one is taken from the current directory, or from the repository.

    Notebooks work in ``notebooks/`` and commands anywhere, and both print ``runs/mini-seed0``. The current directory comes
    first if the path exists there. A path that exists in neither is taken from the repository if we are inside it.
    """
    path, here = expanded(path), Path.cwd()
    bases = [base for base in (here, REPO) if (base / path).exists()]
    base = bases[0] if bases else REPO if here.is_relative_to(REPO) else here
    return (base / path).resolve()


def local_or_name(value: str, is_there: Callable[[Path], bool] = Path.exists) -> str:
    """Resolve a value that is a local path or a name on the hub. Paths inside the repository are relative to its root.

    So a run can continue from another working directory, and its configuration stays valid when the repository is moved. A
    relative path is looked up in the repository, then in the current directory. Anything else is a name.
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
    """The path of a value returned by :func:`local_or_name`."""
    path = expanded(value)
    return REPO / path if (REPO / path).exists() else path

"""What a run learns from and is judged by, as hashes: a run goes on with the same problems and the same reward only."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import CodeType, ModuleType

from ..problems import all_rows, overlap
from ..profiles import REWARDS, Profile
from ..runs import load_run
from .rewards import own_reward


def sources(p: Profile) -> dict:
    """Problems and hash of each part of the data, the reward's hash, and how many evaluation problems are training problems.

    Rows count as they were loaded, cut to ``train_subset`` and ``eval_problems``.

    Raises:
        ValueError: a row cannot be used; see :func:`rlvr_utils.problems.all_rows`.
    """
    training, evaluation = all_rows(p)
    parts = {"training problems": described(training)}
    parts |= {f"evaluation problems ({split})": described(rows) for split, rows in evaluation.items()}
    return parts | {f"reward {p.reward}": {"sha256": reward_hash(p.reward)}, "overlap": overlap(training, evaluation)}


def described(rows: list[dict]) -> dict:
    """How many rows there are, and their SHA-256."""
    text = json.dumps(rows, sort_keys=True, default=str)
    return {"rows": len(rows), "sha256": hashlib.sha256(text.encode()).hexdigest()}


def reward_hash(name: str) -> str | None:
    """The SHA-256 of the source of a reward of the reader's own; None for the course's own, which its commit records.

    That is the module that names it and the modules in the same folder that this one imports. In a notebook or script it is
    the function and those of its functions that it calls. None too where there is no source to read.
    """
    if name in REWARDS:
        return None
    function, module = own_reward(name), sys.modules[name.partition(":")[0]]
    try:
        parts = sources_of_function(function) if module.__name__ == "__main__" else sources_of_module(module)
    except (OSError, TypeError, UnicodeDecodeError):
        return None
    return hashlib.sha256("\0".join(parts).encode()).hexdigest() if parts else None


def sources_of_module(module: ModuleType) -> list[str]:
    """The source of a module and of what it imports from its own folder, in the order of their files."""
    folder, found, left = Path(module.__file__).resolve().parent, {}, [module]
    while left:
        file = Path(getattr(one := left.pop(), "__file__", None) or "").resolve()
        if file in found or folder not in file.parents or file.suffix != ".py" or found and folder.name == "site-packages":
            continue
        found[file] = file.read_text(encoding="utf-8")
        named = (value if isinstance(value, ModuleType) else sys.modules.get(getattr(value, "__module__", None) or "")
                 for value in vars(one).values())
        left += filter(None, named)
    return [found[file] for file in sorted(found)]


def sources_of_function(function: Callable) -> list[str]:
    """The source of a notebook's function and of the notebook's functions that it calls or wraps, sorted."""
    found, left = {}, [function]
    while left:
        one = left.pop()
        one = one.func if isinstance(one, functools.partial) else getattr(one, "__func__", one)
        code = getattr(one, "__code__", None)
        if code is None and getattr(type(one), "__module__", "") == "__main__":
            one = type(one)  # an object that can be called
        if one in found or code is None and not inspect.isclass(one):
            continue
        found[one] = inspect.getsource(one)
        inside = [cell.cell_contents for cell in getattr(one, "__closure__", None) or ()]
        used = [getattr(one, "__globals__", {}).get(word) for word in names_in(code)] if code else []
        left += [value for value in (*inside, *used) if callable(value)
                 and (getattr(value, "__module__", "") == "__main__" or isinstance(value, functools.partial))]
    return sorted(found.values())


def names_in(code: CodeType) -> set[str]:
    """The global names that a function uses, in its comprehensions and inner functions too."""
    return set(code.co_names).union(*(names_in(inner) for inner in code.co_consts if isinstance(inner, CodeType)))


def refuse_other_sources(folder: Path, now: dict) -> None:
    """Compare with what the run in ``folder`` was begun with; a run of an earlier version holds no record.

    Raises:
        ValueError: other problems, or another reward; the sentence names them.
    """
    before = load_run(folder).sources
    for name, part in now.items():
        old = before.get(name, {}).get("sha256")
        if name == "overlap" or None in (old, part["sha256"]) or old == part["sha256"]:
            continue
        rows = f": {before[name]['rows']} rows then, {part['rows']} rows now" if "rows" in part else ""
        raise ValueError(f"The run in {folder} was begun with another state of the {name}{rows}. One run must not mix two: "
                         "put the old file back to go on, or give another output_dir to begin a new run.")

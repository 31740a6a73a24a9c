"""What a folder already holds, and whether a training may go on there: with the settings, problems and reward it began with.

Some settings may change (memory, speed and records: ``may_change`` in :class:`~rlvr_utils.profiles.Profile`). Problems and
rewards are compared by hashes.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from types import CodeType, ModuleType

from ..problems import all_rows, overlap
from ..profiles import REWARDS, Profile, get_profile
from ..runs import Run, load_run
from ..system.paths import run_folder
from .estimators import own_estimator
from .recovery import checkpoint_step, checkpoints
from .rewards import own_reward


def is_finished(folder: Path, p: Profile, extend: bool = False) -> bool:
    """Whether ``folder`` holds this very run, finished.

    With a constant learning rate a run may end at its newest checkpoint, and with ``extend`` become longer. Only ``extend``
    changes a finished run.

    Raises:
        ValueError: it holds a run with other settings, or of another number of steps.
    """
    if not (folder / "config.yaml").is_file():
        return False
    run = load_run(folder)
    return "max_steps" not in changed_settings(run, p, extend) and bool(run.environment.get("finished"))


def reopen(folder: Path, p: Profile, now: dict, extend: bool, say: Callable[[str], None]) -> None:
    """Let a run that has begun go on, and say which settings change; ``now`` are its :func:`hashed_sources`.

    Raises:
        ValueError: its problems or its reward are not those that it was begun with.
    """
    if not (folder / "config.yaml").is_file():
        return
    refuse_other_sources(folder, now)
    for name, (old, new) in changed_settings(load_run(folder), p, extend).items():
        say(f"{name} is {new!r} from here on; it was {old!r}.")
    (folder / "environment.json").unlink(missing_ok=True)  # it is not finished any more


def changed_settings(run: Run, p: Profile, extend: bool) -> dict[str, tuple]:
    """(old value, new value) of each setting in which ``p`` differs from a run that has begun, all of which may be changed.

    Raises:
        ValueError: one may not.
    """
    before, now, changed = run.profile.to_dict(), p.to_dict(), {}
    for f in fields(p):
        old, new = before[f.name], now[f.name]
        if old == new:
            continue
        if not (f.metadata["may_change"] or f.name == "max_steps" and p.lr_schedule == "constant"):
            raise ValueError(
                f"{run.path} holds a run with {f.name}={old!r}, not {new!r}. Give another output_dir, or delete that folder."
            )
        changed[f.name] = old, new
    if "max_steps" in changed:
        refuse_other_length(run, p.max_steps, extend)
    return changed


def refuse_other_length(run: Run, steps: int, extend: bool) -> None:
    """Let a run become longer only where that is said in so many words, since somebody may pay for these steps.

    Raises:
        ValueError: it would become longer unasked, or shorter than it can.
    """
    was, finished = run.profile.max_steps, bool(run.environment.get("finished"))
    there = checkpoint_step(next(iter(checkpoints(run.path)), None))
    if steps < there or finished and (steps < was or not there):
        there = was if finished else there
        raise ValueError(
            f"{run.path} holds a run that has made {there} steps: ask for max_steps={there}, or for more with "
            "extend while its checkpoints are there; or give another output_dir."
        )
    if steps > was and not extend:
        state = "ended" if finished else "was begun to end"
        raise ValueError(
            f"{run.path} holds a run that {state} after {was} steps, not {steps}: set max_steps={was} for just "
            f"that run, or say extend=True (`rlvr train --extend`) to train {steps - was} more."
        )


def settings_of(
    folder: str | Path, profile: str = "mini", *, extend: bool = False, say: Callable[[str], None] = print, **changes: object
) -> Profile:
    """The settings for a folder: those of the run that it holds, else those of the profile with ``changes``.

    So a notebook that is opened beside a run shows that run, whatever it was started with. Of ``changes``, only what may be
    changed on a run that has begun counts (:func:`changed_settings`).

    Raises:
        ValueError: the folder holds a run with other settings than ``changes`` names, or of another profile.
    """
    asked, folder = get_profile(profile, **changes), run_folder(folder)
    if not (folder / "config.yaml").is_file():
        return asked
    run = load_run(folder)
    named = {name: getattr(asked, name) for name in ("profile", *changes)}
    settings = replace(run.profile, **named)
    changed_settings(run, settings, extend)
    apart = {k: v for k, v in settings.to_dict().items() if v != asked.to_dict()[k]}
    if apart:
        say(f"{folder.name} holds a run, and its settings count: {', '.join(f'{k}={v!r}' for k, v in apart.items())}.")
    return settings


# --- problems and reward ---


def hashed_sources(p: Profile) -> dict:
    """Problems and hash of each part of the data, the reward's hash, and how many evaluation problems are training problems.

    Rows count as they were loaded, cut to ``train_subset`` and ``eval_problems``.

    Raises:
        ValueError: a row cannot be used; see :func:`rlvr_utils.problems.all_rows`.
    """
    training, evaluation = all_rows(p)
    parts = {"training problems": hashed_rows(training)}
    parts |= {f"evaluation problems ({split})": hashed_rows(rows) for split, rows in evaluation.items()}
    if p.estimator:
        parts[f"estimator {p.estimator}"] = {"sha256": source_hash(own_estimator(p.estimator))}
    return parts | {f"reward {p.reward}": {"sha256": reward_hash(p.reward)}, "overlap": overlap(training, evaluation)}


def hashed_rows(rows: list[dict]) -> dict:
    """How many rows there are, and their SHA-256."""
    text = json.dumps(rows, sort_keys=True, default=str)
    return {"rows": len(rows), "sha256": hashlib.sha256(text.encode()).hexdigest()}


def reward_hash(name: str) -> str | None:
    """The SHA-256 of the source of a reward of the reader's own; None for the course's own, which its commit records.

    That is the module that names it and the modules in the same folder that this one imports. In a notebook or script it is
    the function and those of its functions that it calls. None too where there is no source to read.
    """
    return None if name in REWARDS else source_hash(own_reward(name), name.partition(":")[0])


def source_hash(function: Callable, module: str | None = None) -> str | None:
    """The SHA-256 of the source of a function of the reader's own, found in ``module`` (default: where it was defined)."""
    module = sys.modules[module or function.__module__]
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
        named = (
            value if isinstance(value, ModuleType) else sys.modules.get(getattr(value, "__module__", None) or "")
            for value in vars(one).values()
        )
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
        left += [
            value
            for value in (*inside, *used)
            if callable(value) and (getattr(value, "__module__", "") == "__main__" or isinstance(value, functools.partial))
        ]
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
        raise ValueError(
            f"The run in {folder} was begun with another state of the {name}{rows}. One run must not mix two: "
            "put the old file back to go on, or give another output_dir to begin a new run."
        )

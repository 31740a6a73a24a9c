"""Check whether a run in a folder can be resumed: configuration, problems and reward must be those that it started with.

Some fields may change (memory, speed and logging: ``may_change`` in :class:`~rlvr_utils.profiles.Profile`). Problems and
rewards are compared by their hashes.
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
    """Whether ``folder`` holds a finished run with this configuration.

    With a constant learning rate, a run may end at its newest checkpoint, and ``extend`` may make it longer. Only ``extend``
    changes a finished run.

    Raises:
        ValueError: the folder holds a run with another configuration, or with another number of steps.
    """
    if not (folder / "config.yaml").is_file():
        return False
    run = load_run(folder)
    return "max_steps" not in changed_settings(run, p, extend) and bool(run.environment.get("finished"))


def reopen(folder: Path, p: Profile, now: dict, extend: bool, say: Callable[[str], None]) -> None:
    """Prepare an existing run for resuming, and print which fields change. ``now`` are its :func:`hashed_sources`.

    Raises:
        ValueError: the problems or the reward have changed since the run started.
    """
    if not (folder / "config.yaml").is_file():
        return
    refuse_other_sources(folder, now)
    for name, (old, new) in changed_settings(load_run(folder), p, extend).items():
        say(f"{name} is now {new!r} (was {old!r}).")
    (folder / "environment.json").unlink(missing_ok=True)  # the run is no longer finished


def changed_settings(run: Run, p: Profile, extend: bool) -> dict[str, tuple]:
    """(old value, new value) of each field in which ``p`` differs from an existing run.

    Raises:
        ValueError: a field differs that must not change during a run.
    """
    before, now, changed = run.profile.to_dict(), p.to_dict(), {}
    for f in fields(p):
        old, new = before[f.name], now[f.name]
        if old == new:
            continue
        if not (f.metadata["may_change"] or f.name == "max_steps" and p.lr_schedule == "constant"):
            raise ValueError(
                f"{run.path} holds a run with {f.name}={old!r}, not {new!r}. Set another output_dir or delete that folder."
            )
        changed[f.name] = old, new
    if "max_steps" in changed:
        refuse_other_length(run, p.max_steps, extend)
    return changed


def refuse_other_length(run: Run, steps: int, extend: bool) -> None:
    """Check the number of steps. A run becomes longer only with ``extend``, because additional steps may cost money.

    Raises:
        ValueError: the run would become longer without ``extend``, or shorter than its newest checkpoint.
    """
    was, finished = run.profile.max_steps, bool(run.environment.get("finished"))
    there = checkpoint_step(next(iter(checkpoints(run.path)), None))
    if steps < there or finished and (steps < was or not there):
        there = was if finished else there
        raise ValueError(
            f"{run.path} holds a run with {there} completed steps. Set max_steps={there}, set more steps with "
            "extend=True (needs its checkpoints), or set another output_dir."
        )
    if steps > was and not extend:
        state = "ended" if finished else "was started to end"
        raise ValueError(
            f"{run.path} holds a run that {state} after {was} steps, not {steps}. Set max_steps={was} to keep "
            f"that length, or set extend=True (`rlvr train --extend`) to train {steps - was} more steps."
        )


def settings_of(
    folder: str | Path, profile: str = "mini", *, extend: bool = False, say: Callable[[str], None] = print, **changes: object
) -> Profile:
    """The configuration for a folder: that of the run in it, or else that of the profile with ``changes``.

    A notebook can therefore show an existing run, whatever configuration that run was started with. For an existing run,
    ``changes`` may only contain fields that may change (:func:`changed_settings`).

    Raises:
        ValueError: the folder holds a run of another profile, or with other values than those in ``changes``.
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
        say(f"{folder.name} holds a run. Using its configuration: {', '.join(f'{k}={v!r}' for k, v in apart.items())}.")
    return settings


# --- problems and reward ---


def hashed_sources(p: Profile) -> dict:
    """Number of rows and hash per part of the data, hash of the reward, and the overlap of training and evaluation problems.

    Rows are hashed as loaded, after the limits ``train_subset`` and ``eval_problems``.

    Raises:
        ValueError: a row cannot be used. See :func:`rlvr_utils.problems.all_rows`.
    """
    training, evaluation = all_rows(p)
    parts = {"training problems": hashed_rows(training)}
    parts |= {f"evaluation problems ({split})": hashed_rows(rows) for split, rows in evaluation.items()}
    if p.estimator:
        parts[f"estimator {p.estimator}"] = {"sha256": source_hash(own_estimator(p.estimator))}
    return parts | {f"reward {p.reward}": {"sha256": reward_hash(p.reward)}, "overlap": overlap(training, evaluation)}


def hashed_rows(rows: list[dict]) -> dict:
    """The number of rows and their SHA-256."""
    text = json.dumps(rows, sort_keys=True, default=str)
    return {"rows": len(rows), "sha256": hashlib.sha256(text.encode()).hexdigest()}


def reward_hash(name: str) -> str | None:
    """The SHA-256 of the source of a custom reward. None for built-in rewards, which the recorded commit identifies.

    For a module, the hash covers the module and the modules that it imports from its own folder. For a notebook or script,
    it covers the function and the functions of that notebook that it calls. None if the source cannot be read.
    """
    return None if name in REWARDS else source_hash(own_reward(name), name.partition(":")[0])


def source_hash(function: Callable, module: str | None = None) -> str | None:
    """The SHA-256 of the source of a custom function in ``module`` (default: the module that defines it)."""
    module = sys.modules[module or function.__module__]
    try:
        parts = sources_of_function(function) if module.__name__ == "__main__" else sources_of_module(module)
    except (OSError, TypeError, UnicodeDecodeError):
        return None
    return hashlib.sha256("\0".join(parts).encode()).hexdigest() if parts else None


def sources_of_module(module: ModuleType) -> list[str]:
    """The source of a module and of the modules that it imports from its own folder, sorted by path."""
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
            one = type(one)  # a callable object
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
    """The global names that a function uses, including its comprehensions and inner functions."""
    return set(code.co_names).union(*(names_in(inner) for inner in code.co_consts if isinstance(inner, CodeType)))


def refuse_other_sources(folder: Path, now: dict) -> None:
    """Compare hashes with those recorded when the run in ``folder`` started. Runs of older versions have no hashes.

    Raises:
        ValueError: the problems or the reward have changed. The message names the part that differs.
    """
    before = load_run(folder).sources
    for name, part in now.items():
        old = before.get(name, {}).get("sha256")
        if name == "overlap" or None in (old, part["sha256"]) or old == part["sha256"]:
            continue
        rows = f" ({before[name]['rows']} rows then, {part['rows']} rows now)" if "rows" in part else ""
        raise ValueError(
            f"The run in {folder} was started with another version of the {name}{rows}. "
            "Restore the old file to resume that run, or set another output_dir to start a new run."
        )

"""What a run learns from and is judged by, as hashes: a run goes on with the same problems and the same reward only."""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
from pathlib import Path

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

    That is the file in which the function is defined, or the function alone where it is defined in a notebook or script.
    None too where there is no source to read.
    """
    if name in REWARDS:
        return None
    function = inspect.unwrap(own_reward(name))
    module = sys.modules.get(getattr(function, "__module__", None) or type(function).__module__)
    try:
        source = inspect.getsource(function if getattr(module, "__name__", "") in ("__main__", "builtins") else module)
    except (OSError, TypeError):
        return None
    return hashlib.sha256(source.encode()).hexdigest()


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

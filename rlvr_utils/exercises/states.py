"""How far the learner is: one small file that the checks write, one table that reads it."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from rlvr_utils import REPO

from .catalogue import BY_ID, EXERCISES

if TYPE_CHECKING:
    import pandas as pd

#: The state of each exercise that was checked; delete the file to begin again.
FILE = REPO / "runs" / "exercises.json"
NOT_ATTEMPTED, NOT_YET, RIGHT = "not attempted", "not right yet", "right"
#: From the least to the most: a state is only ever replaced by a better one.
STATES = (NOT_ATTEMPTED, NOT_YET, RIGHT)


def known_states() -> dict[str, str]:
    """The state of every exercise by its id; "not attempted" where nothing readable is written."""
    try:
        written = json.loads(FILE.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        written = {}
    written = written if isinstance(written, dict) else {}
    return {name: written[name] if written.get(name) in STATES else NOT_ATTEMPTED for name in BY_ID}


def record(identifier: str, state: str) -> None:
    """Write a state down. What was right once stays right; a folder that cannot be written to is no error."""
    known = known_states()
    known[identifier] = max(known[identifier], state, key=STATES.index)
    half = FILE.with_name(f"{FILE.name}.{os.getpid()}")
    with suppress(OSError):
        FILE.parent.mkdir(parents=True, exist_ok=True)
        half.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
        os.replace(half, FILE)  # whole or not at all: two notebooks may be checking at once


def progress(notebook: str | None = None) -> pd.DataFrame:
    """The exercises with their states, of the whole course or of one ``notebook`` ("00" to "05"); prints a summary.

    Raises:
        ValueError: no notebook of that number has exercises.
    """
    import pandas as pd

    chosen = [exercise for exercise in EXERCISES if notebook in (None, exercise.notebook)]
    if not chosen:
        raise ValueError(f"No notebook {notebook!r} has exercises; give '00' to '05', or nothing for all of them.")
    known = known_states()
    counts = {state: sum(known[exercise.id] == state for exercise in chosen) for state in reversed(STATES)}
    print(f"{len(chosen)} exercises: " + ", ".join(f"{count} {state}" for state, count in counts.items()) + ".")
    rows = [{"exercise": exercise.name, "notebook": exercise.notebook, "difficulty (of 5)": exercise.difficulty,
             "minutes": exercise.minutes, "state": known[exercise.id]} for exercise in chosen]
    return pd.DataFrame(rows).set_index("exercise")

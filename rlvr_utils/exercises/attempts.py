"""The machinery of the checks: call a learner's function on test inputs and report the first property that fails.

A check never raises and never stops a notebook. It has three states: *not attempted* (the stub still contains its
dots), *not right yet* (with the property, the input and the output) and *right*. The best state of each exercise is
saved in one small file. :func:`progress` shows it as a table.
"""

from __future__ import annotations

import html
import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import numpy as np

from rlvr_utils import REPO

if TYPE_CHECKING:
    import pandas as pd

#: The state of each checked exercise. Delete the file to start over.
FILE = REPO / "runs" / "exercises.json"
NOT_ATTEMPTED, NOT_YET, RIGHT = "not attempted", "not right yet", "right"
#: How a notebook shows each state: a sign, a word, and a colour that is readable in the light and the dark theme.
LOOKS = {
    NOT_ATTEMPTED: ("○", "Not attempted", "var(--jp-content-font-color1, inherit)"),
    NOT_YET: ("✗", "Not right yet", "var(--jp-content-font-color1, inherit)"),
    RIGHT: ("✓", "Right", "var(--jp-success-color0, #1b7a34)"),
}
#: From worst to best. A state is only replaced by a better one.
STATES = (NOT_ATTEMPTED, NOT_YET, RIGHT)
#: Longer lists and texts are truncated in reports.
LONGEST_LIST, LONGEST_TEXT = 8, 160
CELL = "text-align:left;vertical-align:top"


class Exercise(NamedTuple):
    """One exercise of the course."""

    id: str  #: shared by stub, check and solution, starts with the notebook's number
    name: str  #: as in the heading, such as "2.1 Advantages of several groups"
    difficulty: int  #: 1 to 5
    minutes: int  #: for a first attempt

    @property
    def notebook(self) -> str:
        """The notebook's two digits, such as "02"."""
        return self.id[:2]


#: Every exercise by its id. :func:`exercise` registers them.
BY_ID: dict[str, Exercise] = {}


class Unattempted(Exception):
    """The function is still the stub."""


class Broken(Exception):
    """A property does not hold. Stores its name, the output and the expected output."""

    def __init__(self, broken: str, saw: str = "", expected: str = ""):
        super().__init__(broken)
        self.broken, self.saw, self.expected = broken, saw, expected


@dataclass(frozen=True)
class Report:
    """The result of a check. A notebook shows it with a sign and a colour, a terminal as plain text.

    Attributes:
        state: "not attempted", "not right yet" or "right".
        held: the properties that hold, in the order in which they were tried.
        broken: the first property that does not hold.
        tried: the last calls with their results.
        saw, expected: the observed and the expected value, where the calls alone do not show the error.
    """

    exercise: Exercise
    state: str
    held: tuple[str, ...] = ()
    broken: str = ""
    tried: tuple[str, ...] = ()
    saw: str = ""
    expected: str = ""

    def __repr__(self) -> str:
        title = f"{LOOKS[self.state][0]} Exercise {self.exercise.name}: {self.state}."
        return "\n".join([f"{title} {self.summary}".strip(), *(f"  {label:9} {text}" for label, text in self.lines)])

    def _repr_html_(self) -> str:
        sign, word, colour = LOOKS[self.state]
        title = f'<strong style="color:{colour}">{sign} {word}.</strong> Exercise {html.escape(self.exercise.name)}'
        rows = "".join(
            f'<tr><th scope="row" style="{CELL}">{label}</th><td style="{CELL}"><code>{html.escape(text)}</code></td></tr>'
            for label, text in self.lines
        )
        table = f"<table>{rows}</table>" if rows else ""
        stop = "" if title.endswith("?") else "."  # some exercises are named by a question
        return f'<div role="status"><p>{title}{stop} {self.summary}</p>{table}</div>'

    @property
    def summary(self) -> str:
        """The text after the title: how to start, or how many properties hold."""
        if self.state == NOT_ATTEMPTED:
            return "Replace the dots, run that cell, then run this one."
        return f"{len(self.held)} properties hold." if self.state == RIGHT else ""

    @property
    def lines(self) -> list[tuple[str, str]]:
        """(label, text) rows that explain what failed. Empty unless the state is "not right yet"."""
        if self.state != NOT_YET:
            return []
        found = [
            ("broken", self.broken),
            *(("tried", call) for call in self.tried),
            ("saw", self.saw),
            ("expected", self.expected),
            *(("holds", name) for name in self.held),
        ]
        return [(label, text) for label, text in found if text]


class Attempt:
    """The learner's function under test. Checks call it like the function itself, and it records each call."""

    def __init__(self, function: object):
        if is_blank(function):
            raise Unattempted
        if not callable(function):
            raise Broken(
                "the check gets the function itself",
                f"{brief(function)}, which is not callable",
                "the name of your function, without parentheses",
            )
        name = getattr(function, "__name__", "<none>")
        self.function, self.name = function, name if name.isidentifier() else "your function"
        self.called_before = False
        self.held: dict[str, None] = {}  # in order, each once
        self.calls: list[str] = []  # the calls that the next property checks
        self.used = False  # whether a property has already checked them

    def __call__(self, *args: object, **keywords: object) -> object:
        """Return the function's result. Raises Unattempted for a stub, Broken if the call fails or returns None."""
        self.note(args, keywords)
        try:
            result = self.function(*args, **keywords)
        except NotImplementedError:
            raise Unattempted from None
        except (Exception, SystemExit) as error:
            self.fail("it runs without an error", f"{type(error).__name__}: {error}")
        if is_blank(result) and result is not None:
            raise Unattempted
        if result is None and not self.called_before:
            self.fail("it returns something", "None. Is a `return` missing?")
        self.called_before = True
        self.calls[-1] += f" -> {brief(result)}"
        return result

    def numbers(self, *args: object, shape: tuple[int, ...] | None = None) -> np.ndarray:
        """Return the result as a float array. Raises Broken if it is not numeric, not of ``shape`` or not finite."""
        result = self(*args)
        try:
            array = np.asarray(result.detach() if hasattr(result, "detach") else result, dtype=float)
        except (TypeError, ValueError):
            self.fail("the result contains only numbers", f"a {type(result).__name__}")
        if shape is not None and array.shape != shape:
            self.fail("the result has the right shape", f"shape {array.shape}", f"shape {shape}")
        if not np.isfinite(array).all():
            self.fail("no result is NaN or infinite", brief(array))
        return array

    def refuses(self, *args: object) -> bool:
        """Return whether the function raises ValueError for these arguments. Any other error raises Broken."""
        self.note(args, {})
        try:
            self.calls[-1] += f" -> {brief(self.function(*args))}"
        except ValueError:
            return True
        except (Exception, SystemExit) as error:
            self.fail("invalid arguments raise a ValueError", f"{type(error).__name__}: {error}")
        return False

    def note(self, args: tuple, keywords: dict) -> None:
        """Record a call for the report. The first call after a property starts a new list."""
        if self.used:
            self.calls.clear()
        self.used = False
        shown = [*map(brief, args), *(f"{name}={brief(value)}" for name, value in keywords.items())]
        self.calls.append(f"{self.name}({', '.join(shown)})")

    def must(self, name: str, holds: bool, saw: str = "", expected: str = "") -> None:
        """Check one property of the preceding calls. Raises Broken if it does not hold."""
        if not holds:
            self.fail(name, saw, expected)
        self.held[name], self.used = None, True

    def equals(self, name: str, found: object, wanted: object, tolerance: float = 1e-6, what: str = "") -> None:
        """Check that two numbers or arrays agree. ``what`` names them in the report, if they are not the result itself."""
        saw = brief(found)
        shown = bool(self.calls) and self.calls[-1].endswith(saw) and not what
        self.must(
            name,
            close(found, wanted, tolerance),
            "" if shown else f"{what} {saw}".strip(),
            f"{what} {brief(wanted)}".strip(),
        )

    def fail(self, name: str, saw: str = "", expected: str = "") -> NoReturn:
        self.held.pop(name, None)
        raise Broken(name, saw, expected) from None


def exercise(identifier: str, name: str, *, difficulty: int, minutes: int) -> Callable:
    """Register an exercise. The decorated function checks properties of an :class:`Attempt` and becomes its check."""
    about = BY_ID[identifier] = Exercise(identifier, name, difficulty, minutes)

    def make(properties: Callable[[Attempt], None]) -> Callable[[object], Report]:
        @wraps(properties)
        def check(attempt: object = ...) -> Report:
            report = report_on(attempt, about, properties)
            record(about.id, report.state)
            return report

        check.exercise = about
        return check

    return make


def report_on(function: object, about: Exercise, properties: Callable[[Attempt], None]) -> Report:
    """Return the report on ``function``. Never raises, whatever the function does."""
    mine = None
    try:
        mine = Attempt(function)
        properties(mine)
    except Unattempted:
        return Report(about, NOT_ATTEMPTED)
    except Broken as found:
        broken = found
    except Exception as error:  # such as a result that cannot be compared with a number
        broken = Broken("the result has the expected type", f"{type(error).__name__}: {error}")
    else:
        return Report(about, RIGHT, tuple(mine.held))
    held, calls = (tuple(mine.held), tuple(mine.calls[-2:])) if mine else ((), ())
    return Report(about, NOT_YET, held, broken.broken, calls, broken.saw, broken.expected)


def is_blank(value: object) -> bool:
    """Return whether this is a stub's result: None, the dots, or dots inside a tuple, list or dict."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (tuple, list)) else (value,)
    return value is None or any(part is ... for part in parts)


def brief(value: object) -> str:
    """Return a short text for ``value``: numbers are rounded, long lists and texts are truncated."""
    if hasattr(value, "detach"):
        value = value.detach()
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {brief(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        more = f", ... {len(value)} in all" if len(value) > LONGEST_LIST else ""
        return f"[{', '.join(map(brief, value[:LONGEST_LIST]))}{more}]"
    text = repr(value).replace("\\\\", "\\")  # LaTeX as it is typed, one backslash each
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}..."


def close(a: object, b: object, tolerance: float = 1e-6) -> bool:
    """Return whether two numbers, or arrays of the same shape, agree within ``tolerance``."""
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=tolerance, atol=tolerance))


# --- progress ---


def in_order() -> list[Exercise]:
    """Return the exercises in course order."""
    return sorted(BY_ID.values(), key=lambda exercise: exercise.name)


def known_states() -> dict[str, str]:
    """Return the state of every exercise by its id, "not attempted" if the file has no valid entry."""
    try:
        written = json.loads(FILE.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        written = {}
    written = written if isinstance(written, dict) else {}
    return {name: written[name] if written.get(name) in STATES else NOT_ATTEMPTED for name in BY_ID}


def record(identifier: str, state: str) -> None:
    """Save a state, unless a better one is saved already. An unwritable directory is ignored."""
    known = known_states()
    known[identifier] = max(known[identifier], state, key=STATES.index)
    half = FILE.with_name(f"{FILE.name}.{os.getpid()}")
    with suppress(OSError):
        FILE.parent.mkdir(parents=True, exist_ok=True)
        half.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
        os.replace(half, FILE)  # atomic, because two notebooks may write at once


def progress(notebook: str | None = None) -> pd.DataFrame:
    """Print a summary and return a table of exercises and their states, for one ``notebook`` (such as "02") or all.

    Raises:
        ValueError: no notebook with this number has exercises.
    """
    import pandas as pd

    chosen = [exercise for exercise in in_order() if notebook in (None, exercise.notebook)]
    if not chosen:
        numbers = ", ".join(sorted({exercise.notebook for exercise in in_order()}))
        raise ValueError(f"Notebook {notebook!r} has no exercises. Pass one of {numbers}, or omit it to list all exercises.")
    known = known_states()
    counts = {state: sum(known[exercise.id] == state for exercise in chosen) for state in reversed(STATES)}
    print(f"{len(chosen)} exercises: " + ", ".join(f"{count} {state}" for state, count in counts.items()) + ".")
    rows = [
        {
            "exercise": exercise.name,
            "notebook": exercise.notebook,
            "difficulty (of 5)": exercise.difficulty,
            "minutes": exercise.minutes,
            "state": known[exercise.id],
        }
        for exercise in chosen
    ]
    return pd.DataFrame(rows).set_index("exercise")

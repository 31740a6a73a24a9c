"""How a check works: it tries a learner's function on inputs of its own and reports the first property that breaks.

A check never raises and never stops a notebook. It knows three states: *not attempted* (the dots of the stub are
still there), *not right yet* (with the property, the input and what came out) and *right*. The best state of each
exercise is kept in one small file, which :func:`progress` shows as a table.
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

#: The state of each exercise that was checked; delete the file to begin again.
FILE = REPO / "runs" / "exercises.json"
NOT_ATTEMPTED, NOT_YET, RIGHT = "not attempted", "not right yet", "right"
#: How a notebook shows each state: a sign, a word, and a colour that is readable on a light and on a dark page.
LOOKS = {
    NOT_ATTEMPTED: ("○", "Not attempted", "var(--jp-content-font-color1, inherit)"),
    NOT_YET: ("✗", "Not right yet", "var(--jp-content-font-color1, inherit)"),
    RIGHT: ("✓", "Right", "var(--jp-success-color0, #1b7a34)"),
}
#: From the least to the most: a state is only ever replaced by a better one.
STATES = (NOT_ATTEMPTED, NOT_YET, RIGHT)
#: Longer lists and texts are shown by their beginning.
LONGEST_LIST, LONGEST_TEXT = 8, 160
CELL = "text-align:left;vertical-align:top"


class Exercise(NamedTuple):
    """One exercise of the course."""

    id: str  #: ties stub, check and solution together and starts with the notebook's number
    name: str  #: as the headings say it, such as "2.1 Advantages of several groups"
    difficulty: int  #: 1 to 5
    minutes: int  #: for a first attempt

    @property
    def notebook(self) -> str:
        """The notebook's two digits, such as "02"."""
        return self.id[:2]


#: Every exercise by its id; :func:`exercise` enters them.
BY_ID: dict[str, Exercise] = {}


class Unattempted(Exception):
    """The function is still the stub."""


class Broken(Exception):
    """A property does not hold: its name, what was seen, what was expected."""

    def __init__(self, broken: str, saw: str = "", expected: str = ""):
        super().__init__(broken)
        self.broken, self.saw, self.expected = broken, saw, expected


@dataclass(frozen=True)
class Report:
    """What a check found. A notebook shows it with a sign and a colour, a terminal as plain text.

    Attributes:
        state: "not attempted", "not right yet" or "right".
        held: the properties that hold, in the order in which they were tried.
        broken: the first property that does not hold; the rest says how that was seen.
        tried: the last calls with their results.
        saw, expected: what was wrong about them, where the results alone do not say it.
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
        """What follows the title: how to begin, or how much holds."""
        if self.state == NOT_ATTEMPTED:
            return "Replace the dots, run that cell, then this one."
        return f"{len(self.held)} properties hold." if self.state == RIGHT else ""

    @property
    def lines(self) -> list[tuple[str, str]]:
        """(label, text) of what an answer that is not right yet did; nothing for the other states."""
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
    """The learner's function under test: called by a check as if it were the function itself."""

    def __init__(self, function: object):
        if is_blank(function):
            raise Unattempted
        if not callable(function):
            raise Broken(
                "the check is given the function itself",
                f"{brief(function)}, which cannot be called",
                "the name of your function, without brackets behind it",
            )
        name = getattr(function, "__name__", "<none>")
        self.function, self.name = function, name if name.isidentifier() else "your function"
        self.called_before = False
        self.held: dict[str, None] = {}  # in order, each once
        self.calls: list[str] = []  # those that the next property is about
        self.used = False  # whether a property has been tried on them

    def __call__(self, *args: object, **keywords: object) -> object:
        """The function's result; raises Unattempted where it is the stub, Broken where it fails or returns nothing."""
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
            self.fail("it returns something", "None: is a `return` missing?")
        self.called_before = True
        self.calls[-1] += f" -> {brief(result)}"
        return result

    def numbers(self, *args: object, shape: tuple[int, ...] | None = None) -> np.ndarray:
        """The function's result as a float array; Broken where it is none, not of ``shape``, or not finite."""
        result = self(*args)
        try:
            array = np.asarray(result.detach() if hasattr(result, "detach") else result, dtype=float)
        except (TypeError, ValueError):
            self.fail("the result is made of numbers", f"a {type(result).__name__}")
        if shape is not None and array.shape != shape:
            self.fail("the result has the right shape", f"shape {array.shape}", f"shape {shape}")
        if not np.isfinite(array).all():
            self.fail("no result is NaN or infinite", brief(array))
        return array

    def refuses(self, *args: object) -> bool:
        """Whether the function raises ValueError on these arguments; any other error breaks a property."""
        self.note(args, {})
        try:
            self.calls[-1] += f" -> {brief(self.function(*args))}"
        except ValueError:
            return True
        except (Exception, SystemExit) as error:
            self.fail("what is impossible is refused with a ValueError", f"{type(error).__name__}: {error}")
        return False

    def note(self, args: tuple, keywords: dict) -> None:
        """Remember a call for the report; the first one after a property begins a new list."""
        if self.used:
            self.calls.clear()
        self.used = False
        shown = [*map(brief, args), *(f"{name}={brief(value)}" for name, value in keywords.items())]
        self.calls.append(f"{self.name}({', '.join(shown)})")

    def must(self, name: str, holds: bool, saw: str = "", expected: str = "") -> None:
        """A property, and whether it holds for the calls just made; Broken where it does not."""
        if not holds:
            self.fail(name, saw, expected)
        self.held[name], self.used = None, True

    def equals(self, name: str, found: object, wanted: object, tolerance: float = 1e-6, what: str = "") -> None:
        """A property that holds where two numbers or arrays agree; ``what`` says what they are, if not the result."""
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
    """Enters an exercise and turns a function, which tries properties on an :class:`Attempt`, into its check."""
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
    """The report on ``function``; raises nothing, whatever the function does."""
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
    """Whether this is a stub's result: None, the dots, or dots inside a tuple, list or dict."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (tuple, list)) else (value,)
    return value is None or any(part is ... for part in parts)


def brief(value: object) -> str:
    """``value`` in few characters: numbers rounded, long lists and texts by their beginning."""
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
    """Whether two numbers or arrays of one shape agree within ``tolerance``."""
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=tolerance, atol=tolerance))


# --- how far the learner is ---


def in_order() -> list[Exercise]:
    """The exercises as the course comes to them."""
    return sorted(BY_ID.values(), key=lambda exercise: exercise.name)


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
    """The exercises with their states, of the whole course or of one ``notebook`` (as "02"); prints a summary.

    Raises:
        ValueError: no notebook of that number has exercises.
    """
    import pandas as pd

    chosen = [exercise for exercise in in_order() if notebook in (None, exercise.notebook)]
    if not chosen:
        numbers = ", ".join(sorted({exercise.notebook for exercise in in_order()}))
        raise ValueError(f"No notebook {notebook!r} has exercises; give one of {numbers}, or nothing for all of them.")
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

"""Check the rows of a data set, convert them to the course's schema, and report repairs.

Unusable rows raise an error instead of being guessed: ``str(None)`` as a ground truth would train on the answer "None".
"""

from __future__ import annotations

import math
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterable
from decimal import Decimal

from ..verifier import last_boxed
from .prompts import ANSWER, QUESTION, RLVR_MATH_EXEMPLARS, build_prompt

PROBLEM = ("problem", "question")
TRUTH = ("ground_truth", "answer")
#: Texts that programs write for a missing value. None of them is a plausible answer.
PLACEHOLDERS = ("nan", "null", "<na>", "nat", "n/a", "#n/a", "[]", "{}", "()", '""', "''")
#: Python's text for a missing value. The lower-case "none" can be an answer.
PYTHON_PLACEHOLDER = "None"
#: Column names that the course uses itself. A data column with such a name becomes ``own_NAME``.
RESERVED = ("id", "template", "params", "answer_form")
#: GSM8K puts the final answer after this mark.
GSM8K_MARK = "####"
SHOWN = 3  # unusable rows listed in an error message
#: A list of texts as written by ``str(list)``, such as ``['4']``.
PYTHON_LIST = re.compile(r"""\[\s*(['"]).*\1\s*\]""", re.S)
_told: set[tuple[str, str]] = set()


class RepairedData(UserWarning):
    """Some rows of a data set were repaired on loading."""


def checked_rows(rows: Iterable[tuple[str, dict | ValueError]], source: str, name: str, repaired: Counter) -> list[dict]:
    """Return the rows in the course's schema. Warns once per data set if rows were repaired.

    Args:
        rows: (location, row or error) pairs, such as ``("Line 7", {...})``.
        source: the prefix of every ``id``.
        name: the data set's name in messages.
        repaired: counts of the repairs made while reading.

    Raises:
        ValueError: there are no rows, or some rows are unusable. The message lists the first ones.
    """
    good, faults = [], []
    for index, (where, row) in enumerate(rows):
        try:
            if isinstance(row, ValueError):
                raise row
            good.append(math_row(row, index, source, repaired))
        except (ValueError, RecursionError) as error:  # RecursionError: very deep nesting
            faults.append(f"{where}: {error}")
    if faults:
        more = f" ... and {len(faults) - SHOWN} more." if len(faults) > SHOWN else ""
        raise ValueError(
            f"{name}: {len(faults)} of {len(faults) + len(good)} rows cannot be used. "
            f"{' '.join(faults[:SHOWN])}{more} Correct these rows or remove them."
        )
    if not good:
        raise ValueError(f"{name} contains no problems. Add rows with `problem` and `ground_truth`.")
    if repaired := +repaired:
        told = ", ".join(f"{what} ({n})" for what, n in repaired.items())
        if (name, told) not in _told:  # a run loads its data many times, so warn only once
            _told.add((name, told))
            warnings.warn(f"{name}: {told}.", RepairedData, stacklevel=3)
    return good


def math_row(row: dict, index: int, source: str, repaired: Counter | None = None) -> dict:
    """Convert a row of RLVR-MATH (``messages, ground_truth``) or MATH (``problem, solution, answer``) to our schema.

    Other columns are kept unchanged and passed to reward functions.

    Args:
        row: the row. Its values may be pandas, numpy or pyarrow types.
        index: the row's number in ``source``. Both form the ``id``.
        repaired: counter of repairs, updated in place.

    Raises:
        ValueError: a field is missing or not a text. The message names the field, its value and the expected value.
    """
    repaired = Counter() if repaired is None else repaired
    if not isinstance(row, dict):
        raise ValueError(f"found {quoted(row)}, expected an object with `problem` and `ground_truth`.")
    row = {name: plain(value) for name, value in row.items()}
    if not missing(row.get("messages")):
        problem, reply = of_messages(row["messages"], repaired)
    else:
        problem, reply = of_fields(row), None
    solution = row.get("solution")
    solution = reply if missing(solution) else usable_text(solution, "solution")
    truth = ground_truth(row, solution, repaired)
    stripped = problem.strip(), truth.strip()
    repaired["surrounding white space was removed"] += stripped != (problem, truth)
    subject = row.get("subject", row.get("type"))
    mine = own_columns(row)
    repaired.update(f"column `{name}` was renamed to `own_{name}`, because the course uses `{name}`" for name in mine)
    row |= {f"own_{name}": value for name, value in mine.items()}
    return {
        **row,
        "id": f"{source}-{index}",
        "problem": stripped[0],
        "solution": solution,
        "ground_truth": stripped[1],
        "subject": None if missing(subject) else usable_text(str(subject), "subject"),
        "level": level_number(row.get("level")),
        "template": None,
        "params": None,
        "answer_form": None,
    }


def own_columns(row: dict) -> dict:
    """Return the values whose columns the course uses itself. Reward functions get them as ``own_NAME``."""
    mine = {name: row[name] for name in RESERVED if not missing(row.get(name))}
    return mine | ({"level": row["level"]} if not missing(row.get("level")) and level_number(row["level"]) is None else {})


def of_fields(row: dict) -> str:
    """Return the problem of a row that has a ``problem`` or ``question`` column."""
    names = [name for name in PROBLEM if name in row]
    if not names:
        columns = ", ".join(sorted(map(str, row))) or "none"
        raise ValueError(f"it has neither `messages` (RLVR-MATH) nor `problem` (MATH). Its columns are {columns}.")
    name = next((name for name in names if not missing(row[name])), names[0])
    problem = usable_text(row[name], name)
    if is_placeholder(problem):
        raise ValueError(f"`{name}` is the text {quoted(problem)}, which marks a missing value, expected a problem.")
    return problem


def of_messages(messages: object, repaired: Counter) -> tuple[str, str | None]:
    """Return (problem, the assistant's reply or None). The problem is the last user message.

    System messages and earlier turns do not fit the course's prompts. They are dropped and counted as repairs.
    """
    if not isinstance(messages, list) or not all(isinstance(m, dict) and "role" in m and "content" in m for m in messages):
        raise ValueError(f"`messages` is {quoted(messages)}, expected a list of {{role, content}}.")
    asked = [place for place, message in enumerate(messages) if message["role"] == "user"]
    if not asked:
        raise ValueError("`messages` has no message of role 'user', expected one with the problem.")
    replies = [m["content"] for m in messages[asked[-1] + 1 :] if m["role"] == "assistant" and not missing(m["content"])]
    if asked[-1]:
        repaired["messages before the last user message were dropped"] += 1
    problem = question_of(usable_text(messages[asked[-1]]["content"], "messages"))
    if not problem:
        raise ValueError("`messages` ends in a user message without a problem.")
    return problem, usable_text(replies[0], "messages") if replies else None


def question_of(message: str) -> str:
    """Return the problem inside an RLVR-MATH message: the text after the few-shot examples.

    RLVR-MATH's four examples are the same in every row and are removed as a fixed prefix, because a problem can contain
    ``Question:`` itself. With other examples the problem starts at the first ``Question:`` after the last answer.
    """
    after = message.removeprefix(build_prompt("", RLVR_MATH_EXEMPLARS, chat=True)[0]["content"])
    if after == message:
        after = message.rpartition(ANSWER)[2].partition(QUESTION)[2] or message
    return after.strip()


def ground_truth(row: dict, solution: str | None, repaired: Counter) -> str:
    """Return the final answer: ``ground_truth``, else ``answer``, else the box (or text after ``####``) of ``solution``."""
    names = [name for name in TRUTH if name in row]
    for name in names:
        if not missing(row[name]):
            return final_answer(row[name], name, repaired)
    answer = last_boxed(solution or "") or gsm8k_answer(solution or "")
    if not answer:
        found = f"`{names[0]}` is {quoted(row[names[0]])}" if names else "it has neither `ground_truth` nor `answer`"
        raise ValueError(f"{found}, expected the final answer as text or number (or a `solution` that boxes it).")
    if names:
        repaired[f"a missing `{names[0]}` was taken from the solution"] += 1
    return checked_answer(answer, "solution")


def final_answer(value: object, name: str, repaired: Counter) -> str:
    """Return the ground truth as text. Converts numbers, and extracts the final answer from a solution."""
    if is_number(value):
        repaired[f"numbers in `{name}` were converted to text"] += 1
        number = Decimal(str(value))
        return format(number.to_integral_value() if number == number.to_integral_value() else number, "f")
    answer = usable_text(value, name, "the final answer as text or number")
    inside = gsm8k_answer(answer) if GSM8K_MARK in answer else last_boxed(answer)
    if inside:
        repaired[f"the final answer was extracted from `{name}`"] += 1
    elif GSM8K_MARK in answer:
        raise ValueError(f"`{name}` is {quoted(answer)}, expected the final answer after {GSM8K_MARK}.")
    return checked_answer(inside or answer, name)


def checked_answer(answer: str, name: str) -> str:
    if is_placeholder(answer):
        raise ValueError(f"`{name}` is the text {quoted(answer)}, which marks a missing value, expected the final answer.")
    if PYTHON_LIST.fullmatch(answer.strip()):
        raise ValueError(f"`{name}` is {quoted(answer)}, a Python list written as text, expected only the final answer.")
    return answer


def is_placeholder(answer: str) -> bool:
    """Return whether a text marks a missing value."""
    return answer.strip() == PYTHON_PLACEHOLDER or answer.strip().lower() in PLACEHOLDERS


def is_number(value: object) -> bool:
    """Return whether a value is a finite number. An integer may be too large for a float."""
    return not isinstance(value, bool) and (
        isinstance(value, int) or isinstance(value, (float, Decimal)) and math.isfinite(value)
    )


def gsm8k_answer(solution: str) -> str:
    """Return the rest of the line after the last ``####``, or an empty text."""
    return solution.rpartition(GSM8K_MARK)[2].strip().partition("\n")[0].strip() if GSM8K_MARK in solution else ""


def level_number(value: object) -> int | None:
    """Return MATH's level from a number or a text like "Level 3", None for anything else."""
    if isinstance(value, str):
        value = "".join(c for c in value if c in "0123456789")[:9] or None
    elif not is_number(value):
        return None
    return None if value is None else int(value)


# --- single values ---


def usable_text(value: object, name: str, expected: str = "a text") -> str:
    """Return ``value`` if it is a text that can be tokenized and encoded.

    Raises:
        ValueError: it is not a text, is blank, or contains an unpaired surrogate.
    """
    if not isinstance(value, str) or missing(value):
        raise ValueError(f"`{name}` is {quoted(value)}, expected {expected}.")
    if any("\ud800" <= c <= "\udfff" for c in value):
        raise ValueError(f"`{name}` is {quoted(value)}: it contains an unpaired surrogate, which is not a character.")
    return value


def missing(value: object) -> bool:
    """Return whether a value is missing: null, NaN, or a text without visible characters."""
    if isinstance(value, str):
        return all(c.isspace() or unicodedata.category(c) in ("Cc", "Cf") for c in value)  # Cf: zero width
    return value is None or isinstance(value, float) and math.isnan(value)


def plain(value: object) -> object:
    """Convert numpy, pyarrow and pandas values to Python types."""
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    for convert in ("as_py", "tolist"):
        if hasattr(value, convert):
            return plain(getattr(value, convert)())
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def quoted(value: object) -> str:
    """Return ``value`` for a message: short, in ASCII, None as null."""
    if value is None:
        return "null"
    written = ascii(value)
    return written if len(written) <= 60 else written[:57] + "..."

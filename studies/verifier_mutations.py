"""Mutations of ground truths, into another form with the same meaning or into a different answer.

Each mutation has the expected verdict and its reason, so that every disagreement between graders can be classified.
``mutate(answer)`` returns None if the mutation does not apply.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

_INTEGER = re.compile(r"-?\d+")
_FRACTION = re.compile(r"(-?)\\d?frac\{(\d+)\}\{(\d+)\}")
_PAIR = re.compile(r"(\(|\[)\s*([^,()\[\]]+),\s*([^,()\[\]]+)(\)|\])")
_LIST = re.compile(r"(?!\d{1,3}(?:,\d{3})+$)-?\d+(?:, ?-?\d+)+")
_RADICAL = re.compile(r"(\d*) ?\\sqrt\{(\d+)\}")
_SUM = re.compile(r"([^+\-(){},=\\]+) ?\+ ?([^+\-(){},=]+)")


class Mutation(NamedTuple):
    """A way to change an answer. ``same`` is the expected verdict and ``why`` its reason."""

    name: str
    same: bool
    why: str
    mutate: Callable[[str], str | None]


def _on(pattern: re.Pattern, change: Callable[[re.Match], str | None]) -> Callable[[str], str | None]:
    def mutate(answer: str) -> str | None:
        match = pattern.fullmatch(answer)
        return change(match) if match else None

    return mutate


def _value(match: re.Match) -> Fraction:
    return Fraction(int(match[1] + match[2]), int(match[3]))


def _terminating(match: re.Match) -> str | None:
    value = _value(match)
    places = next((k for k in range(1, 7) if (value * 10**k).denominator == 1), None)
    return f"{float(value):.{places}f}" if places else None


def _rounded(match: re.Match) -> str | None:
    return None if _terminating(match) else f"{float(_value(match)):.6f}"


def _mixed(match: re.Match) -> str | None:
    whole, rest = divmod(int(match[2]), int(match[3]))
    return rf"{match[1]}{whole}\frac{{{rest}}}{{{match[3]}}}" if whole and rest else None


def _thousands(match: re.Match) -> str | None:
    return f"{int(match[0]):,}" if abs(int(match[0])) > 999 else None


def _last_digit(match: re.Match) -> str:
    return str(int(match[0]) + 1)


def _ends(match: re.Match) -> str | None:
    if "infty" in match[0] or match[1] == "(" and match[4] == ")":
        return None
    return f"({match[2]}, {match[3]})"


def _swapped(match: re.Match) -> str | None:
    same = match[2].strip() == match[3].strip()
    return None if same or "infty" in match[0] or (match[1], match[4]) != ("(", ")") else f"({match[3]}, {match[2]})"


def _into_root(match: re.Match) -> str | None:
    return rf"\sqrt{{{int(match[1]) ** 2 * int(match[2])}}}" if match[1] else None


def _plain(answer: str, prefix: str = "", suffix: str = "") -> str | None:
    return f"{prefix}{answer}{suffix}" if "=" not in answer and "text" not in answer and "in " not in answer else None


MUTATIONS = (
    Mutation(
        "another spelling",
        True,
        "\\dfrac, spaces and \\left change nothing",
        lambda a: (
            a.replace("\\frac", "\\dfrac").replace(",", ", ").replace("(", "\\left(").replace(")", "\\right)")
            if re.search(r"\\frac|,|\(", a) and "\\left" not in a and ",\\!" not in a
            else None
        ),
    ),
    Mutation(
        "name before it",
        True,
        "x = 5 answers like 5",
        lambda a: _plain(a, prefix="x = ") if re.fullmatch(r"[-\d./]+|-?\\frac\{\d+\}\{\d+\}", a) else None,
    ),
    Mutation("decimal that ends", True, "0.25 is exactly a quarter", _on(_FRACTION, _terminating)),
    Mutation("mixed number", True, "3 1/2 is seven halves", _on(_FRACTION, _mixed)),
    Mutation("slash", True, "3/4 is \\frac{3}{4}", _on(_FRACTION, lambda m: f"{m[1]}{m[2]}/{m[3]}")),
    Mutation(
        "not reduced",
        True,
        "6/8 has the value of 3/4",
        _on(_FRACTION, lambda m: rf"{m[1]}\frac{{{2 * int(m[2])}}}{{{2 * int(m[3])}}}"),
    ),
    Mutation("commas of thousands", True, "1,234 is a number", _on(_INTEGER, _thousands)),
    Mutation("unit added", True, "MATH drops units", _on(_INTEGER, lambda m: rf"{m[0]}\text{{ cm}}")),
    Mutation(
        "percent sign added",
        True,
        "MATH drops the sign",
        _on(_INTEGER, lambda m: rf"{m[0]}\%" if m[0] not in ("0",) else None),
    ),
    Mutation("factor inside the root", True, "5\\sqrt{2} is \\sqrt{50}", _on(_RADICAL, _into_root)),
    Mutation("terms exchanged", True, "addition commutes", _on(_SUM, lambda m: f"{m[2].strip()} + {m[1].strip()}")),
    Mutation(
        "list in another order",
        True,
        "several solutions have no order",
        _on(_LIST, lambda m: ", ".join(reversed(m[0].split(",")))),
    ),
    Mutation("list as a set", True, "braces around several solutions", _on(_LIST, lambda m: rf"\{{{m[0]}\}}")),
    Mutation(
        "sign flipped",
        False,
        "minus the answer is another answer",
        lambda a: (
            _plain(a, prefix="-")
            if re.fullmatch(r"[\d.]+|\\frac\{\d+\}\{\d+\}|\d* ?\\sqrt\{\d+\}", a) and a != "0"
            else None
        ),
    ),
    Mutation("last digit", False, "one more is another number", _on(_INTEGER, _last_digit)),
    Mutation("rounded to six places", False, "a rounded decimal is not the value", _on(_FRACTION, _rounded)),
    Mutation(
        "upside down",
        False,
        "the reciprocal is another number",
        _on(_FRACTION, lambda m: rf"{m[1]}\frac{{{m[3]}}}{{{m[2]}}}" if m[2] != m[3] else None),
    ),
    Mutation("root taken off", False, "a number is not its root", _on(_RADICAL, lambda m: f"{m[1]}{m[2]}")),
    Mutation("second guess", False, "a list of guesses is no answer", _on(_INTEGER, lambda m: f"{m[0]}, {int(m[0]) + 1}")),
    Mutation("guess in words", False, "nor is a choice", _on(_INTEGER, lambda m: rf"{m[0]} \text{{ or }} {int(m[0]) + 1}")),
    Mutation(
        "number word",
        False,
        "five thousand is not five",
        _on(_INTEGER, lambda m: rf"{m[0]}\text{{ thousand}}" if m[0] != "0" else None),
    ),
    Mutation("ends opened", False, "an open end is not a closed one", _on(_PAIR, _ends)),
    Mutation("entries exchanged", False, "the order of a point matters", _on(_PAIR, _swapped)),
    Mutation("solution dropped", False, "one solution is missing", _on(_LIST, lambda m: m[0].rpartition(",")[0])),
    Mutation(
        "pi taken off",
        False,
        "a factor of pi is missing",
        lambda a: re.sub(r" ?\\pi", "", a) if re.fullmatch(r"\d+ ?\\pi", a) else None,
    ),
    Mutation(
        "tiny number added",
        False,
        "a difference is a difference",
        lambda a: _plain(a, suffix=" + 10^{-12}") if re.fullmatch(r"\d+|\d+ ?\\pi|\d* ?\\sqrt\{\d+\}", a) else None,
    ),
)


def mutated_pairs(answers: list[str], n: int, seed: int = 0) -> list[tuple[Mutation, str, str]]:
    """Return ``n`` triples (mutation, changed answer, ground truth), spread over the mutations as evenly as possible."""
    rng = random.Random(seed)
    pools = []
    for mutation in MUTATIONS:
        changed = [(mutation, new, answer) for answer in sorted(set(answers)) if (new := mutation.mutate(answer))]
        rng.shuffle(changed)
        pools.append(changed)
    triples: list = []
    while len(triples) < n and any(pools):
        for pool in pools:
            if pool and len(triples) < n:
                triples.append(pool.pop())
    return triples

"""Bounds that keep every verdict cheap, and a counter that enforces them before the work is done."""

from __future__ import annotations

#: Longest answer that we parse, in characters. The longest in MATH's test set has 159.
MAX_CHARACTERS = 1_000
#: Maximum tokens per answer, and maximum nesting.
MAX_TOKENS = 500
MAX_DEPTH = 30
#: Maximum adjacent factors, and maximum signs (``!``, ``%``, ``'``) after one value.
MAX_FACTORS = 60
MAX_SUFFIXES = 4
#: Maximum entries of a list compared in any order, and maximum terms of an expanded sum.
MAX_ITEMS = 24
MAX_SUM = 40
#: Maximum parts of an expression after its functions are expanded (a tangent is a quotient).
MAX_NODES = 2_000
#: Largest integer in bits (2004! has 19,000), and largest n in n!.
MAX_BITS = 60_000
MAX_FACTORIAL = 4_000
#: Maximum terms of a polynomial, and its highest exponent.
MAX_TERMS = 400
MAX_EXPONENT = 5_000
#: Maximum work per verdict. One unit is about two microseconds: one product of two terms, or one node at one point.
MAX_WORK = 11_000


class Unreadable(ValueError):
    """The answer is not in the grammar, or has no value."""


class TooBig(Unreadable):
    """The answer exceeds a bound. The verdict is undecided, never equal or different."""


class OverBudget(TooBig):
    """The work budget of the whole verdict is used up, so no further tier is tried."""


class Budget:
    """Counts the work of one verdict and raises TooBig before it exceeds the bound."""

    __slots__ = ("spent",)

    def __init__(self) -> None:
        self.spent = 0

    def spend(self, units: int) -> None:
        """Count work before doing it."""
        if self.spent + units > MAX_WORK:
            raise OverBudget(f"more than {MAX_WORK} units of work")
        self.spent += units


def check_bits(bits: int) -> None:
    """Raise TooBig if ``bits`` exceeds MAX_BITS."""
    if bits > MAX_BITS:
        raise TooBig(f"a number of more than {MAX_BITS} bits")

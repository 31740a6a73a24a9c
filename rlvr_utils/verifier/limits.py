"""The bounds that keep every verdict cheap, and the counter that enforces them before anything is built."""

from __future__ import annotations

#: Longest answer that is parsed, in characters (the longest of MATH's test set has 159).
MAX_CHARACTERS = 1_000
#: Most tokens of one answer, and deepest nesting.
MAX_TOKENS = 500
MAX_DEPTH = 30
#: Most factors side by side, and most signs (``!``, ``%``, ``'``) after one value.
MAX_FACTORS = 60
MAX_SUFFIXES = 4
#: Most entries of a list that are compared in any order, and most terms that a sum sign is written out to.
MAX_ITEMS = 24
MAX_SUM = 40
#: Most parts of an expression whose functions are written out (a tangent is a quotient).
MAX_NODES = 2_000
#: Largest integer that is ever built, in bits (2004! has 19,000), and largest n in n!.
MAX_BITS = 60_000
MAX_FACTORIAL = 4_000
#: Most terms of a polynomial, and its highest exponent.
MAX_TERMS = 400
MAX_EXPONENT = 5_000
#: Work of one verdict. A unit is about two microseconds: a product of two terms, a node evaluated at one point.
MAX_WORK = 11_000


class Unreadable(ValueError):
    """The answer is not an expression of the grammar, or has no value."""


class TooBig(Unreadable):
    """The answer would cost more than a verdict may. It is undecided, never equal and never different."""


class OverBudget(TooBig):
    """The work of the whole verdict is used up, so no other way of comparing may be tried."""


class Budget:
    """Counts the work of one verdict and raises TooBig before it exceeds the bound."""

    __slots__ = ("spent",)

    def __init__(self) -> None:
        self.spent = 0

    def spend(self, units: int) -> None:
        """Announce work that is about to be done."""
        if self.spent + units > MAX_WORK:
            raise OverBudget(f"more than {MAX_WORK} units of work")
        self.spent += units


def check_bits(bits: int) -> None:
    """Raise TooBig if a number of so many bits would be too large to build."""
    if bits > MAX_BITS:
        raise TooBig(f"a number of more than {MAX_BITS} bits")

"""Enclose values in balls with proven error bounds (FLINT's acb), and compare expressions at points.

Two expressions are proven different if the ball of their difference excludes 0. They agree if, at every point, the ball
contains 0 and is far smaller than their values, and no part is absorbed. A summand or argument is absorbed if it is
nonzero but too small to show at this precision. Then the point is undecided. Precision increases up to a cap.

An analytic function that is 0 near a point is 0 everywhere. A kink breaks this: ``|x - 9|`` is ``9 - x`` at every point
below 9. So an expression with ``|f|`` is compared twice at a point, with ``|f|`` and with ``-|f|``, the continuation of
its other side (``PointComparison._doubt_beyond_kinks``). Steps, and kinks that we cannot detect, are undecided.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import product
from typing import NamedTuple

from flint import acb, arb, ctx, fmpq, fmpz

from .definitions import reduced
from .exact import Algebra, Quotient
from .limits import Budget, TooBig, Unreadable
from .trees import Tree, letters, subtrees

#: Bits of precision. The first can only prove values different, at the others two values can agree.
PRECISIONS = (128, 1024, 4096)
#: Ranges of the exponent of ten from which values of letters are drawn. Large values often lose digits.
SIZES = ((-0.6, 1.4),) * 3 + ((-2.0, 0.0),) * 3 + ((2.0, 4.0), (4.0, 12.0))
#: Points that must agree, points at which the other sides of kinks are compared, and the largest number of kinks.
ENOUGH_POINTS = 3
KINK_POINTS = 2
MAX_KINKS = 5
#: A summand, or a distance to a limit, below 2^-(precision / ORDER) is absorbed. If the first terms of a series cancel, the
#: rest (u^2 of ``\cosh u - 1``, u^7 of ``\sin\tan u - \tan\sin u``) still shows if its order is below this.
ORDER = 16
#: Numbers with more bits than the precision minus SLACK are absorbed.
SLACK = 48
_COST = {128: 1, 1024: 3, 4096: 12}
_FUNCTION_COST = {128: 4, 1024: 12, 4096: 80}
_GAMMA_COST = {128: 10, 1024: 80, 4096: 1500}
#: python-flint keeps one precision for the whole process, so one verdict evaluates at a time.
_LOCK = threading.Lock()
_I = ("const", "i")


class NoValue(Exception):
    """The expression has no (real) value at this point."""


class Unresolved(Exception):
    """The comparison is inconclusive at this precision."""


@contextmanager
def _precision(bits: int) -> Iterator[None]:
    with _LOCK:
        before, ctx.prec = ctx.prec, bits
        try:
            yield
        finally:
            ctx.prec = before


class Enclosure:
    """Computes the ball of a reduced tree at a point. ``absorbed`` is set if any part was too small to show.

    ``turns`` selects the other side of kinks: it maps a node to the number of half circles by which its argument turns.
    """

    def __init__(self, precision: int, point: dict, is_complex: bool, budget: Budget, turns: dict[Tree, int]) -> None:
        self.precision, self.point, self.budget = precision, point, budget
        self.is_complex, self.turns = is_complex, turns
        self.absorbed = False

    def ball(self, tree: Tree) -> acb:
        """Return an acb that contains the value. Raises NoValue, Unresolved or TooBig."""
        self.budget.spend(_COST[self.precision])
        kind = tree[0]
        if kind == "num":
            return self._number(tree[1])
        if kind == "sym":
            return self._number(self.point[tree[1]])
        if kind == "const":
            return self._constant(tree[1])
        if kind == "add":
            return self._sum([self.ball(term) for term in tree[1]])
        if kind == "mul":
            return self.ball(tree[1]) * self.ball(tree[2])
        if kind == "div":
            return self._over(self.ball(tree[1]), self.ball(tree[2]))
        if kind == "pow":
            return self._finite(self._power(tree))
        if kind == "fn":
            return self._finite(self._function(tree))
        raise Unreadable(f"a {kind} has no number as its value")

    def _number(self, value: int | Fraction) -> acb:
        ball = arb(fmpq(value.numerator, value.denominator))
        if not ball.is_exact() and value.numerator.bit_length() + value.denominator.bit_length() > self.precision - SLACK:
            self.absorbed = True
        return acb(ball)

    def _constant(self, name: str) -> acb:
        if name == "infty":
            raise Unreadable("infinity cannot be used in arithmetic")
        if name == "i" and not self.is_complex:
            raise NoValue
        return acb(0, 1) if name == "i" else acb(arb.pi() if name == "pi" else arb.const_e())

    def _finite(self, ball: acb) -> acb:
        if not ball.is_finite():
            raise Unresolved
        return ball

    def _note_absorbed(self, ball: acb, threshold: arb) -> None:
        """Set ``absorbed`` if a nonzero part is too small to show in the sum."""
        if ball.abs_upper() < threshold and not ball.contains(0):
            self.absorbed = True

    def _tiny(self) -> arb:
        return _power_of_two(-self.precision // ORDER)

    def _check_size(self, ball: acb, bits: int) -> None:
        if not ball.abs_upper() < _power_of_two(bits):
            raise Unresolved

    def _sum(self, balls: list[acb]) -> acb:
        threshold = max(ball.abs_upper() for ball in balls) * self._tiny()
        for ball in balls:
            self._note_absorbed(ball, threshold)
        return sum(balls[1:], balls[0])

    def _over(self, above: acb, below: acb) -> acb:
        if below == 0:
            raise Unreadable("a division by zero")
        return self._finite(above / below)

    def _power(self, tree: Tree) -> acb:
        base, (kind, exponent, *_) = self.ball(tree[1]), tree[2]
        if kind != "num":
            return self._exp(self._logarithm(base, tree) * self.ball(tree[2]))
        if exponent.denominator != 1:
            return self._root(base, exponent.denominator, tree) ** fmpz(exponent.numerator)
        if exponent.bit_length() > 60:
            raise TooBig("an exponent of more than 60 bits")
        if exponent <= 0 and base.contains(0):
            raise Unreadable("a division by zero") if base == 0 and exponent < 0 else Unresolved
        return base ** fmpz(exponent)

    def _root(self, ball: acb, index: int, tree: Tree) -> acb:
        """Return the real root if it exists, else the principal root."""
        if index > 10**6:
            raise TooBig("a root of a degree over a million")
        if ball == 0:
            return ball
        if ball.contains(0):
            raise Unresolved
        is_odd, turn = index % 2, self._turn(tree, index % 2 == 0)
        real = ball.real if ball.imag == 0 else None
        if real is None or real < 0 and not is_odd:
            self._leave_the_reals()
            return ball.sqrt() if index == 2 else self._exp(ball.log() / index)
        root = acb(abs(real).root(index)) if index <= 64 else self._exp(acb(abs(real).log()) / index)
        if turn:  # turning the argument by n half circles turns its root by n / index
            root *= (acb(turn) / index).exp_pi_i()
        return -root if is_odd and (turn % 2 == 1) != (real < 0) else root  # real roots of negative numbers are negative

    def _turn(self, tree: Tree, is_bounded: bool) -> int:
        """Return the turns of a node's argument. Raises NoValue for a log or even root of a negative number."""
        turn = self.turns.get(tree, 0) if self.turns else 0
        if is_bounded and turn % 2:
            raise NoValue
        return turn

    def _leave_the_reals(self) -> None:
        """Raise unless complex values are allowed. Beyond a kink the branch is unknown, so the point is unresolved."""
        if not self.is_complex:
            raise Unresolved if self.turns else NoValue

    def _logarithm(self, ball: acb, tree: Tree) -> acb:
        turn = self._turn(tree, True)
        if ball == 0:
            raise NoValue
        if ball.contains(0):
            raise Unresolved
        if ball.imag != 0 or ball.real < 0:
            self._leave_the_reals()
        return self._finite(ball.log()) + (acb(0, arb.pi() * turn) if turn else 0)

    def _exp(self, ball: acb) -> acb:
        self._check_size(ball, 60)
        self._note_absorbed(ball, self._tiny())
        return self._finite(ball.exp())

    def _function(self, tree: Tree) -> acb:
        name, (ball, *more) = tree[1], [self.ball(argument) for argument in tree[2]]
        self.budget.spend((_GAMMA_COST if name in ("factorial", "binom") else _FUNCTION_COST)[self.precision])
        if name == "binom" and len(more) == 1:
            return self._over(self._factorial(ball), self._factorial(more[0]) * self._factorial(ball - more[0]))
        if more:
            raise Unreadable(f"{name} with {len(tree[2])} arguments")
        if name == "ln":
            return self._logarithm(ball, tree)
        if name == "factorial":
            return self._factorial(ball)
        if name == "abs":
            return acb(abs(ball))  # only around imaginary numbers, otherwise a root of a square
        if name == "floor":
            return self._floor(ball)
        if name not in ("sin", "cos", "arcsin", "arctan"):
            raise Unreadable(f"{name} has no value")
        self._check_size(ball, self.precision // 2)
        self._note_absorbed(ball, self._tiny())
        if name == "arctan" and ball.abs_upper() > _power_of_two(self.precision // ORDER):
            self.absorbed = True
        if name == "arcsin" and (ball.imag != 0 or abs(ball.real) > 1):
            self._leave_the_reals()
        return {"sin": acb.sin, "cos": acb.cos, "arcsin": acb.asin, "arctan": acb.atan}[name](ball)

    def _factorial(self, ball: acb) -> acb:
        self._check_size(ball, 12)
        self._note_absorbed(ball, self._tiny())
        return self._finite((ball + 1).gamma())

    def _floor(self, ball: acb) -> acb:
        if ball.imag != 0:
            raise NoValue
        whole = ball.real.floor().unique_fmpz()
        if whole is None:
            raise Unresolved
        return acb(whole)


_POWERS: dict[int, arb] = {}


def _power_of_two(exponent: int) -> arb:
    found = _POWERS.get(exponent)
    if found is None:
        found = _POWERS[exponent] = arb(2) ** exponent  # exact at any precision
    return found


# -- comparison --------------------------------------------------------------------------------------------------


class Kink(NamedTuple):
    """A factor whose sign matters, with its multiplicity in each node. A ``mild`` kink occurs only in logarithms."""

    counts: dict[Tree, int]
    mild: bool


class PointComparison:
    """Compares two reduced expressions at pseudorandom points that are derived from both expressions."""

    def __init__(self, a: Tree, b: Tree, algebra: Algebra) -> None:
        self.a, self.b, self.algebra, self.budget = a, b, algebra, algebra.budget
        self.names = sorted(letters(a) | letters(b))
        self.is_complex = any(_I in subtrees(tree) for tree in (a, b))
        digest = hashlib.blake2b("|".join(sorted((repr(a), repr(b)))).encode("utf-8", "replace"), digest_size=64).digest()
        self.random = _draws(digest)

    def agree(self) -> tuple[bool | None, str]:
        """Return (result, reason): True if they agree at enough points, False if proven different, None if undecided."""
        if not self.names:
            verdict = self._at({}, PRECISIONS)
            if verdict in ("nothing", "one") and not self.is_complex:
                self.is_complex = True
                verdict = self._at({}, PRECISIONS)
            why = "no value here" if verdict in ("nothing", "one") else "all significant digits are lost"
            return {"agree": True, "different": False}.get(verdict), why
        agreed = []
        for k, (low, high) in enumerate(SIZES):
            for sign in (1, -1):
                point = self._draw(sign, low, high, is_mixed=k % 2 == 1)
                verdict = self._at(point, PRECISIONS if high < 2 else PRECISIONS[:2])
                if verdict == "different":
                    return False, ""
                if verdict == "agree":
                    agreed.append(point)
        if len(agreed) < ENOUGH_POINTS:
            return None, "too few points where both are real and precise enough"
        doubt = self._doubt_beyond_kinks(agreed)
        return (None, doubt) if doubt else (True, f"{len(agreed)} points")

    def has_value(self) -> bool:
        """Return whether both expressions have a value, real or complex, at some point."""
        for is_complex in (self.is_complex, True):
            for sign in (1, -1):
                point = self._draw(sign)
                try:
                    for tree in (self.a, self.b):
                        self._enclose(tree, point, PRECISIONS[1], is_complex)
                    return True
                except (NoValue, Unresolved):
                    continue
        return False

    def _enclose(self, tree: Tree, point: dict, precision: int, is_complex: bool, turns: dict | None = None):
        """Return ``(ball, absorbed)`` of a tree at a point."""
        with _precision(precision):
            enclosure = Enclosure(precision, point, is_complex, self.budget, turns or {})
            return enclosure._finite(enclosure.ball(tree)), enclosure.absorbed

    def _at(self, point: dict, precisions: tuple[int, ...], turns: dict | None = None) -> str:
        """Compare at one point.

        Returns ``different``, ``agree``, ``same`` (at low precision) or ``lost`` (digits). If values do not exist here,
        returns ``one`` or ``nothing``, for one or both expressions without a value.
        """
        verdict = "lost"
        for precision in precisions:
            balls, missing = [], 0
            for tree in (self.a, self.b):
                try:
                    balls.append(self._enclose(tree, point, precision, self.is_complex, turns))
                except NoValue:
                    missing += 1
                except Unresolved:
                    continue
            if missing:
                return "nothing" if missing == 2 else "one"
            if len(balls) == 2:
                verdict = self._compare(*balls, precision)
            if verdict in ("different", "agree"):
                return verdict
        return verdict

    def _compare(self, a: tuple, b: tuple, precision: int) -> str:
        (a, a_absorbed), (b, b_absorbed) = a, b
        with _precision(precision):
            difference = a - b
            if not difference.contains(0):
                return "different"
            if precision == PRECISIONS[0]:
                return "same"
            # Relative to the values, or absolute if both may be 0.
            scale = arb(1) if a.contains(0) and b.contains(0) else max(a.abs_lower(), b.abs_lower())
            small = difference.abs_upper() < scale * _power_of_two(-precision // 2)
            return "agree" if small and not (a_absorbed or b_absorbed) else "lost"

    def _draw(self, sign: int, low: float = SIZES[0][0], high: float = SIZES[0][1], is_mixed: bool = True) -> dict:
        """Return one random value per letter of size 10^low to 10^high, all with the same sign unless ``is_mixed``."""
        values = {}
        for name in self.names:
            size = 10 ** (low + (high - low) * next(self.random))
            turn = 1 if next(self.random) < 0.75 or len(self.names) == 1 or not is_mixed else -1
            fine = Fraction(int(next(self.random) * 2**40), 2**60)
            values[name] = sign * turn * (Fraction(int(size * 2**20), 2**20) + fine)
        return values

    # -- kinks ----------------------------------------------------------------------------------------------

    def _doubt_beyond_kinks(self, points: list[dict]) -> str:
        """Return why agreement at ``points`` does not extend beyond kinks, or an empty text if it does.

        For each sign of a factor f, an expression is one analytic function, and all of them can be continued to the same
        point: a root or logarithm of ``f^n`` is turned there by n half circles. So the two must agree at the points for
        every choice of signs. If only one of them is real for a choice, their domains differ.
        """
        try:
            kinks = self._kinks()
        except Unreadable as error:
            return str(error)
        if len(kinks) > MAX_KINKS:
            return f"more than {MAX_KINKS} kinks"
        for choice in list(product((False, True), repeat=len(kinks)))[1:]:
            turned = [kink for kink, is_turned in zip(kinks, choice, strict=True) if is_turned]
            turns: Counter[Tree] = Counter()
            for kink in turned:
                turns.update(kink.counts)
            wanted = KINK_POINTS
            for point in points:
                verdict = self._at(point, PRECISIONS, turns)
                if verdict == "different" or verdict == "one" and not all(kink.mild for kink in turned):
                    return "beyond a kink the values differ or do not exist"
                wanted -= verdict in ("agree", "nothing", "one")
                if not wanted:
                    break
            if wanted == KINK_POINTS:
                return "digits are lost beyond a kink"
        return ""

    def _kinks(self) -> list[Kink]:
        """Return the factors with an even power inside a root or logarithm. Raises Unreadable if kinks may be missed."""
        counts: dict[str, dict[Tree, int]] = {}
        weights: dict[str, int] = {}  # 1: in logarithms only, 2: in a root
        insides: list[Tree] = []
        beside: list[set[str]] = []
        for tree in dict.fromkeys(subtrees(self.a) + subtrees(self.b)):
            is_whole_power = tree[0] == "pow" and tree[2][0] == "num" and isinstance(tree[2][1], int)
            if tree[0] not in ("pow", "fn") or is_whole_power or not letters(tree):
                continue
            inside = tree[1] if tree[0] == "pow" else tree[2][0]
            if tree[1] in ("arcsin", "arctan"):
                self._check_inverse(tree[1], inside)
            elif tree[0] == "fn" and tree[1] not in ("ln", "sin", "cos", "factorial", "binom"):
                raise Unreadable(f"kinks of {tree[1]} cannot be found")
            elif (tree[1] == "ln" or tree[0] == "pow") and letters(inside):
                if self.is_complex:
                    raise Unreadable("kinks of a root or logarithm of imaginary numbers cannot be found")
                insides.append(inside)
                beside.append(set())
                # An odd root of an even power, x^{2/3}, is even too, like (x^2)^{1/3}.
                is_odd_root = tree[0] == "pow" and tree[2][0] == "num" and tree[2][1].denominator % 2
                power = tree[2][1].numerator if is_odd_root else 1
                for factor, count in self._factors(self.algebra.value(inside)):
                    key = str(factor)
                    counts.setdefault(key, {})[tree] = count
                    if count * power % 2 == 0:
                        weights[key] = max(weights.get(key, 0), 1 if tree[1] == "ln" else 2)
                    elif self._shows_its_zeros(factor):
                        beside[-1].add(key)
                    else:
                        raise Unreadable("zeros of even order inside a root or logarithm cannot be found")
        for keys in beside * len(beside):  # the sign of a product is unchanged if a second factor turns with a kink
            if keys & weights.keys():
                weights |= {key: 1 for key in keys - weights.keys()}
        turned = {tree for key in weights for tree in counts[key]}
        if any(part in turned for inside in insides for part in subtrees(inside)):
            raise Unreadable("a kink inside a root or logarithm is not supported")
        return [Kink(counts[key], weight == 1) for key, weight in weights.items()]

    def _shows_its_zeros(self, factor) -> bool:
        """Return whether an irreducible factor has no zero of even order, unlike ``1 - \\cos x``."""
        varying = [atom for atom in self._used(factor) if letters(atom)]
        return (
            all(atom[0] == "sym" for atom in varying)
            or len(varying) == 1
            and (len(factor) == 1 or self._is_monotone(varying[0]))
        )

    def _is_monotone(self, atom: Tree) -> bool:
        """Return whether a function of one linear expression is monotone, such as ``e^{2x}`` or ``\\ln(x + 1)``."""
        inside = [part for part in (atom[1:] if atom[0] == "pow" else atom[2]) if letters(part)]
        value = self.algebra.value(inside[0])
        is_linear = (
            value.below.is_constant()
            and value.above.total_degree() == 1
            and all(part[0] == "sym" for part in self._used(value.above) if letters(part))
        )
        return (atom[0] == "pow" or atom[1] == "ln") and len(inside) == 1 and is_linear

    def _check_inverse(self, name: str, inside: Tree) -> None:
        """Raise Unreadable if an argument may have poles (arctan) or may touch 1 or -1 without crossing (arcsin)."""
        value = self.algebra.value(inside)
        if name == "arctan":
            if isinstance(value, Quotient) and not (
                value.below.is_constant()
                and all(atom[0] == "sym" or atom[:2] in (("fn", "sin"), ("fn", "cos")) for atom in self._used(value.above))
            ):
                raise Unreadable("poles inside an arctangent cannot be found")
        else:
            for end in (1, -1):
                for factor, count in self._factors(self.algebra.plus(value, fmpq(end))):
                    if count % 2 == 0 or any(atom[0] != "sym" for atom in self._used(factor)):
                        raise Unreadable("kinks of an arcsine cannot be found")

    def _used(self, polynomial) -> list[Tree]:
        return [self.algebra.atoms[k] for k, degree in enumerate(polynomial.degrees()) if degree]

    def _factors(self, value) -> Iterator[tuple]:
        """Yield irreducible factors with letters that may change sign, with their powers (negative: denominator)."""
        if isinstance(value, Quotient):
            for polynomial, sign in ((value.above, 1), (value.below, -1)):
                self.budget.spend(20 * len(polynomial) * (1 + value.bits // 100))
                for factor, count in polynomial.factor()[1]:
                    if any(map(letters, self._used(factor))) and not self._is_definite(factor):
                        yield factor, sign * count

    def _is_definite(self, polynomial) -> bool:
        """Return whether a polynomial has a constant sign by its form, such as ``1 + e^x`` or ``x^2 + y^2``."""
        terms = polynomial.to_dict()
        if len({coefficient > 0 for coefficient in terms.values()}) > 1:
            return False
        return all(
            power % 2 == 0 or _is_positive(self.algebra.atoms[k])
            for powers in terms
            for k, power in enumerate(powers)
            if power
        )


def _is_positive(tree: Tree) -> bool:
    """Return whether an atom is positive: e, pi, and powers of these and of positive numbers."""
    if tree[0] == "pow":
        return _I not in subtrees(tree) and (_is_positive(tree[1]) or tree[1][0] == "num" and tree[1][1] > 0)
    return tree in (("const", "e"), ("const", "pi"))


def _draws(digest: bytes) -> Iterator[float]:
    """Yield pseudorandom numbers in [0, 1) derived from a digest."""
    while True:
        for start in range(0, len(digest), 8):
            yield int.from_bytes(digest[start : start + 8], "big") / 2**64
        digest = hashlib.blake2b(digest, digest_size=64).digest()


def sign_of(tree: Tree, budget: Budget) -> int | None:
    """Return the proven sign of a constant expression, None if it is unknown."""
    try:
        comparison = PointComparison(reduced(tree), ("num", 0), Algebra(budget))
        for precision in PRECISIONS[:2]:
            ball, absorbed = comparison._enclose(comparison.a, {}, precision, False)
            if not ball.contains(0) and not absorbed:
                return 1 if ball.real > 0 else -1
    except (NoValue, Unresolved, Unreadable, KeyError):
        return None
    return None

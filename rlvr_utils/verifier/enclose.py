"""Enclosing values in balls of proven radius (FLINT's arb and acb), and comparing expressions at points.

Two expressions are proven different where the ball of their difference excludes 0. They agree where it contains 0
and is far smaller than they are, at every point, with nothing absorbed: a summand or argument that is not zero but
too small to be seen at this precision makes the point undecided. Precision rises up to a cap.

Functions in between two kinks (zeros of ``|.|``, ``\\sqrt``, ``\\max``) are analytic, so a random point in each
interval tells them apart. Where the kinks cannot be found, or are too many, agreement is not claimed.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

from flint import acb, arb, ctx, fmpq, fmpq_poly, fmpz

from .exact import Algebra, Quotient
from .limits import Budget, TooBig, Unreadable
from .parser import Tree

#: Bits of precision: the first can only tell apart, at the others two values can agree.
PRECISIONS = (128, 1024, 4096)
#: How many points must agree, and how many are tried before those around kinks.
ENOUGH_POINTS = 3
BASE_POINTS = 8
#: How often an interval that holds a zero is halved.
MAX_HALVINGS = 60
#: A summand, or a difference to a limit, below 2^-(precision - SLACK) is absorbed.
SLACK = 48
_COST = {128: 1, 1024: 3, 4096: 12}
_FUNCTION_COST = {128: 4, 1024: 12, 4096: 80}
_GAMMA_COST = {128: 10, 1024: 80, 4096: 1500}
#: python-flint keeps one precision for the whole process, so one verdict evaluates at a time.
_LOCK = threading.Lock()

_METHODS = {"arcsin": "asin", "arccos": "acos", "arctan": "atan", "arcsinh": "asinh", "arccosh": "acosh",
            "arctanh": "atanh", "ln": "log", "lg": "log"}
_SIMPLE = frozenset("sin cos tan cot sec csc sinh cosh tanh coth sech csch ln exp".split()) | set(_METHODS)
_FLAT = frozenset(("tanh", "coth", "sech", "csch"))
_STEPS = frozenset(("floor", "ceil", "mod", "gcd", "lcm", "sgn"))
_ENDING = frozenset(("arcsin", "arccos", "arcsec", "arccsc", "arccosh", "arctanh"))  # at 1, and most of them at -1
_MONOTONE = frozenset("root ln lg log exp arctan sinh tanh arcsin arccos arcsinh arctanh".split())
_LIMITED = _ENDING | {"root", "ln", "log", "lg", "factorial", "binom"}
# How much is lost if a zero of odd, and of even order is overlooked: 0 a domain, 1 the sides of a logarithm, 2 a kink.
_KINK, _ROOT, _LOGARITHM, _SIDES, _POLES = (2, 2), (0, 2), (0, 1), (1, 1), (0, 0)


class NoValue(Exception):
    """There is no (real) value here."""


class Unresolved(Exception):
    """At this precision nothing can be said."""


class Point(NamedTuple):
    """Where expressions are compared. At an ``optional`` point they need not be resolved."""

    values: dict[str, Fraction]
    optional: bool = False


class Enclosure:
    """The ball of a tree at a point. ``absorbed`` tells whether anything was too small to be seen."""

    def __init__(self, precision: int, point: dict, is_complex: bool, budget: Budget) -> None:
        self.precision, self.point, self.budget = precision, point, budget
        self.is_complex = is_complex
        self.field = acb if is_complex else arb
        self.absorbed = False

    def ball(self, tree: Tree):
        """An arb (or acb) that contains the value. Raises NoValue, Unresolved or TooBig."""
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
        if kind == "neg":
            return -self.ball(tree[1])
        if kind == "mul":
            return self.ball(tree[1]) * self.ball(tree[2])
        if kind == "div":
            return self._over(self.ball(tree[1]), self.ball(tree[2]))
        if kind == "pow":
            return self._power(tree)
        if kind == "deg":
            return self.ball(tree[1]) * arb.pi() / 180
        if kind == "pct":
            return self.ball(tree[1]) / 100
        if kind == "fn":
            return self._finite(self._function(tree))
        raise Unreadable(f"a {kind} has no number as its value")

    def _number(self, value: int | Fraction):
        ball = arb(fmpq(value.numerator, value.denominator))
        if not ball.is_exact() and value.numerator.bit_length() + value.denominator.bit_length() > self.precision - SLACK:
            self.absorbed = True
        return self.field(ball)

    def _constant(self, name: str):
        if name == "i":
            if not self.is_complex:
                raise NoValue
            return acb(0, 1)
        if name == "infty":
            raise Unreadable("infinity is no value to compute with")
        return self.field(arb.pi() if name == "pi" else arb.const_e())

    def _finite(self, ball):
        if not ball.is_finite():
            raise Unresolved
        return ball

    def _size(self, ball) -> arb:
        """An upper bound of the magnitude, exactly 0 only for 0."""
        return ball.abs_upper()

    def _sum(self, balls: list):
        largest = max(map(self._size, balls))
        threshold = largest * _power_of_two(SLACK - self.precision)
        for ball in balls:
            if self._size(ball) < threshold and not ball.contains(0):
                self.absorbed = True
        return sum(balls[1:], balls[0])

    def _over(self, above, below):
        if below == 0:
            raise Unreadable("a division by zero")
        return self._finite(above / below)

    def _power(self, tree: Tree):
        base, (kind, exponent, *_) = self.ball(tree[1]), tree[2]
        if kind == "neg" and exponent[0] == "num":
            kind, exponent = "num", -exponent[1]
        elif kind == "div" and exponent[0] == tree[2][2][0] == "num" and tree[2][2][1]:
            kind, exponent = "num", Fraction(exponent[1]) / tree[2][2][1]
        if kind != "num":
            return self._general_power(base, self.ball(tree[2]))
        if exponent.denominator == 1:
            if int(exponent).bit_length() > 60:
                raise TooBig("an exponent of more than 60 bits")
            if exponent < 0 and base.contains(0):
                raise Unresolved if base != 0 else Unreadable("a division by zero")
            if exponent == 0 and base.contains(0):
                raise Unresolved
            return self._finite(base ** fmpz(int(exponent)))
        return self._finite(self._root(base, exponent.denominator) ** fmpz(exponent.numerator))

    def _general_power(self, base, exponent):
        """``exp(exponent * log(base))``, for a positive base (any base but 0 where values are complex)."""
        if not self.is_complex and not base > 0:
            raise NoValue if base < 0 else Unresolved
        logarithm = self._finite(base.log())
        return self._exp(logarithm * exponent)

    def _exp(self, ball):
        self._check_argument(ball, 60)
        if self._size(ball) < _power_of_two(SLACK - self.precision) and not ball.contains(0):
            self.absorbed = True
        return self._finite(ball.exp())

    def _check_argument(self, ball, bits: int) -> None:
        if not self._size(ball) < _power_of_two(bits):
            raise Unresolved

    def _root(self, ball, index: int):
        """The real root where there is one, else the principal one."""
        if index > 10**6:
            raise TooBig("a root of a degree over a million")
        if self.is_complex and ball.imag == 0 and (ball.real > 0 or index % 2 and ball.real < 0):
            real, self.is_complex = ball.real, False
            try:
                return acb(self._root(real, index))
            finally:
                self.is_complex = True
        if ball == 0:
            return ball
        if ball.contains(0):
            raise Unresolved
        if not self.is_complex and ball < 0:
            if index % 2 == 0:
                raise NoValue
            return -self._root(-ball, index)
        if index > 64 or self.is_complex and index > 2:
            return self._exp(ball.log() / index)
        return ball.sqrt() if index == 2 else ball.root(index)

    def _function(self, tree: Tree):
        name = tree[1]
        balls = [self.ball(argument) for argument in tree[2]]
        gamma = name in ("factorial", "binom")
        self.budget.spend((_GAMMA_COST if gamma else _FUNCTION_COST)[self.precision])
        if name == "root" and len(tree[2]) == 2:
            index = tree[2][1]
            if index[0] == "num" and isinstance(index[1], int) and index[1] > 1:
                return self._root(balls[0], index[1])
            return self._general_power(balls[0], self._over(self.field(1), balls[1]))
        if name in ("log", "lg") or name == "ln" and len(balls) == 2:
            return self._over(self._logarithm(balls[0]), self._logarithm(balls[1] if len(balls) == 2 else self.field(10)))
        if name in ("min", "max") and not self.is_complex:
            found = balls[0]
            for ball in balls[1:]:
                found = found.max(ball) if name == "max" else found.min(ball)
            return found
        if name == "mod" and len(balls) == 2:
            return balls[0] - balls[1] * self._step(self._over(*balls), "floor")
        if name == "binom" and len(balls) == 2:
            n, k = balls
            return self._over(self._factorial(n), self._factorial(k) * self._factorial(n - k))
        if len(balls) != 1:
            raise Unreadable(f"{name} with {len(balls)} arguments")
        return self._of_one(name, balls[0])

    def _of_one(self, name: str, ball):
        if name == "abs":
            return self.field(abs(ball))
        if name in ("floor", "ceil"):
            return self._step(ball, name)
        if name == "factorial":
            return self._factorial(ball)
        if name == "ln":
            return self._logarithm(ball)
        if name == "exp":
            return self._exp(ball)
        if name in ("arccot", "arcsec", "arccsc"):
            self._check_absorbed("arctan" if name == "arccot" else "arccos", ball)
            inverse = self._over(self.field(1), ball)
            if name == "arccot":
                return self.field(arb.pi() / 2) - ball.atan()
            return self._of_one("arccos" if name == "arcsec" else "arcsin", inverse)
        if name not in _SIMPLE:
            raise Unreadable(f"{name} has no value")
        self._check_argument(ball, 60 if name.endswith("h") else self.precision // 2)
        self._check_absorbed(name, ball)
        if not self.is_complex and name in _ENDING and (ball < 1 if name == "arccosh" else abs(ball) > 1):
            raise NoValue
        return getattr(ball, _METHODS.get(name, name))()

    def _check_absorbed(self, name: str, ball) -> None:
        """Note where a function is so flat that its argument no longer shows in its value."""
        size = self._size(ball)
        tiny = _power_of_two(SLACK - self.precision if name in ("exp", "arccos") else (SLACK - self.precision) // 2)
        # An even function moves off its value at 0 by u^2, an odd one off its tangent: sin u / u is 1 - u^2/6.
        if size < tiny and not ball.contains(0):
            self.absorbed = True
        if name == "arctan" and size > _power_of_two(self.precision // 2) or name in _FLAT and size > self.precision // 5:
            self.absorbed = True

    def _logarithm(self, ball):
        if not self.is_complex and not ball > 0:
            raise NoValue if ball <= 0 else Unresolved
        if ball == 0:
            raise NoValue
        return self._finite(ball.log())

    def _factorial(self, ball):
        self._check_argument(ball, 12)
        if self._size(ball) < _power_of_two(SLACK - self.precision) and not ball.contains(0):
            self.absorbed = True
        if self.is_complex:
            return (ball + 1).gamma()
        return self._finite((ball + 1).gamma())

    def _step(self, ball, name: str):
        if self.is_complex:
            if ball.imag != 0:
                raise NoValue
            ball = ball.real
        whole = (ball.floor() if name == "floor" else ball.ceil()).unique_fmpz()
        if whole is None:
            raise Unresolved
        return self.field(arb(whole))


_POWERS: dict[int, arb] = {}


def _power_of_two(exponent: int) -> arb:
    found = _POWERS.get(exponent)
    if found is None:
        found = _POWERS[exponent] = arb(2) ** exponent  # exact at any precision
    return found


# -- comparing ----------------------------------------------------------------------------------------------------


def letters(tree: Tree) -> set[str]:
    """The letters of an expression."""
    if tree[0] == "sym":
        return {tree[1]}
    return set().union(*(letters(part) for part in tree if isinstance(part, tuple) and part)) if tree else set()


def _holds(tree: Tree, part: Tree) -> bool:
    return tree == part or any(_holds(child, part) for child in tree if isinstance(child, tuple) and child)


class PointComparison:
    """Comparing two expressions at points that follow from both of them (deterministic, but different per pair)."""

    def __init__(self, a: Tree, b: Tree, algebra: Algebra) -> None:
        self.a, self.b, self.algebra, self.budget = a, b, algebra, algebra.budget
        self.names = sorted(letters(a) | letters(b))
        self.is_kinked = self.is_pointed = True
        imaginary = ("const", "i")
        self.is_complex = _holds(a, imaginary) or _holds(b, imaginary)
        digest = hashlib.blake2b("|".join(sorted((repr(a), repr(b)))).encode("utf-8", "replace"), digest_size=64).digest()
        self.random = _draws(digest)

    def differ_somewhere(self) -> bool | None:
        """At low precision, at two points: True where proven different, None where nothing was seen, else False."""
        seen = None
        for sign in (1, -1):
            verdict = self._at(Point(self._draw(sign)), PRECISIONS[:1])
            if verdict == "different":
                return True
            seen = False if verdict == "same" else seen
        return seen

    def agree(self) -> tuple[bool | None, str]:
        """True where they agree at enough points, False where proven different, None where undecided; and why."""
        if not self.names:
            verdict = self._at(Point({}), PRECISIONS)
            if verdict == "nothing" and not self.is_complex:
                self.is_complex = True
                verdict = self._at(Point({}), PRECISIONS)
            why = "no value here" if verdict == "nothing" else "all digits are lost"
            return {"agree": True, "different": False}.get(verdict), why
        agreed, doubt, shrunk = 0, "", False
        one_is_everywhere = _limits_domain(self.a) != _limits_domain(self.b)
        for point in self._points():
            if isinstance(point, str):
                doubt = point
                continue
            verdict = self._at(point, PRECISIONS)
            if verdict == "different":
                return False, ""
            agreed += verdict == "agree"
            if verdict in ("lost", "same") and not point.optional:
                doubt = "digits are lost at a point"
            if verdict == "nothing" and not shrunk and self._is_valued(self.a, point) != self._is_valued(self.b, point):
                # Analytic functions that agree on an interval are the same. With a kink in them that proves nothing:
                # |x| + 0 ln x is x and |x| where it is real.
                shrunk = True
        if shrunk and (self.is_kinked or one_is_everywhere and self.is_pointed):
            doubt = "one has no real value where the other has"
        if doubt or agreed < ENOUGH_POINTS:
            return None, doubt or "too few points where both are real"
        return True, f"{agreed} points"

    def _is_valued(self, tree: Tree, point: Point) -> bool:
        try:
            self._enclose(tree, point.values, PRECISIONS[0], self.is_complex)
        except NoValue:
            return False
        except Unresolved:
            pass
        return True

    def has_value(self) -> bool:
        """Whether both expressions have a value, real or complex, at some point."""
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

    def _enclose(self, tree: Tree, point: dict, precision: int, is_complex: bool):
        """``(ball, absorbed)`` of a tree at a point."""
        with _LOCK:
            before, ctx.prec = ctx.prec, precision
            try:
                enclosure = Enclosure(precision, point, is_complex, self.budget)
                ball = enclosure.ball(tree)
                if not ball.is_finite():
                    raise Unresolved
                return ball, enclosure.absorbed
            finally:
                ctx.prec = before

    def _at(self, point: Point, precisions: tuple[int, ...]) -> str:
        """``different``, ``agree``, ``nothing`` (one has no value here), ``lost``, or ``same`` (at low precision only)."""
        verdict = "lost"
        for precision in precisions:
            try:
                (a, a_absorbed), (b, b_absorbed) = (
                    self._enclose(tree, point.values, precision, self.is_complex) for tree in (self.a, self.b))
                verdict = self._compare(a, b, precision, a_absorbed or b_absorbed)
            except NoValue:
                return "nothing"
            except Unresolved:
                continue
            if verdict in ("different", "agree"):
                return verdict
        return verdict

    def _compare(self, a, b, precision: int, absorbed: bool) -> str:
        with _LOCK:
            before, ctx.prec = ctx.prec, precision
            try:
                difference = a - b
                if not difference.contains(0):
                    return "different"
                if precision == PRECISIONS[0]:
                    return "same"
                # Relative to the values themselves; where both may be 0, absolutely.
                scale = arb(1) if a.contains(0) and b.contains(0) else max(a.abs_lower(), b.abs_lower())
                small = difference.abs_upper() < scale * _power_of_two(-precision // 2)
                return "agree" if small and not absorbed else "lost"
            finally:
                ctx.prec = before

    # -- points ---------------------------------------------------------------------------------------------

    def _draw(self, sign: int, low: float = -0.6, high: float = 1.4) -> dict[str, Fraction]:
        """One random value per letter, with the size drawn between 10^low and 10^high."""
        values = {}
        for name in self.names:
            size = 10 ** (low + (high - low) * next(self.random))
            turn = 1 if next(self.random) < 0.75 or len(self.names) == 1 else -1
            fine = Fraction(int(next(self.random) * 2**40), 2**60)
            values[name] = sign * turn * (Fraction(int(size * 2**20), 2**20) + fine)
        return values

    def _points(self) -> Iterator[Point | str]:
        """Points of several scales and of both signs, then on both sides of every kink; a text is a doubt."""
        for k in range(BASE_POINTS):
            yield Point(self._draw(1 if k % 2 else -1))
        kinks = self._kinks()
        if kinks is None:
            yield "a step function, or kinks that cannot be found"
            return
        self.is_pointed = any(weight for _, weight in kinks.values())
        self.is_kinked = any(weight == 2 for _, weight in kinks.values())
        yield from self._around(kinks)
        for sign in (1, -1):
            yield Point(self._draw(sign, 2.0, 4.0), optional=True)

    def _kinks(self) -> dict[str, tuple] | None:
        """The polynomials (over the atoms) at whose zeros the expressions may kink, and how much each matters."""
        found: dict[str, tuple] = {}
        try:
            for tree in (self.a, self.b):
                for orders, part in _kinked_parts(tree):
                    if part is None:
                        return None
                    for factor, weight in self._factors(part, orders):
                        key = str(factor)
                        found[key] = (factor, max(weight, found[key][1] if key in found else 0))
        except Unreadable:
            return None
        return found

    def _factors(self, tree: Tree, orders: tuple[int, int]) -> Iterator[tuple]:
        value = self.algebra.value(tree)
        if not isinstance(value, Quotient):
            return
        if orders == _POLES and not value.below.is_constant():
            orders = _KINK  # \\arctan(\\tan x) jumps at every pole
        for polynomial in (value.above, value.below):
            if not polynomial.is_constant():
                self.budget.spend(20 * len(polynomial) * (1 + value.bits // 100))
                for factor, count in polynomial.factor_squarefree()[1]:
                    yield factor, orders[count % 2 == 0]

    def _around(self, kinks: dict[str, tuple]) -> Iterator[Point | str]:
        """Points on a line through the origin's neighbourhood, in every interval between the kinks on it."""
        start = {name: Fraction(0) for name in self.names} if len(self.names) == 1 else self._draw(1)
        slope = {name: Fraction(1) for name in self.names} if len(self.names) == 1 else self._draw(1, -0.3, 0.3)
        roots, places, near = [Fraction(0)], [], []
        is_only = sum(map(bool, (weight for _, weight in kinks.values()))) == 1
        for factor, strict in kinks.values():
            used = [k for k, degree in enumerate(factor.degrees()) if degree]
            if all(self.algebra.atoms[k][0] == "sym" for k in used):
                found = self._roots(factor, used, start, slope)
                is_all = found or not strict
            else:
                most = self._most_zeros(factor, used)
                found = self._sign_changes(factor, used, start, slope, MAX_HALVINGS if strict and most else 0)
                # Where a single function decides by its sign, one place on each side is enough.
                is_all = found and (not strict or is_only) or len(found) == most
                if not most or not strict:
                    near, found = near + found, []
            if not is_all and not self._is_definite(factor, used):
                yield "a kink that was not found"
            roots += found
        roots = sorted(set(roots))
        if len(roots) > 16:
            yield "more kinks than are sampled"
        for low, high in zip(roots, roots[1:], strict=False):
            places += [low + (high - low) * Fraction(int(next(self.random) * 2**30) + 1, 2**30 + 2) for _ in range(2)]
        for end, sign in ((roots[0], -1), (roots[-1], 1)):
            steps = [Fraction(int((0.1 + next(self.random)) * 2**30), 2**30) for _ in range(2)]
            places += [end + sign * max(1, abs(end)) * step for step in steps]
        for place in (places + near)[:40]:
            yield Point({name: start[name] + place * slope[name] for name in self.names})

    def _roots(self, factor, used: list[int], start: dict, slope: dict) -> list[Fraction]:
        """The real zeros on the line of a polynomial in letters."""
        line = {k: fmpq_poly([_fmpq(start[self.algebra.atoms[k][1]]), _fmpq(slope[self.algebra.atoms[k][1]])]) for k in used
                if self.algebra.atoms[k][1] in start}
        if len(line) < len(used):
            return []
        degree = max(factor.degrees()) * len(used)
        if degree > 24:
            raise TooBig("a kink at the zeros of a polynomial of degree over 24")
        self.budget.spend(40 * (1 + degree) ** 2)
        total = fmpq_poly([0])
        for exponents, coefficient in factor.to_dict().items():
            term = fmpq_poly([coefficient])
            for k in used:
                if exponents[k]:
                    term *= line[k] ** exponents[k]
            total += term
        if total.degree() < 1:
            return []
        with _LOCK:
            before, ctx.prec = ctx.prec, 128
            try:
                roots = total.numer().complex_roots()
                return [_to_fraction(root.real) for root, _ in roots if root.imag.contains(0)]
            finally:
                ctx.prec = before

    def _sign_changes(self, factor, used: list[int], start: dict, slope: dict, halvings: int) -> list[Fraction]:
        """Where a function changes its sign between neighbours on a grid of many scales, halved to a zero."""
        previous, found = None, []
        for place in _GRID:
            sign = self._sign(factor, used, start, slope, place)
            if sign and previous and sign != previous[0]:
                low, high = previous[1], place
                for _ in range(halvings):
                    middle = (low + high) / 2
                    at_middle = self._sign(factor, used, start, slope, middle)
                    if not at_middle:
                        break
                    low, high = (low, middle) if at_middle == sign else (middle, high)
                found += [(low + high) / 2] if halvings else [low, high]
            previous = (sign, place) if sign else previous
        return found

    def _most_zeros(self, factor, used: list[int]) -> int | None:
        """How many zeros a polynomial in letters, or in one monotone function, has on a line at most; None: unknown."""
        atoms = self.algebra.atoms
        used = [k for k in used if letters(atoms[k])]
        if all(atoms[k][0] == "sym" for k in used) or len(used) == 1 and self._is_monotone(atoms[used[0]]):
            return max(sum(exponents[k] for k in used) for exponents in factor.to_dict())
        return None

    def _is_monotone(self, atom: Tree) -> bool:
        """Whether a function rises or falls all along a line: ``e^{2x}``, ``\\ln(x + 1)``, ``\\sqrt[3]{x}``."""
        name, parts = (atom[1], atom[2]) if atom[0] == "fn" else ("root", atom[1:])
        varying = [part for part in parts if letters(part)]
        if name not in _MONOTONE or len(varying) != 1 or _holds(atom, ("const", "i")):
            return False
        inside = self.algebra.value(varying[0])
        if not isinstance(inside, Quotient) or not inside.below.is_constant():
            return False
        return self._most_zeros(inside.above, [k for k, degree in enumerate(inside.above.degrees()) if degree]) == 1

    def _sign(self, factor, used: list[int], start: dict, slope: dict, place: Fraction) -> int:
        point = {name: start[name] + place * slope[name] for name in self.names}
        try:
            balls = {k: self._enclose(self.algebra.atoms[k], point, PRECISIONS[0], False)[0] for k in used}
        except (NoValue, Unresolved, KeyError):
            return 0
        self.budget.spend(8 + len(factor) * len(used))
        total = arb(0)
        for exponents, coefficient in factor.to_dict().items():
            term = arb(coefficient)
            for k in used:
                term *= balls[k] ** exponents[k]
            total += term
        return 1 if total > 0 else -1 if total < 0 else 0

    def _is_definite(self, factor, used: list[int]) -> bool:
        """Whether a polynomial has one sign by its form: ``1 + e^x``, ``x^2 + y^2``."""
        terms = factor.to_dict()
        if len({coefficient > 0 for coefficient in terms.values()}) > 1:
            return False
        return all(exponents[k] % 2 == 0 or _is_positive(self.algebra.atoms[k]) for exponents in terms for k in used)


_GRID = tuple(sorted(sign * mantissa * Fraction(10) ** power for sign in (1, -1) for power in range(-3, 12, 1)
                     for mantissa in (Fraction(137, 100), Fraction(431, 100))))


def _kinked_parts(tree: Tree) -> Iterator[tuple[tuple[int, int], Tree | None]]:
    """The parts of an expression at whose zeros or poles it may kink, and how much that matters; None for steps."""
    if tree[0] == "fn" and letters(tree):
        name, arguments = tree[1], tree[2]
        if name in _STEPS:
            yield _KINK, None
        elif name in ("min", "max"):
            for other in arguments[1:]:
                yield _KINK, ("add", (arguments[0], ("neg", other)))
            for one, other in zip(arguments[1:], arguments[2:], strict=False):
                yield _KINK, ("add", (one, ("neg", other)))
        elif name in _ENDING:
            yield _KINK, ("add", (arguments[0], ("num", 1)))
            yield _KINK, ("add", (arguments[0], ("num", -1)))
        elif name == "abs":
            yield _KINK, arguments[0]
        elif name in ("arctan", "arccot", "arcsinh"):
            yield _POLES, arguments[0]
        elif name in ("ln", "log", "lg") and arguments[0][:2] == ("fn", "abs"):
            tree = (*arguments[0][2], *arguments[1:])
            yield _SIDES, tree[0]
        elif name in ("root", "ln", "log", "lg"):
            yield _ROOT if name == "root" else _LOGARITHM, arguments[0]
    elif tree[0] == "pow" and letters(tree[1]) and not (tree[2][0] == "num" and isinstance(tree[2][1], int)):
        yield _ROOT, tree[1]
    for part in tree:
        if isinstance(part, tuple) and part:
            yield from _kinked_parts(part)


def _limits_domain(tree: Tree) -> bool:
    """Whether an expression may be real on a part of the line only: logarithms, roots, powers, inverse functions."""
    if tree[0] == "fn" and letters(tree) and tree[1] in _LIMITED:
        return True
    if tree[0] == "pow" and letters(tree) and not (tree[2][0] == "num" and isinstance(tree[2][1], int)) and (
            not _is_positive(("pow", *tree[1:]))):
        return True
    return any(_limits_domain(part) for part in tree if isinstance(part, tuple) and part)


def _is_positive(tree: Tree) -> bool:
    if tree[0] == "pow":
        is_real = not _holds(tree, ("const", "i"))
        return is_real and (tree[1] in (("const", "e"), ("const", "pi")) or tree[1][0] == "num" and tree[1][1] > 0)
    return tree in (("const", "e"), ("const", "pi")) or tree[0] == "fn" and tree[1] in ("exp", "cosh", "abs", "root")


def _fmpq(value: Fraction) -> fmpq:
    return fmpq(value.numerator, value.denominator)


def _to_fraction(ball: arb) -> Fraction:
    mantissa, exponent = ball.mid().man_exp()
    return Fraction(int(mantissa)) * Fraction(2) ** int(exponent)


def _draws(digest: bytes) -> Iterator[float]:
    """Numbers in [0, 1) that follow from a digest."""
    while True:
        for start in range(0, len(digest), 8):
            yield int.from_bytes(digest[start:start + 8], "big") / 2**64
        digest = hashlib.blake2b(digest, digest_size=64).digest()


def sign_of(tree: Tree, budget: Budget) -> int | None:
    """The proven sign of a constant expression, None where it is not known."""
    try:
        comparison = PointComparison(tree, ("num", 0), Algebra(budget))
        for precision in PRECISIONS[:2]:
            ball, absorbed = comparison._enclose(tree, {}, precision, False)
            if not ball.contains(0) and not absorbed:
                return 1 if ball > 0 else -1
    except (NoValue, Unresolved, Unreadable, KeyError):
        return None
    return None


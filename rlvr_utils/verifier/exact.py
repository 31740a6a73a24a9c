"""Exact algebra with FLINT: every expression becomes a rational function over atoms, compared by its normal form.

An atom is a letter, a constant or a function of rational functions (``sin(x + 1)``). Atoms of different form may have
equal values, so two rational functions are proven different only if all their atoms are letters.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from flint import fmpq, fmpq_mpoly_ctx, fmpz

from .limits import MAX_EXPONENT, MAX_FACTORIAL, MAX_TERMS, Budget, TooBig, Unreadable, check_bits
from .trees import Tree, subtrees

#: Maximum number of atoms per comparison.
MAX_ATOMS = 24
_RING = fmpq_mpoly_ctx.get(tuple(f"x{k}" for k in range(MAX_ATOMS)))
_GENERATORS = _RING.gens()
_ONE = _RING.constant(fmpq(1))


class Quotient(NamedTuple):
    """``above / below``, two polynomials over the atoms. ``bits`` bounds the size of their coefficients."""

    above: object
    below: object
    bits: int = 1


#: A rational number or a quotient of polynomials.
Value = fmpq | Quotient


def bits_of(value: fmpq) -> int:
    """Return the number of bits of a rational number."""
    return int(value.p).bit_length() + int(value.q).bit_length()


def lift(value: Value) -> Quotient:
    """Return a value as a quotient."""
    return value if isinstance(value, Quotient) else Quotient(_RING.constant(value), _ONE, bits_of(value))


class Algebra:
    """Values of trees within one budget. ``atoms`` lists the tree of each atom, in the order of the generators."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.atoms: list[Tree] = []
        self.keys: dict[object, Quotient] = {}
        self.values: dict[Tree, Value] = {}

    # -- arithmetic -----------------------------------------------------------------------------------------

    def plus(self, a: Value, b: Value) -> Value:
        """Return ``a + b``."""
        if isinstance(a, fmpq) and isinstance(b, fmpq):
            self.budget.spend(1 + (bits_of(a) + bits_of(b)) // 2000)
            check_bits(bits_of(a) + bits_of(b))
            return a + b
        a, b = lift(a), lift(b)
        if a.below == b.below:
            self.budget.spend(len(a.above) + len(b.above))
            return self._tidy(a.above + b.above, a.below, max(a.bits, b.bits) + 1)
        bits = a.bits + b.bits
        above = self._multiply(a.above, b.below, bits) + self._multiply(b.above, a.below, bits)
        return self._tidy(above, self._multiply(a.below, b.below, bits), bits + 1)

    def times(self, a: Value, b: Value) -> Value:
        """Return ``a * b``."""
        if isinstance(a, fmpq) and isinstance(b, fmpq):
            self.budget.spend(1 + (bits_of(a) + bits_of(b)) // 1000)
            check_bits(bits_of(a) + bits_of(b))
            return a * b
        a, b = lift(a), lift(b)
        bits = a.bits + b.bits
        return self._tidy(self._multiply(a.above, b.above, bits), self._multiply(a.below, b.below, bits), bits + 8)

    def over(self, a: Value, b: Value) -> Value:
        """Return ``a / b``. Raises Unreadable if b is the zero polynomial."""
        if b == 0 if isinstance(b, fmpq) else b.above.is_zero():
            raise Unreadable("a division by zero")
        if isinstance(b, fmpq):
            return self.times(a, 1 / b)
        return self.times(a, Quotient(b.below, b.above, b.bits))

    def _multiply(self, a, b, bits: int):
        check_bits(bits)
        if len(a) * len(b) > MAX_TERMS * 8:
            raise TooBig(f"a product of more than {MAX_TERMS} terms")
        self.budget.spend(1 + len(a) * len(b) * (1 + bits // 500))
        return a * b

    def _tidy(self, above, below, bits: int) -> Value:
        if len(above) > MAX_TERMS or len(below) > MAX_TERMS:
            raise TooBig(f"a polynomial of more than {MAX_TERMS} terms")
        if above.is_zero():
            return fmpq(0)
        if above.is_constant() and below.is_constant():
            return _constant(above) / _constant(below)
        return Quotient(above, below, bits)

    def power(self, base: Value, exponent: int) -> Value:
        """Return ``base`` to an integer power."""
        if exponent < 0:
            return self.over(fmpq(1), self.power(base, -exponent))
        if isinstance(base, fmpq):
            if abs(base) not in (0, 1):
                check_bits((bits_of(base) - 1 if base.q == 1 else bits_of(base)) * exponent)
            if base == 0 and exponent == 0:
                raise Unreadable("zero to the zero")
            self.budget.spend(1 + bits_of(base) * exponent // 1000 if abs(base) != 1 and base != 0 else 1)
            return base**exponent if abs(base) != 1 else (base if exponent % 2 else fmpq(1))
        terms = max(len(base.above), len(base.below))
        # The n-th power of t terms has at most as many terms as there are multisets of size n from t.
        if (
            exponent > MAX_EXPONENT
            or terms > 1
            and (exponent > 400 or math.comb(terms + exponent - 1, exponent) > MAX_TERMS * 2)
        ):
            raise TooBig(f"a power of more than {MAX_TERMS} terms")
        bits = base.bits * exponent + exponent * terms.bit_length()
        check_bits(bits)
        most = math.comb(terms + exponent - 1, exponent) if terms > 1 else 0
        self.budget.spend(1 + most * (1 + bits // 500) + (bits // 500 if terms <= 1 else 0))
        return self._tidy(base.above**exponent, base.below**exponent, bits)

    def atom(self, key: object, tree: Tree) -> Quotient:
        """Return the atom of this key, created if new. ``tree`` is the expression that it is evaluated from."""
        found = self.keys.get(key)
        if found is None:
            if len(self.atoms) >= MAX_ATOMS:
                raise TooBig(f"more than {MAX_ATOMS} letters and functions")
            found = self.keys[key] = Quotient(_GENERATORS[len(self.atoms)], _ONE)
            self.atoms.append(tree)
        return found

    # -- trees ----------------------------------------------------------------------------------------------

    def value(self, tree: Tree) -> Value:
        """Return the value of a reduced expression. Raises Unreadable if it has none, TooBig if it is too expensive."""
        found = self.values.get(tree)
        if found is None:
            found = self.values[tree] = self._value(tree)
        return found

    def _value(self, tree: Tree) -> Value:
        kind = tree[0]
        self.budget.spend(1)
        if kind == "num":
            check_bits(tree[1].numerator.bit_length() + tree[1].denominator.bit_length())
            return fmpq(tree[1].numerator, tree[1].denominator)
        if kind == "sym" or kind == "const":
            if tree[1] == "infty":
                raise Unreadable("infinity cannot be used in arithmetic")
            return self.atom(tree[:2], tree)
        if kind == "add":
            total = self.value(tree[1][0])
            for term in tree[1][1:]:
                total = self.plus(total, self.value(term))
            return total
        if kind == "mul":
            return self.times(self.value(tree[1]), self.value(tree[2]))
        if kind == "div":
            return self.over(self.value(tree[1]), self.value(tree[2]))
        if kind == "pow":
            return self._power(tree)
        if kind == "fn":
            return self._function(tree)
        raise Unreadable(f"a {kind} inside an expression is not supported")

    def _power(self, tree: Tree) -> Value:
        """Return a power: expand integer powers, split ``2^{n+1}`` as ``2 * 2^n``, take rational roots, else use an atom."""
        base, exponent = self.value(tree[1]), self.value(tree[2])
        if isinstance(exponent, fmpq):
            if exponent.q == 1:
                return self._whole_power(tree, base, int(exponent.p))
            if isinstance(base, fmpq) and exponent.q <= 64 and abs(exponent.p) <= 64:
                root = exact_root(base, int(exponent.q))
                if root is not None:
                    return self.power(root, int(exponent.p))
        elif exponent.below.is_constant():
            constant = exponent.above.to_dict().get((0,) * MAX_ATOMS, fmpq(0)) / _constant(exponent.below)
            whole = int(constant.p // constant.q)
            if whole and abs(whole) <= MAX_EXPONENT:
                rest = ("pow", tree[1], ("add", (tree[2], ("num", -whole))))
                return self.times(self._whole_power(tree, base, whole), self.value(rest))
        return self.atom(("pow", self._key(base), self._key(exponent)), tree)

    def _whole_power(self, tree: Tree, base: Value, exponent: int) -> Value:
        """Return an integer power, or an atom if the expansion would be too long."""
        try:
            return self.power(base, exponent)
        except TooBig:
            if isinstance(base, fmpq) or abs(exponent).bit_length() > 60:
                raise
            return self.atom(("pow", self._key(base), exponent), tree)

    def _function(self, tree: Tree) -> Value:
        name, arguments = tree[1], [self.value(argument) for argument in tree[2]]
        if all(isinstance(value, fmpq) for value in arguments):
            found = rational_function(name, arguments, self.budget)
            if found is not None:
                return found
        return self.atom((name, *map(self._key, arguments)), tree)

    def _key(self, value: Value) -> str:
        """Return a key that is the same for equal rational functions, by reducing to lowest terms."""
        if isinstance(value, fmpq):
            return str(value)
        above, below = value.above, value.below
        if not below.is_constant():
            self.budget.spend(4 * len(above) * len(below) * (1 + value.bits // 200))
            common = above.gcd(below)
            above, below = above / common, below / common
        lead = below.leading_coefficient()
        if lead != 1:
            above, below = above / lead, below / lead
        return f"{above}/{below}"

    def is_risky(self, tree: Tree) -> bool:
        """Return whether an expression contains functions that may have no value where the algebra does not check."""
        for part in subtrees(tree):
            if part == ("const", "i"):  # i^2 + 1 is zero, but not for the algebra
                return True
            is_root = part[0] == "pow" and not (part[2][0] == "num" and isinstance(part[2][1], int))
            if is_root and not isinstance(self.value(part), fmpq):
                return True
            if part[0] == "fn" and not all(isinstance(self.value(value), fmpq) for value in (part, *part[2])):
                return True
        return False

    def equal(self, a: Value, b: Value) -> bool:
        """Return whether two values are the same rational function."""
        if isinstance(a, fmpq) and isinstance(b, fmpq):
            return a == b
        a, b = lift(a), lift(b)
        if a.below == b.below:
            return a.above == b.above
        bits = a.bits + b.bits
        return self._multiply(a.above, b.below, bits) == self._multiply(b.above, a.below, bits)


def _constant(polynomial) -> fmpq:
    return polynomial.leading_coefficient() if not polynomial.is_zero() else fmpq(0)


def exact_root(value: fmpq, index: int) -> fmpq | None:
    """Return the real root of a rational number if it is rational, else None. The cube root of ``8/27`` is ``2/3``."""
    negative = value < 0
    if negative and index % 2 == 0 or bits_of(value) > 4_000:
        return None
    parts = []
    for part in (abs(value.p), value.q):
        root = fmpz(part).root(index)
        if root**index != part:
            return None
        parts.append(root)
    return fmpq(*parts) * (-1 if negative else 1)


def rational_function(name: str, values: list[fmpq], budget: Budget) -> fmpq | None:
    """Return the value of a function of rational numbers if it is rational and known exactly, else None."""
    whole = all(value.q == 1 for value in values)
    first = values[0]
    if name == "factorial" and whole:
        if first < 0:
            raise Unreadable("the factorial of a negative number has no value")
        if first > MAX_FACTORIAL:
            raise TooBig(f"the factorial of a number over {MAX_FACTORIAL}")
        budget.spend(1 + int(first.p) // 4)
        return fmpq(math.factorial(int(first.p)))
    if name == "binom" and whole and min(values) >= 0:
        if first > MAX_FACTORIAL:
            raise TooBig(f"a binomial coefficient of a number over {MAX_FACTORIAL}")
        budget.spend(1 + int(first.p) // 4)
        return fmpq(math.comb(*(int(value.p) for value in values)))
    if name == "floor" and len(values) == 1:
        return fmpq(first.p // first.q)
    if name in ("gcd", "lcm") and whole and all(bits_of(value) < 1000 for value in values):
        return fmpq((math.gcd if name == "gcd" else math.lcm)(*(int(value.p) for value in values)))
    return None

"""Compare two parsed answers: first marks, then structures part by part, then values.

Every comparison has one of four outcomes. The outcome of a structure is the worst outcome of its parts.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable
from enum import IntEnum
from typing import NamedTuple

from flint import fmpq

from .definitions import reduced
from .enclose import PointComparison, sign_of
from .exact import Algebra, Quotient, Value, lift
from .kinds import is_product, unit_text
from .limits import MAX_ITEMS, MAX_NODES, Budget, OverBudget, TooBig, Unreadable
from .trees import Tree, each, letters, replaced, size, subtrees


class Outcome(IntEnum):
    """The outcome of a comparison, from best to worst."""

    EQUAL = 0
    AGREE = 1
    UNDECIDED = 2
    DIFFERENT = 3

    @property
    def label(self) -> str:
        """The outcome as text."""
        return ("proven equal", "agree", "undecided", "proven different")[self]

    @property
    def rewarded(self) -> bool:
        """Whether it counts as equal: proven, or agreeing at several points."""
        return self <= Outcome.AGREE


EQUAL, AGREE, UNDECIDED, DIFFERENT = Outcome

INFINITY = ("const", "infty")
REALS = ("sym", "bb R")
_PLACED = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "!=": operator.ne}
_OPPOSITE = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}
#: Maximum number of independent plus-minus signs.
MAX_SIGNS = 4
_STRUCTURES = frozenset(("group", "cup", "cap", "setminus", "matrix", "rel", "based", "text", "ratio", "label", "name"))
_SETS = frozenset(("group", "cup", "cap", "setminus"))
_NAMES = {
    "group": "tuple or interval",
    "cup": "union",
    "cap": "intersection",
    "setminus": "difference of sets",
    "rel": "relation",
    "based": "number in another base",
    "text": "word",
    "matrix": "matrix",
    "label": "value with words after it",
}
_DENIAL = re.compile(r"\b(?:not?|never|neither|nor|wrong|incorrect|false|isn)\b")
_NAMING_FUNCTIONS = frozenset("f g h overline vec hat widehat overrightarrow angle triangle".split())
_DEGREES, _RADIANS = (("deg", 1),), (("rad", 1),)
_OF_ANGLES = frozenset(("sin", "cos", "tan", "cot", "sec", "csc"))


# -- marks ------------------------------------------------------------------------------------------------------------


class Marked(NamedTuple):
    """An answer without its marks: ``values`` (several for a chain ``x = 4/2 = 2``), ``name``, ``unit``, ``modulus``."""

    values: tuple[Tree, ...]
    name: Tree | None = None
    unit: tuple = ()
    modulus: Tree | None = None


def is_name(tree: Tree) -> bool:
    """Return whether the left side of ``name = value`` is only a name: ``x``, ``f(x)``, ``P(A)``, ``(x, y)``."""
    kind = tree[0]
    if kind == "fn":
        inside = tree[2][0]
        return (
            tree[1] in _NAMING_FUNCTIONS
            or tree[1] == "abs"
            and (_is_segment(inside) or inside[0] == "sym" and inside[1] in "uvwz" or inside[:2] == ("fn", "vec"))
            or tree[1] in ("gcd", "lcm")
            and all(map(is_name, tree[2]))
            or tree[1] in _OF_ANGLES
            and inside[0] in ("sym", "fn")
            and is_name(inside)
        )
    if kind in ("mul", "div", "ratio"):
        return all(map(is_name, tree[1] if kind == "ratio" else tree[1:]))
    if kind == "group":
        return all(map(is_name, tree[3]))
    return kind in ("sym", "name") or tree == ("const", "e") or kind == "text" and not _DENIAL.search(tree[1])


def _is_segment(tree: Tree) -> bool:
    """Return whether this is a segment such as ``AB`` in ``|AB| = 7``."""
    return tree[0] == "mul" and all(part[0] == "sym" and part[1][:1].isupper() for part in tree[1:])


def take_marks(tree: Tree) -> Marked:
    """Separate an answer into values, name, unit and modulus."""
    name, modulus, values = None, None, (tree,)
    if tree[0] == "pmod":
        tree, modulus = tree[1:]
        values = (tree,)
    elif tree[0] == "fn" and tree[1] == "mod":
        modulus = tree[2][1]  # 17 \bmod 5 has the value 2 and the modulus 5
    if tree[0] == "rel":
        name, values = _assignment(*tree[1:])
    unit, bare = (), []
    for value in values:
        value, found = _take_unit(value)
        if unit and found and unit != found:
            raise Unreadable("a chain with two units")
        unit = unit or found
        bare.append(value)
    return Marked(tuple(bare), name, unit, modulus)


def _assignment(signs: tuple[str, ...], sides: tuple[Tree, ...]) -> tuple[Tree | None, tuple[Tree, ...]]:
    r"""Return name and values of ``x = 5``, ``5 = x``, ``2 \cdot 3 = 6``, ``x \in S``.

    The part after ``\approx`` is ignored if a value precedes it. A chain that repeats a side (``x = x``) has no name.
    """
    whole = ("rel", signs, sides)
    if signs == ("in",):
        is_set = sides[1][0] in _SETS or sides[1][0] in ("set", "sym")
        return (sides[0], sides[1:]) if is_set and is_name(sides[0]) else (None, (whole,))
    if not set(signs) <= {"=", "~", "=="} or len(set(sides)) < len(sides):
        return None, (whole,)
    if sides[0][0] == "group" and is_product("".join(part[1] for part in reversed(sides[0][3]) if part[0] == "sym")):
        return None, (whole,)  # (y, x) = (1, 2)
    exact = 1 + next((k for k, sign in enumerate(signs) if sign == "~" and k), len(signs))
    if is_name(sides[0]):
        return sides[0], sides[1:exact]
    if signs == ("=",) and sides[1][0] in ("sym", "fn") and is_name(sides[1]):
        return sides[1], sides[:1]
    if signs[0] == "=" and not any(letters(side) or side[0] in _STRUCTURES for side in sides[:exact]):
        return None, sides[:exact]
    return (None, sides[:1]) if signs == ("~",) else (None, (whole,))


def _take_unit(tree: Tree) -> tuple[Tree, tuple]:
    """Return a value and its unit (``%``, ``deg``, ``usd``, ``cm^2``)."""
    negative = tree[0] == "neg"
    inner, unit = tree[1] if negative else tree, ()
    while inner[0] in ("unit", "pct", "deg"):
        found = {"pct": (("%", 1),), "deg": (("deg", 1),)}.get(inner[0]) or inner[2]
        if unit and (found != unit or inner[0] == "pct"):
            raise Unreadable("a value with two units")
        unit = found
        inner = inner[1]
    if inner[0] == "mul" and inner[1][0] == "unit" and not unit:
        inner, unit = ("mul", inner[1][1], inner[2]), inner[1][2]
    return (("neg", inner) if negative else inner), unit


def drop_degrees(tree: Tree) -> Tree:
    r"""Drop degree signs outside functions: ``180^\circ - x^\circ`` becomes ``180 - x``."""
    kind = tree[0]
    if kind == "deg":
        return drop_degrees(tree[1])
    if kind == "add":
        return ("add", tuple(drop_degrees(term) for term in tree[1]))
    if kind in ("neg", "pm", "mp", "mul", "div"):
        return (kind, *(drop_degrees(part) for part in tree[1:]))
    return tree


def expand_signs(tree: Tree) -> tuple[Tree, ...]:
    r"""Return the values of an expression with ``\pm``, or the expression itself.

    Several ``\pm`` are independent. With ``\mp`` there are two values, because ``\mp`` has the opposite sign of ``\pm``.
    """
    signs = [part[0] for part in subtrees(tree) if part[0] in ("pm", "mp")]
    if not signs:
        return (tree,)
    if "mp" in signs or len(signs) == 1:
        return (_choose(tree, "pm"), _choose(tree, "mp"))
    if len(signs) > MAX_SIGNS:
        raise TooBig(f"more than {MAX_SIGNS} plus-minus signs")
    plus, minus = (_choose_first(tree, sign) for sign in ("pm", "mp"))
    return expand_signs(plus) + expand_signs(minus)


def _choose(tree: Tree, plus: str) -> Tree:
    if tree[0] in ("pm", "mp"):
        inner = _choose(tree[1], plus)
        return inner if tree[0] == plus else ("neg", inner)
    return each(tree, lambda part: _choose(part, plus))


def _choose_first(tree: Tree, plus: str) -> Tree:
    """Return the tree with the sign of its first plus-minus replaced."""
    first = next(part for part in subtrees(tree) if part[0] == "pm")
    return replaced(tree, {first: first[1] if plus == "pm" else ("neg", first[1])})


def as_matrix(tree: Tree) -> Tree:
    """Evaluate scalar multiples, sums, products, negatives and transposes of matrices. Return other trees unchanged."""
    kind = tree[0]
    if kind == "neg" and (inner := as_matrix(tree[1]))[0] == "matrix":
        return _each_entry(inner, lambda entry: ("neg", entry))
    if kind in ("mul", "div"):
        left, right = as_matrix(tree[1]), as_matrix(tree[2])
        if left[0] == "matrix" != right[0]:
            return _each_entry(left, lambda entry: (kind, entry, right))
        if right[0] == "matrix" != left[0] and kind == "mul":
            return _each_entry(right, lambda entry: ("mul", left, entry))
        if left[0] == right[0] == "matrix" and kind == "mul" and len(left[1][0]) == len(right[1]):
            if size(left) * size(right) > MAX_NODES:
                raise TooBig("a product of large matrices")
            columns = tuple(zip(*right[1], strict=True))
            return (
                "matrix",
                tuple(
                    tuple(("add", tuple(("mul", *pair) for pair in zip(row, column, strict=True))) for column in columns)
                    for row in left[1]
                ),
            )
    if kind == "pow" and tree[2] == ("sym", "T"):
        inner = as_matrix(tree[1])
        if inner[:3] == ("group", "(", ")"):
            inner = ("matrix", (inner[3],))
        if inner[0] != "matrix":
            return tree
        return ("matrix", tuple(zip(*inner[1], strict=True)))
    if kind == "add":
        terms = [as_matrix(term) for term in tree[1]]
        if all(term[0] == "matrix" for term in terms) and len({(len(t[1]), len(t[1][0])) for t in terms}) == 1:
            return (
                "matrix",
                tuple(
                    tuple(("add", entries) for entries in zip(*rows, strict=True))
                    for rows in zip(*(term[1] for term in terms), strict=True)
                ),
            )
    return tree


def _each_entry(matrix: Tree, change) -> Tree:
    return ("matrix", tuple(tuple(map(change, row)) for row in matrix[1]))


# -- subsets of the real line -----------------------------------------------------------------------------------------


def infinity_of(tree: Tree) -> int:
    """Return 1 for infinity, -1 for minus infinity, 0 for anything else."""
    if tree == INFINITY:
        return 1
    return -infinity_of(tree[1]) if tree[0] == "neg" else 0


def forward(tree: Tree) -> tuple[tuple[str, ...], tuple[Tree, ...]]:
    """Return signs and sides of a relation, written with < instead of >."""
    _, signs, sides = tree
    if signs[0] in (">", ">="):
        return tuple(_OPPOSITE.get(sign, sign) for sign in reversed(signs)), tuple(reversed(sides))
    return signs, sides


def ends_of(tree: Tree) -> list[Tree]:
    r"""Return the endpoints of an interval, a solution set such as ``x > 2``, or a union of these.

    Raises Unreadable for anything else.
    """
    kind = tree[0]
    if tree == REALS:
        return []
    if kind == "group" and len(tree[3]) == 2:
        return list(tree[3])
    if kind == "set":
        return list(tree[1])
    if _joins_relations(tree) and len({side for item in tree[1] for side in item[2] if side[0] == "sym"} - {REALS}) > 1:
        raise Unreadable("several unknowns")
    if kind in ("cup", "cap", "setminus") or _joins_relations(tree):
        return [end for part in tree[1] for end in ends_of(part)]
    if kind == "rel" and tree[1] == ("in",) and tree[2][0][0] == "sym":
        return ends_of(tree[2][1])
    ends = [side for side in tree[2] if side[0] != "sym"] if kind == "rel" and set(tree[1]) <= _PLACED.keys() else []
    if not ends or len(ends) != len(tree[2]) - 1:
        raise Unreadable("not a subset of the real line")
    return ends


def holds(tree: Tree, place: int, places: dict[Tree, int]) -> bool:
    """Return whether a subset of the real line contains a place: an endpoint, or the open interval between two of them."""
    kind = tree[0]
    if kind == "group":
        low, high = (places[end] for end in tree[3])
        return low < place < high or place == low and tree[1] == "[" or place == high and tree[2] == "]"
    if kind == "set":
        return place in [places[end] for end in tree[1]]
    if kind == "rel" and tree[1] == ("in",):
        return holds(tree[2][1], place, places)
    if kind == "rel":
        sides = [places.get(side, place) for side in tree[2]]
        return all(_PLACED[sign](*pair) for sign, pair in zip(tree[1], zip(sides, sides[1:], strict=False), strict=True))
    if tree == REALS:
        return True
    parts = [holds(part, place, places) for part in tree[1]]
    if kind == "setminus":
        return parts[0] and not any(parts[1:])
    return any(parts) if kind == "cup" or tree[-1] == "or" else all(parts)


# -- the comparison ---------------------------------------------------------------------------------------------------


class Comparison:
    """One comparison of two answers within one budget. ``tier`` is the last tier that was used."""

    def __init__(self) -> None:
        self.budget = Budget()
        self.algebra = Algebra(self.budget)
        self.tier = "structure"
        self.why = ""

    def differ(self, why: str) -> Outcome:
        """Record the first reason and return DIFFERENT."""
        self.why = self.why or why
        return DIFFERENT

    def doubt(self, why: str) -> Outcome:
        """Record the first reason and return UNDECIDED."""
        self.why = self.why or f"undecided: {why}"
        return UNDECIDED

    def same(self, found: Tree, goal: Tree) -> Outcome:
        """Compare an answer with the ground truth ``goal``, with the conventions."""
        unknowns = [_unknown(found), _unknown(goal)]
        if None not in unknowns and unknowns[0] != unknowns[1]:
            return self.differ("the unknowns differ")
        a, b = take_marks(found), take_marks(goal)
        both_relations = found[0] == goal[0] == "rel"
        if both_relations and (a.name is None or a.name != b.name) and "in" not in found[1] + goal[1]:
            return self._same_relations(found, goal)
        if a.modulus and b.modulus and (moduli := self.same_expression(a.modulus, b.modulus)) > AGREE:
            return self.differ("the moduli differ") if moduli == DIFFERENT else moduli
        bare = b if a.unit == _DEGREES else a
        if _DEGREES in (a.unit, b.unit) and a.unit != b.unit and (bare.unit == _RADIANS or "'pi'" in repr(bare.values)):
            return self._same_angle(a, b)
        if a.unit != b.unit and a.unit and b.unit:
            return self.differ(f"the units differ ({unit_text(a.unit)} and {unit_text(b.unit)})")
        if (("%", 1),) in (a.unit, b.unit) and a.unit != b.unit:
            return self._same_percent(a, b)
        target = drop_degrees(b.values[-1])
        outcome = self._worst(self.same_value(drop_degrees(value), target) for value in a.values)
        if a.modulus and b.modulus and not outcome.rewarded and len(a.values) == 1:  # 12 is 5 modulo 7
            rest = ("fn", "mod", (("add", (a.values[0], ("neg", target))), b.modulus))
            outcome = min(outcome, self.same_expression(rest, ("num", 0)))
        if _DEGREES in (a.unit, b.unit) and a.unit != b.unit and not outcome.rewarded:
            outcome = min(outcome, self._same_angle(a, b))
        return outcome

    def _worst(self, outcomes: Iterable[Outcome]) -> Outcome:
        """Return the worst outcome. Stop at the first difference."""
        worst = EQUAL
        for outcome in outcomes:
            worst = max(worst, outcome)
            if worst == DIFFERENT:
                break
        return worst

    def _same_angle(self, a: Marked, b: Marked) -> Outcome:
        r"""Compare degrees with radians, such as ``60^\circ`` with ``\pi/3``."""
        x, y = (("deg", marked.values[-1]) if marked.unit == _DEGREES else marked.values[-1] for marked in (a, b))
        if "'pi'" not in repr((x, y)) or x[0] in _STRUCTURES or y[0] in _STRUCTURES:
            return DIFFERENT
        return self.same_expression(x, y)

    def _same_percent(self, found: Marked, goal: Marked) -> Outcome:
        """Compare percentages: ``30%`` equals 30 (as in MATH) and 3/10 (its value), but ``0.5%`` is not a bare 0.5."""
        a, b = found.values[-1], goal.values[-1]
        outcome = self.same_value(a, b)
        if a[0] in _STRUCTURES or b[0] in _STRUCTURES or letters(a) or letters(b):
            return outcome
        larger = ("add", (("pow", b, ("num", 2)), ("neg", ("num", 1))))
        if outcome.rewarded and (
            goal.unit or self.same_expression(larger, ("num", 0)).rewarded or sign_of(larger, self.budget) == 1
        ):
            return outcome
        value, percent = (b, a) if found.unit else (a, b)
        return self.same_expression(("mul", value, ("num", 100)), percent)

    # -- structures -----------------------------------------------------------------------------------------

    def same_value(self, found: Tree, goal: Tree) -> Outcome:
        """Compare two answers without marks: structures by their parts, expressions by their values."""
        found, goal = _as_items(found), _as_items(goal)
        if (outcome := self._same_sets(found, goal)) is not None:
            return outcome
        if "ratio" in (found[0], goal[0]) and found[0] != goal[0]:
            found, goal = (("div", *tree[1]) if tree[0] == "ratio" and len(tree[1]) == 2 else tree for tree in (found, goal))
        if "group" in (found[0], goal[0]):
            found, goal = _as_tuple(found), _as_tuple(goal)
        kinds = {found[0], goal[0]}
        if kinds & {"list", "set"}:
            return self._same_collections(found, goal)
        if len(kinds) == 2 and kinds <= _SETS:
            return self.doubt("the order of the ends is not known")
        if len(kinds) == 2 and kinds & _STRUCTURES:
            return self.differ(f"a {_name(found)} is not a {_name(goal)}")
        kind = goal[0]
        if kind == "group":
            if found[1:3] != goal[1:3]:
                return self.differ("the brackets differ: an open end is not a closed end")
            return self._same_in_order(found[3], goal[3])
        if kind in ("cup", "cap"):
            outcome = self._same_in_any_order(found[1], goal[1])
            return outcome if outcome.rewarded else UNDECIDED
        if kind == "setminus":
            return self._same_in_order(found[1], goal[1])
        if kind == "matrix":
            return self._same_matrices(found[1], goal[1])
        if kind == "rel":
            return self._same_relations(found, goal)
        if kind in ("based", "text", "name"):
            return EQUAL if found == goal else self.differ("the digits, the base or the words differ")
        if kind == "label":
            same_words = found[2] == goal[2]
            return self.same_value(found[1], goal[1]) if same_words else self.differ("the words after the value differ")
        if kind == "ratio":
            return self._same_ratios(found[1], goal[1])
        return self.same_expression(found, goal)

    def _same_sets(self, found: Tree, goal: Tree) -> Outcome | None:
        """Compare two subsets of the real line. Return None for other answers, and if the order of endpoints is unknown."""
        kinds = {found[0], goal[0]}
        if (
            not kinds & {"cup", "cap", "setminus"}
            and not any(map(_joins_relations, (found, goal)))
            and ("group" not in kinds or len(kinds) == 1)
        ):
            return None
        ends: list[list[Tree]] = []  # in increasing order, with those of equal value together
        try:
            for end in dict.fromkeys((*ends_of(found), *ends_of(goal))):
                if not infinity_of(end):
                    self._insert(end, ends)
        except Unreadable:
            self.why = ""
            return None
        # Endpoints have odd places, the intervals between them have even ones.
        places = {end: 2 * k + 1 for k, equals in enumerate(ends) for end in equals}
        places |= {INFINITY: 2 * len(ends) + 1, ("neg", INFINITY): -1}
        intervals = [part[3] for tree in (found, goal) for part in subtrees(tree) if part[0] == "group"]
        if any(places[low] >= places[high] for low, high in intervals):
            return None  # (3, 1) is a point
        held = []
        for tree in (found, goal):
            held.append([holds(tree, place, places) for place in range(2 * len(ends) + 1)])
            if tree[0] == "list" and tree[2] == "," and not any(held[-1]):  # a comma means "or" if "and" gives the empty set
                held[-1] = [holds((*tree[:2], "or"), place, places) for place in range(2 * len(ends) + 1)]
        if held[0] != held[1]:
            self.why = "the sets differ"
            return DIFFERENT
        return AGREE if self.tier == "numerical" else EQUAL

    def _insert(self, end: Tree, ends: list[list[Tree]]) -> None:
        for k, equals in enumerate(ends):
            order = self._order(end, equals[0])
            if order == 0:
                equals.append(end)
            elif order < 0:
                ends.insert(k, [end])
            if order <= 0:
                return
        ends.append([end])

    def _order(self, a: Tree, b: Tree) -> int:
        """Return the sign of ``a - b``. Raises Unreadable if it is unknown."""
        if self.same_expression(a, b).rewarded:
            return 0
        sign = None if letters(a) or letters(b) else sign_of(("add", (a, ("neg", b))), self.budget)
        if sign is None:
            raise Unreadable("an unknown order")
        return sign

    def _same_collections(self, found: Tree, goal: Tree) -> Outcome:
        if found[0] not in ("list", "set") or goal[0] not in ("list", "set"):
            single = found if found[0] == "set" else goal
            if single[0] == "set" and len(single[1]) == 1:
                return self.same(*(tree[1][0] if tree is single else tree for tree in (found, goal)))
            return self.differ("one answer is a list of values and the other is not")
        connectives = {tree[2] for tree in (found, goal) if tree[0] == "list"} - {","}
        if len(connectives) == 2:
            return self.differ('"and" is not "or"')
        points = [_coordinates(tree) for tree in (found, goal)]
        if any(points) and not all(points) and "_" not in repr(points):  # x = 5, y = 6 is not 6, 5, but x_1 and x_2 may be
            return self._same_in_order(*(values or tree[1] for values, tree in zip(points, (found, goal), strict=True)))
        return self._same_in_any_order(found[1], goal[1])

    def _same_part(self, a: Tree, b: Tree) -> Outcome:
        """Compare two entries. A set never equals a value here: ``{1, {2}}`` is not ``{1, 2}``."""
        if a == b:
            return EQUAL
        return (
            self.same(a, b) if (a[0] == "set") == (b[0] == "set") else self.differ("a set is not equal to its only member")
        )

    def _same_in_order(self, found: tuple[Tree, ...], goal: tuple[Tree, ...]) -> Outcome:
        if len(found) != len(goal):
            return self.differ(f"the answer has {len(found)} entries instead of {len(goal)}")
        return self._worst(self._same_part(a, b) for a, b in zip(found, goal, strict=True))

    def _same_in_any_order(self, found: tuple[Tree, ...], goal: tuple[Tree, ...]) -> Outcome:
        """Compare as collections without order. Each item is matched once."""
        if len(found) != len(goal):
            return self.differ(f"the answer has {len(found)} values instead of {len(goal)}")
        if len(goal) > MAX_ITEMS:
            outcome = self._same_in_order(found, goal)
            return outcome if outcome.rewarded else self.doubt(f"more than {MAX_ITEMS} values in another order")
        left, worst = list(goal), EQUAL
        for item in found:
            best, place = DIFFERENT, None
            for k, other in enumerate(left):
                outcome = self._same_part(item, other)
                if outcome < best:
                    best, place = outcome, k
                if best == EQUAL:
                    break
            worst = max(worst, best)
            if worst == DIFFERENT:
                self.why = "one of the values is not among those of the ground truth"
                return DIFFERENT
            del left[place]
        return worst

    def _same_matrices(self, found: tuple, goal: tuple) -> Outcome:
        if len(found) != len(goal):
            return self.differ("the matrices have different sizes")
        return self._worst(self._same_in_order(row, other) for row, other in zip(found, goal, strict=True))

    def _same_ratios(self, found: tuple[Tree, ...], goal: tuple[Tree, ...]) -> Outcome:
        """Compare ratios by their cross products: ``2:4`` equals ``1:2``. A ratio of zeros is undecided."""
        if len(found) != len(goal):
            return self.differ("the ratios have different lengths")
        for parts in (found, goal):
            if all(self.same_expression(part, ("num", 0)) != DIFFERENT for part in parts):
                return self.doubt("a ratio of zeros has no value")
        self.why = ""
        return self._worst(
            self.same_expression(("mul", found[j], goal[k]), ("mul", found[k], goal[j]))
            for k in range(len(goal))
            for j in range(k)
        )

    # -- relations ------------------------------------------------------------------------------------------

    def _same_relations(self, found: Tree, goal: Tree) -> Outcome:
        """Compare equations and inequalities up to a constant factor, or chains of the same relations."""
        (signs, sides), (goal_signs, goal_sides) = forward(found), forward(goal)
        if signs != goal_signs:
            return self.differ("the relations differ")
        if len(signs) == 1 and signs[0] in ("=", "<", "<=", "!=") and "name" not in {side[0] for side in sides + goal_sides}:
            return self._proportional(sides, goal_sides, signs[0])
        return self._same_in_order(sides, goal_sides)

    def _proportional(self, found: tuple[Tree, ...], goal: tuple[Tree, ...], sign: str) -> Outcome:
        """Check that ``left - right`` of one is a constant times that of the other, positive for inequalities."""
        if any(side[0] in _STRUCTURES for side in found + goal):
            return self._same_in_order(found, goal)
        self.tier = "symbolic"
        try:
            a, b = (
                lift(self.algebra.value(reduced(("add", (drop_degrees(left), ("neg", drop_degrees(right)))))))
                for left, right in (found, goal)
            )
            if a.above.is_constant() or b.above.is_constant():
                return self.doubt("an equation without a letter cannot be compared")
            factor = (a.above.leading_coefficient() / a.below.leading_coefficient()) / (
                b.above.leading_coefficient() / b.below.leading_coefficient()
            )
            equal = self.algebra.equal(a, self.algebra.times(factor, b))
        except Unreadable as error:
            return self.doubt(str(error))
        if equal and (sign in ("=", "!=") or factor > 0):
            return EQUAL
        if equal or self._only_letters(a, b):
            return self.differ("the relations are not equivalent")
        return self.doubt("the relations are not multiples of each other")

    # -- values ---------------------------------------------------------------------------------------------

    def same_expression(self, found: Tree, goal: Tree) -> Outcome:
        """Compare two expressions by value: by exact algebra if it decides, else at several points."""
        infinities = infinity_of(found), infinity_of(goal)
        if any(infinities):
            return EQUAL if infinities[0] == infinities[1] else self.differ("only one value is this infinity")
        try:
            return self._compare_values(reduced(found), reduced(goal))
        except Unreadable as error:
            return self.doubt(str(error))
        except (ArithmeticError, RecursionError, MemoryError) as error:
            return self.doubt(f"no value ({error})")

    def _compare_values(self, found: Tree, goal: Tree) -> Outcome:
        equal: bool | None = None
        try:
            a, b = self.algebra.value(found), self.algebra.value(goal)
            if isinstance(a, fmpq) and isinstance(b, fmpq):
                self.tier = "number" if self.tier == "structure" else self.tier
                return self._equal_if_valued(found, goal) if a == b else self.differ("different numbers")
            self.tier = "symbolic" if self.tier != "numerical" else self.tier
            equal = self.algebra.equal(a, b)
            if self._only_letters(a, b):
                return self._equal_if_valued(found, goal) if equal else self.differ("the expressions have different values")
        except OverBudget:
            self.tier = "symbolic"
            raise
        except TooBig:  # too big for algebra, but comparing at points may still decide
            self.tier = "symbolic"
        if _is_unknown(found) or _is_unknown(goal):
            return EQUAL if equal else self.doubt("a function without a definition has no value")
        points = PointComparison(found, goal, self.algebra)
        if equal:
            return EQUAL if points.has_value() else self.doubt("the expressions have no value")
        self.tier = "numerical"
        agree, why = points.agree()
        if agree is None:
            return self.doubt(why)
        return AGREE if agree else self.differ("the expressions have different values")

    def _equal_if_valued(self, found: Tree, goal: Tree) -> Outcome:
        """Return EQUAL unless a part has no value: ``\\ln 0 - \\ln 0`` is not 0, although it cancels."""
        if not (self.algebra.is_risky(found) or self.algebra.is_risky(goal)):
            return EQUAL
        valued = PointComparison(found, goal, self.algebra).has_value()
        return EQUAL if valued else self.doubt("the expressions have no value")

    def _only_letters(self, *values: Value) -> bool:
        """Return whether all atoms are letters. Then different rational functions have different values."""
        return all(
            self.algebra.atoms[k][0] == "sym"
            for value in values
            if isinstance(value, Quotient)
            for part in (value.above, value.below)
            for k, degree in enumerate(part.degrees())
            if degree
        )


def _is_unknown(tree: Tree) -> bool:
    """Return whether an expression contains a function or figure without a definition: ``f(2)``, ``\\angle A``."""
    return any(part[0] == "fn" and part[1] in _NAMING_FUNCTIONS for part in subtrees(tree))


def _unknown(tree: Tree) -> str | None:
    """Return the only letter of one or more relations, None for anything else."""
    while tree[0] == "pmod":
        tree = tree[1]
    relations = tree[1] if tree[0] == "list" else (tree,)
    if not all(part[0] == "rel" for part in relations):
        return None
    found = letters(tree) - {REALS[1]}
    return found.pop() if len(found) == 1 else None


def _joins_relations(tree: Tree) -> bool:
    return tree[0] == "list" and all(item[0] == "rel" and item[1] != ("=",) for item in tree[1])


def _as_tuple(tree: Tree) -> Tree:
    r"""Convert a column vector, or ``x = 5, y = 6`` ordered by name, to a tuple. Return other trees unchanged."""
    if tree[0] == "matrix" and all(len(row) == 1 for row in tree[1]):
        return ("group", "(", ")", tuple(row[0] for row in tree[1]))
    coordinates = _coordinates(tree)
    return ("group", "(", ")", coordinates) if coordinates else tree


def _coordinates(tree: Tree) -> tuple[Tree, ...]:
    """Return the values of ``y = 6, x = 5`` ordered by name, or () for anything else or repeated names.

    Names without a usual order, such as ``m = 2, b = 3``, keep their order.
    """
    if tree[0] != "list" or not all(item[:2] == ("rel", ("=",)) and item[2][0][0] == "sym" for item in tree[1]):
        return ()
    found = {item[2][0][1]: item[2][1] for item in tree[1]}
    if len(found) < len(tree[1]):
        return ()
    has_order = set(found) <= set("uvwxyz") or is_product("".join(sorted(found)))
    return tuple(found[name] for name in (sorted(found) if has_order else found))


def _name(tree: Tree) -> str:
    return _NAMES.get(tree[0], "single value")


def _as_items(tree: Tree) -> Tree:
    r"""Expand ``1 \pm 2`` to a list of two values, also inside a list or a set, and merge ``-`` with digits in a base."""
    if tree[0] in ("list", "set"):
        return (tree[0], tuple(value for item in tree[1] for value in expand_signs(item)), *tree[2:])
    if tree[0] == "neg" and tree[1][0] == "based":
        return ("based", "-" + tree[1][1], tree[1][2])
    if tree[0] in ("neg", "mul", "div", "add", "pow"):
        tree = as_matrix(tree)
    if tree[0] == "cup" and all(part[0] == "set" for part in tree[1]):
        return ("set", tuple(item for part in tree[1] for item in part[1]))
    values = expand_signs(tree)
    return tree if len(values) == 1 else ("list", values, ",")


def exactly_equal(comparison: Comparison, left: Tree, right: Tree) -> Outcome:
    """Compare without conventions: structures entry by entry in order, expressions by value."""
    if left[0] != right[0] or left[0] not in ("group", "list", "set", "cup", "matrix"):
        return comparison.same_expression(left, right)
    if left[0] == "group" and left[1:3] != right[1:3]:
        return DIFFERENT
    rows = [tree[1] if tree[0] == "matrix" else (tree[3] if tree[0] == "group" else tree[1],) for tree in (left, right)]
    if [len(row) for row in rows[0]] != [len(row) for row in rows[1]]:
        return DIFFERENT
    return max(
        (exactly_equal(comparison, a, b) for row, other in zip(*rows, strict=True) for a, b in zip(row, other, strict=True)),
        default=EQUAL,
    )

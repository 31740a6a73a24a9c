"""Reading an answer: its tree, with the marks (name before ``=``, unit, percent sign) taken off and written down."""

from __future__ import annotations

import re
from typing import NamedTuple

from .expressions import Tree
from .normalize import normalize
from .parser import parse
from .words import FUNCTIONS, SPELLED, UNITS

_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])")
_TEXT = re.compile(r"\\(?:text|mbox|textbf|textit|textrm|textnormal|mathrm|mathbf|hbox)\s?\{([^{}]*)\}")
_NOT_A_WORD = re.compile(r"[^0-9a-z,]+")
_BARE_WORDS = re.compile(r"[A-Za-z][A-Za-z .'-]*\d{0,4}")
_RUN = re.compile(r"[A-Za-z]{2,}")
_COMMAND = re.compile(r"\\[A-Za-z]+")
_CLOCK = re.compile(r"(\d{1,2})(?::(\d\d))?\s?([apAP])\.?\s?[mM]\.?")
_POWER_WORDS = {"square": "^2", "sq": "^2", "cubic": "^3", "cu": "^3"}
_NAMING_FUNCTIONS = frozenset(("f", "g", "overline", "vec", "hat", "angle", "measuredangle", "triangle"))


class Marked(NamedTuple):
    """An answer without its marks: ``values`` (several for a chain ``x = 4/2 = 2``), ``name``, ``unit``."""

    values: tuple[Tree, ...]
    name: Tree | None = None
    unit: str | None = None


def readings(text: str) -> list[Tree]:
    """The trees of an answer: ``1,234`` outside brackets is a number, and then, second, a list.

    Raises Unreadable where there is none.
    """
    joined = _join_thousands(text) if "," in text else text
    trees = [parse(normalize(joined))]
    if joined != text:
        trees.append(parse(normalize(text)))
    return trees


def _join_thousands(text: str) -> str:
    pieces, depth, start = [], 0, 0
    for match in _THOUSANDS.finditer(text):
        between = text[start:match.start()]
        depth += between.count("(") + between.count("[") + between.count("\\{")
        depth -= between.count(")") + between.count("]") + between.count("\\}")
        pieces += [between, match.group() if depth > 0 else match.group().replace(",", "")]
        start = match.end()
    return "".join(pieces) + text[start:]


def words(text: str) -> str:
    """The letters and digits of an answer in words: ``\\text{No solution}`` is ``nosolution``."""
    return _NOT_A_WORD.sub("", _TEXT.sub(r"\1", normalize(text)).casefold())


def is_words(text: str) -> bool:
    """Whether an answer is words such as ``\\text{odd}``, ``\\text{June 20}`` or ``Monday``, and no mathematics."""
    outside = _TEXT.sub("", text).strip(" $.")
    if outside:
        return bool(_BARE_WORDS.fullmatch(outside)) and _names_something(outside)
    return any(_names_something(content) for content in _TEXT.findall(text)) and "," not in text


def _names_something(content: str) -> bool:
    content = _COMMAND.sub(" ", content)  # the "circ" of 30^\circ is no word
    runs = [run for run in _RUN.findall(content) if run not in FUNCTIONS and run not in SPELLED]
    return any(len(run) > 2 and not _is_product(run) for run in runs) or (
        bool(runs) and content.strip().isupper() and content.strip().isalpha())


def _is_product(run: str) -> bool:
    """``xyz`` and ``abc``: consecutive letters are a product rather than a word."""
    return all(ord(b) - ord(a) == 1 for a, b in zip(run, run[1:], strict=False))


def clock_time(text: str) -> tuple[int, int, str] | None:
    """Hour, minute and half of the day of ``\\text{1:03 PM}`` or ``9 \\text{ a.m.}``."""
    match = _CLOCK.fullmatch(_TEXT.sub(r"\1", normalize(text)).strip())
    return match and (int(match.group(1)), int(match.group(2) or 0), match.group(3).lower())


def unit_name(spelling: str) -> str:
    """One name for every spelling of a unit: ``square centimeters`` is ``cm^2``; plural or not is the same."""
    power, parts = "", []
    for word in spelling.replace(".", " ").split():
        if word.lower() in _POWER_WORDS:
            power = _POWER_WORDS[word.lower()]
        elif word[0] == "^":
            power = word
        elif word.lower() != "unit" and word.lower() != "units":
            parts.append(UNITS.get(word) or UNITS.get(word.lower()) or word.lower().rstrip("s"))
    return " ".join(parts) + (power if parts else "")


def is_name(tree: Tree) -> bool:
    """Whether the left side of ``name = value`` only names what was asked: ``x``, ``f(x)``, ``P(A)``, ``(x, y)``."""
    kind = tree[0]
    if kind == "fn":
        return tree[1] in _NAMING_FUNCTIONS
    if kind == "mul":
        return is_name(tree[1]) and is_name(tree[2])
    if kind == "group":
        return all(is_name(item) for item in tree[3])
    return kind in ("sym", "text") or tree == ("const", "e")


def take_marks(tree: Tree) -> Marked:
    """Take the name and the unit off one answer."""
    name, values = None, (tree,)
    if tree[0] == "rel":
        name, values = _assignment(*tree[1:])
    unit, bare = None, []
    for value in values:
        value, found = _take_unit(value)
        unit = unit or found
        bare.append(value)
    return Marked(tuple(bare), name, unit)


def _assignment(signs: tuple[str, ...], sides: tuple[Tree, ...]) -> tuple[Tree | None, tuple[Tree, ...]]:
    """Name and values of ``x = 5``, ``5 = x``, ``x \\in S``; what follows ``\\approx`` is a remark after a value.

    A chain that says the same twice (``x = x``) names nothing.
    """
    whole = ("rel", signs, sides)
    if signs == ("in",):
        return (sides[0], sides[1:]) if is_name(sides[0]) else (None, (whole,))
    if not set(signs) <= {"=", "~", "=="} or len(set(sides)) < len(sides):
        return None, (whole,)
    if is_name(sides[0]):
        exact = 1 + next((k for k, sign in enumerate(signs) if sign == "~" and k), len(signs))
        return sides[0], sides[1:exact]
    if signs == ("=",) and sides[1][0] in ("sym", "fn") and is_name(sides[1]):
        return sides[1], sides[:1]
    return (None, sides[:1]) if signs == ("~",) else (None, (whole,))


def _take_unit(tree: Tree) -> tuple[Tree, str | None]:
    """A value and the one name of its unit (``%``, ``deg``, ``usd``, ``cm^2``)."""
    negative = tree[0] == "neg"
    inner, unit = tree[1] if negative else tree, None
    while inner[0] in ("unit", "pct", "deg", "money"):
        unit = unit or {"pct": "%", "deg": "deg", "money": "usd"}.get(inner[0]) or unit_name(inner[2])
        inner = inner[1]
    if inner[0] == "mul" and inner[1][0] == "money":
        inner, unit = ("mul", inner[1][1], inner[2]), "usd"
    return (("neg", inner) if negative else inner), unit or None


def drop_degrees(tree: Tree) -> Tree:
    """``180^\\circ - x^\\circ`` is ``180 - x`` where no function reads the angle."""
    kind = tree[0]
    if kind == "deg":
        return drop_degrees(tree[1])
    if kind == "add":
        return ("add", tuple(drop_degrees(term) for term in tree[1]))
    if kind in ("neg", "pm", "mp", "mul", "div"):
        return (kind, *(drop_degrees(part) for part in tree[1:]))
    return tree


def expand_signs(tree: Tree) -> tuple[Tree, ...]:
    """The two values of an expression with ``\\pm`` (and ``\\mp``), or the expression itself."""
    if not _has_sign(tree):
        return (tree,)
    return (_choose(tree, "pm"), _choose(tree, "mp"))


def _has_sign(tree: Tree) -> bool:
    return tree[0] in ("pm", "mp") or any(_has_sign(part) for part in tree if isinstance(part, tuple) and part)


def _choose(tree: Tree, plus: str) -> Tree:
    if tree[0] in ("pm", "mp"):
        inner = _choose(tree[1], plus)
        return inner if tree[0] == plus else ("neg", inner)
    return tuple(_choose(part, plus) if isinstance(part, tuple) and part else part for part in tree)

r"""Definitions of functions in terms of a few basic ones, so that later tiers handle only the basic ones.

Values are computed for sums, products, quotients, powers (roots are powers) and ``sin``, ``cos``, ``arcsin``, ``arctan``,
``ln``, ``floor``, ``factorial``, ``binom``. ``|u|`` is the root of ``u^2``, except around imaginary numbers. ``gcd`` and
``lcm`` are defined only for integers.
"""

from __future__ import annotations

from fractions import Fraction

from .limits import MAX_NODES, TooBig
from .parser import parse
from .trees import Tree, replaced, size, subtrees

#: Names and their definitions, with the arguments u and v.
_ONE_ARGUMENT = {
    "tan": r"\frac{\sin u}{\cos u}",
    "cot": r"\frac{\cos u}{\sin u}",
    "sec": r"\frac{1}{\cos u}",
    "csc": r"\frac{1}{\sin u}",
    "arccos": r"\frac{\pi}{2} - \arcsin u",
    "arccot": r"\frac{\pi}{2} - \arctan u",
    "arcsec": r"\frac{\pi}{2} - \arcsin\frac{1}{u}",
    "arccsc": r"\arcsin\frac{1}{u}",
    "exp": "e^u",
    "cis": r"\cos u + i\sin u",
    "sinh": r"\frac{e^u - e^{-u}}{2}",
    "cosh": r"\frac{e^u + e^{-u}}{2}",
    "tanh": r"\frac{e^u - e^{-u}}{e^u + e^{-u}}",
    "coth": r"\frac{e^u + e^{-u}}{e^u - e^{-u}}",
    "sech": r"\frac{2}{e^u + e^{-u}}",
    "csch": r"\frac{2}{e^u - e^{-u}}",
    "arcsinh": r"\ln(u + (u^2 + 1)^{1/2})",
    "arccosh": r"\ln(u + (u^2 - 1)^{1/2})",
    "arctanh": r"\frac{1}{2}\ln\frac{1 + u}{1 - u}",
    "log": r"\frac{\ln u}{\ln 10}",
    "lg": r"\frac{\ln u}{\ln 10}",
    "ceil": r"-\lfloor -u \rfloor",
    "abs": "(u^2)^{1/2}",
}
_TWO_ARGUMENTS = {
    "root": r"u^{1/v}",
    "log": r"\frac{\ln u}{\ln v}",
    "lg": r"\frac{\ln u}{\ln v}",
    "ln": r"\frac{\ln u}{\ln v}",
    "mod": r"u - v\lfloor\frac{u}{v}\rfloor",
    "max": r"\frac{u + v + |u - v|}{2}",
    "min": r"\frac{u + v - |u - v|}{2}",
}
DEFINITIONS = {
    (name, count): parse(text) for count, table in ((1, _ONE_ARGUMENT), (2, _TWO_ARGUMENTS)) for name, text in table.items()
}


def reduced(tree: Tree) -> Tree:
    """Return the expression without ``neg``, ``pct``, ``deg`` and functions of ``DEFINITIONS``, with fractions as numbers.

    Raises TooBig if the result would have more than MAX_NODES parts.
    """
    kind = tree[0]
    if kind == "fn":
        return _reduced_function(tree[1], tuple(map(reduced, tree[2])))
    if kind == "pct":
        return reduced(("div", tree[1], ("num", 100)))
    if kind == "deg":
        return reduced(("mul", tree[1], ("div", ("const", "pi"), ("num", 180))))
    if kind == "add":
        return ("add", tuple(map(reduced, tree[1])))
    if kind not in ("neg", "mul", "div", "pow"):
        return tree
    parts = [reduced(part) for part in tree[1:]]
    if kind == "neg":
        return ("num", -parts[0][1]) if parts[0][0] == "num" else ("mul", ("num", -1), parts[0])
    if kind == "div" and parts[0][0] == parts[1][0] == "num" and parts[1][1]:
        value = Fraction(parts[0][1]) / parts[1][1]
        return ("num", value.numerator if value.denominator == 1 else value)
    if kind == "pow" and _is_in_bars(parts[0]):
        return ("pow", parts[0][1], reduced(("div", parts[1], ("num", 2))))  # |u|^a is a power of u^2
    return (kind, *parts)


def _is_in_bars(tree: Tree) -> bool:
    return tree[0] == "pow" and tree[2] == ("num", Fraction(1, 2)) and tree[1][::2] == ("pow", ("num", 2))


def _reduced_function(name: str, arguments: tuple[Tree, ...]) -> Tree:
    if name in ("min", "max") and len(arguments) > 2:
        arguments = (_reduced_function(name, arguments[:-1]), arguments[-1])
    if name == "ln" and len(arguments) == 1 and _is_in_bars(arguments[0]):
        return ("mul", ("num", Fraction(1, 2)), ("fn", "ln", (arguments[0][1],)))
    definition = DEFINITIONS.get((name, len(arguments)))
    if definition is None or name == "abs" and ("const", "i") in subtrees(arguments):
        return ("fn", name, arguments)
    if size(arguments) > MAX_NODES:
        raise TooBig(f"an expression of more than {MAX_NODES} parts")
    return reduced(replaced(definition, dict(zip((("sym", "u"), ("sym", "v")), arguments, strict=False))))

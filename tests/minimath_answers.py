r"""The answers of MiniMATH found again, by another route: from what a problem *says*, mostly with sympy.

Nothing here calls a template, reads a solution or reads ``params``: a problem whose text and answer disagree is found
even if both come from the same parameters. A route takes the formulas between the dollars of the problem's text.
"""

from __future__ import annotations

import re
from itertools import combinations
from math import prod

import sympy as sp
from sympy.parsing.sympy_parser import convert_xor, implicit_multiplication, parse_expr, standard_transformations

X, T = sp.symbols("x t")
READING = (*standard_transformations, implicit_multiplication, convert_xor)


def read(latex: str) -> sp.Expr:
    """Parse a formula of our own problems with sympy."""
    return parse_expr(latex.replace(r"\cdot", "*"), {"x": X, "t": T, "i": sp.I}, READING)


def numbers(*formulas: str) -> list[int]:
    return [int(digits) for formula in formulas for digits in re.findall(r"-?\d+", formula)]


def sides(formula: str) -> tuple[sp.Expr, sp.Expr]:
    left, right = formula.split("=")
    return read(left), read(right)


def mean(*formulas: str) -> sp.Expr:
    return sp.Rational(sum(numbers(*formulas)), len(formulas))


def solve_equation(equation: str) -> sp.Expr:
    return sp.solve(sp.Eq(*sides(equation)), X)[0]


def evaluate(definition: str, call: str) -> sp.Expr:
    (value,) = numbers(call)
    for _ in range(call.count("f(")):
        value = read(definition.split("=")[1]).subs(X, value)
    return value


def solve_system(first: str, second: str) -> tuple:
    x, y = sp.symbols("x y")
    equations = [sp.Eq(parse_expr(left), int(right)) for left, right in (f.split("=") for f in (first, second))]
    return next(iter(sp.linsolve(equations, x, y)))


def interval(inequality: str) -> str:
    """Solve by trying every integer, because the ends of these intervals are integers."""
    left, closed, right = re.fullmatch(r"(.*) (<|\\le) (\d+)", inequality).groups()
    inner, added = re.fullmatch(r"\|(.*)\| \+ (\d+)", left).groups()
    inside = sp.lambdify(X, read(inner))
    good = [x for x in range(-100, 101) if abs(inside(x)) + int(added) <= int(right) - (closed == "<")]
    return f"[{good[0]}, {good[-1]}]" if closed != "<" else f"({good[0] - 1}, {good[-1] + 1})"


def roots(equation: str) -> list[int]:
    return sorted(sp.Poly(read(equation.split("=")[0]), X).all_roots())


def squared_roots(r: str, s: str, quadratic: str, wanted: str) -> sp.Expr:
    return sp.expand(sum(times * root**2 for root, times in sp.roots(read(quadratic), X).items()))


def matrix(latex: str) -> sp.Matrix:
    return sp.Matrix(2, 2, numbers(latex))


def share(first: str, *others: str, other_than_first: bool = False) -> sp.Expr:
    bag = [kind for kind, n in enumerate(numbers(first, *others)) for _ in range(n)]
    return sp.Rational(sum((kind != 0) == other_than_first for kind in bag), len(bag))


ROUTES = {
    "order_of_operations": read,
    "percent_of": lambda p, n: sp.Rational(*numbers(p), 100) * numbers(n)[0],
    "mean_of_four": mean,
    "percent_increase": lambda a, b: f"{(sp.Rational(b) / sp.Rational(a) - 1) * 100}\\%",
    "linear_equation": lambda equation, x: solve_equation(equation),
    "evaluate_quadratic": evaluate,
    "expand_product": lambda product: sp.expand(read(product)),
    "linear_system": lambda first, second, pair: solve_system(first, second),
    "remainder": lambda a, m: int(a) % int(m),
    "greatest_common_divisor": lambda a, b: sp.igcd(*numbers(a, b)),
    "base_to_ten": lambda number: int(number.split("_")[0], *numbers(number.split("_")[1])),
    "divisor_count": lambda number: sp.divisor_count(read(number)),
    "outfits": lambda *kinds: prod(numbers(*kinds)),
    "draw_probability": share,
    "neither_club": lambda n, a, b, both: int(n) - (int(a) + int(b) - int(both)),
    "committee": lambda j, boys, k, girls: sp.binomial(boys, j) * sp.binomial(girls, k),
    "rectangle_perimeter": lambda a, b: sp.Polygon((0, 0), (a, 0), (a, b), (0, b)).perimeter,
    "triangle_angle": lambda a, b: f"{180 - sum(numbers(a, b))}^\\circ",
    "ring_area": lambda outer, inner: sp.Circle((0, 0), outer).area - sp.Circle((0, 0), inner).area,
    "hypotenuse": lambda a, b: sp.Point(a, 0).distance(sp.Point(0, b)),
    "box_surface": lambda *box: 2 * sum(a * b for a, b in combinations(numbers(*box), 2)),
    "absolute_inequality": interval,
    "quadratic_roots": lambda equation: "\\{" + ", ".join(map(str, roots(equation))) + "\\}",
    "sum_of_squared_roots": squared_roots,
    "complex_product": lambda product: sp.expand(read(product)),
    "dot_product": lambda a, b: sp.Matrix(numbers(a)).dot(sp.Matrix(numbers(b))),
    "determinant": lambda latex: matrix(latex).det(),
    "point_on_line": lambda x, y, t: tuple(sides(line)[1].subs(T, sides(t)[1]) for line in (x, y)),
    "matrix_times_vector": lambda latex, vector: tuple(matrix(latex) * sp.Matrix(numbers(vector))),
    "mean_of_three": mean,
    "evaluate_twice": evaluate,
    "remainder_of_product": lambda product, m: read(product) % int(m),
    "circle_area": lambda radius: sp.Circle((0, 0), radius).area,
    "not_red_probability": lambda red, blue: share(red, blue, other_than_first=True),
}


def find_answer(row: dict) -> str:
    """Return the answer of a MiniMATH problem as sympy's LaTeX, without spaces."""
    answer = ROUTES[row["template"]](*re.findall(r"\$([^$]+)\$", row["problem"]))
    if isinstance(answer, (tuple, sp.Tuple)):
        answer = "(" + ", ".join(map(str, answer)) + ")"
    return plain(answer if isinstance(answer, str) else sp.latex(answer))


def plain(latex: str) -> str:
    """Normalise LaTeX: no spaces, ``x^{2}`` as ``x^2``."""
    return latex.replace(" ", "").replace("^{2}", "^2")

r"""Generate MiniMATH: problems, step-by-step solutions, answers, and the three splits.

A template is a function of a :class:`Work` and small integer parameters. It states the problem, writes the steps and
returns the answer in LaTeX. Ranges in the decorator are inclusive, and ``when`` filters draws. Neither pretraining nor RL
uses templates with ``ood=True``, which combine known words in new ways. The value that :meth:`Work.step` returns is used
in the next step, so an error in one step is carried through the rest, as in human work.

A row has MATH's fields (``problem, solution, ground_truth, subject, level``) plus ``id, template, params, answer_form``.

Run it:  python tools/minimath.py   (reproduces data/minimath byte for byte, takes seconds)
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import gcd
from pathlib import Path

from rlvr_utils.problems import MINIMATH

SPLIT_SIZES = {"train": 2000, "test": 500, "ood": 250}


# --- the solution of a problem ---


class ImpossibleSlip(ValueError):
    """After the injected error a later step has no exact value, such as a division with a remainder. Draw another error."""


class Work:
    """Collects the problem text and the steps of one solution.

    Args:
        slip_at: index of the value that becomes wrong, None for a correct solution.
        rng: chooses the wrong value, needed only with ``slip_at``.
    """

    def __init__(self, slip_at: int | None = None, rng: random.Random | None = None):
        self.problem_text = ""
        self.steps: list[str] = []
        self.n_values = 0
        self.slip_at, self.rng = slip_at, rng

    def choose(self, value: int) -> int:
        """Return a value computed without a written step. It may be the injected error."""
        self.n_values += 1
        return slipped(value, self.rng) if self.n_values - 1 == self.slip_at else value

    def problem(self, text: str) -> None:
        """State the problem in LaTeX, as MATH does."""
        self.problem_text = text

    def step(self, lhs: str, value: int) -> int:
        """Write ``$lhs = value$`` and return the value for the rest of the solution."""
        value = self.choose(value)
        self.steps.append(f"${lhs} = {value}$")
        return value

    def divide(self, a: int, b: int) -> int:
        """Write the step ``a / b`` of a division without a remainder."""
        if b == 0 or a % b:
            raise ImpossibleSlip(f"{a} / {b} is not an integer")
        return self.step(f"{a} / {b}", a // b)

    def reduce(self, a: int, b: int) -> str:
        r"""Return the LaTeX of ``a/b`` in lowest terms, with a step ``\frac{a}{b} = ...`` if it can be reduced."""
        if b == 0 or (a == 0 and self.slip_at is not None):
            raise ImpossibleSlip(f"{a} / {b} is not a fraction")
        if gcd(a, b) == 1 and b != 1:
            return frac(a, b)
        value = Fraction(a, b)
        reduced = frac(self.choose(value.numerator), value.denominator)
        self.steps.append(f"$\\frac{{{a}}}{{{b}}} = {reduced}$")
        return reduced

    def claim(self, lhs: str, rhs: str) -> str:
        """Write a step whose right side is an expression of earlier values."""
        self.steps.append(f"${lhs} = {rhs}$")
        return rhs


def slipped(value: int, rng: random.Random) -> int:
    """Return a plausible wrong value: slightly off, off by ten, or with two digits swapped. Never ``value`` itself."""
    candidates = [value - 2, value - 1, value + 1, value + 2, value + 10]
    if value > 12:
        candidates.append(value - 10)
    digits = str(abs(value))
    if len(digits) == 2 and digits[0] != digits[1] and digits[1] != "0":
        candidates.append(int(digits[::-1]))
    return rng.choice([c for c in candidates if c != value and (c >= 0 or value <= 0)])


def frac(a: int, b: int) -> str:
    r"""Return ``a/b`` in lowest terms in MATH's style: ``3``, ``\frac{1}{2}``, ``-\frac{1}{2}``."""
    value = Fraction(a, b)
    sign = "-" if value < 0 else ""
    if value.denominator == 1:
        return str(value.numerator)
    return f"{sign}\\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"


def polynomial(*coefficients: int, variable: str = "x") -> str:
    """Return a polynomial in MATH's style, highest power first: ``polynomial(1, -5, 6)`` is ``x^2 - 5x + 6``."""
    text = ""
    for power, c in zip(range(len(coefficients) - 1, -1, -1), coefficients, strict=True):
        if c == 0:
            continue
        sign = ("-" if c < 0 else "") if not text else (" - " if c < 0 else " + ")
        number = "" if abs(c) == 1 and power else str(abs(c))
        letter = "" if power == 0 else variable if power == 1 else f"{variable}^{power}"
        text += sign + number + letter
    return text or "0"


def plus(a: object, b: int) -> str:
    """Return ``a + b`` with a single sign: ``plus(3, -2)`` is ``3 - 2``."""
    return f"{a} - {-b}" if b < 0 else f"{a} + {b}"


def minus(a: object, b: int) -> str:
    """Return ``a - b``, with brackets around a negative ``b``."""
    return f"{a} - ({b})" if b < 0 else f"{a} - {b}"


def times(a: int, b: int) -> str:
    r"""Return ``a \cdot b``, with brackets around a negative ``b``."""
    return f"{a} \\cdot ({b})" if b < 0 else f"{a} \\cdot {b}"


# --- templates ---


@dataclass(frozen=True)
class Template:
    """One kind of problem. ``solve(work, **params)`` states the problem, writes the steps and returns the answer."""

    name: str
    subject: str
    level: int
    answer_form: str
    ranges: dict[str, tuple[int, int]]
    when: Callable[..., bool]
    solve: Callable[..., str]
    ood: bool

    def draw(self, rng: random.Random, large: bool = False) -> dict[str, int]:
        """Draw the parameters of one problem. With ``large``, one exceeds the range of training (for ``ood``)."""
        while True:
            ranges = dict(self.ranges)
            if large:
                name = rng.choice(list(ranges))
                ranges[name] = (ranges[name][1] + 1, ranges[name][1] * 3 // 2)
            params = {name: rng.randint(lo, hi) for name, (lo, hi) in ranges.items()}
            if self.when(**params):
                return params


TEMPLATES: dict[str, Template] = {}


def template(
    subject: str,
    level: int,
    answer_form: str,
    when: Callable[..., bool] = lambda **_: True,
    ood: bool = False,
    **ranges: tuple[int, int],
):
    """Register the decorated function as a template."""

    def register(solve):
        TEMPLATES[solve.__name__] = Template(solve.__name__, subject, level, answer_form, ranges, when, solve, ood)
        return solve

    return register


# --- Prealgebra -----------------------------------------------------------------------------------------------------


@template("Prealgebra", 1, "integer", a=(2, 60), b=(2, 9), c=(2, 12))
def order_of_operations(w: Work, a: int, b: int, c: int) -> str:
    w.problem(f"Compute ${a} + {times(b, c)}$.")
    product = w.step(times(b, c), b * c)
    return str(w.step(f"{a} + {product}", a + product))


@template("Prealgebra", 2, "integer", p=(1, 9), n=(2, 30))
def percent_of(w: Work, p: int, n: int) -> str:
    w.problem(f"What is ${10 * p}\\%$ of ${10 * n}$?")
    product = w.step(f"{10 * n} \\cdot {10 * p}", 100 * n * p)
    return str(w.divide(product, 100))


@template(
    "Prealgebra", 3, "integer", lambda a, b, c, d: (a + b + c + d) % 4 == 0, a=(1, 30), b=(1, 30), c=(1, 30), d=(1, 30)
)
def mean_of_four(w: Work, a: int, b: int, c: int, d: int) -> str:
    w.problem(f"What is the mean of ${a}$, ${b}$, ${c}$ and ${d}$?")
    total = w.step(f"{a} + {b}", a + b)
    total = w.step(f"{total} + {c}", total + c)
    total = w.step(f"{total} + {d}", total + d)
    return str(w.divide(total, 4))


@template("Prealgebra", 4, "percent", lambda a, p: a * p % 2 == 0, a=(2, 20), p=(1, 16))
def percent_increase(w: Work, a: int, p: int) -> str:
    a, b = 10 * a, 10 * a + a * p // 2  # a rise by 5p percent
    w.problem(f"A price rises from ${a}$ to ${b}$. By what percent does it rise?")
    rise = w.step(f"{b} - {a}", b - a)
    hundredfold = w.step(f"{rise} \\cdot 100", rise * 100)
    return f"{w.divide(hundredfold, a)}\\%"


# --- Algebra --------------------------------------------------------------------------------------------------------


@template("Algebra", 2, "integer", lambda a, b, x: x != 0, a=(2, 9), b=(1, 30), x=(-6, 12))
def linear_equation(w: Work, a: int, b: int, x: int) -> str:
    c = a * x + b
    w.problem(f"Solve ${a}x + {b} = {c}$ for $x$.")
    rest = w.step(minus(c, b), c - b)
    return str(w.divide(rest, a))


@template("Algebra", 3, "integer", a=(2, 5), b=(2, 9), c=(1, 20), k=(2, 7))
def evaluate_quadratic(w: Work, a: int, b: int, c: int, k: int) -> str:
    w.problem(f"If $f(x) = {polynomial(a, b, c)}$, what is $f({k})$?")
    square = w.step(f"{k}^2", k * k)
    first = w.step(times(a, square), a * square)
    second = w.step(times(b, k), b * k)
    total = w.step(f"{first} + {second}", first + second)
    return str(w.step(f"{total} + {c}", total + c))


@template("Algebra", 3, "polynomial", lambda a, b: a != 0 and b != 0 and a + b != 0, a=(-12, 12), b=(-12, 12))
def expand_product(w: Work, a: int, b: int) -> str:
    product = f"({plus('x', a)})({plus('x', b)})"
    w.problem(f"Expand ${product}$.")
    middle = w.step(plus(a, b), a + b)
    last = w.step(times(a, b), a * b)
    return w.claim(product, polynomial(1, middle, last))


@template("Algebra", 4, "tuple", lambda x, y: x != y and y != 0, x=(1, 30), y=(-15, 20))
def linear_system(w: Work, x: int, y: int) -> str:
    total, difference = x + y, x - y
    w.problem(f"If $x + y = {total}$ and $x - y = {difference}$, what is $(x, y)$?")
    double = w.step(plus(total, difference), total + difference)
    first = w.divide(double, 2)
    second = w.step(minus(total, first), total - first)
    return f"({first}, {second})"


# --- Number Theory --------------------------------------------------------------------------------------------------


@template("Number Theory", 2, "integer", lambda a, m: a > m, a=(20, 120), m=(3, 12))
def remainder(w: Work, a: int, m: int) -> str:
    w.problem(f"What is the remainder when ${a}$ is divided by ${m}$?")
    multiple = w.step(times(m, a // m), a // m * m)
    return str(w.step(f"{a} - {multiple}", a - multiple))


def euclid_steps(a: int, b: int) -> int:
    """Return the number of remainders in Euclid's algorithm for ``(a, b)``, including the final 0."""
    return 0 if b == 0 else 1 + euclid_steps(b, a % b)


@template(
    "Number Theory",
    4,
    "integer",
    lambda a, b, g: a > b and gcd(a, b) == 1 and 3 <= euclid_steps(a, b) <= 4,
    a=(3, 12),
    b=(2, 11),
    g=(1, 9),
)
def greatest_common_divisor(w: Work, a: int, b: int, g: int) -> str:
    a, b = a * g, b * g
    w.problem(f"What is the greatest common divisor of ${a}$ and ${b}$?")
    while b:
        a, b = b, w.step(f"{a} \\bmod {b}", a % b)
    return str(a)


@template("Number Theory", 4, "integer", base=(5, 9), a=(1, 4), b=(0, 4), c=(0, 4))
def base_to_ten(w: Work, base: int, a: int, b: int, c: int) -> str:
    w.problem(f"Write ${a}{b}{c}_{{{base}}}$ in base ten.")
    square = w.step(f"{base}^2", base * base)
    first = w.step(times(a, square), a * square)
    second = w.step(times(b, base), b * base)
    total = w.step(f"{first} + {second}", first + second)
    return str(w.step(f"{total} + {c}", total + c))


@template("Number Theory", 5, "integer", a=(2, 8), b=(2, 7), c=(2, 6), p=(0, 3))
def divisor_count(w: Work, a: int, b: int, c: int, p: int) -> str:
    primes = ((2, 3, 5), (2, 3, 7), (2, 5, 7), (3, 5, 7))[p % 4]
    number = " \\cdot ".join(f"{prime}^{power}" for prime, power in zip(primes, (a, b, c), strict=True))
    w.problem(f"How many positive divisors does ${number}$ have?")
    choices = [w.step(f"{power} + 1", power + 1) for power in (a, b, c)]
    product = w.step(times(choices[0], choices[1]), choices[0] * choices[1])
    return str(w.step(times(product, choices[2]), product * choices[2]))


# --- Counting & Probability -----------------------------------------------------------------------------------------


@template("Counting & Probability", 1, "integer", a=(2, 9), b=(2, 9), c=(2, 9))
def outfits(w: Work, a: int, b: int, c: int) -> str:
    w.problem(f"Tom has ${a}$ shirts, ${b}$ hats and ${c}$ ties. How many outfits are there?")
    pairs = w.step(times(a, b), a * b)
    return str(w.step(times(pairs, c), pairs * c))


@template(
    "Counting & Probability",
    3,
    "fraction",
    lambda red, blue, green: red + blue + green <= 24,
    red=(1, 9),
    blue=(1, 9),
    green=(1, 9),
)
def draw_probability(w: Work, red: int, blue: int, green: int) -> str:
    w.problem(f"A bag has ${red}$ red, ${blue}$ blue and ${green}$ green balls. What is the probability that a ball is red?")
    total = w.step(f"{red} + {blue}", red + blue)
    total = w.step(f"{total} + {green}", total + green)
    return w.reduce(red, total)


@template(
    "Counting & Probability",
    3,
    "integer",
    lambda n, a, b, c: c < min(a, b) and a + b - c < n,
    n=(20, 60),
    a=(6, 30),
    b=(6, 30),
    c=(2, 12),
)
def neither_club(w: Work, n: int, a: int, b: int, c: int) -> str:
    w.problem(f"Of ${n}$ students, ${a}$ sing, ${b}$ dance and ${c}$ do both. How many do neither?")
    total = w.step(f"{a} + {b}", a + b)
    either = w.step(f"{total} - {c}", total - c)
    return str(w.step(f"{n} - {either}", n - either))


@template("Counting & Probability", 4, "integer", boys=(3, 15), girls=(2, 9))
def committee(w: Work, boys: int, girls: int) -> str:
    w.problem(f"In how many ways can $2$ of ${boys}$ boys and $1$ of ${girls}$ girls be chosen?")
    ordered = w.step(times(boys, boys - 1), boys * (boys - 1))
    pairs = w.divide(ordered, 2)
    return str(w.step(times(pairs, girls), pairs * girls))


# --- Geometry -------------------------------------------------------------------------------------------------------


@template("Geometry", 1, "integer", a=(2, 60), b=(2, 60))
def rectangle_perimeter(w: Work, a: int, b: int) -> str:
    w.problem(f"A rectangle has sides ${a}$ and ${b}$. What is its perimeter?")
    half = w.step(f"{a} + {b}", a + b)
    return str(w.step(f"2 \\cdot {half}", 2 * half))


@template("Geometry", 2, "degrees", lambda a, b: a + b < 170, a=(10, 110), b=(10, 110))
def triangle_angle(w: Work, a: int, b: int) -> str:
    w.problem(f"Two angles of a triangle are ${a}^\\circ$ and ${b}^\\circ$. What is the third angle?")
    total = w.step(f"{a} + {b}", a + b)
    return f"{w.step(f'180 - {total}', 180 - total)}^\\circ"


@template("Geometry", 3, "multiple of pi", lambda outer, inner: outer > inner, outer=(3, 16), inner=(2, 15))
def ring_area(w: Work, outer: int, inner: int) -> str:
    w.problem(f"Two circles with the same center have radius ${outer}$ and ${inner}$. What is the area between them?")
    large = w.step(f"{outer}^2", outer**2)
    small = w.step(f"{inner}^2", inner**2)
    return f"{w.step(f'{large} - {small}', large - small)}\\pi"


def square_free(n: int) -> bool:
    return all(n % (d * d) for d in range(2, int(n**0.5) + 1))


@template("Geometry", 3, "square root", lambda a, b: square_free(a * a + b * b), a=(1, 16), b=(1, 16))
def hypotenuse(w: Work, a: int, b: int) -> str:
    w.problem(f"A right triangle has legs ${a}$ and ${b}$. What is its hypotenuse?")
    first = w.step(f"{a}^2", a * a)
    second = w.step(f"{b}^2", b * b)
    return f"\\sqrt{{{w.step(f'{first} + {second}', first + second)}}}"


@template("Geometry", 5, "integer", lambda a, b, c: a > b > c, a=(2, 12), b=(2, 11), c=(2, 9))
def box_surface(w: Work, a: int, b: int, c: int) -> str:
    w.problem(f"A box has sides ${a}$, ${b}$ and ${c}$. What is its surface area?")
    faces = [w.step(times(*pair), pair[0] * pair[1]) for pair in ((a, b), (b, c), (a, c))]
    total = w.step(f"{faces[0]} + {faces[1]}", faces[0] + faces[1])
    total = w.step(f"{total} + {faces[2]}", total + faces[2])
    return str(w.step(f"2 \\cdot {total}", 2 * total))


# --- Intermediate Algebra -------------------------------------------------------------------------------------------


@template(
    "Intermediate Algebra", 3, "interval", lambda a, c, b, closed: b > 0, a=(-9, 15), c=(1, 15), b=(1, 12), closed=(0, 1)
)
def absolute_inequality(w: Work, a: int, c: int, b: int, closed: int) -> str:
    sign, left, right = ("\\le", "[", "]") if closed else ("<", "(", ")")
    w.problem(f"Solve $|{plus('x', -a) if a else 'x'}| + {c} {sign} {b + c}$. Write the answer as an interval.")
    radius = w.step(f"{b + c} - {c}", b)
    low = w.step(minus(a, radius), a - radius)
    high = w.step(plus(a, radius), a + radius)
    if low >= high:
        low, high = high, low
    return f"{left}{low}, {high}{right}"


@template("Intermediate Algebra", 4, "set", lambda r, s: r < s and r * s != 0 and r + s != 0, r=(-9, 9), s=(-9, 9))
def quadratic_roots(w: Work, r: int, s: int) -> str:
    quadratic = polynomial(1, -r - s, r * s)
    w.problem(f"Find the set of solutions of ${quadratic} = 0$.")
    r, s = w.choose(r), w.choose(s)
    w.step(times(r, s), r * s)
    w.step(plus(r, s), r + s)
    w.claim(f"({plus('x', -r)})({plus('x', -s)})", quadratic)
    return f"\\{{{r}, {s}\\}}"


@template("Intermediate Algebra", 4, "integer", b=(2, 15), c=(1, 20))
def sum_of_squared_roots(w: Work, b: int, c: int) -> str:
    w.problem(f"If $r$ and $s$ are the roots of $x^2 - {b}x + {c}$, what is $r^2 + s^2$?")
    square = w.step(f"{b}^2", b * b)
    double = w.step(f"2 \\cdot {c}", 2 * c)
    return str(w.step(minus(square, double), square - double))


@template("Intermediate Algebra", 5, "complex", lambda a, b, c, d: a * c != b * d, a=(1, 9), b=(2, 9), c=(1, 9), d=(2, 9))
def complex_product(w: Work, a: int, b: int, c: int, d: int) -> str:
    w.problem(f"Compute $({a} + {b}i)({c} + {d}i)$.")
    ac, bd, ad, bc = (w.step(times(m, n), m * n) for m, n in ((a, c), (b, d), (a, d), (b, c)))
    real = w.step(minus(ac, bd), ac - bd)
    imaginary = w.step(f"{ad} + {bc}", ad + bc)
    return f"{real} + {imaginary}i"


# --- Precalculus ----------------------------------------------------------------------------------------------------


@template("Precalculus", 2, "integer", a=(1, 9), b=(1, 9), c=(1, 9), d=(1, 9))
def dot_product(w: Work, a: int, b: int, c: int, d: int) -> str:
    w.problem(f"What is the dot product of $({a}, {b})$ and $({c}, {d})$?")
    first = w.step(times(a, c), a * c)
    second = w.step(times(b, d), b * d)
    return str(w.step(f"{first} + {second}", first + second))


@template("Precalculus", 3, "integer", a=(1, 9), b=(1, 9), c=(1, 9), d=(1, 9))
def determinant(w: Work, a: int, b: int, c: int, d: int) -> str:
    w.problem(f"Find $\\begin{{vmatrix}} {a} & {b} \\\\ {c} & {d} \\end{{vmatrix}}$.")
    main = w.step(times(a, d), a * d)
    other = w.step(times(b, c), b * c)
    return str(w.step(minus(main, other), main - other))


@template("Precalculus", 3, "tuple", a=(-9, 12), b=(2, 9), c=(-9, 12), d=(2, 9), t=(2, 9))
def point_on_line(w: Work, a: int, b: int, c: int, d: int, t: int) -> str:
    w.problem(
        f"A line is given by $x = {polynomial(b, a, variable='t')}$ and $y = {polynomial(d, c, variable='t')}$. "
        f"What is the point at $t = {t}$?"
    )
    across = w.step(times(b, t), b * t)
    x = w.step(plus(across, a), across + a)
    up = w.step(times(d, t), d * t)
    y = w.step(plus(up, c), up + c)
    return f"({x}, {y})"


@template("Precalculus", 5, "tuple", a=(1, 9), b=(1, 9), c=(1, 9), d=(1, 9), x=(1, 9), y=(1, 9))
def matrix_times_vector(w: Work, a: int, b: int, c: int, d: int, x: int, y: int) -> str:
    w.problem(f"The matrix $\\begin{{pmatrix}} {a} & {b} \\\\ {c} & {d} \\end{{pmatrix}}$ sends $({x}, {y})$ to what point?")
    rows = []
    for left, right in ((a, b), (c, d)):
        first = w.step(times(left, x), left * x)
        second = w.step(times(right, y), right * y)
        rows.append(w.step(f"{first} + {second}", first + second))
    return f"({rows[0]}, {rows[1]})"


# --- Out of distribution: not used in pretraining or RL -----------------------------------------------------


@template("Prealgebra", 3, "integer", lambda a, b, c: (a + b + c) % 3 == 0, ood=True, a=(1, 30), b=(1, 30), c=(1, 30))
def mean_of_three(w: Work, a: int, b: int, c: int) -> str:
    w.problem(f"What is the mean of ${a}$, ${b}$ and ${c}$?")
    total = w.step(f"{a} + {b}", a + b)
    total = w.step(f"{total} + {c}", total + c)
    return str(w.divide(total, 3))


@template("Algebra", 4, "integer", ood=True, a=(2, 5), b=(1, 9), k=(2, 7))
def evaluate_twice(w: Work, a: int, b: int, k: int) -> str:
    w.problem(f"If $f(x) = {polynomial(a, b)}$, what is $f(f({k}))$?")
    inner = w.step(times(a, k), a * k)
    inner = w.step(f"{inner} + {b}", inner + b)
    outer = w.step(times(a, inner), a * inner)
    return str(w.step(f"{outer} + {b}", outer + b))


@template("Number Theory", 3, "integer", ood=True, a=(3, 12), b=(3, 12), m=(3, 12))
def remainder_of_product(w: Work, a: int, b: int, m: int) -> str:
    w.problem(f"What is the remainder when ${times(a, b)}$ is divided by ${m}$?")
    product = w.step(times(a, b), a * b)
    multiple = w.step(times(m, product // m), product // m * m)
    return str(w.step(f"{product} - {multiple}", product - multiple))


@template("Geometry", 2, "multiple of pi", ood=True, radius=(3, 60))
def circle_area(w: Work, radius: int) -> str:
    w.problem(f"A circle has radius ${radius}$. What is its area?")
    return f"{w.step(f'{radius}^2', radius**2)}\\pi"


@template("Counting & Probability", 4, "fraction", lambda red, blue: red + blue <= 24, ood=True, red=(1, 14), blue=(1, 14))
def not_red_probability(w: Work, red: int, blue: int) -> str:
    w.problem(f"A bag has ${red}$ red and ${blue}$ blue balls. What is the probability that a ball is not red?")
    total = w.step(f"{red} + {blue}", red + blue)
    other = w.step(f"{total} - {red}", total - red)
    return w.reduce(other, total)


# --- rows and splits ---


def row_id(template: Template, params: dict[str, int]) -> str:
    """Return the problem's id. It keeps the splits disjoint and test problems out of pretraining."""
    return f"{template.name}-" + "-".join(str(v) for v in params.values())


def make_row(template: Template, params: dict[str, int]) -> dict:
    """Return the problem row of a template with these parameters. ``id`` is stable across runs and machines."""
    work = Work()
    answer = template.solve(work, **params)
    return {
        "id": row_id(template, params),
        "problem": work.problem_text,
        "solution": solution_text(work.steps, answer),
        "ground_truth": answer,
        "subject": template.subject,
        "level": template.level,
        "template": template.name,
        "params": params,
        "answer_form": template.answer_form,
    }


def solution_text(steps: list[str], answer: str, boxed: bool = True) -> str:
    r"""Return a solution in MATH's style: the steps, then the answer, boxed or unboxed."""
    final = f"The answer is $\\boxed{{{answer}}}$." if boxed else f"The answer is ${answer}$."
    return " ".join([f"{step}." for step in steps] + [final])


def slipped_work(template: Template, params: dict[str, int], rng: random.Random) -> tuple[list[str], str]:
    """Return steps and answer of a solution with one wrong value that leads to a wrong answer."""
    work = Work()
    truth = template.solve(work, **params)
    for _ in range(50):
        wrong = Work(slip_at=rng.randrange(work.n_values), rng=rng)
        try:
            answer = template.solve(wrong, **params)
        except ImpossibleSlip:
            continue
        if answer != truth:
            return wrong.steps, answer
    return work.steps, truth  # some problems allow no error (a fraction already in lowest terms)


def in_distribution() -> list[Template]:
    """Return the templates that pretraining and RL may use."""
    return [t for t in TEMPLATES.values() if not t.ood]


def draw_rows(n: int, rng: random.Random, templates: list[Template], taken: set[str], large: bool = False) -> list[dict]:
    """Draw ``n`` rows from the templates in turn, without any id or text in ``taken``, and add theirs to it."""
    rows: list[dict] = []
    misses = 0
    while len(rows) < n:
        template = templates[(len(rows) + misses) % len(templates)]
        row = make_row(template, template.draw(rng, large))
        if row["id"] in taken or row["problem"] in taken:
            misses += 1
            if misses > 100 * n:
                raise ValueError(f"Found only {len(rows)} of {n} distinct problems. Widen the templates' ranges.")
            continue
        taken |= {row["id"], row["problem"]}
        rows.append(row)
    rng.shuffle(rows)
    return rows


def generate_minimath(seed: int = 0) -> dict[str, list[dict]]:
    """Return the splits ``train`` (2,000), ``test`` (500) and ``ood`` (250), disjoint by text and by parameters.

    Half of ``ood`` uses templates that pretraining and RL never see. The other half uses known templates with one number
    beyond the range of training.
    """
    rng, taken = random.Random(seed), set()
    known = in_distribution()
    test = draw_rows(SPLIT_SIZES["test"], rng, known, taken)
    train = draw_rows(SPLIT_SIZES["train"], rng, known, taken)
    unseen = draw_rows(SPLIT_SIZES["ood"] // 2, rng, [t for t in TEMPLATES.values() if t.ood], taken)
    scalable = [
        TEMPLATES[name]
        for name in (
            "order_of_operations",
            "mean_of_four",
            "evaluate_quadratic",
            "neither_club",
            "committee",
            "rectangle_perimeter",
            "dot_product",
        )
    ]
    larger = draw_rows(SPLIT_SIZES["ood"] - len(unseen), rng, scalable, taken, large=True)
    return {"train": train, "test": test, "ood": unseen + larger}


def write_minimath(folder: Path, seed: int = 0) -> None:
    """Write each split as ``folder/SPLIT.jsonl``."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in generate_minimath(seed).items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")


def pretraining_rows(rng: random.Random, forbidden: set[str]) -> Iterator[tuple[Template, dict[str, int]]]:
    """Yield new problems for pretraining without end, never one whose id is in ``forbidden``."""
    known = in_distribution()
    while True:
        template = rng.choice(known)
        params = template.draw(rng)
        if row_id(template, params) not in forbidden:
            yield template, params


if __name__ == "__main__":
    write_minimath(MINIMATH)

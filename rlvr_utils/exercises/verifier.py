"""Checks of notebooks 00 and 01: two rates, extracting and comparing answers, attacking a grader, an interval."""

from __future__ import annotations

import random
import re
from fractions import Fraction

import numpy as np

from rlvr_utils.stats import wilson_interval
from rlvr_utils.verifier import verify

from .attempts import Attempt, brief, close, exercise


@exercise("00-two-numbers", "0.1 The two numbers", difficulty=1, minutes=5)
def check_two_numbers(mine: Attempt) -> None:
    """``my_two_numbers(boxed, right) -> (boxed rate, accuracy)``: strict accuracy, at most the boxed rate, in any order."""
    generator = np.random.default_rng(0)
    found = mine.numbers([True, True, False, False], [True, False, True, False], shape=(2,))
    mine.equals("the boxed rate is the share of responses with a box", found[0], 1 / 2)
    _, accuracy = mine.numbers([True, False, False, False], [True, False, False, False])
    mine.equals("accuracy is a share of all responses, not of the boxed ones", accuracy, 1 / 4)
    _, accuracy = mine.numbers([False, False, True], [True, True, True])
    mine.equals("a correct answer without a box counts as wrong", accuracy, 1 / 3)
    for _ in range(20):
        boxed, right = (generator.random((2, 12)) < 0.5).tolist()
        rate, accuracy = mine.numbers(boxed, right)
        mine.must("accuracy never exceeds the boxed rate", accuracy <= rate + 1e-9)
        mine.equals("the order of the responses does not matter", mine.numbers(boxed[::-1], right[::-1]), (rate, accuracy))


def check_boxes(mine: Attempt, name: str, cases: dict[str, str | None]) -> None:
    """Check one property of ``my_last_box``. ``cases`` maps each text to the content of its last box."""
    for text, answer in cases.items():
        mine.must(name, mine(text) == answer, expected=brief(answer))


BOXES = {
    "the last box counts": {r"\boxed{1} or rather \boxed{2}": "2", r"\boxed{3}, no: $\boxed{4}$!": "4"},
    "an escaped brace is a printed character and does not close a group": {
        r"\boxed{\{1, 2\}}": r"\{1, 2\}",
        r"\boxed{\left\{ x \right.}": r"\left\{ x \right.",
        r"\boxed{a\}}": r"a\}",
    },
    "white space before the brace is allowed": {r"$\boxed {12}$": "12", "\\boxed\n{7}": "7"},
    "without a box there is no answer": {"The answer is 12.": None, "": None, "{12}": None},
    "if the last box never closes, there is no answer": {r"\boxed{12} \boxed{": None, r"\boxed{\frac{1}{2}": None},
    "if the last box is empty, there is no answer": {r"\boxed{}": None, r"\boxed{12} \boxed{}": None},
    "only white space is allowed between \\boxed and its brace": {
        r"Use \boxed for the answer {12}.": None,
        r"\boxed, see {7}": None,
    },
}


@exercise("01-last-box", "1.1 The last box", difficulty=3, minutes=15)
def check_last_box(mine: Attempt) -> None:
    """``my_last_box(text) -> str | None``: nesting, the last box, escaped braces, and boxes without an answer."""
    check_boxes(mine, "it finds the content of a single box", {r"The answer is $\boxed{12}$.": "12", r"\boxed{x}": "x"})
    draw = random.Random(0)
    for _ in range(20):
        content = "a"
        for _ in range(draw.randint(1, 5)):
            content = draw.choice((f"{{{content}}}", rf"\frac{{{content}}}{{2}}", f"{content}{{b}}", f"x^{{{content}}}"))
        check_boxes(mine, "nested braces inside the box are kept", {rf"So $\boxed{{{content}}}$ {{}} follows.": content})
    for name, cases in BOXES.items():
        check_boxes(mine, name, cases)


@exercise("01-one-spelling", "1.2 One spelling for a fraction", difficulty=2, minutes=10)
def check_one_spelling(mine: Attempt) -> None:
    """``my_one_spelling(answer) -> str``: one spelling for all ways to write a fraction, and no other change."""
    draw = random.Random(0)
    for _ in range(20):
        a, b = draw.randint(1, 9), draw.randint(2, 9)
        wanted = rf"\frac{{{a}}}{{{b}}}"
        cases = {
            r"\dfrac and \tfrac become \frac": [rf"{frac}{{{a}}}{{{b}}}" for frac in (r"\frac", r"\dfrac", r"\tfrac")],
            "a digit without braces gets braces": [
                rf"\frac{a}{b}",
                rf"\frac{a}{{{b}}}",
                rf"\frac{{{a}}}{b}",
                rf"\dfrac{a}{b}",
            ],
            "spaces are removed": [rf"\frac{{ {a} }} {{{b}}}", rf" \frac {a} {b} "],
        }
        for name, texts in cases.items():
            for text in texts:
                mine.must(name, mine(text) == wanted, expected=brief(wanted))
    for text in (r"\frac123", r"x+\frac12+\tfrac{3}4", r"\frac{10}{3}"):
        once = mine(text)
        mine.must("applying it twice changes nothing more", mine(once) == once)
    different = [r"\frac{1}{12}", r"\frac{11}{2}", r"\frac112", r"\frac{2}{1}", "12", "1/12"]
    spellings = {text: mine(text) for text in different}
    for text, spelling in spellings.items():
        same = [other for other in different if other != text and spellings[other] == spelling]
        if same:  # call both again, so that the report shows the pair
            mine.used = True
            mine(text), mine(same[0])
        mine.must("different answers stay different", not same, f"{text} and {', '.join(same)} both become {spelling!r}")
    for text in ("x^2-1", "(3,4)", r"\sqrt{2}", r"\frac{10}{3}"):
        mine.must("other answers are not changed", mine(text) == text, expected=brief(text))


@exercise("01-same-number", "1.3 A grader for numbers", difficulty=3, minutes=15)
def check_same_number(mine: Attempt) -> None:
    """``my_same_number(answer, truth) -> bool``: exact equality of integers, decimals and fractions, and never an error."""
    half = ("0.5", "1/2", r"\frac{1}{2}", r"\frac{2}{4}", "0.50")
    no_number = (r"\frac{1}{0}", "1/0", "x", "", "2^{10}", "__import__('os')", r"\frac{1}{")
    cases = {
        "two spellings of the same number are equal": [(a, b, True) for a in half for b in half],
        "close numbers are not equal": [
            ("0.33", r"\frac{1}{3}", False),
            ("0.3333333333333333", "1/3", False),
            (str(10**20 + 1), str(10**20), False),
        ],
        "the sign counts, in any position": [
            (r"-\frac{1}{2}", "-0.5", True),
            (r"\frac{-1}{2}", "-1/2", True),
            ("-3", "3", False),
        ],
        "a text that is not a number never equals another text and raises no error": [
            (text, other, False) for text in no_number for other in (text, "1")
        ],
        # Fraction accepts 1e5 and needs ten seconds for 1e9000000, so check the pattern first.
        "scientific notation is not accepted": [("1e5", "1e5", False)],
        "an underscore is not part of a number": [("1_000", "1000", False)],
    }
    for name, pairs in cases.items():
        for a, b, same in pairs:
            mine.must(name, bool(mine(a, b)) == same, expected=str(same))
    draw = random.Random(0)
    for _ in range(100):
        a, b, c, d = draw.randint(-9, 9), draw.randint(1, 9), draw.randint(-9, 9), draw.randint(1, 9)
        same = Fraction(a, b) == Fraction(c, d)
        mine.must(
            "random fractions are equal exactly if their values are",
            bool(mine(rf"\frac{{{a}}}{{{b}}}", f"{c}/{d}")) == same,
            expected=str(same),
        )


def any_candidate(response: str, truth: str) -> bool:
    """Return the verdict of notebook 01's naive grader: any text in a box or between dollars may be the answer."""
    candidates = re.findall(r"\\boxed\{([^{}]*)\}|\$([^$]*)\$", response)
    return truth in {part.strip() for pair in candidates for part in pair} or response.strip() == truth


@exercise("01-shotgun", "1.4 An attack that need not know", difficulty=2, minutes=10)
def check_shotgun(mine: Attempt) -> None:
    """``my_attack(low, high) -> str``: one response that the naive grader rewards for every ground truth in the range."""
    for low, high in ((10, 20), (-3, 3), (7, 7), (100, 140)):
        response = mine(low, high)
        mine.must("the response is a string", isinstance(response, str), f"a {type(response).__name__}")
        missed = [n for n in range(low, high + 1) if not any_candidate(response, str(n))]
        mine.must("the naive grader rewards it for every ground truth", not missed, f"no reward for {brief(missed)}")
        rewarded = [n for n in range(low, high + 1) if verify(response, str(n)).correct]
        mine.must("the course's verifier rewards it for no ground truth", not rewarded, f"a reward for {brief(rewarded)}")


@exercise("01-wilson", "1.5 An interval for a rate", difficulty=3, minutes=15)
def check_wilson(mine: Attempt) -> None:
    """``my_wilson(successes, n, z=1.96) -> (low, high)``: the rates that are z standard errors from the observed rate."""
    cases = [(3, 10), (2, 400), (50, 100), (0, 20), (20, 20), (1, 1)]
    for k, n in cases:
        low, high = mine.numbers(k, n, shape=(2,))
        mine.must("the observed rate is inside the interval", low - 1e-9 <= k / n <= high + 1e-9)
        mine.must("both ends are between 0 and 1", -1e-9 <= low and high <= 1 + 1e-9)
        mine.must(
            "for 0 of n and n of n the interval has a positive width", high - low > 1e-3, f"a width of {high - low:.6g}"
        )
    for k, n in cases:
        mine.equals(
            "counting failures instead of successes mirrors the interval",
            mine.numbers(k, n),
            1 - mine.numbers(n - k, n)[::-1],
        )
    widths = [float(mine.numbers(n // 4, n) @ (-1, 1)) for n in (40, 160, 640)]
    mine.must(
        "more trials narrow the interval",
        widths[0] > widths[1] > widths[2],
        f"widths {brief(widths)} for 40, 160, 640 trials",
    )
    for k, n in cases:
        for p in mine.numbers(k, n):
            gap, error = (k / n - p) ** 2, 1.96**2 * p * (1 - p) / n
            mine.must(
                "each end p is z standard errors *of p* away",
                close(gap, error, 1e-6),
                f"at p = {p:.6g}: (seen - p)^2 = {gap:.6g}, z^2 p (1 - p) / n = {error:.6g}",
            )
    mine.equals("it agrees with the course's interval", mine.numbers(7, 30), wilson_interval(7, 30), 1e-3)
    width, wider = (float(mine.numbers(7, 30, z) @ (-1, 1)) for z in (1.96, 2.576))
    mine.must(
        "a larger z widens the interval",
        wider > 1.2 * width,
        f"widths {width:.4g} for z = 1.96 and {wider:.4g} for z = 2.576",
    )

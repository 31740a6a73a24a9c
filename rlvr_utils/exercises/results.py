"""Checks of notebook 05: the paired bootstrap, the parts of a gain, pass@k, error categories, projections."""

from __future__ import annotations

import itertools
from math import comb

import numpy as np

from rlvr_utils.stats import paired_bootstrap

from .attempts import Attempt, brief, exercise


@exercise("05-paired-bootstrap", "5.1 The paired bootstrap", difficulty=3, minutes=15)
def check_paired_bootstrap(mine: Attempt) -> None:
    """``my_paired_bootstrap(before, after) -> (mean, low, high)``: pairs stay together, and the width is correct."""
    generator = np.random.default_rng(0)
    before = generator.random(80)
    mean, low, high = mine.numbers(before, before + 0.25, shape=(3,))
    mine.equals("the mean is the mean of after minus before", mean, 0.25)
    mine.equals("each problem is resampled with both of its values: equal gains give width 0", (low, high), (0.25, 0.25))
    after = np.clip(before + generator.normal(0.1, 0.2, 80), 0, 1)
    mean, low, high = mine.numbers(before, after)
    mine.must("the mean is inside the interval", low < mean < high)
    mine.equals("swapping before and after changes the sign", mine.numbers(after, before), (-mean, -high, -low), 0.02)
    small, large = mine.numbers(before[:20], after[:20]), mine.numbers(before, after)
    mine.must("more problems narrow the interval", large[2] - large[1] < small[2] - small[1])
    mine.equals(
        "it agrees with the 95 % interval of stats.paired_bootstrap",
        mine.numbers(before, after),
        paired_bootstrap(before, after),
        0.005,
    )


@exercise("05-decomposition", "5.2 Split a gain", difficulty=3, minutes=15)
def check_decomposition(mine: Attempt) -> None:
    """``my_parts(before, after)``: the two parts add up, each can be 0, and swapping changes the sign."""
    rates = (0.0, 0.3, 0.5, 1.0)
    for b0, a0, b1, a1 in itertools.product(rates, repeat=4):
        found = mine.numbers((b0, a0), (b1, a1), shape=(2,))
        mine.equals("the two parts add up to the change in accuracy", found.sum(), b1 * a1 - b0 * a0)
    for a in (0.2, 0.7):
        found = mine.numbers((0.4, a), (1.0, a))
        mine.equals("if only the boxed rate changes, the whole gain is the first part", found, (0.6 * a, 0))
        found = mine.numbers((a, 0.3), (a, 0.8))
        mine.equals("if only the accuracy given a box changes, the whole gain is the second part", found, (0, 0.5 * a))
    forth, back = mine.numbers((0.4, 0.3), (1.0, 0.8)), mine.numbers((1.0, 0.8), (0.4, 0.3))
    mine.equals("swapping before and after changes only the sign of each part", back, -forth)


@exercise("05-pass-at-k", "5.3 pass@k without bias", difficulty=3, minutes=15)
def check_pass_at_k(mine: Attempt) -> None:
    """``my_pass_at_k(n, c, k)``: one sample, no correct sample, more samples, and no bias."""
    for c in range(9):
        mine.equals("for k = 1 it is the share of correct samples", mine.numbers(8, c, 1, shape=()), c / 8)
    for k in range(1, 9):
        mine.equals("without a correct sample it is 0", mine.numbers(8, 0, k), 0)
        mine.equals("with fewer than k wrong samples it is 1", mine.numbers(8, 8 - k + 1, k), 1)
    rising = [float(mine.numbers(8, 2, k)) for k in range(1, 9)]
    mine.must("it never decreases with k", rising == sorted(rising), brief(rising))
    for p, n, k in ((0.1, 8, 4), (0.4, 5, 3)):
        mean = sum(comb(n, c) * p**c * (1 - p) ** (n - c) * float(mine.numbers(n, c, k)) for c in range(n + 1))
        mine.equals("it is unbiased: its mean over all outcomes of n samples is 1 - (1 - p)^k", mean, 1 - (1 - p) ** k)
    mine.equals("it works for thousands of samples", mine.numbers(10_000, 5_000, 1), 0.5)


ROW = {
    "problem": r"Compute $2 + 3 \cdot 4$.",
    "ground_truth": "14",
    "solution": r"$3 \cdot 4 = 12$. $2 + 12 = 14$. The answer is $\boxed{14}$.",
}
#: Wrong responses to ROW: (category, text, whether the response is truncated).
WRONG = (
    ("no_box", r"$3 \cdot 4 = 12$. $2 + 12 = 14$. The answer is $14$.", False),
    ("no_box", "The answer is 15.", False),
    ("truncated", r"$3 \cdot 4 = 12$. $2 + 12", True),
    ("correct_steps_wrong_box", r"$3 \cdot 4 = 12$. $2 + 12 = 14$. The answer is $\boxed{15}$.", False),
    ("slipped_step", r"$3 \cdot 4 = 13$. $2 + 13 = 15$. The answer is $\boxed{15}$.", False),
    ("slipped_step", r"$3 \cdot 4 = 13$. $2 + 12 = 14$. The answer is $\boxed{15}$.", False),
    ("wrong_method", r"$2 + 3 = 5$. $5 \cdot 4 = 20$. The answer is $\boxed{20}$.", False),
    ("direct_answer", r"The answer is $\boxed{20}$.", False),
    ("direct_answer", r"The answer is $\boxed{20}$.", True),
)
WHY = {
    "no_box": "no_box: the response has no box, whatever its steps",
    "truncated": "truncated: the response has no box and reaches the length limit",
    "correct_steps_wrong_box": "correct_steps_wrong_box: true steps reach the correct answer, but the box holds another",
    "slipped_step": "slipped_step: one false step is enough, whatever the last step is",
    "wrong_method": "wrong_method: all steps are true, but they lead to another answer",
    "direct_answer": "direct_answer: the response has a box but no step, even at the length limit",
}


@exercise("05-category", "5.4 What went wrong?", difficulty=3, minutes=15)
def check_category(mine: Attempt) -> None:
    """``my_category(row, response, cut_off)``: each wrong response gets exactly one category of notebook 05's table."""
    for category, response, cut_off in WRONG:
        found = mine(ROW, response, cut_off)
        mine.must("the category is a name from the table", found in WHY, expected=", ".join(WHY))
        mine.must(WHY[category], found == category, f"{found} for {response}", category)
    moved = {**ROW, "ground_truth": "20", "solution": r"$20 = 20$"}
    found = mine(moved, r"$2 + 3 = 5$. $5 \cdot 4 = 20$. So $\boxed{21}$.", False)
    mine.must(
        "it reads the ground truth from the row", found == "correct_steps_wrong_box", expected="correct_steps_wrong_box"
    )


@exercise("05-projection", "5.5 Project a curve", difficulty=4, minutes=20)
def check_projection(mine: Attempt) -> None:
    """``my_projection(steps, rewards, at, start, scale)``: exact for a noiseless curve, bounded gain, least squares.

    The tolerances allow for a numerical optimiser such as ``scipy.optimize.curve_fit`` with bounds.
    """
    steps, later, scale = np.arange(1.0, 26.0), np.array([1.0, 50.0, 100.0, 400.0]), 30.0

    def curve(gain: float, start: float, x: np.ndarray) -> np.ndarray:
        return start + gain * -np.expm1(-x / scale)

    def same(name: str, found: np.ndarray, wanted: object) -> None:
        mine.equals(name, found, wanted, tolerance=1e-3)

    found = mine.numbers(steps, curve(0.5, 0.1, steps), later, 0.1, scale, shape=(4,))
    same("it recovers a noiseless curve of this family", found, curve(0.5, 0.1, later))
    begin = mine.numbers(steps, curve(0.5, 0.1, steps), np.zeros(1), 0.1, scale)
    same("it starts at the accuracy before training", begin, [0.1])
    flat = mine.numbers(steps, np.full(25, 0.2), later, 0.2, scale)
    same("constant rewards give a flat projection", flat, [0.2] * 4)
    steep = mine.numbers(steps, curve(1.4, 0.1, steps), later, 0.1, scale)
    mine.must("no projected reward exceeds 1", steep.max() <= 1 + 1e-3, f"{steep.max():.6g}")
    same("the gain is bounded so that the curve approaches 1 (do not clip the curve itself)", steep, curve(0.9, 0.1, later))
    falling = mine.numbers(steps, curve(-0.2, 0.3, steps), later, 0.3, scale)
    same("falling rewards give a gain of 0, not a negative gain", falling, [0.3] * 4)
    noisy = curve(0.5, 0.1, steps) + np.random.default_rng(0).normal(0, 0.05, 25)

    def error(projected: np.ndarray) -> float:
        return float(((projected - noisy) ** 2).sum())

    best = error(mine.numbers(steps, noisy, steps, 0.1, scale))
    others = min(error(curve(gain, 0.1, steps)) for gain in np.linspace(0, 0.9, 901))
    mine.must(
        "with noise, no other gain has a smaller sum of squared errors",
        best <= others + 1e-4,
        f"a sum of {best:.6g}",
        f"at most {others:.6g}",
    )

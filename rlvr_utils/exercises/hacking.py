"""Checks of notebook 06: the step of discovery, a grader that fails closed, repetition, early stopping."""

from __future__ import annotations

import numpy as np

from .attempts import Attempt, exercise
from .graders import discovery_step, repetition


@exercise("06-discovery", "6.1 The step of discovery", difficulty=2, minutes=10)
def check_discovery(mine: Attempt) -> None:
    """``my_discovery(rewards, strict, window, found)``: a jump, a single spike, an honest reward, and noise."""
    flat, jump = [0.1] * 30, [0.1] * 10 + [0.9] * 20
    mine.equals("it is the last step of the first window whose mean gap exceeds `found`", mine(jump, flat, 5, 0.5), 14)
    mine.equals("steps are counted from 1", mine([1.0] * 9, [0.0] * 9, 1, 0.5), 1)
    mine.equals(
        "a gap that closes again later does not change the step", mine([0.0, 1.0, 1.0, 0.0, 0.0, 0.0], [0.0] * 6, 2, 0.9), 3
    )
    spike = [0.1] * 10 + [0.9] + [0.1] * 19
    mine.must("one high step is not a discovery", mine(spike, flat, 5, 0.5) is None, expected="None")
    fair = mine(jump, jump, 5, 0.5)
    mine.must("a reward that rises together with strict accuracy is not reward hacking", fair is None, "", "None")
    mine.must("a run shorter than the window returns None", mine([1.0] * 3, [0.0] * 3, 5, 0.5) is None, "", "None")
    draw = np.random.default_rng(0)
    for _ in range(20):
        rewards, strict = np.linspace(0.2, 1, 40) + draw.normal(0, 0.1, 40), draw.random(40) * 0.3
        wanted = discovery_step(rewards, strict, 5, 0.4)
        mine.equals(
            "it agrees with the course's function on noisy curves", mine(list(rewards), list(strict), 5, 0.4), wanted
        )


@exercise("06-fail-closed", "6.2 A grader that fails closed", difficulty=2, minutes=10)
def check_fail_closed(mine: Attempt) -> None:
    """``my_reward(response, truth, judge)``: only proven answers are rewarded, and the judge's errors are caught."""

    def raising(error: Exception):
        def judge(response: str, truth: str) -> bool:
            raise error

        return judge

    mine.equals("a proven answer is rewarded", mine.numbers("a", "b", lambda r, t: True, shape=()), 1)
    mine.equals("a disproven answer gets reward 0", mine.numbers("a", "b", lambda r, t: False), 0)
    seen = mine.numbers("7", "6", lambda r, t: (r, t) == ("7", "6"))
    mine.equals("the judge gets response and ground truth, in this order", seen, 1)
    for error in (TimeoutError("after 5 s"), ValueError("no number"), RecursionError(), ZeroDivisionError()):
        mine.equals("if the judge raises any error, the reward is 0", mine.numbers("a", "b", raising(error)), 0)
    for verdict in ("undecided", "different", None, 0.5):
        mine.equals("only the verdict True is rewarded", mine.numbers("a", "b", lambda r, t, v=verdict: v), 0)


@exercise("06-repetition", "6.3 Repetition, without a ground truth", difficulty=1, minutes=5)
def check_repetition(mine: Attempt) -> None:
    """``my_repetition(response)``: no repetition, one repeated word, the empty text, distance and white space."""
    mine.equals("words that occur once do not count as repetition", mine.numbers("the sum is 12", shape=()), 0)
    mine.equals("one word ten times gives 0.9", mine.numbers("7 " * 10), 0.9)
    mine.equals("a repetition counts at any distance", mine.numbers("a b a b"), 0.5)
    mine.equals("an empty text gives 0", mine.numbers(""), 0)
    mine.equals("line breaks and spaces both separate words", mine.numbers("a  b\na"), 1 / 3)
    for text in ("$1 + 1 = 2$. $1 + 1 = 2$. The answer is $2$.", "x " * 3 + "y " * 4, "The answer is $3$."):
        mine.equals("it agrees with the course's function", mine.numbers(text), repetition(text))


@exercise("06-early-stopping", "6.4 Early stopping on held-out accuracy", difficulty=3, minutes=15)
def check_early_stopping(mine: Attempt) -> None:
    """``my_stop(accuracies, patience)``: the best evaluation, ties, patience counted from the best, and no look ahead."""
    stopped = mine.numbers([0.1, 0.3, 0.2, 0.1, 0.0], 2)
    mine.equals("it stops after `patience` evaluations without a new best", stopped, (3, 1))
    mine.equals("a run that keeps improving is not stopped", mine.numbers([0.1, 0.2, 0.3, 0.4], 1), (3, 3))
    mine.equals("of equal accuracies the first counts as the best", mine.numbers([0.3, 0.3, 0.3], 2), (2, 0))
    stopped = mine.numbers([0.5, 0.1, 0.2, 0.3, 0.9], 3)
    mine.equals("a rise below the best does not restart the patience", stopped, (3, 0))
    mine.equals("evaluations after the stop are not used", mine.numbers([0.2, 0.1, 0.9], 1), (1, 0))
    draw = np.random.default_rng(0)
    for _ in range(20):
        accuracies, patience = list(draw.random(8).round(2)), int(draw.integers(1, 4))
        wanted = stop(accuracies, patience)
        mine.equals("it agrees with the rule on random curves", mine.numbers(accuracies, patience), wanted)


def stop(accuracies: list[float], patience: int) -> tuple[int, int]:
    """Return (index of the evaluation after which training stops, index of the best one up to there)."""
    best = 0
    for index, accuracy in enumerate(accuracies):
        if accuracy > accuracies[best]:
            best = index
        if index - best == patience:
            break
    return index, best

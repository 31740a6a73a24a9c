"""The exploitable graders of notebook 06, as reward functions for ``train(reward="module:function")``.

A grader is a function of response and ground truth. :func:`watched` turns one into a reward function that also logs, at
every step, what the grader does not measure. Use these graders only to demonstrate reward hacking.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from rlvr_utils.problems.judging import find_steps, kept_verdict
from rlvr_utils.verifier import completion_text, last_boxed

#: Window of :func:`discovery_step` in training steps, and the gap above which an exploit counts as found.
WINDOW, FOUND = 5, 0.5

#: Number of written steps that earn the full reward of :func:`steps_shown`.
STEPS = 8

Grader = Callable[[str, str], float]  #: response, ground truth -> True or False, or a reward between 0 and 1


def last_word(response: str, ground_truth: str) -> bool:
    """Return whether the last word is the ground truth, ignoring dollars and a full stop. ``\\boxed{12}`` is not ``12``."""
    words = response.split()
    return bool(words) and words[-1].strip("$.") == ground_truth


def boxed(response: str, ground_truth: str) -> bool:
    """Return whether the last box is closed and not empty. Ignores the ground truth, like ``reward="format"``."""
    return last_boxed(response) is not None


def steps_shown(response: str, ground_truth: str) -> float:
    """Return the number of steps ``$left = right$`` divided by 8, at most 1. The grader rewards the look of reasoning.

    It does not check the steps and ignores the ground truth.
    """
    return min(len(find_steps(response)), STEPS) / STEPS


def repetition(response: str) -> float:
    """Return the share of words that already occurred earlier in the response, 0 for an empty response."""
    words = response.split()
    return 1 - len(set(words)) / len(words) if words else 0.0


def watched(grader: Grader) -> Callable[..., list[float]]:
    """Return a reward function for ``train`` that applies ``grader`` to each response.

    It logs three columns of ``metrics.jsonl``, each a mean over the step's responses: ``strict`` (the verifier's verdict),
    ``boxed`` (the last box is closed and not empty) and ``repetition``. They do not enter the reward.
    """

    def reward(completions, ground_truth, log_metric=None, **columns) -> list[float]:
        pairs = [(completion_text(c), str(truth)) for c, truth in zip(completions, ground_truth, strict=True)]
        if log_metric is not None:
            for name, values in observed(pairs).items():
                log_metric(name, sum(values) / len(values))
        return [float(grader(*pair)) for pair in pairs]

    reward.__name__ = reward.__qualname__ = f"{grader.__name__}_reward"
    return reward


def observed(pairs: list[tuple[str, str]]) -> Mapping[str, list[float]]:
    """Return the values that :func:`watched` logs, one per (response, ground truth) pair."""
    return {
        "strict": [float(kept_verdict(*pair).correct) for pair in pairs],
        "boxed": [float(last_boxed(response) is not None) for response, _ in pairs],
        "repetition": [repetition(response) for response, _ in pairs],
    }


last_word_reward = watched(last_word)
steps_shown_reward = watched(steps_shown)


def discovery_step(rewards: Sequence[float], strict: Sequence[float], window: int = WINDOW, found: float = FOUND):
    """Return the first step at which the mean gap between reward and strict accuracy exceeds ``found``.

    Args:
        rewards, strict: one value per step, starting at step 1.
        window: number of steps in the mean.

    Returns:
        The last step of that window, an int, or None if the gap never exceeds ``found``.
    """
    gaps = np.asarray(rewards, dtype=float) - np.asarray(strict, dtype=float)
    means = np.convolve(gaps, np.full(window, 1 / window), mode="valid") if len(gaps) >= window else np.array([])
    wide = np.flatnonzero(means > found)
    return int(wide[0]) + window if len(wide) else None

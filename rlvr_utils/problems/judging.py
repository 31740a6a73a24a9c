"""Judging a response: is its answer right, is each of its steps true, and if the answer is wrong, what went wrong?"""

from __future__ import annotations

from functools import lru_cache

from ..verifier import Verdict, answers_match, expressions_equal, last_boxed, readable, verify
from .loading import load_problems

CATEGORIES = (
    "correct",
    "no_box",
    "truncated",
    "correct_steps_wrong_box",
    "slipped_step",
    "wrong_method",
    "direct_answer",
    "not_language",
)
#: What a run keeps of a response, in this order.
ROLLOUT_COLUMNS = (
    "step",
    "problem_id",
    "sample",
    "prompt",
    "response",
    "ground_truth",
    "reward",
    "correct",
    "reason",
    "n_tokens",
)


def judge_response(row: dict, response: str) -> Verdict:
    """The verdict on a response to this problem: the same for reward, evaluation, categories, rescoring and notebooks.

    Args:
        row: ``ground_truth``, and ``problem`` where it is known: a box that only repeats an expression of it is no answer.
    """
    if row["ground_truth"] is None:
        return Verdict(False, last_boxed(response), "there is no ground truth to compare with")
    return kept_verdict(response, str(row["ground_truth"]), row.get("problem") or None)


@lru_cache(maxsize=2**15)
def kept_verdict(response: str, ground_truth: str, question: str | None = None) -> Verdict:
    """:func:`~rlvr_utils.verifier.verify`, kept: reward, record and category ask about the same response in turn."""
    return verify(response, ground_truth, question)


def graded(row: dict, response: str, *, step: int, sample: int, prompt: object, n_tokens: int) -> dict:
    """One response in the run format (:data:`ROLLOUT_COLUMNS`); its reward is 1.0 where it is correct, else 0.0.

    Args:
        row: the problem.
        sample: its number among the responses to this problem.
    """
    verdict = judge_response(row, response)
    values = (
        step,
        row["id"],
        sample,
        prompt,
        response,
        row["ground_truth"],
        float(verdict.correct),
        verdict.correct,
        verdict.reason,
        n_tokens,
    )
    return dict(zip(ROLLOUT_COLUMNS, values, strict=True))


def unreadable_ground_truths(rows: list[dict]) -> list[tuple[str, str, str]]:
    """Id, ground truth and reason of each row whose ground truth can only be compared as text.

    A model gets the reward there for the identical text alone. Rows without a ground truth are left out.
    """
    found = [(row["id"], row["ground_truth"], readable(row["ground_truth"])) for row in rows if row["ground_truth"]]
    return [(name, truth, reason) for name, truth, reason in found if reason]


def find_steps(response: str) -> list[tuple[str, str]]:
    """Every step ``$lhs = rhs$`` of a response, as pairs of LaTeX strings; a formula that was cut off is none."""
    formulas = response.replace(r"\$", "").replace("$$", "$").split("$")[1:-1:2]
    pairs = [tuple(side.strip() for side in formula.split("=")) for formula in formulas]
    return [pair for pair in pairs if len(pair) == 2 and all(map(is_side, pair))]


def is_side(text: str) -> bool:
    """Whether this may be one side of a step: not empty, not endless, no half of a box."""
    return 0 < len(text) <= 400 and text.count("{") == text.count("}")


def check_steps(row: dict, response: str) -> list[bool]:
    """Whether each step ``$lhs = rhs$`` of the response is true, in order; empty for a direct answer."""
    return [expressions_equal(lhs, rhs) for lhs, rhs in find_steps(response)]


def classify_response(row: dict, response: str, cut_off: bool = False) -> str:
    """One of :data:`CATEGORIES`. "Cogent but wrong" is ``correct_steps_wrong_box``, ``slipped_step`` or ``wrong_method``.

    Args:
        row: the problem.
        response: the text of the response.
        cut_off: whether generation hit the length limit.
    """
    if judge_response(row, response).correct:
        return "correct"
    if not is_language(response, cut_off):
        return "not_language"
    if last_boxed(response) is None:
        return "truncated" if cut_off else "no_box"
    steps = find_steps(response)
    if not steps:
        return "direct_answer"
    if not all(check_steps(row, response)):
        return "slipped_step"
    return "correct_steps_wrong_box" if reaches_answer(row, steps) else "wrong_method"


def reaches_answer(row: dict, steps: list[tuple[str, str]]) -> bool:
    """Whether the steps end at the ground truth, or include every step of the problem's own solution.

    An answer may be more than the last step's right side: a tuple, or a number of degrees.
    """
    expected = find_steps(row["solution"]) if row.get("template") else []
    return answers_match(steps[-1][1], row["ground_truth"]) or bool(expected) and set(expected) <= set(steps)


def is_language(response: str, cut_off: bool = False) -> bool:
    """Whether it reads as text: not blank, no word repeated endlessly, every brace closed (unless truncated).

    Dollar signs are not counted. A trained model may lose the one before its box, and the argument reads as before.
    """
    if not response.strip():
        return False
    if not cut_off and response.count("{") != response.count("}"):
        return False
    words = response.split()
    return len(words) < 12 or len(set(words)) > len(words) / 6


def worked_example() -> dict:
    """The problem that the whole course carries through: an evaluated quadratic from MiniMATH's test split."""
    rows = [row for row in load_problems("minimath", "test") if row["template"] == "evaluate_quadratic"]
    return rows[0]

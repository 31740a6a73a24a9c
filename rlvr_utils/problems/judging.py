"""Judge a response: verdict on its answer, truth of each step, and the category of the error."""

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
#: The columns that a run records per response, in this order.
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
    """Return the verdict on a response. Reward, evaluation, categories, rescoring and notebooks all use this function.

    Args:
        row: needs ``ground_truth``. If it has ``problem``, a box that only repeats an expression of it is not an answer.
    """
    if row["ground_truth"] is None:
        return Verdict(False, last_boxed(response), "there is no ground truth to compare with")
    return kept_verdict(response, str(row["ground_truth"]), row.get("problem") or None)


@lru_cache(maxsize=2**15)
def kept_verdict(response: str, ground_truth: str, question: str | None = None) -> Verdict:
    """Cached :func:`~rlvr_utils.verifier.verify`, because reward, record and category need the same verdict."""
    return verify(response, ground_truth, question)


def graded(row: dict, response: str, *, step: int, sample: int, prompt: object, n_tokens: int) -> dict:
    """Return one response in the run format (:data:`ROLLOUT_COLUMNS`), with reward 1.0 if correct, else 0.0.

    Args:
        row: the problem.
        sample: the index of the response among the responses to this problem.
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
    """Return (id, ground truth, reason) of each row whose ground truth the verifier cannot parse.

    For these rows only the identical text gets reward 1. Rows without a ground truth are left out.
    """
    found = [(row["id"], row["ground_truth"], readable(row["ground_truth"])) for row in rows if row["ground_truth"]]
    return [(name, truth, reason) for name, truth, reason in found if reason]


def find_steps(response: str) -> list[tuple[str, str]]:
    """Return every step ``$lhs = rhs$`` of a response, as pairs of LaTeX strings. A truncated formula does not count."""
    formulas = response.replace(r"\$", "").replace("$$", "$").split("$")[1:-1:2]
    pairs = [tuple(side.strip() for side in formula.split("=")) for formula in formulas]
    return [pair for pair in pairs if len(pair) == 2 and all(map(is_side, pair))]


def is_side(text: str) -> bool:
    """Return whether this can be one side of a step: 1 to 400 characters with balanced braces."""
    return 0 < len(text) <= 400 and text.count("{") == text.count("}")


def check_steps(row: dict, response: str) -> list[bool]:
    """Return whether each step ``$lhs = rhs$`` of the response is true, in order. Empty for a direct answer."""
    return [expressions_equal(lhs, rhs) for lhs, rhs in find_steps(response)]


def classify_response(row: dict, response: str, cut_off: bool = False) -> str:
    """Return one of :data:`CATEGORIES`.

    "Cogent but wrong" covers ``correct_steps_wrong_box``, ``slipped_step`` and ``wrong_method``.

    Args:
        row: the problem.
        response: the text of the response.
        cut_off: whether the response is truncated at the length limit.
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
    """Return whether the steps end at the ground truth, or include every step of the problem's own solution.

    The second condition covers answers that differ from the last right side, such as tuples and degrees.
    """
    expected = find_steps(row["solution"]) if row.get("template") else []
    return answers_match(steps[-1][1], row["ground_truth"]) or bool(expected) and set(expected) <= set(steps)


def is_language(response: str, cut_off: bool = False) -> bool:
    """Return whether a response is text: not blank, not one repeated word, balanced braces (unless truncated).

    Dollar signs need not balance: a trained model may drop the one before its box without other changes.
    """
    if not response.strip():
        return False
    if not cut_off and response.count("{") != response.count("}"):
        return False
    words = response.split()
    return len(words) < 12 or len(set(words)) > len(words) / 6


def worked_example() -> dict:
    """Return the example problem of the course: an evaluated quadratic from MiniMATH's test split."""
    rows = [row for row in load_problems("minimath", "test") if row["template"] == "evaluate_quadratic"]
    return rows[0]

"""Read a run's responses, the base model's beside the trained one's."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from .frame import Output, as_written, choice, interactive_or_static, table

ANY = "any"
PER_PAGE = 5
REWARDS = {ANY: None, "1": True, "0": False}


def side_by_side(frame: pd.DataFrame, step: int) -> pd.DataFrame:
    """One row a problem and sample of the evaluation at ``step``, with the base model's response beside it.

    Args:
        frame: responses of one run with ``step, problem_id, sample, response, ground_truth, correct, category, subject``
            (``analysis.classified`` makes them).

    Returns:
        The rows of ``step``; ``response_before``, ``category_before`` and ``correct_before`` are those of the first
        evaluation. A sample that only one of the two has is left out.
    """
    key = ["problem_id", "sample"]
    first = frame[frame["step"] == frame["step"].min()][[*key, "response", "category", "correct"]]
    return frame[frame["step"] == step].merge(first, on=key, suffixes=("", "_before"))


def matching(pairs: pd.DataFrame, reward: str, verdict: str, subject: str) -> pd.DataFrame:
    """The pairs whose response at the later step has this reward, verdict and subject; ``"any"`` lets all through."""
    keep = pd.Series(True, index=pairs.index)
    if REWARDS[reward] is not None:
        keep &= pairs["correct"] == REWARDS[reward]
    for column, wanted in (("category", verdict), ("subject", subject)):
        if wanted != ANY:
            keep &= pairs[column] == wanted
    return pairs[keep]


def draw_responses(frame: pd.DataFrame, questions: dict[str, str], step: int, reward: str, verdict: str, subject: str,
                   page: int) -> Output:
    """One page of the matching pairs as a table; a page beyond the end is the last one."""
    pairs = side_by_side(frame, step)
    found = matching(pairs, reward, verdict, subject)
    pages = max(1, -(-len(found) // PER_PAGE))
    page = min(page, pages)
    shown = found.iloc[(page - 1) * PER_PAGE: page * PER_PAGE]
    rows = [(as_written(f"{questions[row.problem_id]}\nright: {row.ground_truth}"),
             as_written(row.response_before.strip()), f"{int(row.correct_before)}, {row.category_before}",
             as_written(row.response.strip()), f"{int(row.correct)}, {row.category}") for row in shown.itertuples()]
    share = len(found) / len(pairs) if len(pairs) else 0
    headline = f"{len(found):,} of {len(pairs):,} responses at step {step} ({share:.1%}); page {page} of {pages}"
    return table(headline, ("problem", "base model", "reward", f"at step {step}", "reward"), rows,
                 "" if rows else "Nothing matches: set one of the filters back to any.")


def response_browser(frame: pd.DataFrame, problems: Sequence[dict], verdict: str = ANY) -> None:
    """Show responses of one run, the last evaluation first; in a live notebook they can be filtered and paged through."""
    questions = {row["id"]: row["problem"] for row in problems}
    steps = sorted(set(frame["step"]))[1:]
    if not steps:
        raise ValueError("this run has been evaluated only once: there is nothing yet to put beside the base model")

    def draw(**values) -> Output:
        return draw_responses(frame, questions, **values)

    kinds = sorted(set(frame["category"]) | {verdict} - {ANY})
    subjects = sorted(set(frame["subject"].dropna())) if "subject" in frame else []
    interactive_or_static("responses", draw, {
        "step": choice("step", steps[-1], steps), "reward": choice("reward", ANY, tuple(REWARDS)),
        "verdict": choice("verdict", verdict, (ANY, *kinds)), "subject": choice("subject", ANY, (ANY, *subjects)),
        "page": choice("page", 1, range(1, 1 + -(-len(frame) // PER_PAGE)), stepwise=True)})

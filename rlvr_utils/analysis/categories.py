"""Categories of wrong responses and their rates."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import pandas as pd

from rlvr_utils.problems import CATEGORIES, check_steps, classify_response

from .rates import RateChange, rate_change

#: "Cogent but wrong": the response has reasoning steps and a final answer, and the answer is wrong.
COGENT = ("correct_steps_wrong_box", "slipped_step", "wrong_method")


def classified(frame: pd.DataFrame, problems: Sequence[dict]) -> pd.DataFrame:
    """Return ``frame`` with a ``category`` per response (see ``problems.classify_response``) and three boolean columns.

    These are ``wrong``, ``cogent`` (wrong, but with reasoning and an answer) and ``sound`` (has steps, and all of them are
    true, even if the final answer is wrong). Each distinct response is classified only once.

    Raises:
        ValueError: ``problems`` lacks a problem of ``frame``.
    """
    rows = {row["id"]: row for row in problems}
    unknown = set(frame["problem_id"]) - set(rows)
    if unknown:
        raise ValueError(
            f"{len(unknown)} answered problems are not in the given rows, for example {min(unknown)}. "
            "Pass all rows of the run's eval_dataset."
        )

    @cache
    def judge(problem_id: str, response: str, at_limit: bool) -> tuple[str, bool]:
        steps = check_steps(rows[problem_id], response)
        return classify_response(rows[problem_id], response, cut_off=at_limit), bool(steps) and all(steps)

    judged = [judge(*key) for key in zip(frame["problem_id"], frame["response"], frame["at_limit"], strict=True)]
    category = pd.Series([name for name, _ in judged], index=frame.index, dtype=object)
    return frame.assign(
        category=category, sound=[sound for _, sound in judged], wrong=category != "correct", cogent=category.isin(COGENT)
    )


def category_table(before: pd.DataFrame, after: pd.DataFrame, among: str | None = "wrong") -> pd.DataFrame:
    """Return one row per category: its share of the wrong responses before and after, with the columns of ``RateChange``.

    ``among`` is the boolean column of the responses that count. None counts all responses, and adds the category "correct".
    """
    names = [name for name in CATEGORIES if among is None or name != "correct"]
    rows = []
    for name in names:
        old, new = (frame.assign(here=frame["category"] == name) for frame in (before, after))
        rows.append({"category": name} | rate_change(old, new, "here", given=among)._asdict())
    return pd.DataFrame(rows, columns=["category", *RateChange._fields])

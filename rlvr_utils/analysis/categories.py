"""What went wrong in a wrong response, how often, and what longer responses are made of."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import pandas as pd

from rlvr_utils.problems import CATEGORIES, check_steps, classify_response

from .rates import RateChange, rate_change

#: "Cogent but wrong": it reads as a worked argument with an answer, and the answer is wrong.
COGENT = ("right_work_wrong_box", "slipped_step", "wrong_method")


def classified(frame: pd.DataFrame, problems: Sequence[dict]) -> pd.DataFrame:
    """``frame`` with ``category`` (see ``problems.classify_response``) and the booleans that follow from it.

    ``wrong``, ``cogent`` (wrong, but worked and answered) and ``sound`` (at least one step, and every step
    true, whatever the final answer). Each distinct response is judged once. Raises ValueError where
    ``problems`` lacks a problem that was answered.
    """
    rows = {row["id"]: row for row in problems}
    unknown = set(frame["problem_id"]) - set(rows)
    if unknown:
        raise ValueError(f"{len(unknown)} answered problems are not in the given rows, for example {min(unknown)}")

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
    """One row per category: its share among wrong responses (``among=None``: all) as a ``RateChange``."""
    names = [name for name in CATEGORIES if among is None or name != "correct"]
    rows = []
    for name in names:
        old, new = (frame.assign(here=frame["category"] == name) for frame in (before, after))
        rows.append({"category": name} | rate_change(old, new, "here", given=among)._asdict())
    return pd.DataFrame(rows, columns=["category", *RateChange._fields])


def examples(frame: pd.DataFrame, category: str, n: int = 3) -> pd.DataFrame:
    """The first response of each of ``n`` problems in ``category``, to read; perhaps fewer."""
    found = frame[frame["category"] == category].drop_duplicates("problem_id")
    return found[["problem_id", "prompt", "response", "ground_truth"]].head(n)


class LengthChange(NamedTuple):
    """Mean tokens per response before and after, and two parts that add up to the change."""

    before: float
    after: float
    from_working: float  #: because more responses are worked (lengths held at their average)
    within: float  #: because worked or blurted responses became longer themselves (shares held)


def length_change(before: pd.DataFrame, after: pd.DataFrame) -> LengthChange:
    """Where a change in length comes from: Kitagawa's decomposition (1955) over worked and blurted."""
    kinds = [True, False]
    shares = [frame["worked"].value_counts(normalize=True).reindex(kinds, fill_value=0) for frame in (before, after)]
    lengths = [frame.groupby("worked")["n_tokens"].mean().reindex(kinds) for frame in (before, after)]
    # A kind that is absent on one side has no length there: its other length makes that term zero.
    lengths = [lengths[0].fillna(lengths[1]).fillna(0), lengths[1].fillna(lengths[0]).fillna(0)]
    from_working = ((shares[1] - shares[0]) * (lengths[0] + lengths[1]) / 2).sum()
    within = ((lengths[1] - lengths[0]) * (shares[0] + shares[1]) / 2).sum()
    return LengthChange(before["n_tokens"].mean(), after["n_tokens"].mean(), float(from_working), float(within))

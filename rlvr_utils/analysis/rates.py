"""Compare before and after training: rates with intervals over problems and seeds, groups, pass@k, majority votes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd

from rlvr_utils import stats
from rlvr_utils.stats import Estimate
from rlvr_utils.verifier import answers_match, last_boxed

N_RESAMPLES = 2000


class RateChange(NamedTuple):
    """A rate before and after training, and its paired change, each ``(mean, low, high)``."""

    before: Estimate
    after: Estimate
    change: Estimate


def rate_change(before: pd.DataFrame, after: pd.DataFrame, value: str = "correct", given: str | None = None) -> RateChange:
    """Return the mean of column ``value`` before and after, and its change, with 95 % bootstrap intervals.

    We resample problems *and* runs. Each resample takes the same problems and runs from both frames, so the change is
    paired. With one run the interval covers other problems, but not other seeds. With several runs it is never narrower
    than Student's t over the runs (``stats.hold_seeds``).

    Args:
        before, after: frames as from ``endpoints``.
        value: a numeric or boolean column.
        given: a boolean column. If set, only responses where it is true count ("correct, given a box").

    Raises:
        ValueError: not every run answered every problem.
    """
    tables = [_tables(frame, value, given) for frame in (before, after)]
    weights = stats.two_way_weights(*tables[0][0].shape, N_RESAMPLES)
    old, new = (_ratio(table, weights) for table in tables)
    change = Ratio(*(b - a for a, b in zip(old, new, strict=True)))
    return RateChange(_interval(old, after[value]), _interval(new, after[value]), _interval(change))


def rate(frame: pd.DataFrame, value: str = "correct", given: str | None = None) -> Estimate:
    """Return the mean of ``value`` where ``given`` is true, with its interval, as in :func:`rate_change`."""
    tables = _tables(frame, value, given)
    return _interval(_ratio(tables, stats.two_way_weights(*tables[0].shape, N_RESAMPLES)), frame[value])


def gap(first: pd.DataFrame, second: pd.DataFrame, value: str = "correct") -> Estimate:
    """Return the mean of ``value`` in ``first`` minus that in ``second``, for frames of different runs.

    Uses the problems that both have, and each resample takes the same ones from both. We resample runs independently.
    """
    shared = set(first["problem_id"]) & set(second["problem_id"])
    tables = [_tables(frame[frame["problem_id"].isin(shared)], value, None)[0] for frame in (first, second)]
    runs_a, problems = stats.two_way_weights(*tables[0].shape, N_RESAMPLES, seed=0)
    runs_b, _ = stats.two_way_weights(*tables[1].shape, N_RESAMPLES, seed=1)
    draws = stats.resampled_means(tables[0], (runs_a, problems)) - stats.resampled_means(tables[1], (runs_b, problems))
    drawn = stats.percentile_interval(tables[0].mean() - tables[1].mean(), draws)
    return stats.hold_seeds(drawn, *(table.mean(axis=1) for table in tables))


def _tables(frame: pd.DataFrame, value: str, given: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Return two tables (n_runs, n_problems): means of ``value * given`` and of ``given``. Their ratio is the rate."""
    counted = frame[given].astype(float) if given else pd.Series(1.0, index=frame.index)
    cells = frame[["run", "problem_id"]].assign(value=frame[value].astype(float) * counted, given=counted)
    table = cells.pivot_table(index="run", columns="problem_id", values=["value", "given"], aggfunc="mean")
    if table.isna().any(axis=None):
        raise ValueError("Not every run answered every problem. Use frames from `endpoints`.")
    return table["value"].to_numpy(), table["given"].to_numpy()


class Ratio(NamedTuple):
    """A rate over all responses, per resample and per run."""

    mean: float
    draws: np.ndarray  #: (n_resamples,)
    by_run: np.ndarray  #: (n_runs,)


def _ratio(tables: tuple[np.ndarray, np.ndarray], weights: tuple) -> Ratio:
    above, below = tables
    with np.errstate(invalid="ignore", divide="ignore"):
        draws = stats.resampled_means(above, weights) / stats.resampled_means(below, weights)
        return Ratio(above.mean() / below.mean(), draws, above.mean(axis=1) / below.mean(axis=1))


def _interval(rate: Ratio, values: pd.Series | None = None) -> Estimate:
    """Return the rate with its interval over resamples and seeds. Rates of booleans stay between 0 and 1.

    A resample without a box has no value for "correct, given a box", so it does not count.
    """
    kept = rate.draws[np.isfinite(rate.draws)]
    if not len(kept):
        return Estimate(np.nan, np.nan, np.nan)
    estimate = stats.hold_seeds(stats.percentile_interval(rate.mean, kept), rate.by_run)
    return stats.as_share(estimate) if values is not None and values.dtype == bool else estimate


def learning_curve(frame: pd.DataFrame, value: str = "correct", given: str | None = None) -> pd.DataFrame:
    """Return the rate at each step at which all runs were evaluated: ``step, mean, low, high`` as from ``rate``."""
    n_runs = frame["run"].nunique()
    rows = [
        (step, *rate(answered, value, given))
        for step, answered in frame.groupby("step")
        if answered["run"].nunique() == n_runs
    ]
    return pd.DataFrame(rows, columns=["step", "mean", "low", "high"])


def by_group(before: pd.DataFrame, after: pd.DataFrame, group: str, value: str = "correct") -> pd.DataFrame:
    """Return one row per value of column ``group``: ``n_problems`` and the ``RateChange``, lowest final rate first."""
    rows = []
    for name, new in after.groupby(group):
        old = before[before[group] == name]
        rows.append({group: name, "n_problems": new["problem_id"].nunique()} | rate_change(old, new, value)._asdict())
    table = pd.DataFrame(rows, columns=[group, "n_problems", *RateChange._fields])
    return table.sort_values("after", key=lambda column: column.map(lambda e: e.mean), ignore_index=True)


def pass_at_k_curve(frame: pd.DataFrame, ks: Iterable[int] | None = None) -> pd.DataFrame:
    """Return pass@k with its interval over problems and runs: ``k, mean, low, high``. ``ks`` defaults to 1..n samples."""
    cells = frame.groupby(["run", "problem_id"])
    n = int(cells.size().min())
    counts = cells.head(n).pivot_table(index="run", columns="problem_id", values="correct", aggfunc="sum")
    rows = []
    for k in ks or range(1, n + 1):
        table = stats.pass_at_k(n, counts.to_numpy().astype(int), k)
        rows.append((k, *stats.as_share(stats.bootstrap_seeds_and_problems(table, N_RESAMPLES))))
    return pd.DataFrame(rows, columns=["k", "mean", "low", "high"])


def majority_vote(frame: pd.DataFrame, of: int | None = None) -> pd.DataFrame:
    """Return one row per majority vote, ``run, problem_id, correct``: is the answer in most boxes the correct one?

    ``of`` is the number of samples per vote. A problem with 32 samples has four votes of 8 (None: one vote of all samples).
    Samples without a box do not vote. Ties go to the answer that came first.
    """
    place = frame.groupby(["run", "problem_id"], sort=False).cumcount()
    ballot = place // of if of else 0 * place
    votes = frame.groupby([frame["run"], frame["problem_id"], ballot], sort=False)
    rows = [(run, problem, _winner_is_right(samples)) for (run, problem, _), samples in votes if len(samples) >= (of or 1)]
    return pd.DataFrame(rows, columns=["run", "problem_id", "correct"])


def _winner_is_right(samples: pd.DataFrame) -> bool:
    votes: list[tuple[str, list[bool]]] = []
    for response, correct in zip(samples["response"], samples["correct"], strict=True):
        answer = last_boxed(response)
        if answer is None:
            continue
        for candidate, ballots in votes:
            if candidate == answer or answers_match(answer, candidate):
                ballots.append(correct)
                break
        else:
            votes.append((answer, [correct]))
    return bool(max(votes, key=lambda vote: len(vote[1]))[1][0]) if votes else False

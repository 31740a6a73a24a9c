"""A projection put to the test: fit the first part of a finished run, then look at how it ended."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from rlvr_utils.runs import Run, load_run, reference_runs
from rlvr_utils.stats import PROJECTIONS, out_of, project

from .frames import evaluations_of

#: The end of a run is the mean reward of this many last steps.
END_WINDOW = 10
#: The fewest rewards that a curve can be fitted to.
FEWEST_STEPS = 5


class Projection(NamedTuple):
    """What one family of curves makes of the first ``seen`` steps of a run, at every step of it."""

    kind: str
    seen: int
    steps: np.ndarray  #: (n,)
    curve: np.ndarray  #: (n, 3): best, low, high
    realised: float  #: mean reward of the last ``END_WINDOW`` steps

    @property
    def end(self) -> np.ndarray:
        """(best, low, high) of the projected mean over the last ``END_WINDOW`` steps."""
        return self.curve[-END_WINDOW:].mean(axis=0)


def fit_projection(run: Run, fraction: float, kind: str = "sigmoid", metric: str = "reward") -> Projection:
    """Fit ``kind`` to the first ``fraction`` of the run's training rewards and project to its last step.

    The curve starts at the accuracy measured before training where there is such an evaluation, else at the
    mean of the first three rewards. Raises ValueError where the run is too short for a fit.
    """
    rewards = run.metrics.dropna(subset=metric) if metric in run.metrics else run.metrics
    if len(rewards) < FEWEST_STEPS:
        raise ValueError(
            f"{run.path.name} has {len(rewards)} training steps with a reward: a projection needs {FEWEST_STEPS}"
        )
    steps, values = rewards["step"].to_numpy(float), rewards[metric].to_numpy(float)
    seen = max(FEWEST_STEPS, int(round(fraction * len(steps))))
    curve = project(kind, steps[:seen], values[:seen], steps, start=_start(run, values))
    return Projection(kind, seen, steps, curve, float(values[-END_WINDOW:].mean()))


def runs_to_project(runs: Sequence[Run]) -> list[Run]:
    """Those of ``runs`` that are long enough for a fit, else the shipped runs of mini; perhaps none."""
    candidates = (runs, [load_run(path) for path in reference_runs()])
    return next(filter(None, ([run for run in some if _long_enough(run)] for some in candidates)), [])


def _long_enough(run: Run) -> bool:
    return "reward" in run.metrics and run.metrics["reward"].notna().sum() >= 4 * FEWEST_STEPS


def _start(run: Run, values: np.ndarray) -> float:
    made = evaluations_of(run)
    first = made[made["step"] == 0]["accuracy"]
    return float(first.iloc[0]) if len(first) else float(values[:3].mean())


def projection_table(
    runs: Iterable[Run], fractions: Sequence[float] = (0.25, 1 / 3, 0.5), metric: str = "reward"
) -> pd.DataFrame:
    """One row per run, fraction and kind: ``projected, low, high, realised, error, covered``.

    ``covered``: did the 95 % interval of the fit hold what came?
    """
    rows = []
    for run in runs:
        for fraction in fractions:
            for kind in PROJECTIONS:
                projection = fit_projection(run, fraction, kind, metric)
                best, low, high = projection.end
                covered = low <= projection.realised <= high
                rows.append(
                    (
                        run.path.name,
                        fraction,
                        kind,
                        best,
                        low,
                        high,
                        projection.realised,
                        best - projection.realised,
                        covered,
                    )
                )
    names = ["run", "fraction", "kind", "projected", "low", "high", "realised", "error", "covered"]
    return pd.DataFrame(rows, columns=names)


def projection_summary(table: pd.DataFrame) -> pd.DataFrame:
    """One row per fraction and kind of ``projection_table``: mean error, its size in points, and how often it was covered.

    The interval of the coverage is Wilson's, over runs.
    """
    rows = []
    for (fraction, kind), group in table.groupby(["fraction", "kind"], sort=False):
        rows.append(
            {
                "seen": f"{fraction:.0%}",
                "kind": kind,
                "mean error (points)": 100 * group["error"].mean(),
                "mean size of the error": 100 * group["error"].abs().mean(),
                "interval held the end": out_of(int(group["covered"].sum()), len(group)),
            }
        )
    return pd.DataFrame(rows)

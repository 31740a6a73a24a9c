"""Test projections: fit a curve to the first part of a finished run, then compare it with the end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from rlvr_utils.runs import Run
from rlvr_utils.stats import PROJECTIONS, project

from .frames import evaluations_of

#: The end of a run is the mean reward of this many last steps.
END_WINDOW = 10
#: The minimum number of rewards for fitting a curve.
FEWEST_STEPS = 5


class Projection(NamedTuple):
    """A family of curves, fitted to the first part of a run and evaluated at all of its steps."""

    kind: str  #: one of ``stats.PROJECTIONS``
    seen: int  #: number of steps in the fit
    steps: np.ndarray  #: (n,)
    curve: np.ndarray  #: (n, 3): best, low, high
    realised: float  #: mean reward of the last ``END_WINDOW`` steps

    @property
    def end(self) -> np.ndarray:
        """(best, low, high) of the projected mean over the last ``END_WINDOW`` steps."""
        return self.curve[-END_WINDOW:].mean(axis=0)


def fit_projection(run: Run, fraction: float, kind: str = "sigmoid", metric: str = "reward") -> Projection:
    """Fit a curve to the first ``fraction`` (0 to 1) of the run's training rewards and project it to the last step.

    The curve starts at the accuracy measured at step 0, where RL starts. Without that evaluation it starts at the mean of
    the first three rewards. ``kind`` is one of ``stats.PROJECTIONS``.

    Raises:
        ValueError: the run has fewer than ``FEWEST_STEPS`` rewards, or ``kind`` is unknown.
    """
    rewards = run.metrics.dropna(subset=metric) if metric in run.metrics else run.metrics[:0]
    if len(rewards) < FEWEST_STEPS:
        raise ValueError(
            f"{run.path.name} has {len(rewards)} training steps with a reward, but a projection needs {FEWEST_STEPS}. "
            "Train it longer, or project another run."
        )
    steps, values = rewards["step"].to_numpy(float), rewards[metric].to_numpy(float)
    seen = max(FEWEST_STEPS, int(round(fraction * len(steps))))
    curve = project(kind, steps[:seen], values[:seen], steps, start=_start(run, values))
    return Projection(kind, seen, steps, curve, float(values[-END_WINDOW:].mean()))


def _start(run: Run, values: np.ndarray) -> float:
    made = evaluations_of(run)
    first = made[made["step"] == 0]["accuracy"]
    return float(first.iloc[0]) if len(first) else float(values[:3].mean())


def projection_table(
    runs: Iterable[Run], fractions: Sequence[float] = (0.25, 1 / 3, 0.5), metric: str = "reward"
) -> pd.DataFrame:
    """Return one row per run, fraction and kind: ``projected, low, high, realised, error, covered``.

    ``covered`` is whether the fit's 95 % interval contains ``realised``, the mean reward of the run's last steps.
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

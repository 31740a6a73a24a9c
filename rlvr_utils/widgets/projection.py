"""Move the cut-off up to which a reward curve is fitted, and watch its projections miss or meet the end."""

from __future__ import annotations

import matplotlib.pyplot as plt

from ..analysis import END_WINDOW, fit_projection
from ..plots import curve, figure_bundle
from ..runs import Run
from ..stats import PROJECTIONS
from .frame import Output, interactive_or_static, slider


def draw_projection(run: Run, fraction: float) -> Output:
    """Every family of curves, fitted to the first ``fraction`` of the run's rewards and drawn to its end."""
    projections = [fit_projection(run, fraction, kind) for kind in PROJECTIONS]
    steps, seen, realised = projections[0].steps, projections[0].seen, projections[0].realised
    figure, axes = plt.subplots(figsize=(6.4, 4.2))
    axes.plot(steps, run.metrics.dropna(subset="reward")["reward"], ".", color="0.6", label="reward of each step")
    axes.axvline(steps[seen - 1], color="0.3", linestyle=":", label=f"fitted up to step {steps[seen - 1]:.0f}")
    for index, projection in enumerate(projections):
        curve(axes, steps, *projection.curve.T, label=projection.kind, index=index)
    axes.set(xlabel="training step", ylabel="reward", ylim=(0, 1))
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    ends = "; ".join(f"{p.kind} {p.end[0]:.2f} ({p.end[1]:.2f} to {p.end[2]:.2f})" for p in projections)
    return figure_bundle(
        figure, dpi=90,
        alt=f"Rewards of one run and three projections of its end from the first {seen} steps: {ends}. "
            f"It ended at {realised:.2f}.",
        caption=f"Left of the dotted line is all that the fits have seen. Projected for the last {END_WINDOW} steps: "
                f"{ends}. It came to {realised:.2f}. Bands: 95 %, from drawing the seen steps again; they hold the noise "
                "of the fit, not the chance that the family of curves is the wrong one.")


def projection_explorer(run: Run, fraction: float = 0.25) -> None:
    """Show three projections of ``run`` from its first ``fraction``; in a live notebook the cut-off can be moved."""
    def draw(fraction: float) -> Output:
        return draw_projection(run, fraction)

    interactive_or_static("projection", draw, {"fraction": slider("fitted part", fraction, 0.1, 0.9, 0.05)})

"""Rewards over the steps: live while a training runs (notebook 04), and projected from a part of them (notebook 05)."""

from __future__ import annotations

from functools import partial

import matplotlib.pyplot as plt
import numpy as np

from ..analysis import END_WINDOW, fit_projection
from ..diagnosis import finite
from ..plots import PALETTE, draw_curves, figure_bundle, figure_html, png_of
from ..runs import SAMPLES_DRAWN, Run
from ..stats import PROJECTIONS, t_interval
from .frame import Output, interactive_or_static, slider

WINDOW = 10  # steps behind each point of the mean and of its interval


class LiveReward:
    """The reward while the training runs, drawn anew every few steps; pass it to ``train(..., live=...)``.

    The last picture stays in the notebook: that is its static twin.
    """

    def __init__(self, max_steps: int):
        self.max_steps = max_steps
        self.handle = None

    def __call__(self, rows: list[dict]) -> None:
        """Draw the metrics so far (one dict a step with ``step``, ``reward``, ``completions/mean_length``)."""
        from IPython.display import HTML, display  # only a notebook needs it

        rows = [row for row in rows if finite(row.get("reward"))]  # not every step generates, or could be judged
        if not rows:
            return
        last = rows[-1]
        alt = (
            f"Mean reward against training step, up to step {last['step']} of {self.max_steps}: "
            f"{last['reward']:.2f} now, {rows[0]['reward']:.2f} at the start."
        )
        caption = (
            f"Reward of each step (left axis, circles), its mean over {WINDOW} steps with a 95 % interval, and "
            "response length in tokens (right axis, dashed)."
        )
        if drawn := [row[SAMPLES_DRAWN] for row in rows if finite(row.get(SAMPLES_DRAWN))]:
            caption += (
                f" Dynamic sampling drew {sum(drawn):,.0f} samples so far, {sum(drawn) / len(drawn):.0f} per generation, so "
                "compare this run with others by samples."
            )
        html = HTML(figure_html(self.draw(rows), alt, caption))
        if self.handle is None:
            self.handle = display(html, display_id=True)
        else:
            self.handle.update(html)

    def draw(self, rows: list[dict]) -> str:
        """The figure as base64 PNG."""
        figure, axes = plt.subplots(figsize=(6.4, 3.2))
        steps = [row["step"] for row in rows]
        rewards = [row["reward"] for row in rows]
        axes.plot(steps, rewards, "o", color=PALETTE[0], markersize=3)
        means = [t_interval(rewards[end - WINDOW : end]) for end in range(WINDOW, len(rewards) + 1)]
        if means:
            ends = steps[WINDOW - 1 :]
            axes.plot(ends, [m.mean for m in means], "-", color=PALETTE[0])
            axes.fill_between(ends, [m.low for m in means], [m.high for m in means], color=PALETTE[0], alpha=0.2)
        axes.set(xlabel="training step", ylabel="mean reward", xlim=(0, self.max_steps), ylim=(0, 1))
        lengths = axes.twinx()
        long = [row for row in rows if finite(row.get("completions/mean_length"))]
        lengths.plot(
            [row["step"] for row in long],
            [row["completions/mean_length"] for row in long],
            "--",
            color=PALETTE[1],
            linewidth=1,
        )
        lengths.set_ylabel("tokens per response")
        lengths.grid(visible=False)
        png = png_of(figure)
        plt.close(figure)
        return png


# --- projections ---


def draw_projection(run: Run, fraction: float) -> Output:
    """Every family of curves, fitted to the first ``fraction`` of the run's rewards and drawn to its end."""
    projections = [fit_projection(run, fraction, kind) for kind in PROJECTIONS]
    steps, seen, realised = projections[0].steps, projections[0].seen, projections[0].realised
    figure, axes = plt.subplots(figsize=(6.4, 4.2))
    axes.plot(steps, run.metrics.dropna(subset="reward")["reward"], ".", color="0.6", label="reward of each step")
    axes.axvline(steps[seen - 1], color="0.3", linestyle=":", label=f"fitted up to step {steps[seen - 1]:.0f}")
    draw_curves(
        axes,
        {p.kind: np.column_stack([steps, p.curve]) for p in projections},
        xlabel="training step",
        ylabel="reward",
        ylim=(0, 1),
    )
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    ends = "; ".join(f"{p.kind} {p.end[0]:.2f} ({p.end[1]:.2f} to {p.end[2]:.2f})" for p in projections)
    return figure_bundle(
        figure,
        dpi=90,
        alt=f"Rewards of one run and three projections of its end from the first {seen} steps: {ends}. "
        f"It ended at {realised:.2f}.",
        caption=f"Left of the dotted line is all that the fits have seen. Projected for the last {END_WINDOW} steps: "
        f"{ends}. It came to {realised:.2f}. Bands: 95 %, from drawing the seen steps again; they hold the noise "
        "of the fit, not the chance that the family of curves is the wrong one.",
    )


def projection_explorer(run: Run, fraction: float = 0.25) -> None:
    """Show three projections of ``run`` from its first ``fraction``; in a live notebook the cut-off can be moved."""
    controls = {"fraction": slider("fitted part", fraction, 0.1, 0.9, 0.05)}
    interactive_or_static("projection", partial(draw_projection, run), controls)

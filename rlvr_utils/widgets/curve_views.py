"""Reward curves: live during training (notebook 04), and projections from the first part of a run (notebook 05)."""

from __future__ import annotations

import time
from functools import partial

import matplotlib.pyplot as plt
import numpy as np

from ..analysis import END_WINDOW, fit_projection
from ..diagnosis import finite
from ..plots import PALETTE, draw_curves, figure_bundle, figure_html, png_of
from ..runs import SAMPLES_DRAWN, Run
from ..stats import PROJECTIONS, t_interval
from .frame import Output, interactive_or_static, slider, somebody_is_there

WINDOW = 10  # steps per point of the mean and its interval
FRAMES = 24  # frames per replay


class LiveReward:
    """A plot of the reward that is redrawn during training. Pass it to ``train(..., live=...)``.

    The last frame stays in the notebook as the static twin.
    """

    def __init__(self, max_steps: int):
        self.max_steps = max_steps
        self.handle = None

    def __call__(self, rows: list[dict]) -> None:
        """Draw the metrics so far. ``rows`` has one dict per step with ``step``, ``reward``, ``completions/mean_length``."""
        from IPython.display import HTML, display  # only needed in a notebook

        # A step has no reward if it reuses older samples, if no response was judged, or in a supervised stage.
        rows = [row for row in rows if finite(row.get("reward"))]
        if not rows:
            return
        last = rows[-1]
        alt = (
            f"Mean reward against training step, up to step {last['step']} of {self.max_steps}: "
            f"{last['reward']:.2f} now, {rows[0]['reward']:.2f} at the start."
        )
        caption = (
            f"Left axis: reward of each step, and the mean of {WINDOW} steps with a 95 % interval. "
            "Right axis: response length."
        )
        if drawn := [row[SAMPLES_DRAWN] for row in rows if finite(row.get(SAMPLES_DRAWN))]:
            caption += (
                f" Dynamic sampling drew {sum(drawn):,.0f} samples so far, {sum(drawn) / len(drawn):.0f} per generation, so "
                "compare this run with others by number of samples."
            )
        html = HTML(figure_html(self.draw(rows), alt, caption))
        if self.handle is None:
            self.handle = display(html, display_id=True)
        else:
            self.handle.update(html)

    def replay(self, rows: list[dict], seconds: float = 10.0) -> None:
        """Redraw a finished run step by step.

        Args:
            rows: as in ``__call__``.
            seconds: the total duration. Outside a live notebook, only the last frame is drawn.
        """
        for frame in range(1 if somebody_is_there() else FRAMES, FRAMES + 1):
            self(rows[: max(1, len(rows) * frame // FRAMES)])
            time.sleep(seconds / FRAMES if frame < FRAMES else 0)

    def draw(self, rows: list[dict]) -> str:
        """Return the figure as a base64 PNG."""
        figure, axes = plt.subplots(figsize=(6.4, 3.4))
        steps = [row["step"] for row in rows]
        rewards = [row["reward"] for row in rows]
        axes.plot(steps, rewards, "o", color=PALETTE[0], markersize=3, alpha=0.5, label="reward of each step")
        windows = [slice(first, first + WINDOW) for first in range(len(rows) - WINDOW + 1)]
        if windows:
            # Plot each mean at the middle of its window. At the end of the window it would lag by half a window.
            middles = [float(np.mean(steps[window])) for window in windows]
            means = [t_interval(rewards[window]) for window in windows]
            axes.plot(middles, [m.mean for m in means], "-", color=PALETTE[0], label=f"mean of {WINDOW} steps, 95 %")
            axes.fill_between(middles, [m.low for m in means], [m.high for m in means], color=PALETTE[0], alpha=0.2)
        axes.set(xlabel="training step", ylabel="mean reward", xlim=(0, self.max_steps), ylim=(0, 1))
        lengths = axes.twinx()
        tokens = [row.get("completions/mean_length") for row in rows]
        tokens = [count if finite(count) else np.nan for count in tokens]
        lengths.plot(steps, tokens, "--", color=PALETTE[1], linewidth=1, label="tokens per response")
        lengths.set_ylabel("tokens per response")
        lengths.grid(visible=False)
        figure.legend(loc="outside lower center", ncols=3, fontsize=9)
        png = png_of(figure)
        plt.close(figure)
        return png


# --- projections ---


def draw_projection(run: Run, fraction: float) -> Output:
    """Draw each family of curves, fitted to the first ``fraction`` of the run's rewards, up to the end of the run."""
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
    ends = ", ".join(f"{p.kind} {p.end[0]:.2f} ({p.end[1]:.2f} to {p.end[2]:.2f})" for p in projections)
    return figure_bundle(
        figure,
        dpi=90,
        alt=f"Rewards of one run and three projections of its end from the first {seen} steps: {ends}. "
        f"It ended at {realised:.2f}.",
        caption=f"The fits use only the rewards left of the dotted line. Projected for the last {END_WINDOW} steps: "
        f"{ends}. The run ended at {realised:.2f}. Bands: 95 %, from resampling the fitted steps. They include the noise "
        "of the fit, but not the risk of choosing the wrong family of curves.",
    )


def projection_explorer(run: Run, fraction: float = 0.25) -> None:
    """Show three projections of ``run`` from its first ``fraction``, with a slider in a live notebook."""
    controls = {"fraction": slider("fitted part", fraction, 0.1, 0.9, 0.05)}
    interactive_or_static("projection", partial(draw_projection, run), controls)

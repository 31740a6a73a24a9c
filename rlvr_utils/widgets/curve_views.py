"""The reward curve of a training that is under way."""

from __future__ import annotations

from ..diagnosis import finite
from ..plots import PALETTE, figure_html, png_of
from ..stats import t_interval

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
        alt = (f"Mean reward against training step, up to step {last['step']} of {self.max_steps}: "
               f"{last['reward']:.2f} now, {rows[0]['reward']:.2f} at the start.")
        caption = (f"Reward of each step (left axis, circles), its mean over {WINDOW} steps with a 95 % interval, and "
                   "response length in tokens (right axis, dashed).")
        html = HTML(figure_html(self.draw(rows), alt, caption))
        if self.handle is None:
            self.handle = display(html, display_id=True)
        else:
            self.handle.update(html)

    def draw(self, rows: list[dict]) -> str:
        """The figure as base64 PNG."""
        import matplotlib.pyplot as plt

        figure, axes = plt.subplots(figsize=(6.4, 3.2))
        steps = [row["step"] for row in rows]
        rewards = [row["reward"] for row in rows]
        axes.plot(steps, rewards, "o", color=PALETTE[0], markersize=3)
        means = [t_interval(rewards[end - WINDOW:end]) for end in range(WINDOW, len(rewards) + 1)]
        if means:
            ends = steps[WINDOW - 1:]
            axes.plot(ends, [m.mean for m in means], "-", color=PALETTE[0])
            axes.fill_between(ends, [m.low for m in means], [m.high for m in means], color=PALETTE[0], alpha=0.2)
        axes.set(xlabel="training step", ylabel="mean reward", xlim=(0, self.max_steps), ylim=(0, 1))
        lengths = axes.twinx()
        long = [row for row in rows if finite(row.get("completions/mean_length"))]
        lengths.plot([row["step"] for row in long], [row["completions/mean_length"] for row in long], "--",
                     color=PALETTE[1], linewidth=1)
        lengths.set_ylabel("tokens a response")
        lengths.grid(visible=False)
        png = png_of(figure)
        plt.close(figure)
        return png

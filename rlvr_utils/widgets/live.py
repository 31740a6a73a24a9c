"""The reward curve of a training that is under way."""

from __future__ import annotations

from ..plots import PALETTE, figure_html, png_of


class LiveReward:
    """The reward while the training runs, drawn anew every few steps; pass it to ``train(..., live=...)``.

    The last picture stays in the notebook: that is its static twin.
    """

    def __init__(self, max_steps: int):
        self.max_steps = max_steps
        self.handle = None

    def __call__(self, rows: list[dict]) -> None:
        """Draw the metrics so far (one dict a step with ``step``, ``reward``, ``completions/mean_length``)."""
        from IPython.display import HTML, display  # noqa: PLC0415 - only a notebook needs it

        rows = [row for row in rows if "reward" in row]
        if not rows:
            return
        last = rows[-1]
        alt = (f"Mean reward against training step, up to step {last['step']} of {self.max_steps}: "
               f"{last['reward']:.2f} now, {rows[0]['reward']:.2f} at the start.")
        html = HTML(figure_html(self.draw(rows), alt, "Reward (left axis, circles) and response length in tokens "
                                                      "(right axis, dashed) of each training step."))
        if self.handle is None:
            self.handle = display(html, display_id=True)
        else:
            self.handle.update(html)

    def draw(self, rows: list[dict]) -> str:
        """The figure as base64 PNG."""
        import matplotlib.pyplot as plt  # noqa: PLC0415

        figure, axes = plt.subplots(figsize=(6.4, 3.2))
        steps = [row["step"] for row in rows]
        axes.plot(steps, [row["reward"] for row in rows], "o-", color=PALETTE[0], markersize=3, linewidth=1)
        axes.set(xlabel="training step", ylabel="mean reward", xlim=(0, self.max_steps), ylim=(0, 1))
        lengths = axes.twinx()
        lengths.plot(steps, [row["completions/mean_length"] for row in rows], "--", color=PALETTE[1], linewidth=1)
        lengths.set_ylabel("tokens a response")
        lengths.grid(visible=False)
        png = png_of(figure)
        plt.close(figure)
        return png

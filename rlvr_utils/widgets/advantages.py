"""Drag the rewards of a group and see its advantages."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes

from ..grpo import group_advantages
from ..grpo.advantages import SCALES
from ..plots import PALETTE, figure_bundle
from .frame import Output, choice, interactive_or_static, slider


def two_groups(rewards: Sequence[float], neighbour: Sequence[float], scale: str) -> tuple[list[float], list[float]]:
    """The advantages of a group and of another group in the same batch, as many responses each."""
    both = torch.tensor([*rewards, *neighbour], dtype=torch.float64)
    values = group_advantages(both, len(rewards), scale).tolist()
    return values[: len(rewards)], values[len(rewards):]


def told(rewards: Sequence[float], values: Sequence[float]) -> str:
    """One sentence on what a group teaches."""
    if max(rewards) == min(rewards):
        return f"All rewards are {rewards[0]:g}: nobody is above the mean, so this group teaches nothing."
    mean = sum(rewards) / len(rewards)
    return (f"The mean reward is {mean:.2f}. The best response gets {max(values):+.2f} and the worst {min(values):+.2f}; "
            f"the bars sum to zero.")


def bars(axes: Axes, rewards: Sequence[float], values: Sequence[float], title: str) -> None:
    """One bar a response, labelled with its reward; those below zero are hatched."""
    places = range(1, len(values) + 1)
    colours = [PALETTE[0] if value > 0 else PALETTE[1] for value in values]
    drawn = axes.bar(places, values, color=colours, hatch=["" if value > 0 else "//" for value in values])
    axes.bar_label(drawn, [f"{reward:g}" for reward in rewards], fontsize=9, padding=2)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.margins(y=0.2)
    axes.set(xlabel="response (at its bar: the reward)", xticks=places, title=title)


def draw_advantages(scale: str, neighbour: int, **rewards: float) -> Output:
    """Both groups side by side; ``neighbour`` responses of the other group are right."""
    own = list(rewards.values())
    other = [1.0] * neighbour + [0.0] * (len(own) - neighbour)
    values = two_groups(own, other, scale)
    figure, panels = plt.subplots(1, 2, figsize=(9, 3), sharey=True)
    for axes, *group in zip(panels, (own, other), values, ("this group", "another group of the batch"), strict=True):
        bars(axes, *group)
    panels[0].set_ylabel("advantage")
    listed = ", ".join(f"{value:+.2f}" for value in values[0])
    return figure_bundle(figure, alt=f"Advantages of a group, response by response: {listed}; beside it another group.",
                         caption=told(own, values[0]) + f" Scaling: {scale}.", dpi=90)


def advantage_explorer(rewards: Sequence[float]) -> None:
    """Show the advantages of a group; in a live notebook the rewards, the scaling and a second group can be changed."""
    controls = {f"reward_{i}": slider(f"reward {i}", float(reward), 0, 1, 0.25) for i, reward in enumerate(rewards, 1)}
    counts = range(len(rewards) + 1)
    interactive_or_static("advantages", draw_advantages, controls | {
        "neighbour": choice("right, other group", len(rewards) // 2, counts, stepwise=True),
        "scale": choice("scale", "group", SCALES)})

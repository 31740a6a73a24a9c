"""Views of notebook 02: the advantages of a group with adjustable rewards, and the clip surface."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes

from ..grpo import clipped_term, group_advantages
from ..grpo.advantages import SCALES
from ..plots import PALETTE, figure_bundle
from .frame import Output, interactive_or_static, picker, slider

RATIOS = np.linspace(0.02, 2.5, 125)
ADVANTAGES = np.linspace(-2, 2, 80)  # an even number of rows leaves out advantage 0, where the gradient is 0


def two_groups(rewards: Sequence[float], neighbour: Sequence[float], scale: str) -> tuple[list[float], list[float]]:
    """Return the advantages of a group and of a second group of the same size in the same batch."""
    both = torch.tensor([*rewards, *neighbour], dtype=torch.float64)
    values = group_advantages(both, len(rewards), scale).tolist()
    return values[: len(rewards)], values[len(rewards) :]


def told(rewards: Sequence[float], values: Sequence[float]) -> str:
    """Return a caption that describes the learning signal of a group."""
    if max(rewards) == min(rewards):
        return f"All rewards are {rewards[0]:g}: no response is above the mean, so this group gives no learning signal."
    mean = sum(rewards) / len(rewards)
    return (
        f"The mean reward is {mean:.2f}. The best response gets {max(values):+.2f} and the worst {min(values):+.2f}. "
        f"The bars sum to zero."
    )


def bars(axes: Axes, rewards: Sequence[float], values: Sequence[float], title: str) -> None:
    """Draw one bar per response, labelled with its reward. Bars below zero are hatched."""
    places = range(1, len(values) + 1)
    colours = [PALETTE[0] if value > 0 else PALETTE[1] for value in values]
    drawn = axes.bar(places, values, color=colours, hatch=["" if value > 0 else "//" for value in values])
    axes.bar_label(drawn, [f"{reward:g}" for reward in rewards], fontsize=9, padding=2)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.margins(y=0.2)
    axes.set(xlabel="response no. (at its bar: the reward)", xticks=places, title=title)


def draw_advantages(scale: str, neighbour: int, **rewards: float) -> Output:
    """Draw both groups side by side. ``neighbour`` is the number of correct responses in the other group."""
    own = list(rewards.values())
    other = [1.0] * neighbour + [0.0] * (len(own) - neighbour)
    values = two_groups(own, other, scale)
    figure, panels = plt.subplots(1, 2, figsize=(9, 3), sharey=True)
    for axes, *group in zip(panels, (own, other), values, ("this group", "another group of the batch"), strict=True):
        bars(axes, *group)
    panels[0].set_ylabel("advantage")
    listed = ", ".join(f"{value:+.2f}" for value in values[0])
    return figure_bundle(
        figure,
        alt=f"Advantages of a group, response by response: {listed}. Next to it is another group.",
        caption=told(own, values[0]) + f" Scaling: {scale}.",
        dpi=90,
    )


def advantage_explorer(rewards: Sequence[float]) -> None:
    """Show the advantages of a group, with controls for the rewards, the scaling and a second group."""
    controls = {f"reward_{i}": slider(f"reward {i}", float(reward), 0, 1, 0.25) for i, reward in enumerate(rewards, 1)}
    counts = range(len(rewards) + 1)
    interactive_or_static(
        "advantages",
        draw_advantages,
        controls
        | {
            "neighbour": picker("correct, other group", len(rewards) // 2, counts, stepwise=True),
            "scale": picker("scale", "group", SCALES),
        },
    )


# --- the clip: the gradient on a token by its ratio and its advantage ---


def objective(ratios: np.ndarray, advantages: np.ndarray, epsilon: float, epsilon_high: float) -> np.ndarray:
    """Return ``min(ratio A, clip(ratio) A)`` for every pair, shape (len(advantages), len(ratios))."""
    terms = clipped_term(torch.tensor(ratios)[None], torch.tensor(advantages)[:, None], epsilon, epsilon_high)
    return -terms.numpy()


def push(ratios: np.ndarray, advantages: np.ndarray, epsilon: float, epsilon_high: float) -> np.ndarray:
    """Return the objective's slope in log p for every pair, same shape. Above 0 the token becomes more likely."""
    logs = torch.tensor(ratios).log().expand(len(advantages), -1).clone().requires_grad_()
    terms = clipped_term(logs.exp(), torch.tensor(advantages)[:, None], epsilon, epsilon_high)
    return -torch.autograd.grad(terms.sum(), logs)[0].numpy()


def surface(axes: Axes, slopes: np.ndarray) -> None:
    """Draw the push as colours and labelled contours, hatched where it is 0."""
    limit = np.abs(slopes).max()
    axes.pcolormesh(RATIOS, ADVANTAGES, slopes, cmap="PuOr_r", vmin=-limit, vmax=limit, shading="auto", rasterized=True)
    axes.contourf(RATIOS, ADVANTAGES, slopes == 0, levels=[0.5, 1.5], colors="none", hatches=["//"])
    pushed = np.ma.masked_equal(slopes, 0)  # otherwise all contours run along the edge of the clip
    lines = axes.contour(RATIOS, ADVANTAGES, pushed, levels=[-4, -2, -1, -0.5, 0.5, 1, 2, 4], colors="black", linewidths=0.7)
    axes.clabel(lines, fmt=lambda value: f"{value:+g}", fontsize=8)
    axes.axvline(1, color="black", linewidth=0.8, linestyle=":")
    axes.set(xlabel="importance ratio", ylabel="advantage", title="push on log p (hatched: none)")
    axes.grid(visible=False)


def draw_clip(epsilon: float, epsilon_high: float, advantage: float) -> Output:
    """Draw the surface, and the objective along one advantage."""
    slopes = push(RATIOS, ADVANTAGES, epsilon, epsilon_high)
    cut = objective(RATIOS, np.array([advantage]), epsilon, epsilon_high)[0]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6))
    surface(left, slopes)
    left.axhline(advantage, color=PALETTE[2], linestyle="--", linewidth=2)
    right.plot(RATIOS, advantage * RATIOS, "--", color=PALETTE[1], label="without the clip")
    right.plot(RATIOS, cut, "-", color=PALETTE[0], label="clipped")
    for edge in (1 - epsilon, 1 + epsilon_high):
        right.axvline(edge, color="black", linewidth=0.8, linestyle=":")
    right.set(xlabel="ratio", ylabel="objective", title=f"along the dashed line, advantage {advantage:+.2f}")
    right.legend(fontsize=9)
    return figure_bundle(
        figure,
        dpi=90,
        alt=f"Left: push on a token by ratio and advantage. There is none for positive advantages above ratio "
        f"{1 + epsilon_high:.2f} and negative ones below {1 - epsilon:.2f}. Right: the objective along advantage "
        f"{advantage:+.2f}.",
        caption=f"Hatched: no gradient. These are correct responses above ratio {1 + epsilon_high:.2f} and wrong ones "
        f"below {1 - epsilon:.2f}. Two combinations are never clipped: wrong responses that became more likely (bottom "
        "right), whose gradient grows with the ratio, and correct ones that became less likely (top left).",
    )


def clip_explorer(epsilon: float = 0.2, epsilon_high: float = 0.28, advantage: float = 1.0) -> None:
    """Show the clip surface, with sliders for the clip range and the advantage."""
    interactive_or_static(
        "clip",
        draw_clip,
        {
            "epsilon": slider("epsilon", epsilon, 0, 0.9, 0.05),
            "epsilon_high": slider("epsilon_high", epsilon_high, 0, 1.4, 0.04),
            "advantage": slider("advantage", advantage, -2, 2, 0.25),
        },
    )

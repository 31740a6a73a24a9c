"""LoRA's rank and targets against the numbers that are trained and the memory that a run takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from transformers import PretrainedConfig

from .. import memory
from ..models import lora_parameter_count
from ..plots import PALETTE, figure_bundle
from ..profiles import ALL_LINEAR, Profile
from .frame import Output, choice, interactive_or_static

COLOURS = (PALETTE[0], PALETTE[5], PALETTE[2], PALETTE[3], PALETTE[4], PALETTE[6], PALETTE[1], "#555555", "#BBBBBB",
           "#FFFFFF", "#7F6000")
HATCHES = ("", "//", "..", "xx", "\\", "oo", "--", "**", "++", "", "||")
RANKS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
#: What may get an adapter; None is full fine-tuning.
TARGETS: dict[str, tuple[str, ...] | None] = {
    "q and v": ALL_LINEAR[0:3:2], "attention": ALL_LINEAR[:4], "MLP": ALL_LINEAR[4:], "all linear layers": ALL_LINEAR,
    "no LoRA: train everything": None}


def memory_bars(axes: Axes, bars: Sequence[tuple[str, dict, memory.Machine]], title: str) -> None:
    """One stacked bar for each (label, bytes by part, GPU), and a diamond at the GPU's memory."""
    left = [0.0] * len(bars)
    for part, colour, hatch in zip(memory.PARTS, COLOURS, HATCHES, strict=True):
        widths = [parts.get(part, 0) / memory.GIB for _, parts, _ in bars]
        if any(widths):
            axes.barh(range(len(bars)), widths, left=left, label=part, color=colour, hatch=hatch, edgecolor="black", lw=0.5)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.plot([gpu.memory / memory.GIB for *_, gpu in bars], range(len(bars)), linestyle="", marker="D", markersize=9,
              color="black", label="the GPU's memory")
    axes.set_yticks(range(len(bars)), [label for label, *_ in bars])
    axes.set_title(title)
    axes.grid(axis="y", visible=False)
    axes.invert_yaxis()


def with_adapter(p: Profile, rank: int, targets: str) -> Profile:
    """The profile with this rank on these :data:`TARGETS`; alpha is left alone, as notebook 03 advises."""
    layers = TARGETS[targets]
    if layers is None:
        return replace(p, adapter="none")
    return replace(p, adapter="lora", lora_rank=rank, lora_targets=layers)


def trained_numbers(p: Profile, config: PretrainedConfig) -> tuple[int, float]:
    """(numbers that are trained, their share of the model)."""
    whole = memory.parameter_count(config)
    count = whole if p.adapter == "none" else lora_parameter_count(config, p.lora_rank, p.lora_targets)
    return count, count / whole


def draw_adapter(p: Profile, config: PretrainedConfig, rank: int, targets: str, gpu: memory.Machine) -> Output:
    """The three phases of the run on one GPU, and what would make it fit."""
    p = with_adapter(p, rank, targets)
    needed, plan = memory.estimate(p, config, gpu=gpu.memory), memory.plan(p, gpu.memory, config)
    count, share = trained_numbers(p, config)
    room = gpu.memory / memory.GIB
    figure, axes = plt.subplots(figsize=(8.5, 2.8))
    memory_bars(axes, [(phase, parts, gpu) for phase, parts in needed.phases.items()], f"{p.profile} on {gpu.name}")
    axes.set(xlabel="GiB", xlim=(0, None))
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1.05), fontsize=8.5)
    name = "everything" if p.adapter == "none" else f"rank {rank} on {targets}"
    sizes = ", ".join(f"{phase} {needed.total(phase) / memory.GIB:.1f}" for phase in needed.phases)
    return figure_bundle(
        figure, dpi=90, alt=f"Stacked bars of the memory of each phase in GiB: {sizes}; the GPU has {room:.1f}.",
        caption=f"Trained: {name}, {count:,} numbers, {share:.3%} of the model. As it is, the run needs "
                f"{needed.peak / memory.GIB:.1f} GiB. On a GPU with {room:.1f} it {plan}. "
                "Estimated at the length limits, not run.")


def lora_explorer(p: Profile, config: PretrainedConfig) -> None:
    """Show what profile ``p`` trains and takes; in a live notebook rank, targets and GPU can be changed."""
    def draw(**values) -> Output:
        return draw_adapter(p, config, **values)

    interactive_or_static("lora", draw, {
        "rank": choice("rank", p.lora_rank if p.lora_rank in RANKS else 16, RANKS, stepwise=True),
        "targets": choice("trained", "all linear layers", tuple(TARGETS)),
        "gpu": choice("GPU", memory.GPUS[2], [(gpu.name, gpu) for gpu in memory.GPUS])})

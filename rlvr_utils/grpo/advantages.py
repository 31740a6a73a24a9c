"""From the rewards of a group of responses to their advantages."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

#: Added to the standard deviation, so that a group of equal rewards gives 0 and not 0/0 (grpo_trainer.py).
STD_FLOOR = 1e-4

SCALES = ("group", "batch", "none")


def _reward_tensor(rewards: Tensor | Sequence[float | None]) -> Tensor:
    """Rewards as a floating tensor ``(N,)``. A missing reward (``None``) becomes NaN."""
    if not isinstance(rewards, Tensor):
        rewards = torch.tensor([float("nan") if reward is None else float(reward) for reward in rewards])
    return rewards if rewards.is_floating_point() else rewards.to(torch.get_default_dtype())


def nan_std(values: Tensor, dim: int) -> Tensor:
    """Sample standard deviation (denominator n - 1), ignoring NaN. NaN if fewer than 2 values remain.

    Source: ``nanstd`` in trl/trainer/utils.py, which equals ``torch.std`` if no value is missing.
    """
    count = (~values.isnan()).sum(dim=dim, keepdim=True)
    squares = (values - values.nanmean(dim=dim, keepdim=True)) ** 2
    variance = squares.nanmean(dim=dim, keepdim=True) * (count / (count - 1))
    return variance.where(count > 1, torch.full_like(variance, float("nan"))).sqrt()


def group_advantages(rewards: Tensor | Sequence[float | None], group_size: int, scale: str | bool = "group") -> Tensor:
    """How much better than its group each response was: ``(r - mean(group)) / (std + 1e-4)``, shape ``(N,)``.

    Args:
        rewards: ``(N,)``, with the responses to one prompt next to each other. NaN or ``None`` is a missing reward:
            left out of the mean and of the std, and given the advantage 0.
        group_size: responses per prompt, ``G >= 2``; ``N`` is a multiple of it.
        scale: ``"group"`` divides by the group's std, ``"batch"`` by that of all ``N`` rewards (the mean
            stays the group's), ``"none"`` by nothing. ``True`` and ``False`` mean ``"group"`` and
            ``"none"``, as in TRL.

    A group of equal rewards gets 0 (up to rounding), so it gives no learning signal. The std is the sample std (n - 1).

    Raises:
        ValueError: no rewards, another shape, a group size that does not fit, an infinite reward, an unknown
            scale.

    Source: DeepSeekMath (arXiv 2402.03300) section 4.1.2; ``"none"``: Dr. GRPO (arXiv 2503.20783) section 3;
    ``"batch"``: arXiv 2508.08221. grpo_trainer.py, ``_generate_and_score_completions``.
    """
    scale = {True: "group", False: "none"}.get(scale, scale)
    if scale not in SCALES:
        raise ValueError(f"scale is {scale!r}. Use one of {', '.join(SCALES)}.")
    rewards = _reward_tensor(rewards)
    if rewards.dim() != 1 or rewards.numel() == 0:
        raise ValueError(f"rewards has shape {tuple(rewards.shape)}. Give one reward per response, (N,), N > 0.")
    if group_size < 2:
        raise ValueError(f"group_size is {group_size}, but a response is compared with its group. Use group_size >= 2.")
    if rewards.numel() % group_size:
        raise ValueError(
            f"{len(rewards)} rewards cannot be split into groups of {group_size}. Use a multiple of {group_size}."
        )
    if rewards.isinf().any():
        raise ValueError("rewards contains an infinite value. Use a finite reward, or NaN for a missing one.")
    groups = rewards.view(-1, group_size)
    advantages = groups - groups.nanmean(dim=1, keepdim=True)
    if scale == "group":
        advantages = advantages / (nan_std(groups, dim=1) + STD_FLOOR)
    elif scale == "batch":
        advantages = advantages / (nan_std(rewards, dim=0) + STD_FLOOR)
    return advantages.flatten().nan_to_num(nan=0.0)

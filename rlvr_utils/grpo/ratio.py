"""Importance ratios between the current and the sampling policy, and the policy term of each loss type.

Every ``*_term`` returns something to *minimise*, before masks, KL and averaging. Shapes: ratio ``(B, T)`` at
token level or ``(B, 1)`` at sequence level, advantages ``(B, 1)``, the rest ``(B, T)``; results broadcast.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

#: Sequence weights below this are treated as this (``get_gamma_weights`` in grpo_trainer.py).
SMALLEST_WEIGHT = 1e-8
LARGEST_LOG_RATIO = 20.0


def importance_ratio(logps: Tensor, old_logps: Tensor, mask: Tensor, level: str) -> Tensor:
    """``p_now / p_when_sampled``: per token ``(B, T)``, or per sequence ``(B, 1)``, the geometric mean.

    Raises:
        ValueError: if ``level`` is neither ``"token"`` nor ``"sequence"``.

    Source: token: PPO (arXiv 1707.06347) section 3; sequence: GSPO (arXiv 2507.18071).
    """
    log_ratio = logps - old_logps
    if level == "token":
        return log_ratio.exp()
    if level == "sequence":
        return ((log_ratio * mask).sum(-1, keepdim=True) / mask.sum(-1, keepdim=True).clamp(min=1.0)).exp()
    raise ValueError(f"importance_sampling_level is {level!r}. Use 'token' or 'sequence'.")


def clipped_term(
    ratio: Tensor, advantages: Tensor, epsilon: float, epsilon_high: float, delta: float | None = None
) -> Tensor:
    """``-min(ratio A, clip(ratio, 1 - epsilon, 1 + epsilon_high) A)``: grpo, bnpo, dr_grpo, dapo, luspo.

    Once a good response is already ``epsilon_high`` more likely, or a bad one ``epsilon`` less likely, its
    gradient is 0. ``min`` lets the other side through: a bad response that grew more likely is pushed down
    without limit, unless ``delta`` caps its ratio.

    Source: PPO (arXiv 1707.06347) Eq. 7; clip-higher: DAPO (arXiv 2503.14476) section 3.1; delta: two-sided
    clipping, INTELLECT-2 (arXiv 2505.07291).
    """
    clipped = ratio.clamp(1 - epsilon, 1 + epsilon_high)
    capped = ratio if delta is None else ratio.clamp(max=delta)
    return -torch.min(capped * advantages, clipped * advantages)


def cispo_term(ratio: Tensor, advantages: Tensor, logps: Tensor, epsilon_high: float) -> Tensor:
    """``-stop_gradient(min(ratio, epsilon_high)) A log p``: the weight is clipped, never the gradient.

    Here ``epsilon_high`` is a cap on the ratio itself (5.0 is usual). With 0.2, TRL's default when only
    ``epsilon`` is set, every on-policy gradient is scaled down to a fifth.

    Source: CISPO, MiniMax-M1 (arXiv 2506.13585).
    """
    return -ratio.clamp(max=epsilon_high).detach() * advantages * logps


def sapo_term(ratio: Tensor, advantages: Tensor, temperature_pos: float, temperature_neg: float) -> Tensor:
    """``-(4 / tau) sigmoid(tau (ratio - 1)) A``: a smooth gate in place of a clip, slope 1 at ratio 1.

    Source: SAPO (arXiv 2511.20347).
    """
    tau = torch.where(advantages > 0, temperature_pos, temperature_neg)
    # The product in this order: rounding equals TRL's.
    return -(torch.sigmoid(tau * (ratio - 1)) * 4 / tau) * advantages


@torch.no_grad()
def vespo_weight(
    log_ratio: Tensor,
    advantages: Tensor,
    mask: Tensor,
    positive: tuple[float, float] = (2.0, 3.0),
    negative: tuple[float, float] = (3.0, 2.0),
    importance_sampling_ratio: Tensor | None = None,
) -> Tensor:
    """``phi(w) = exp(lambda) w**k exp(-lambda w)``, w the ratio of whole-sequence probabilities; no gradient.

    phi(1) = 1, and it falls on both sides, by sign of the advantage. The term to minimise is ``-phi A log
    p``.

    Args:
        log_ratio, mask: ``(B, T)``; advantages: ``(B, 1)``.
        positive, negative: ``(k, lambda)`` where the advantage is at least 0, and where it is below.
        importance_sampling_ratio: ``(B, T)``, training engine against sampling engine, where these differ.

    Source: VESPO (arXiv 2602.10693); ``get_gamma_weights`` in grpo_trainer.py.
    """
    floor = math.log(SMALLEST_WEIGHT)
    log_w = (log_ratio.clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO) * mask).sum(dim=-1, keepdim=True)
    if importance_sampling_ratio is not None:
        engine_log_ratio = importance_sampling_ratio.log().clamp(floor, LARGEST_LOG_RATIO)
        log_w = log_w + engine_log_ratio.sum(dim=-1, keepdim=True)
    log_w = log_w.clamp(floor, LARGEST_LOG_RATIO)
    k = torch.where(advantages >= 0, positive[0], negative[0])
    lam = torch.where(advantages >= 0, positive[1], negative[1]).clamp(min=1e-4)
    return (lam + k * log_w - lam * log_w.exp()).exp().nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)


def clip_fractions(
    ratio: Tensor, advantages: Tensor, mask: Tensor, epsilon: float = 0.2, epsilon_high: float | None = None
) -> dict[str, float]:
    """Share of counted tokens (or sequences, for a ``(B, 1)`` ratio) whose gradient is zero because of clipping.

    Keys as TRL logs them, without the ``clip_ratio/`` in front: ``low_mean`` (bad and already less likely),
    ``high_mean`` (good and already more likely), ``region_mean`` (either). Zero where no token counts.
    """
    advantages = advantages.unsqueeze(1) if advantages.dim() == 1 else advantages
    low = (ratio < 1 - epsilon) & (advantages < 0)
    high = (ratio > 1 + (epsilon if epsilon_high is None else epsilon_high)) & (advantages > 0)
    weight = mask if low.shape == mask.shape else torch.ones_like(ratio)
    total = weight.sum().clamp(min=1.0)
    parts = {"low_mean": low, "high_mean": high, "region_mean": low | high}
    return {name: ((part * weight).sum() / total).item() for name, part in parts.items()}

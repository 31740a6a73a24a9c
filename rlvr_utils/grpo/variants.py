"""Alternatives to GRPO's advantage and loss, a few lines each, for ``estimator="module:function"``.

An advantage gets rewards ``(P, G)``, one row per prompt with the rewards of its group, and returns as many numbers. A loss
gets log-probabilities ``(B, T)`` and returns a scalar to minimise. The first argument's name distinguishes the two. Runs use
these through :mod:`rlvr_utils.training.estimators`, and the arms of the experiment name them.
"""

from __future__ import annotations

from torch import Tensor

from .advantages import STD_FLOOR, group_advantages
from .loss import grpo_loss

#: The clip range of GSPO for a ratio per response (arXiv 2507.18071, section 5.1).
GSPO_RANGE = {"epsilon": 3e-4, "epsilon_high": 4e-4}
#: So wide that no ratio is ever clipped.
NO_CLIP = 1e6


# --- advantages ---


def grpo(rewards: Tensor) -> Tensor:
    """The default, written as a plug-in: ``(r - mean) / (std + 1e-4)`` within each group."""
    return group_advantages(rewards.flatten(), rewards.shape[1]).view_as(rewards)


def centred(rewards: Tensor) -> Tensor:
    """No division: ``r - mean``, as in Dr. GRPO (arXiv 2503.20783)."""
    return rewards - rewards.mean(dim=1, keepdim=True)


def maxrl(rewards: Tensor) -> Tensor:
    """Division by the group's mean reward in place of its standard deviation, as in MaxRL (arXiv 2602.02710).

    A group without any reward gets 0.
    """
    mean = rewards.mean(dim=1, keepdim=True)
    return (rewards - mean) / (mean + STD_FLOOR)


def leave_one_out(rewards: Tensor) -> Tensor:
    """RLOO's baseline: each response is compared with the mean of the *others* (arXiv 2402.14740)."""
    group_size = rewards.shape[1]
    return centred(rewards) * group_size / (group_size - 1)


# --- losses ---


def clipped(logps: Tensor, old_logps: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    """The default, written as a plug-in: ratio, clip at 0.2, mean over all tokens."""
    return grpo_loss(logps, advantages, mask, old_per_token_logps=old_logps)


def naive(logps: Tensor, old_logps: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    """REINFORCE as if the samples were fresh: the ratio is taken to be 1, however old the samples are."""
    return grpo_loss(logps, advantages, mask, old_per_token_logps=logps.detach())


def unclipped(logps: Tensor, old_logps: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    """Importance sampling alone: the ratio corrects for old samples and is not clipped."""
    return grpo_loss(logps, advantages, mask, old_per_token_logps=old_logps, epsilon=NO_CLIP)


def gspo(logps: Tensor, old_logps: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    """One ratio per response, and the narrow clip that it needs (GSPO, arXiv 2507.18071)."""
    settings = {"importance_sampling_level": "sequence", "loss_type": "grpo"}
    return grpo_loss(logps, advantages, mask, old_per_token_logps=old_logps, **settings, **GSPO_RANGE)


def cispo(logps: Tensor, old_logps: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    """The ratio is a weight, capped at 5, and every token keeps its gradient (CISPO, arXiv 2506.13585)."""
    return grpo_loss(logps, advantages, mask, old_per_token_logps=old_logps, loss_type="cispo", epsilon_high=5.0)

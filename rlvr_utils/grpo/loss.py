"""The GRPO loss: policy term, masks, KL, then one number out of all tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from rlvr_utils.grpo.checks import TOKEN_COUNT_LOSSES, check_advantages, check_mask, check_settings, counted
from rlvr_utils.grpo.kl import kl_k3
from rlvr_utils.grpo.masks import high_entropy_mask, off_policy_mask
from rlvr_utils.grpo.ratio import importance_ratio, policy_term


def aggregate(
    per_token_loss: Tensor, mask: Tensor, loss_type: str, *, max_completion_length: int | None = None,
    num_items_in_batch: Tensor | float | None = None, gradient_accumulation_steps: int = 1,
    steps_per_generation: int | None = None, num_processes: int = 1,
) -> Tensor:
    """One number from per-token losses ``(B, T)`` (or ``(B, 1)``) and mask ``(B, T)``. No counted token
    gives 0.

    - grpo, sapo: mean over each response, then over responses (a token of a short response weighs more);
    - bnpo: mean over the tokens of this micro-batch;
    - dr_grpo: sum / (B * ``max_completion_length``), a constant, so that length changes no token's weight;
    - dapo, cispo, vespo: sum / the tokens of all micro-batches of this optimiser step;
    - luspo: sum over each response, then mean over responses.

    Args:
        num_items_in_batch: counted tokens of the generation batch, all processes; ``None``: those of ``mask``.
        gradient_accumulation_steps: micro-batches in an optimiser step; their losses add up.
        steps_per_generation: micro-batches in a generation batch; ``None``: ``gradient_accumulation_steps``.

    Source: grpo_trainer.py, ``_compute_loss``; DeepSeekMath (arXiv 2402.03300) Eq. 3, DAPO (arXiv 2503.14476)
    section 3.3, Dr. GRPO (arXiv 2503.20783) section 3, LUSPO (arXiv 2602.05261).
    """
    masked = per_token_loss * mask
    if loss_type in TOKEN_COUNT_LOSSES:
        tokens = mask.sum() if num_items_in_batch is None else num_items_in_batch
        per_process = torch.as_tensor(tokens, device=mask.device).clamp(min=1.0) / num_processes
        steps_per_generation = steps_per_generation or gradient_accumulation_steps
        return masked.sum() / (per_process * gradient_accumulation_steps / steps_per_generation)
    if loss_type in ("grpo", "sapo"):
        loss = (masked.sum(-1) / mask.sum(-1).clamp(min=1.0)).mean()
    elif loss_type == "bnpo":
        loss = masked.sum() / mask.sum().clamp(min=1.0)
    elif loss_type == "dr_grpo":
        loss = masked.sum() / (mask.shape[0] * max_completion_length)
    else:
        loss = masked.sum(-1).mean()
    return loss / gradient_accumulation_steps


def grpo_loss(
    per_token_logps: Tensor, advantages: Tensor, completion_mask: Tensor, *,
    old_per_token_logps: Tensor | None = None, ref_per_token_logps: Tensor | None = None,
    loss_type: str = "dapo", beta: float = 0.0, epsilon: float = 0.2, epsilon_high: float | None = None,
    importance_sampling_level: str = "token", max_completion_length: int | None = None,
    bias_correct_kl: bool = True, delta: float | None = None,
    sapo_temperature_pos: float = 1.0, sapo_temperature_neg: float = 1.05,
    vespo_k_pos: float = 2.0, vespo_lambda_pos: float = 3.0,
    vespo_k_neg: float = 3.0, vespo_lambda_neg: float = 2.0,
    off_policy_mask_threshold: float | None = None, sampling_per_token_logps: Tensor | None = None,
    importance_sampling_ratio: Tensor | None = None, entropies: Tensor | None = None,
    top_entropy_quantile: float = 1.0, entropy_coef: float = 0.0,
    num_items_in_batch: Tensor | float | None = None, gradient_accumulation_steps: int = 1,
    steps_per_generation: int | None = None, num_processes: int = 1,
) -> Tensor:
    """The loss of one micro-batch: a scalar with the value and the gradient of ``GRPOTrainer._compute_loss``.

    Args:
        per_token_logps: ``(B, T)``, nats, with gradient; so are the other ``*_logps``, without.
        advantages: ``(B,)``, one a response (or ``(B, T)``).
        completion_mask: ``(B, T)``, 1 where a token counts. Whatever stands in the padding has no effect.
        old_per_token_logps: of the policy that sampled; ``None``: of this very policy, so that every ratio
            is 1.
        ref_per_token_logps: of the reference; needed for ``beta`` above 0.
        beta: weight of the KL; ``bias_correct_kl`` multiplies it by the ratio (TRL's
            ``use_bias_correction_kl``; DeepSeek-V3.2, arXiv 2512.02556), which makes its
            gradient that of the true KL.
        entropies: ``(B, T)``; needed for ``top_entropy_quantile`` below 1 and for ``entropy_coef``, whose
            bonus is the mean entropy of the counted tokens.
        importance_sampling_ratio: ``(B, T)`` or ``(B, 1)``, training engine against sampling engine.

    The rest is explained where it is used: :mod:`.ratio`, :mod:`.masks`, :func:`aggregate`.

    Raises:
        ValueError: shapes that do not fit, NaN or infinities at counted tokens, settings that lack what they
            need.
    """
    needs = {"ref_per_token_logps": (beta != 0, ref_per_token_logps),
             "entropies": (top_entropy_quantile < 1 or entropy_coef != 0, entropies)}
    check_settings(loss_type, max_completion_length, num_items_in_batch, gradient_accumulation_steps, needs)
    mask = check_mask(completion_mask, per_token_logps)
    advantages = check_advantages(advantages, mask)
    logps = counted("per_token_logps", per_token_logps, mask)
    old = counted("old_per_token_logps", _or(old_per_token_logps, logps.detach()), mask)
    ratio = importance_ratio(logps, old, mask, importance_sampling_level)
    loss = policy_term(
        loss_type, logps, old, ratio, advantages, mask, epsilon, _or(epsilon_high, epsilon), delta,
        (sapo_temperature_pos, sapo_temperature_neg),
        (vespo_k_pos, vespo_lambda_pos, vespo_k_neg, vespo_lambda_neg), importance_sampling_ratio,
    )
    if off_policy_mask_threshold is not None:
        sampling = _or(sampling_per_token_logps, old)
        loss = loss * off_policy_mask(advantages, logps, sampling, mask, off_policy_mask_threshold)
    bonus_mask = mask
    if top_entropy_quantile < 1:
        bonus_mask = high_entropy_mask(entropies, mask, top_entropy_quantile).to(mask.dtype)
        loss = loss * bonus_mask
    if beta != 0:  # after the masks: the KL holds for every token
        kl = kl_k3(logps, counted("ref_per_token_logps", ref_per_token_logps, mask))
        loss = loss + beta * (kl * ratio if bias_correct_kl else kl)
    loss = aggregate(
        loss, mask, loss_type, max_completion_length=max_completion_length,
        num_items_in_batch=num_items_in_batch, gradient_accumulation_steps=gradient_accumulation_steps,
        steps_per_generation=steps_per_generation, num_processes=num_processes,
    )
    if entropy_coef != 0:
        entropies = counted("entropies", entropies, mask)
        mean_entropy = (entropies * bonus_mask).sum() / bonus_mask.sum().clamp(min=1.0)
        loss = loss - entropy_coef * mean_entropy / gradient_accumulation_steps
    return loss


def _or(given, otherwise):
    """``given`` unless it is None."""
    return otherwise if given is None else given

"""The GRPO loss: policy term, masks, KL, then one number out of all tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from ..profiles import LOSS_TYPES
from .ratio import cispo_term, clipped_term, importance_ratio, sapo_term, vespo_weight

#: Losses divided by the tokens of the whole optimiser step.
TOKEN_COUNT_LOSSES = ("dapo", "cispo", "vespo")


def grpo_loss(
    per_token_logps: Tensor,
    advantages: Tensor,
    completion_mask: Tensor,
    *,
    old_per_token_logps: Tensor | None = None,
    ref_per_token_logps: Tensor | None = None,
    loss_type: str = "dapo",
    beta: float = 0.0,
    epsilon: float = 0.2,
    epsilon_high: float | None = None,
    importance_sampling_level: str = "token",
    max_completion_length: int | None = None,
    bias_correct_kl: bool = True,
    delta: float | None = None,
    sapo_temperature_pos: float = 1.0,
    sapo_temperature_neg: float = 1.05,
    vespo_k_pos: float = 2.0,
    vespo_lambda_pos: float = 3.0,
    vespo_k_neg: float = 3.0,
    vespo_lambda_neg: float = 2.0,
    off_policy_mask_threshold: float | None = None,
    sampling_per_token_logps: Tensor | None = None,
    importance_sampling_ratio: Tensor | None = None,
    entropies: Tensor | None = None,
    top_entropy_quantile: float = 1.0,
    entropy_coef: float = 0.0,
    num_items_in_batch: Tensor | float | None = None,
    gradient_accumulation_steps: int = 1,
    steps_per_generation: int | None = None,
    num_processes: int = 1,
) -> Tensor:
    """The loss of one micro-batch: a scalar with the value and the gradient of ``GRPOTrainer._compute_loss``.

    Args:
        per_token_logps: ``(B, T)``, nats, with gradient; so are the other ``*_logps``, without.
        advantages: ``(B,)``, one per response (or ``(B, T)``).
        completion_mask: ``(B, T)``, 1 where a token counts. Values in the padding have no effect.
        old_per_token_logps: of the policy that sampled; ``None``: of this very policy, so that every ratio
            is 1.
        ref_per_token_logps: of the reference; needed for ``beta`` above 0.
        beta: weight of the KL; ``bias_correct_kl`` multiplies it by the ratio (TRL's
            ``use_bias_correction_kl``; DeepSeek-V3.2, arXiv 2512.02556), which makes its
            gradient that of the true KL.
        entropies: ``(B, T)``; needed for ``top_entropy_quantile`` below 1 and for ``entropy_coef``, whose
            bonus is the mean entropy of the counted tokens.
        importance_sampling_ratio: ``(B, T)`` or ``(B, 1)``, training engine against sampling engine.

    The rest is explained where it is used: :mod:`.ratio`, the masks below, :func:`aggregate`.

    Raises:
        ValueError: shapes that do not fit, NaN or infinities at counted tokens, or a missing input that an option
            needs.
    """
    needs = {
        "ref_per_token_logps": (beta != 0, ref_per_token_logps),
        "entropies": (top_entropy_quantile < 1 or entropy_coef != 0, entropies),
    }
    check_loss_settings(loss_type, max_completion_length, num_items_in_batch, gradient_accumulation_steps, needs)
    mask = checked_mask(completion_mask, per_token_logps)
    advantages = checked_advantages(advantages, mask)
    logps = counted("per_token_logps", per_token_logps, mask)
    old = counted("old_per_token_logps", _or(old_per_token_logps, logps.detach()), mask)
    ratio = importance_ratio(logps, old, mask, importance_sampling_level)
    if loss_type == "vespo":  # its sequence weight already contains the sampling engine's
        weight = vespo_weight(
            (logps - old).detach(),
            advantages,
            mask,
            (vespo_k_pos, vespo_lambda_pos),
            (vespo_k_neg, vespo_lambda_neg),
            importance_sampling_ratio,
        )
        loss, importance_sampling_ratio = -weight * advantages * logps, None
    elif loss_type == "cispo":
        loss = cispo_term(ratio, advantages, logps, _or(epsilon_high, epsilon))
    elif loss_type == "sapo":
        loss = sapo_term(ratio, advantages, sapo_temperature_pos, sapo_temperature_neg)
    else:
        loss = clipped_term(ratio, advantages, epsilon, _or(epsilon_high, epsilon), delta)
    if importance_sampling_ratio is not None:
        loss = loss * importance_sampling_ratio
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
        loss,
        mask,
        loss_type,
        max_completion_length=max_completion_length,
        num_items_in_batch=num_items_in_batch,
        gradient_accumulation_steps=gradient_accumulation_steps,
        steps_per_generation=steps_per_generation,
        num_processes=num_processes,
    )
    if entropy_coef != 0:
        entropies = counted("entropies", entropies, mask)
        mean_entropy = (entropies * bonus_mask).sum() / bonus_mask.sum().clamp(min=1.0)
        loss = loss - entropy_coef * mean_entropy / gradient_accumulation_steps
    return loss


def _or(given, otherwise):
    """``given`` unless it is None."""
    return otherwise if given is None else given


def aggregate(
    per_token_loss: Tensor,
    mask: Tensor,
    loss_type: str,
    *,
    max_completion_length: int | None = None,
    num_items_in_batch: Tensor | float | None = None,
    gradient_accumulation_steps: int = 1,
    steps_per_generation: int | None = None,
    num_processes: int = 1,
) -> Tensor:
    """Average per-token losses ``(B, T)`` (or ``(B, 1)``) with mask ``(B, T)`` to a scalar. Without counted
    tokens it is 0.

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


# --- the KL term: how far the policy has moved from the reference, token by token ---


def kl_k3(logps: Tensor, ref_logps: Tensor) -> Tensor:
    """TRL's form, ``exp(d) - d - 1`` with ``d = ref_logps - logps``; any shape, nats, same shape out.

    Source: ``per_token_kl`` in grpo_trainer.py, ``_compute_loss``.
    """
    log_ratio = ref_logps - logps
    return torch.exp(log_ratio) - log_ratio - 1


def kl_k3_expm1(logps: Tensor, ref_logps: Tensor) -> Tensor:
    """The same number with less rounding: ``expm1(d) - d``.

    Early in training d is tiny and k3 is about d**2 / 2. ``exp(d)`` rounds to the nearest float next to 1
    (1e-7 apart in float32), which is larger than the whole result once d is below about 3e-4. ``expm1``
    never forms that 1. What is left is the rounding of ``expm1(d)`` itself, a relative error of about 1e-7 /
    d in place of 1e-7 / d**2.
    """
    log_ratio = ref_logps - logps
    return torch.expm1(log_ratio) - log_ratio


# --- responses and tokens that are left out of the policy term ---


def high_entropy_mask(entropies: Tensor, mask: Tensor, top_entropy_quantile: float) -> Tensor:
    """True for the fraction ``top_entropy_quantile`` of counted tokens with the highest entropy, ``(B, T)``.

    Ties at the threshold are all kept; without any counted token nothing is.

    Source: "Beyond the 80/20 Rule" (arXiv 2506.01939); ``get_high_entropy_mask`` in grpo_trainer.py.
    """
    # Taken in float32 whatever the input, as in TRL, so that both pick the same tokens.
    values = entropies[mask.bool()].float()
    if values.numel() == 0:
        return torch.zeros_like(entropies, dtype=torch.bool)
    threshold = torch.quantile(values, 1 - top_entropy_quantile)
    return (entropies >= threshold) & mask.bool()


def off_policy_mask(
    advantages: Tensor, per_token_logps: Tensor, sampling_per_token_logps: Tensor, mask: Tensor, threshold: float
) -> Tensor:
    """0 for responses to drop: advantage below 0, mean log(p_sampling / p_now) above ``threshold`` nats.

    Args:
        advantages: ``(B, 1)`` or ``(B, T)``.
        per_token_logps, sampling_per_token_logps, mask: ``(B, T)``.

    Returns:
        1 keep, 0 drop; the shape of ``advantages``, the type of ``mask``.

    Source: off-policy sequence masking, DeepSeek-V3.2 (arXiv 2512.02556) Eq. 9; ``get_off_policy_mask`` in
    grpo_trainer.py.
    """
    # A sampler that could not score a token reports NaN: that token gives no evidence either way.
    drift = (sampling_per_token_logps - per_token_logps.detach()).nan_to_num(nan=0.0)
    drift = drift.masked_fill(mask == 0, 0.0)
    mean_drift = drift.sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True).clamp(min=1.0)
    return ((advantages >= 0) | (mean_drift <= threshold)).to(mask.dtype)


# --- what cannot be computed, each with one sentence saying what to do ---


def check_loss_settings(
    loss_type: str,
    max_completion_length: int | None,
    num_items_in_batch: Tensor | float | None,
    gradient_accumulation_steps: int,
    needs: dict[str, tuple[bool, Tensor | None]],
) -> None:
    """Raise ValueError for settings that do not go together; ``needs`` maps a name to (is it needed, tensor)."""
    if loss_type not in LOSS_TYPES:
        raise ValueError(f"loss_type is {loss_type!r}; use one of {', '.join(LOSS_TYPES)}.")
    if loss_type == "dr_grpo" and not (max_completion_length and max_completion_length > 0):
        raise ValueError("dr_grpo divides by a fixed length; give max_completion_length, a number above 0.")
    if gradient_accumulation_steps < 1:
        raise ValueError(f"gradient_accumulation_steps is {gradient_accumulation_steps}; use 1 or more.")
    if loss_type in TOKEN_COUNT_LOSSES and num_items_in_batch is None and gradient_accumulation_steps > 1:
        raise ValueError(
            f"{loss_type} divides by the tokens of all micro-batches, and this is one of "
            f"{gradient_accumulation_steps}; give num_items_in_batch, the tokens of the generation batch."
        )
    for name, (needed, tensor) in needs.items():
        if needed and tensor is None:
            raise ValueError(f"These settings need {name}, shape (B, T); none was given.")


def checked_mask(mask: Tensor, per_token_logps: Tensor) -> Tensor:
    """The mask as 0/1 of the log-probabilities' type, ``(B, T)``."""
    if per_token_logps.dim() != 2 or not per_token_logps.is_floating_point() or 0 in per_token_logps.shape:
        raise ValueError(
            f"per_token_logps is {per_token_logps.dtype} of shape {tuple(per_token_logps.shape)}. "
            "Give floats (B, T) with B and T above 0."
        )
    if mask.shape != per_token_logps.shape:
        raise ValueError(
            f"completion_mask has shape {tuple(mask.shape)}, per_token_logps {tuple(per_token_logps.shape)}. "
            "Give both as (B, T)."
        )
    if not ((mask == 0) | (mask == 1)).all():
        raise ValueError("completion_mask contains values other than 0 and 1. Set 1 where a token counts.")
    return mask.to(per_token_logps.dtype)


def checked_advantages(advantages: Tensor, mask: Tensor) -> Tensor:
    """``(B,)``, ``(B, 1)`` or ``(B, T)`` advantages -> ``(B, 1)`` or ``(B, T)``."""
    n_rows, n_tokens = mask.shape
    if tuple(advantages.shape) not in {(n_rows,), (n_rows, 1), (n_rows, n_tokens)}:
        raise ValueError(
            f"advantages has shape {tuple(advantages.shape)}. Give one per response, ({n_rows},), "
            f"or one per token, ({n_rows}, {n_tokens})."
        )
    if not advantages.isfinite().all():
        raise ValueError("advantages contains NaN or infinity. Use group_advantages, which gives 0 for a missing reward.")
    return advantages.unsqueeze(1) if advantages.dim() == 1 else advantages


def counted(name: str, values: Tensor, mask: Tensor) -> Tensor:
    """``(B, T)`` values with 0 where the mask is 0, so that padding never reaches the loss, not even NaN."""
    if values.shape != mask.shape:
        raise ValueError(f"{name} has shape {tuple(values.shape)}. Give it the mask's shape, {tuple(mask.shape)}.")
    values = values.masked_fill(mask == 0, 0.0)
    if not values.isfinite().all():
        raise ValueError(f"{name} contains NaN or infinity at a counted token. Check its logits.")
    return values

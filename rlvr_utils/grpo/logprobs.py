"""From a model's logits to the log-probability of each sampled token, the entropy per position, and which tokens count."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor


def completion_logits(logits: Tensor, n_completion: int) -> Tensor:
    """The logits that predicted the last ``n_completion`` tokens: ``(B, L, V)`` -> ``(B, n_completion, V)``.

    The logits at position t predict token t + 1, so the last row predicts a token that was not
    sampled and is dropped.

    Raises:
        ValueError: if there is no position before the first completion token.
    """
    if logits.dim() != 3 or not 0 < n_completion < logits.shape[1]:
        raise ValueError(
            f"logits has shape {tuple(logits.shape)} and n_completion is {n_completion}. "
            "Give logits (B, L, V) of prompt and completion together, with 0 < n_completion < L."
        )
    return logits[:, -n_completion - 1 : -1]


def selected_logps(logits: Tensor, token_ids: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-probability (nats) of each given token under the distribution it was sampled from, ``(B, T)``.

    ``log p(a) = logit_a - logsumexp(logits)`` row by row, so that no ``(B, T, V)`` table of
    log-probabilities is made.

    Args:
        logits: ``(B, T, V)``, already aligned (see :func:`completion_logits`).
        token_ids: ``(B, T)`` integers in ``[0, V)``; any valid id where padded.
        temperature: the sampling temperature. The logits are divided by it.

    Raises:
        ValueError: shapes that do not fit, or a temperature that is not positive.

    Source: ``selective_log_softmax`` in trl/trainer/utils.py.
    """
    _check_temperature(temperature)
    if logits.dim() != 3 or logits.shape[:2] != token_ids.shape:
        raise ValueError(
            f"logits {tuple(logits.shape)} and token_ids {tuple(token_ids.shape)} do not match. "
            "Give logits (B, T, V) and token_ids (B, T)."
        )
    rows = zip(logits, token_ids, strict=True)
    return torch.stack([_row_logps(row / temperature, ids) for row, ids in rows])


def _row_logps(logits: Tensor, ids: Tensor) -> Tensor:
    """``(T, V)`` and ``(T,)`` -> ``(T,)``. In half precision logsumexp is too coarse, so log_softmax is used
    there."""
    if logits.dtype in (torch.float32, torch.float64):
        return logits.gather(-1, ids.unsqueeze(-1)).squeeze(-1) - logits.logsumexp(-1)
    return logits.log_softmax(-1).gather(-1, ids.unsqueeze(-1)).squeeze(-1)


def entropy(logits: Tensor, temperature: float = 1.0, chunk_size: int = 128) -> Tensor:
    """Entropy (nats) of each position's distribution: ``(..., V)`` -> ``(...)``, ``chunk_size`` positions at
    a time.

    Raises:
        ValueError: if the temperature is not positive.

    Source: ``entropy_from_logits`` in trl/trainer/utils.py.
    """
    _check_temperature(temperature)
    flat = logits.reshape(-1, logits.shape[-1])
    chunks = ((chunk / temperature).log_softmax(-1) for chunk in flat.split(chunk_size))
    # A token of probability 0 (log-probability -inf) adds 0 to the entropy, not NaN.
    values = [-(logps.exp() * logps.masked_fill(logps.isneginf(), 0.0)).sum(-1) for logps in chunks]
    return torch.cat(values).reshape(logits.shape[:-1])


def _check_temperature(temperature: float) -> None:
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}. Set it above 0.")


def completion_mask(completion_ids: Tensor, eos_token_id: int | Collection[int]) -> Tensor:
    """1 up to and including the first end-of-sequence token, 0 after: ``(B, T)`` ids -> ``(B, T)`` integers.

    The end token itself counts: a policy that is never rewarded for stopping does not learn to stop.
    """
    ends = [eos_token_id] if isinstance(eos_token_id, int) else list(eos_token_id)
    is_eos = torch.isin(completion_ids, torch.tensor(ends, device=completion_ids.device))
    ends_before = is_eos.cumsum(dim=1) - is_eos.long()
    return (ends_before == 0).long()

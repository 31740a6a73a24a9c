"""TRL's ``GRPOTrainer`` with less work for the same optimizer step.

Each prompt is computed once (:mod:`rlvr_utils.sampling.shared_prefix`), and responses whose advantage is 0 have no
backward pass.
"""

from __future__ import annotations

import functools

import torch
from peft import PeftModel
from trl import GRPOTrainer

from ..sampling import shared_prefix


class SharedPrefixTrainer(GRPOTrainer):
    """Overrides how log-probabilities are computed, and which micro-batch a response goes to.

    TRL shuffles the responses of a generation over its optimizer steps and their micro-batches. Which optimizer step a
    response belongs to stays as it is; within the step, the responses to one prompt are put side by side.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        for model in filter(None, (self.model, self.ref_model)):
            model = self.accelerator.unwrap_model(model)
            shared_prefix.enable(model.get_base_model() if isinstance(model, PeftModel) else model)

    def _get_per_token_logps_and_entropies(self, model, input_ids, attention_mask, logits_to_keep, batch_size=None,
                                           compute_entropy=False, compute_aux_loss=False, **images):
        if compute_aux_loss or any(value is not None for value in images.values()):
            return super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy, compute_aux_loss, **images)
        parts = []
        for ids, mask in zip(*(x.split(batch_size or len(x)) for x in (input_ids, attention_mask)), strict=True):
            packed = shared_prefix.pack(ids[:, :-logits_to_keep], mask[:, :-logits_to_keep],
                                        ids[:, -logits_to_keep:], mask[:, -logits_to_keep:])
            with self.accelerator.autocast():
                parts.append(shared_prefix.token_logps(model, packed))
        logps, entropies = zip(*parts, strict=True)
        return torch.cat(logps), torch.cat(entropies) if compute_entropy else None, None

    def _prepare_inputs(self, generation_batch):
        before = self._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)
        if self._buffered_inputs is before:
            return inputs
        self._buffered_inputs = regroup(self._buffered_inputs, self.args.gradient_accumulation_steps)
        return self._buffered_inputs[self._step % self.args.steps_per_generation]


class NoBackwardForZeros:
    """Put before a trainer class: responses whose advantage is 0 are computed without gradient.

    In a group with equal rewards every advantage is 0, and so is its part of the gradient (with ``beta=0``; a KL term
    would still pull on it). The forward pass stays, since loss and entropy are averages over all responses.
    """

    zeros: torch.Tensor | None = None  # (B,) rows of the current micro-batch that need no gradient

    def _compute_loss(self, model, inputs):
        if self.beta == 0.0 and not self._entropy_bonus_enabled:
            self.zeros = inputs["advantages"] == 0
        try:
            return super()._compute_loss(model, inputs)
        finally:
            self.zeros = None

    def _get_per_token_logps_and_entropies(self, model, input_ids, attention_mask, logits_to_keep, *args, **options):
        compute = functools.partial(super()._get_per_token_logps_and_entropies, model)
        if self.zeros is None or not self.zeros.any():
            return compute(input_ids, attention_mask, logits_to_keep, *args, **options)
        zeros = self.zeros.clone()
        zeros[0] &= not zeros.all()  # one row keeps its gradient, all zeros: each process has to take part in the backward
        rows = [(~zeros).nonzero()[:, 0], zeros.nonzero()[:, 0]]
        parts = []
        for where, gradient in zip(rows, (True, False), strict=True):
            with torch.set_grad_enabled(gradient and torch.is_grad_enabled()):
                parts.append(compute(input_ids[where], attention_mask[where], logits_to_keep, *args, **options))
        back = torch.cat(rows).argsort()
        logps, entropies, _ = zip(*parts, strict=True)
        return torch.cat(logps)[back], torch.cat(entropies)[back] if entropies[0] is not None else None, parts[0][2]


class StockTrainer(NoBackwardForZeros, GRPOTrainer):
    """TRL's trainer, without a backward pass for zero advantages."""


class SharedTrainer(NoBackwardForZeros, SharedPrefixTrainer):
    """Shared prompts, and no backward pass for zero advantages."""


def regroup(micro_batches: list[dict], accumulation: int) -> list[dict]:
    """The same optimizer steps with the rows of each step sorted by prompt.

    Args:
        micro_batches: TRL's dictionaries in order; ``accumulation`` of them make an optimizer step.
    """
    regrouped: list[dict] = []
    for start in range(0, len(micro_batches), accumulation):
        step = micro_batches[start:start + accumulation]
        prompts = torch.cat([part["prompt_ids"] for part in step])
        order = prompts.unique(dim=0, return_inverse=True)[1].argsort(stable=True)
        sizes = [len(part["prompt_ids"]) for part in step]
        rows = {k: torch.cat([part[k] for part in step])[order].split(sizes) for k, v in step[0].items() if is_rows(v)}
        regrouped += [part | {k: v[i] for k, v in rows.items()} for i, part in enumerate(step)]
    return regrouped


def is_rows(value) -> bool:
    """Whether an entry of TRL's dictionary has a row a response."""
    return torch.is_tensor(value) and value.ndim > 0

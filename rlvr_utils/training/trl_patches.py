"""Overrides of TRL: less compute for the same optimizer step, exact weight sync to vLLM, and the private names they need.

* :class:`SharedPrefixTrainer` computes each prompt once (:mod:`rlvr_utils.sampling.shared_prefix`).
* :class:`NoBackwardForZeros` skips the backward pass of responses whose advantage is 0.
* :class:`~rlvr_utils.training.dynamic_sampling.DynamicSampling` replaces them with further problems.
* :class:`ScoringOnlySolutions` computes the logits of an SFT step for the tokens with loss only, also on a CPU.
* :class:`ExactSync` sends vLLM merged copies of the weights. TRL 1.16 merges the adapter into the base, sends the sums and
  subtracts the adapter again, at every step. In bfloat16 both operations round, so the base drifts (TRL issue #6688: by
  28 % of the mean weight after 100 cycles). The adapter then no longer fits the original base model, and a resumed run
  starts from a different base than the interrupted run had.

Another version of a library may rename a private name without notice. :func:`refuse_moved_names` checks them before a
trainer is built, so that an untested version fails early and costs no GPU time. ``tests/test_house.py`` finds every private
name in the code and compares it with :data:`PRIVATE`.
"""

from __future__ import annotations

import functools
import gc
import inspect
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata

import torch
from accelerate.utils import set_seed
from peft import PeftModel
from transformers import PreTrainedModel, Trainer
from trl import GRPOTrainer, SFTTrainer
from trl.generation import vllm_generation
from trl.generation.vllm_generation import VLLMGeneration
from trl.trainer import utils as trl_utils

from ..models import merged_weights
from ..sampling import shared_prefix
from .dynamic_sampling import DynamicSampling
from .processes import LAUNCHER

#: (class or module, name, its use). Names that are not attributes of the class are set by its methods.
PRIVATE = (
    (GRPOTrainer, "_get_per_token_logps_and_entropies", "trl_patches: the shared prefix, no gradient for zero advantages"),
    (GRPOTrainer, "_prepare_inputs", "trl_patches: groups the responses by prompt"),
    (GRPOTrainer, "_buffered_inputs", "trl_patches: the micro-batches of a generation"),
    (GRPOTrainer, "_step", "trl_patches: which micro-batch comes next"),
    (GRPOTrainer, "_compute_loss", "trl_patches: advantages of the micro-batch; grpo.trl_reference: TRL's own loss"),
    (GRPOTrainer, "_calculate_rewards", "dynamic_sampling: which groups differ; estimators: rewards of an own advantage"),
    (GRPOTrainer, "_generate_and_score_completions", "estimators: puts the advantages; dynamic_sampling: further draws"),
    (GRPOTrainer, "_entropy_bonus_enabled", "trl_patches: with it, zero advantages have a gradient"),
    (GRPOTrainer, "_metrics", "grpo.trl_reference, dynamic_sampling: what TRL logs"),
    (trl_utils, "_use_triton", "trl_patches: which positions of a supervised step get logits"),
    (Trainer, "_load_from_checkpoint", "run: the best and the last checkpoint's weights"),
    (VLLMGeneration, "_iter_named_params", "trl_patches: which weights vLLM receives"),
    (VLLMGeneration, "_fix_param_name_to_vllm", "trl_patches: how vLLM calls them"),
    (PreTrainedModel, "_supports_attention_backend", "shared_prefix: whether attention can be exchanged"),
    (PreTrainedModel, "_attn_implementation", "shared_prefix: which attention a model had before"),
)


def refuse_moved_names() -> None:
    """Check that every private name still exists.

    Raises:
        ValueError: a name is missing. The message contains the library, its version, and how to install the tested one.
    """
    for owner, name, need in PRIVATE:
        if not hasattr(owner, name) and name not in inspect.getsource(inspect.getmodule(owner)):
            library = getattr(owner, "__module__", owner.__name__).partition(".")[0]
            raise ValueError(
                f"{library} {metadata.version(library)} has no {owner.__name__}.{name}, but this code needs it "
                f"({need}). Install the tested version: `pip install -r requirements.lock`."
            )


# --- less compute for the same step ---


class SharedPrefixTrainer(GRPOTrainer):
    """Computes log-probabilities with shared prompts, and assigns responses to micro-batches.

    TRL shuffles the responses of a generation over its optimizer steps and their micro-batches. We keep the optimizer step
    of each response. Within the step, we sort the responses by prompt.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        for model in filter(None, (self.model, self.ref_model)):
            model = self.accelerator.unwrap_model(model)
            shared_prefix.enable(model.get_base_model() if isinstance(model, PeftModel) else model)

    def _get_per_token_logps_and_entropies(
        self,
        model,
        input_ids,
        attention_mask,
        logits_to_keep,
        batch_size=None,
        compute_entropy=False,
        compute_aux_loss=False,
        **images,
    ):
        if compute_aux_loss or any(value is not None for value in images.values()):
            return super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy, compute_aux_loss, **images
            )
        parts = []
        for ids, mask in zip(*(x.split(batch_size or len(x)) for x in (input_ids, attention_mask)), strict=True):
            packed = shared_prefix.pack(
                ids[:, :-logits_to_keep], mask[:, :-logits_to_keep], ids[:, -logits_to_keep:], mask[:, -logits_to_keep:]
            )
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
    """Mixin for a trainer class: skips the backward pass of responses with advantage 0.

    In a group with equal rewards all advantages are 0, and so is the group's part of the gradient (with ``beta=0``, because
    a KL term has its own gradient). The forward pass is still needed: loss and entropy are means over all responses.
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
        zeros[0] &= not zeros.all()  # if all are zero, one row keeps its (zero) gradient: every process must run backward
        rows = [(~zeros).nonzero()[:, 0], zeros.nonzero()[:, 0]]
        parts = []
        for where, gradient in zip(rows, (True, False), strict=True):
            with torch.set_grad_enabled(gradient and torch.is_grad_enabled()):
                parts.append(compute(input_ids[where], attention_mask[where], logits_to_keep, *args, **options))
        back = torch.cat(rows).argsort()
        logps, entropies, _ = zip(*parts, strict=True)
        return torch.cat(logps)[back], torch.cat(entropies)[back] if entropies[0] is not None else None, parts[0][2]


class ScoringOnlySolutions(SFTTrainer):
    """TRL's SFT trainer without logits for prompt and padding tokens, which TRL skips only if Triton is available.

    TRL avoids shapes that change with the batch, because some accelerators would recompile for each shape. A CPU does not
    compile. With 49,152 logits per token and a prompt as long as the solution, this saves a quarter of the step time.
    """

    def compute_loss(self, *args, **kwargs):
        usual = trl_utils._use_triton
        # `trl.trainer.utils` uses this only to decide whether to skip masked positions. The kernel has its own reference.
        trl_utils._use_triton = lambda device: device.type == "cpu" or usual(device)
        try:
            return super().compute_loss(*args, **kwargs)
        finally:
            trl_utils._use_triton = usual


class StockTrainer(DynamicSampling, NoBackwardForZeros, GRPOTrainer):
    """TRL's trainer without a backward pass for zero advantages, and with dynamic sampling if configured."""


class SharedTrainer(DynamicSampling, NoBackwardForZeros, SharedPrefixTrainer):
    """``StockTrainer`` with shared prompts."""


def regroup(micro_batches: list[dict], accumulation: int) -> list[dict]:
    """Sort the rows of each optimizer step by prompt. The steps keep their rows.

    Args:
        micro_batches: TRL's dictionaries in order.
        accumulation: micro-batches per optimizer step.
    """
    regrouped: list[dict] = []
    for start in range(0, len(micro_batches), accumulation):
        step = micro_batches[start : start + accumulation]
        prompts = torch.cat([part["prompt_ids"] for part in step])
        order = prompts.unique(dim=0, return_inverse=True)[1].argsort(stable=True)
        sizes = [len(part["prompt_ids"]) for part in step]
        tensors = [name for name, value in step[0].items() if torch.is_tensor(value) and value.ndim]  # one row per response
        rows = {name: torch.cat([part[name] for part in step])[order].split(sizes) for name in tensors}
        regrouped += [part | {name: parts[i] for name, parts in rows.items()} for i, part in enumerate(step)]
    return regrouped


# --- vLLM ---


class ExactSync(VLLMGeneration):
    """TRL's vLLM client, which receives merged copies of the weights. Works in colocate and in server mode.

    FSDP and ZeRO stage 3 are not supported: ``join_processes`` raises an error for both.
    """

    def _iter_named_params(self) -> Iterator[tuple[str, torch.Tensor]]:
        if not isinstance(self.model, PeftModel):
            yield from super()._iter_named_params()
            return
        for name, weight in merged_weights(self.model):
            yield self._fix_param_name_to_vllm(name), weight


def settle_vllm(trainer: GRPOTrainer, seed: int) -> None:
    """Use exact weight sync and the run's seed in the vLLM that TRL has built. No effect without vLLM.

    vLLM seeds the whole process with TRL's ``seed=process_index``, so runs with different seeds would draw the same samples.
    """
    if trainer.use_vllm:
        trainer.vllm_generation.__class__ = ExactSync  # TRL has no option for another class
        set_seed(seed, device_specific=True)


def sampler_of(trainer: GRPOTrainer) -> str:
    """The sampler of the training responses, for the run's record."""
    return f"vLLM, {trainer.vllm_mode}" if getattr(trainer, "use_vllm", False) else "model"


@contextmanager
def own_environment() -> Iterator[None]:
    """Remove the launcher variables that TRL sets for vLLM. Otherwise a second run would wait for other processes."""
    before = {name: os.environ.get(name) for name in LAUNCHER}
    try:
        yield
    finally:
        for name in (name for name, value in before.items() if value is None):
            os.environ.pop(name, None)


@contextmanager
def same_precision(dtype: str) -> Iterator[None]:
    """Load a vLLM built inside this context in the profile's ``dtype``, as the trained model.

    TRL passes no dtype, so vLLM chooses it by the checkpoint. It rounds float32 to 16 bits, and it keeps float16 if the
    profile trains in bfloat16. In both cases vLLM would sample from a different model than the trained one.
    """
    usual = getattr(vllm_generation, "LLM", None)
    if usual is None:  # vLLM is not installed
        yield
        return
    vllm_generation.LLM = functools.partial(usual, dtype=dtype)
    try:
        yield
    finally:
        vllm_generation.LLM = usual


def release_vllm(trainer: GRPOTrainer) -> None:
    """Free the memory of a colocated vLLM at the end of a run, for the next run in this process."""
    if getattr(trainer, "use_vllm", False) and trainer.vllm_mode == "colocate":
        trainer.vllm_generation.llm.llm_engine.engine_core.shutdown()
        del trainer.vllm_generation.llm
        gc.collect()
        torch.cuda.empty_cache()

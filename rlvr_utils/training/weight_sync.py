"""What TRL's vLLM does beside sampling, made harmless: to the frozen base, to random numbers, to the process around it.

TRL 1.16 merges the adapter into the base, sends the sums and subtracts the adapter again, at every step. In bfloat16 both
operations round, so the base drifts (TRL issue #6688: by 28 % of the mean weight after 100 cycles). The adapter is then
trained for a base that nobody has, and a resumed run starts from another one than the interrupted run had.
"""

from __future__ import annotations

import functools
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate.utils import set_seed
from peft import PeftModel
from trl import GRPOTrainer
from trl.generation import vllm_generation
from trl.generation.vllm_generation import VLLMGeneration

from ..models import merged_weights

#: What ``VLLMGeneration`` sets in the environment, as a launcher of several processes does.
LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class ExactSync(VLLMGeneration):
    """TRL's vLLM whose weights are merged beside the base, in colocate and in server mode.

    TRL's branches for FSDP and ZeRO stage 3 are left out: ``join_processes`` raises an error for both.
    """

    def _iter_named_params(self) -> Iterator[tuple[str, torch.Tensor]]:
        if not isinstance(self.model, PeftModel):
            yield from super()._iter_named_params()
            return
        for name, weight in merged_weights(self.model):
            yield self._fix_param_name_to_vllm(name), weight


def settle_vllm(trainer: GRPOTrainer, seed: int) -> None:
    """After TRL has built its vLLM: sync exactly, and sample by the run's seed. Without vLLM it does nothing.

    vLLM seeds the whole process with TRL's ``seed=process_index``, so runs of different seeds would sample alike.
    """
    if trainer.use_vllm:
        trainer.vllm_generation.__class__ = ExactSync  # TRL builds it and offers no way to name another class
        set_seed(seed, device_specific=True)


def sampler_of(trainer: GRPOTrainer) -> str:
    """What sampled the training's responses, for the run's record."""
    return f"vLLM, {trainer.vllm_mode}" if getattr(trainer, "use_vllm", False) else "model"


@contextmanager
def own_environment() -> Iterator[None]:
    """Take back the launcher's variables that TRL sets for vLLM: a second run would take itself for one of several."""
    before = {name: os.environ.get(name) for name in LAUNCHER}
    try:
        yield
    finally:
        for name in (name for name, value in before.items() if value is None):
            os.environ.pop(name, None)


@contextmanager
def same_precision(dtype: str) -> Iterator[None]:
    """Let a vLLM that TRL builds inside hold its weights in the profile's ``dtype``, as the trained model does.

    TRL names no dtype. vLLM then chooses by the checkpoint: it rounds float32 to 16 bits, and it keeps float16 where the
    profile trains in bfloat16. Either way it samples from another model than the one that is trained.
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

"""Measure what a run really takes: peak resident memory on a CPU, with random tokens in place of problems.

An instrument for tests and studies. It changes how the C library gives memory back, for the rest of the process.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from trl.trainer.utils import add_fused_lm_head

from rlvr_utils.models import attach_lora
from rlvr_utils.profiles import Profile
from rlvr_utils.sampling.decoding import decode, sampling_mode
from rlvr_utils.sampling.shared_prefix import enable, pack, token_logps

HIGH_WATER = Path("/proc/self/clear_refs")  # Linux: writing 5 resets the process's high-water mark


@dataclass(frozen=True)
class Measured:
    """Bytes that a piece of work took beyond what was there before it, and its seconds."""

    bytes: int
    seconds: float


def peak_memory(work: Callable[[], object]) -> Measured:
    """Run ``work`` and measure the peak of this process's resident memory above what it was before.

    Linux keeps a high-water mark, which is exact; elsewhere a thread looks every millisecond. While it measures, freed
    blocks go back to the system at once: otherwise the C library keeps some, and the mark would count them too.
    """
    gc.collect()
    _give_back_above(64 * 1024)
    before = psutil.Process().memory_info().rss
    peak = _high_water_mark if _resets() else _watch()
    began = time.perf_counter()
    work()
    measured = Measured(max(0, peak() - before), time.perf_counter() - began)
    _give_back_above(32 * 2**20)  # where the C library's own adjustment ends up
    return measured


def _give_back_above(size: int) -> None:
    """Have glibc map blocks above ``size`` bytes one by one, and return what is free; other systems are left alone."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "mallopt"):
        libc.mallopt(-3, size)  # M_MMAP_THRESHOLD, malloc.h
        libc.malloc_trim(0)


def _resets() -> bool:
    """Reset the high-water mark; False where the system has none."""
    try:
        HIGH_WATER.write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def _high_water_mark() -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def _watch() -> Callable[[], int]:
    """Start a thread that looks at the resident memory; the returned function stops it and gives the largest value."""
    process, done, seen = psutil.Process(), threading.Event(), [0]

    def look() -> None:
        while not done.wait(0.001):
            seen[0] = max(seen[0], process.memory_info().rss)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()

    def stop() -> int:
        done.set()
        thread.join()
        return max(seen[0], process.memory_info().rss)

    return stop


def measure_update(config: LlamaConfig, p: Profile, prompt_tokens: int, completion_tokens: int) -> Measured:
    """What one :func:`trial_update` of a new Llama of this shape takes beyond its weights and its adapter."""
    small = LlamaConfig(vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    trial_update(_new_llama(small, p), p, 2, 2)  # imports and thread pools of a first step are no part of its memory
    model = _new_llama(config, p)
    return peak_memory(lambda: trial_update(model, p, prompt_tokens, completion_tokens))


def _new_llama(config: LlamaConfig, p: Profile) -> torch.nn.Module:
    torch.manual_seed(p.seed)
    model = LlamaForCausalLM(config).to(getattr(torch, p.dtype))
    return attach_lora(model, p) if p.adapter == "lora" else model


def trial_update(model: torch.nn.Module, p: Profile, prompt_tokens: int, completion_tokens: int) -> float:
    """One optimizer step on one micro-batch of random tokens, by the path that the trainer takes; returns the loss.

    ``model`` carries a LoRA already, or trains in full. One prompt is padded, as prompts of a real batch are, and with
    the profile's ``shared_prefix`` each is computed once for its group.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    add_fused_lm_head(base, temperature=p.temperature, outputs=("log_probs", "entropy"))
    model.train()
    if p.gradient_checkpointing:
        base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        base.enable_input_require_grads()
    optimizer = torch.optim.AdamW([q for q in model.parameters() if q.requires_grad], lr=p.learning_rate)
    group = min(p.group_size, p.micro_batch)
    prompts = _random_ids(base, -(-p.micro_batch // group), prompt_tokens).repeat_interleave(group, 0)[: p.micro_batch]
    completions = _random_ids(base, p.micro_batch, completion_tokens)
    mask = torch.ones_like(torch.cat([prompts, completions], 1))
    mask[:group, : prompt_tokens // 2] = 0
    with torch.autocast(prompts.device.type, torch.bfloat16, enabled=p.dtype == "bfloat16"):
        if p.shared_prefix:
            enable(base)
            packed = pack(prompts, mask[:, :prompt_tokens], completions, mask[:, prompt_tokens:])
            loss = -token_logps(model, packed)[0].mean()
        else:
            labels = torch.cat([torch.full_like(prompts, -100), completions], 1)
            loss = model(
                input_ids=torch.cat([prompts, completions], 1), attention_mask=mask, labels=labels, fused_lm_head=True
            ).loss
    loss.backward()
    optimizer.step()
    del base.forward  # the fused head was put on this very object: take it off again
    return loss.item()


def trial_generation(model: torch.nn.Module, rows: int, prompt_tokens: int, completion_tokens: int) -> list[list[int]]:
    """Sample ``rows`` responses of full length, each to a random prompt of its own, by the path that rollouts take."""
    prompts = _random_ids(model, rows, prompt_tokens).tolist()
    with sampling_mode(model) as base:
        return decode(
            base,
            prompts,
            [],
            max_new_tokens=completion_tokens,
            temperature=1.0,
            pad=0,
            ended=lambda new_ids: torch.zeros(len(new_ids), dtype=torch.bool, device=new_ids.device),
        )


def _random_ids(model: torch.nn.Module, rows: int, length: int) -> torch.Tensor:
    device = next(model.parameters()).device
    return torch.randint(3, model.config.vocab_size, (rows, length), device=device)

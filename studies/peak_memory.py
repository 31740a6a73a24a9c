"""Measure the peak resident memory of training and sampling on a CPU, with random tokens.

For tests and studies only: it changes how the C library returns memory to the system for the rest of the process.
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

HIGH_WATER = Path("/proc/self/clear_refs")  # Linux: writing 5 resets the peak memory of the process


@dataclass(frozen=True)
class Measured:
    """The additional peak memory of some work in bytes, and its duration in seconds."""

    bytes: int
    seconds: float


def peak_memory(work: Callable[[], object]) -> Measured:
    """Run ``work`` and measure the peak of this process's resident memory above its value before.

    On Linux we read the kernel's exact high-water mark. On other systems a thread polls every millisecond. During the
    measurement the C library returns freed blocks to the system at once, because blocks that it keeps would count too.
    """
    gc.collect()
    _give_back_above(64 * 1024)
    before = psutil.Process().memory_info().rss
    peak = _high_water_mark if _resets() else _watch()
    began = time.perf_counter()
    work()
    measured = Measured(max(0, peak() - before), time.perf_counter() - began)
    _give_back_above(32 * 2**20)  # the value that glibc's own adjustment reaches
    return measured


def _give_back_above(size: int) -> None:
    """Make glibc map blocks above ``size`` bytes separately and return free memory. Does nothing on other systems."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "mallopt"):
        libc.mallopt(-3, size)  # M_MMAP_THRESHOLD, malloc.h
        libc.malloc_trim(0)


def _resets() -> bool:
    """Reset the high-water mark. Return False if the system has none."""
    try:
        HIGH_WATER.write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def _high_water_mark() -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def _watch() -> Callable[[], int]:
    """Start a thread that polls the resident memory. The returned function stops it and returns the maximum."""
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
    """Measure one :func:`trial_update` of a new Llama of this shape, without its weights and its adapter."""
    small = LlamaConfig(vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    trial_update(_new_llama(small, p), p, 2, 2)  # exclude imports and thread pools of a first step
    model = _new_llama(config, p)
    return peak_memory(lambda: trial_update(model, p, prompt_tokens, completion_tokens))


def _new_llama(config: LlamaConfig, p: Profile) -> torch.nn.Module:
    torch.manual_seed(p.seed)
    model = LlamaForCausalLM(config).to(getattr(torch, p.dtype))
    return attach_lora(model, p) if p.adapter == "lora" else model


def trial_update(model: torch.nn.Module, p: Profile, prompt_tokens: int, completion_tokens: int) -> float:
    """Do one optimizer step on one micro-batch of random tokens with the trainer's functions, and return the loss.

    ``model`` already has its LoRA, or trains in full. One prompt is padded, as in a real batch. With the profile's
    ``shared_prefix`` each prompt is computed once per group.
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
    del base.forward  # remove the fused head from this object
    return loss.item()


def trial_generation(model: torch.nn.Module, rows: int, prompt_tokens: int, completion_tokens: int) -> list[list[int]]:
    """Sample ``rows`` responses of full length to different random prompts, with the functions of rollouts."""
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

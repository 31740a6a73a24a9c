"""What fits on which GPU, what to change when it does not, and the least time a step can take."""

from __future__ import annotations

from dataclasses import dataclass, replace

from transformers import PretrainedConfig

from ..models import model_config
from ..profiles import Profile
from .estimate import DTYPE_BYTES, GIB, MemoryEstimate, estimate, kv_bytes_per_token, parameter_count


@dataclass(frozen=True)
class Machine:
    """A GPU as its data sheet describes it.

    Attributes:
        memory: bytes that PyTorch can see, somewhat less than the name says.
        flops: dense bfloat16 operations per second.
        bandwidth: bytes per second from its memory.
    """

    name: str
    memory: float
    flops: float
    bandwidth: float


#: The four common sizes. Memory as PyTorch reports it, the rest from NVIDIA's data sheets (dense, not sparse).
GPUS = (
    Machine("24 GB (RTX 4090)", 23.6 * GIB, 165e12, 1.01e12),
    Machine("48 GB (L40S)", 44.4 * GIB, 362e12, 0.86e12),
    Machine("80 GB (A100)", 79.2 * GIB, 312e12, 2.04e12),
    Machine("141 GB (H200)", 139.8 * GIB, 989e12, 4.80e12),
)


@dataclass(frozen=True)
class Plan:
    """Whether a run fits a GPU, and how.

    Attributes:
        changes: fields of the profile to override so that it fits; empty where it fits as it is.
        estimate: with these changes.
        fits: False where no change is enough.
    """

    changes: dict[str, object]
    estimate: MemoryEstimate
    fits: bool

    def __str__(self) -> str:
        needs = f"{self.estimate.peak / GIB:.1f} GiB during {self.estimate.peak_phase}"
        if not self.fits:
            return f"does not fit: still {needs}; take a smaller model or a larger GPU"
        if not self.changes:
            return f"fits: {needs}"
        return f"fits with {', '.join(f'{k}={v!r}' for k, v in self.changes.items())}: {needs}"


def plan(p: Profile, gpu: float, config: PretrainedConfig | None = None, **lengths: int | None) -> Plan:
    """Make profile ``p`` fit into ``gpu`` bytes with as few and as harmless changes as possible.

    Each turn relieves the phase that needs most. Where that is not enough, vLLM and its copy of the weights go.
    ``lengths`` as in :func:`~rlvr_utils.memory.estimate.estimate`.
    """
    config = config or model_config(p.model)
    first = _relieve(p, gpu, config, {}, lengths)
    if first.fits or p.use_vllm == "never":
        return first
    return _relieve(p, gpu, config, {"use_vllm": "never"}, lengths)


def _relieve(p: Profile, gpu: float, config: PretrainedConfig, changes: dict[str, object], lengths: dict) -> Plan:
    while (now := estimate(replace(p, **changes), config, gpu=gpu, **lengths)).peak > gpu:
        change = next_change(replace(p, **changes), now.peak_phase)
        if not change:
            return Plan(changes, now, fits=False)
        changes = changes | change
    return Plan(changes, now, fits=True)


def next_change(p: Profile, phase: str) -> dict[str, object]:
    """The next most harmless change that relieves ``phase``; empty where nothing is left.

    Sampling or back-propagating fewer rows at a time and gradient checkpointing cost time and change no result.
    """
    if phase != "update" and p.eval_batch > 1:
        return {"eval_batch": p.eval_batch // 2}
    if phase == "update" and not p.gradient_checkpointing:
        return {"gradient_checkpointing": True}
    if phase == "update" and p.micro_batch > 1:
        return {"micro_batch": _divisor(p.batch_size, p.micro_batch // 2)}
    return {}


def _divisor(batch: int, limit: int) -> int:
    """The largest divisor of ``batch`` up to ``limit``."""
    return max(n for n in range(1, limit + 1) if batch % n == 0)


# --- time ---


def least_seconds(p: Profile, machine: Machine, config: PretrainedConfig | None = None, *,
                  prompt_tokens: int | None = None, completion_tokens: int | None = None) -> dict[str, float]:
    """The least seconds that one step can take on ``machine``: ``{"rollout": ..., "update": ...}``.

    A lower bound, not a forecast: it takes the data sheet at its word (the "roofline" of Williams et al. 2009), and no
    real run reaches that. Prompts and updates are bound by arithmetic: 2 operations a weight and token forward, 2
    backward (no gradients of frozen weights; 4 without LoRA), 2 more to compute checkpointed blocks again. Sampling a
    token is bound by reading all weights and the cache from memory.
    """
    config = config or model_config(p.model)
    prompt, completion = prompt_tokens or p.max_prompt_length, completion_tokens or p.max_completion_length
    weights, rows = parameter_count(config), p.batch_size
    size, cache = DTYPE_BYTES[p.dtype], kv_bytes_per_token(p, config)
    read_per_token = weights * size + rows * (prompt + completion / 2) * cache
    sample = max(read_per_token / machine.bandwidth, 2 * weights * rows / machine.flops)
    rollout = 2 * weights * rows * prompt / machine.flops + completion * sample
    passes = 4 + 2 * (p.adapter == "none") + 2 * p.gradient_checkpointing
    update = passes * weights * rows * (prompt + completion) / machine.flops
    return {"rollout": rollout, "update": update}


def hours(p: Profile, seconds_per_step: float) -> float:
    """Hours of the whole run's training steps, evaluations not counted."""
    return p.max_steps * seconds_per_step / 3600

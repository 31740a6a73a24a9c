"""Estimate whether a run fits in memory, what to change if not, and its minimum time, before you rent a GPU.

:func:`estimate` computes the bytes of every part of a run by formula, per phase. :func:`plan` changes a run until it fits
a GPU. :func:`least_seconds` gives a lower bound of its time. The phases are

* ``supervised``: the stage before RL (or ``method="sft"``), forward and backward over a few worked solutions
* ``rollout``: the policy samples responses, ``eval_batch`` at a time (with :mod:`rlvr_utils.sampling.decoding` or vLLM)
* ``update``: forward and backward over one micro-batch, then the optimizer step
* ``evaluation``: the model samples ``eval_batch`` responses at a time, unless vLLM does

The phases follow one after the other, so the largest one decides whether the run fits. Every term is a tensor in the code
that runs: Llama's blocks (transformers, ``modeling_llama.py``), PEFT's LoRA layers (``tuners/lora/layer.py``) and TRL's
chunked log-probabilities (``kernels/chunked_logprob.py``), which never hold the logits of a whole batch.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, replace

from transformers import PretrainedConfig

from .models import (
    count_parameters,
    counted_lora_parameters,
    empty_model,
    inner_size,
    linear_shapes,
    lora_parameter_count,
    model_config,
)
from .profiles import ALL_LINEAR, Profile, largest_divisor, solutions_at_once
from .sampling.decoding import ROOM

GIB = 2**30
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
FLOAT32, FLOAT64 = 4, 8
PHASES = ("supervised", "rollout", "update", "evaluation")
#: In the order of the stacked bars. Parts that every phase holds come first.
PARTS = (
    "weights",
    "reference",
    "adapter",
    "optimizer",
    "vLLM",
    "gradients",
    "activations",
    "log-probs",
    "KV cache",
    "generation",
    "overhead",
)

# TRL computes logits in tiles of this many tokens by this many entries of the vocabulary (kernels/chunked_logprob.py).
TILE_TOKENS, TILE_VOCABULARY = 4096, 32768
# Assumed, not measured by us: the memory of the CUDA context (bytes) and the allocator's fragmentation (share).
CUDA_CONTEXT, FRAGMENTATION = 0.6 * GIB, 0.05
# Assumed too: vLLM's working memory in bytes, in addition to weights and KV cache.
VLLM_WORKSPACE = 1.5 * GIB

# The input of each linear layer. Layers with the same input can share one saved copy of it.
READS = {
    "q_proj": "norm 1",
    "k_proj": "norm 1",
    "v_proj": "norm 1",
    "o_proj": "attention",
    "gate_proj": "norm 2",
    "up_proj": "norm 2",
    "down_proj": "product",
}


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes by phase and part.

    Attributes:
        phases: ``{phase: {part: bytes}}`` with the names of :data:`PHASES` and :data:`PARTS`, without parts of 0 bytes.
    """

    phases: dict[str, dict[str, float]]

    def total(self, phase: str) -> float:
        """Return the bytes at the peak of one phase."""
        return sum(self.phases[phase].values())

    @property
    def peak_phase(self) -> str:
        """The phase that needs the most memory."""
        return max(self.phases, key=self.total)

    @property
    def peak(self) -> float:
        """The bytes that the run needs."""
        return self.total(self.peak_phase)


@dataclass(frozen=True)
class Workload:
    """The load of one phase: ``rows`` responses of ``prompt`` + ``completion`` tokens each.

    ``prompts`` is the number of prompts that are computed once for all their responses. None means that every response
    computes its own prompt.
    """

    rows: int
    prompt: int
    completion: int
    prompts: int | None = None

    @property
    def tokens(self) -> int:
        """The number of tokens that go through the layers."""
        return (self.rows if self.prompts is None else self.prompts) * self.prompt + self.rows * self.completion

    @property
    def keys(self) -> int:
        """The number of tokens whose keys and values attention holds. A shared prompt has one more copy per response."""
        return self.rows * (self.prompt + self.completion) + (self.prompts or 0) * self.prompt

    @property
    def pairs(self) -> int:
        """The number of entries of attention masks. Responses to a single shared prompt use the same mask."""
        both = self.prompt + self.completion
        if self.prompts is None:
            return self.rows * both**2
        return self.prompts * self.prompt**2 + (1 if self.prompts == 1 else self.rows) * self.completion * both


def estimate(
    p: Profile,
    config: PretrainedConfig | None = None,
    *,
    gpu: float | None = None,
    prompt_tokens: int | None = None,
    completion_tokens: int | None = None,
) -> MemoryEstimate:
    """Estimate the memory that a run of profile ``p`` needs.

    Args:
        config: the model's configuration. None uses the profile's model.
        gpu: the GPU's memory in bytes, of which vLLM takes its share. None means a CPU without vLLM.
        prompt_tokens, completion_tokens: lengths to assume. None uses the profile's limits, the worst case.

    Raises:
        ValueError: the model's configuration cannot be loaded.
    """
    config = config or model_config(p.model)
    lengths = prompt_tokens or p.max_prompt_length, completion_tokens or p.max_completion_length
    always = resident_bytes(p, config) | vllm_bytes(p, config, gpu)
    rows = min(p.eval_batch, p.batch_size * p.updates_per_generation)
    rollouts = Workload(rows, *lengths, prompts=-(-rows // p.group_size))
    once = -(-p.micro_batch // p.group_size) if p.shared_prefix else None
    elsewhere = gpu is not None and p.use_vllm != "never"  # vLLM samples, in its share of the GPU or on another machine
    phases = supervised_phase(p, config, lengths, gpu is not None) | {
        "rollout": {} if elsewhere else sampling_bytes(p, config, rollouts),
        "update": update_bytes(p, config, Workload(p.micro_batch, *lengths, prompts=once), gpu is not None),
        # With several processes evaluations do not use a vLLM server. The model samples them, so we count that.
        "evaluation": {} if elsewhere and not p.vllm_server else sampling_bytes(p, config, Workload(p.eval_batch, *lengths)),
    }
    return MemoryEstimate({name: with_overhead(always | parts, gpu) for name, parts in phases.items()})


def supervised_phase(p: Profile, config: PretrainedConfig, lengths: tuple[int, int], on_gpu: bool) -> dict[str, dict]:
    """Return ``{"supervised": {part: bytes}}`` for a run that trains on worked solutions, else an empty dict."""
    if not p.sft_steps and p.method != "sft":
        return {}
    rows = solutions_at_once(p)
    return {"supervised": update_bytes(p, config, Workload(rows, *lengths), on_gpu, scored=rows * lengths[1])}


def with_overhead(parts: dict[str, float], gpu: float | None) -> dict[str, float]:
    """Return the parts in the order of :data:`PARTS`, with the overhead of a GPU. vLLM's share includes its own."""
    if gpu is not None:
        parts["overhead"] = CUDA_CONTEXT + FRAGMENTATION * (sum(parts.values()) - parts.get("vLLM", 0))
    return {name: parts[name] for name in PARTS if parts.get(name)}


# --- memory that every phase holds ---


def parameter_count(config: PretrainedConfig) -> int:
    """Return the number of parameters of a model with this configuration, counted without allocating it."""
    return _parameter_count(type(config), config.to_json_string(use_diff=False))


@functools.cache
def _parameter_count(kind: type[PretrainedConfig], text: str) -> int:
    return count_parameters(empty_model(kind.from_dict(json.loads(text))))["total"]


def trained(p: Profile, config: PretrainedConfig) -> tuple[int, int]:
    """Return (trained parameters, bytes per parameter). PEFT keeps LoRA in float32, full fine-tuning the weights' dtype."""
    if p.adapter == "none":
        return parameter_count(config), DTYPE_BYTES[p.dtype]
    if llama_targets(p) == p.lora_targets:
        return lora_parameter_count(config, p.lora_rank, p.lora_targets), FLOAT32
    return counted_lora_parameters(config, p.lora_rank, p.lora_targets), FLOAT32


def llama_targets(p: Profile) -> tuple[str, ...]:
    """Return the targets if they are names of Llama's layers. For other names return all seven, the worst case."""
    return p.lora_targets if set(p.lora_targets) <= set(ALL_LINEAR) else ALL_LINEAR


def resident_bytes(p: Profile, config: PretrainedConfig) -> dict[str, float]:
    """Return the bytes of weights, adapter, AdamW's two moments, and the reference model of the KL term.

    With LoRA the reference is the same model with the adapter disabled, so it needs no memory.
    """
    weights = parameter_count(config) * DTYPE_BYTES[p.dtype]
    count, size = trained(p, config)
    lora = p.adapter == "lora"
    return {
        "weights": weights,
        "adapter": count * size if lora else 0,
        "optimizer": 2 * count * size,
        "reference": weights if p.beta and not lora else 0,
    }


def kv_bytes_per_token(p: Profile, config: PretrainedConfig) -> int:
    """Return the KV cache's bytes per token: a key and a value vector per layer, for the key/value heads only."""
    return 2 * linear_shapes(config)["k_proj"][1] * config.num_hidden_layers * DTYPE_BYTES[p.dtype]


def vllm_utilization(p: Profile, config: PretrainedConfig, gpu: float) -> float:
    """Return vLLM's share of the GPU's memory (``vllm_gpu_memory_utilization``), a multiple of 0.05.

    The share is at least 0.4, and large enough for vLLM's own copy of the weights and one group of responses. For the 8B
    on 80 GB, 0.4 leaves room for about 118,000 tokens in the KV cache. TRL's default of 0.3 leaves half as many.
    """
    group = p.group_size * (p.max_prompt_length + p.max_completion_length) * kv_bytes_per_token(p, config)
    needed = parameter_count(config) * DTYPE_BYTES[p.dtype] + group + VLLM_WORKSPACE
    return max(0.4, -(-needed // (0.05 * gpu)) * 0.05)


def vllm_bytes(p: Profile, config: PretrainedConfig, gpu: float | None) -> dict[str, float]:
    """Return the bytes that vLLM reserves on the GPU for the whole run. Empty if it does not run there."""
    if gpu is None or p.use_vllm == "never" or p.vllm_server:
        return {}
    return {"vLLM": vllm_utilization(p, config, gpu) * gpu}


# --- generation ---


def sampling_bytes(p: Profile, config: PretrainedConfig, load: Workload) -> dict[str, float]:
    """Return the bytes of KV cache and working memory while sampling, at the larger of two peaks.

    * Prefill: all distinct prompts go through the model at once, and the working memory is largest inside an MLP.
    * The last token: the cache is full. The working memory is the largest of three: one layer's cache repeated for all
      query heads, one layer's cache while it is copied to a larger place, or the sampler's logits.
    """
    size, per_token = DTYPE_BYTES[p.dtype], kv_bytes_per_token(p, config)
    prompts = load.rows if load.prompts is None else load.prompts
    prefill = {
        "KV cache": prompts * (load.prompt + ROOM) * per_token,
        "generation": prompts * load.prompt * prefill_bytes(p, config),
    }
    cache = load.rows * room_for(load) * per_token
    # Logits in the model's dtype, then four tensors in float64: logits, logits / temperature, probabilities, cumsum.
    sampler = load.rows * config.vocab_size * (size + 4 * FLOAT64)
    shapes, layer = linear_shapes(config), cache / config.num_hidden_layers
    sharing = shapes["q_proj"][1] / shapes["k_proj"][1]
    decode = {"KV cache": cache, "generation": max(sampler, layer * sharing if sharing > 1 else layer)}
    return max(prefill, decode, key=lambda parts: sum(parts.values()))


def room_for(load: Workload) -> int:
    """Return how many tokens a row's cache has room for at the end, given how ``sampling.decoding.RoomyLayer`` grows."""
    grown = -(-max(0, load.completion - 1 - ROOM) // (ROOM + 1))
    return load.prompt + ROOM + grown * (ROOM + 1)


def prefill_bytes(p: Profile, config: PretrainedConfig) -> float:
    """Return the working memory of prefill inside one MLP, in bytes per prompt token. Nothing is kept for backward."""
    size, inner, hidden = DTYPE_BYTES[p.dtype], inner_size(config), config.hidden_size
    # In the model's dtype: silu(gate) and the base layer's result. LoRA adds three tensors in float32: B A x, that times
    # alpha / r, and the sum. Without LoRA there is only the product of both.
    beside = 3 * FLOAT32 if p.adapter == "lora" and "up_proj" in llama_targets(p) else size
    return inner * (2 * size + beside) + hidden * (2 * size + FLOAT32)


# --- the update ---


def update_bytes(
    p: Profile, config: PretrainedConfig, load: Workload, on_gpu: bool, scored: int | None = None
) -> dict[str, float]:
    """Return the bytes of gradients, saved activations and log-probabilities of one micro-batch at the peak.

    The peak is where the forward pass ends and the backward pass begins. The working memory is that of the
    log-probabilities or that of the last block's backward pass, whichever is larger. With gradient checkpointing only the
    input of each block is kept, and one block at a time is recomputed. ``scored`` is the number of positions that get
    logits. None means the responses on a GPU, and all tokens on a CPU.
    """
    count, size = trained(p, config)
    width, layers = DTYPE_BYTES[p.dtype], config.num_hidden_layers
    # In addition to the saved tensors, every layer's attention converts the mask of a padded batch to numbers.
    block = load.tokens * saved_per_token(p, config) + load.pairs * width + shared_attention(p, config, load)
    inputs = layers * load.tokens * config.hidden_size * width
    kept, again = (inputs, block) if p.gradient_checkpointing else (layers * block, 0)
    last_norm = 3 * load.tokens * config.hidden_size * FLOAT32  # its input, its output and its gradient
    backward = 2 * load.tokens * inner_size(config) * width  # gradients of silu(gate) and of up
    if scored is None:
        # On a GPU only the responses get logits. On a CPU every position does.
        scored = load.rows * load.completion if on_gpu else load.tokens
    head = log_prob_bytes(p, config, scored, on_gpu)
    return {"gradients": count * size, "activations": kept + last_norm + max(0, again + backward - head), "log-probs": head}


def saved_per_token(p: Profile, config: PretrainedConfig) -> float:
    """Return the bytes that one block keeps for the backward pass, per token:

    * two residual streams, in float32 because Llama's norm computes in float32
    * queries, keys and values of every head (a padded batch repeats the shared key/value heads), the attention's output
      and its normaliser
    * gate, silu(gate) and up
    * the inputs of the adapters: in float32 those of the layers, in bfloat16 one more copy per adapter
    """
    size, shapes = DTYPE_BYTES[p.dtype], linear_shapes(config)
    hidden, inner, queries = config.hidden_size, inner_size(config), shapes["q_proj"][1]
    block = 2 * hidden * FLOAT32 + 4 * queries * size + 3 * inner * size + config.num_attention_heads * FLOAT32
    targets = llama_targets(p) if p.adapter == "lora" else READS
    if p.adapter == "lora" and size != FLOAT32:
        return block + sum(shapes[name][0] + p.lora_rank for name in targets) * size
    sources = {READS[name]: shapes[name][0] for name in targets if READS[name] != "attention"}
    return block + sum(sources.values()) * size + (len(targets) * p.lora_rank * size if p.adapter == "lora" else 0)


def shared_attention(p: Profile, config: PretrainedConfig, load: Workload) -> float:
    """Return the bytes that attention with shared prompts keeps in one block beyond :func:`saved_per_token`.

    Keys and values are gathered per response, so a prompt's are copied for each of its responses. They are not repeated
    per query head. The concatenated outputs of all responses are one more copy.
    """
    if load.prompts is None:
        return 0
    shapes = linear_shapes(config)
    queries, keys = shapes["q_proj"][1], shapes["k_proj"][1]
    return (2 * load.keys * keys - 2 * load.tokens * queries + load.tokens * queries) * DTYPE_BYTES[p.dtype]


def log_prob_bytes(p: Profile, config: PretrainedConfig, scored: int, on_gpu: bool) -> float:
    """Return the bytes of TRL's chunked log-probabilities: hidden states, their float32 gradient, and one tile of logits.

    On a GPU a kernel works inside the tile. On a CPU the backward pass in plain PyTorch holds eight float32 tensors and a
    mask of the size of the tile's used part. ``scored`` is the number of positions that get logits.
    """
    rows = min(scored, TILE_TOKENS)
    tile = rows * (
        TILE_VOCABULARY * DTYPE_BYTES[p.dtype] if on_gpu else 8.25 * min(config.vocab_size, TILE_VOCABULARY) * FLOAT32
    )
    return scored * config.hidden_size * (DTYPE_BYTES[p.dtype] + FLOAT32) + tile


def full_logits_bytes(config: PretrainedConfig, load: Workload) -> float:
    """Return the bytes that the logits of a whole micro-batch would need in float32, with softmax and gradient."""
    return 3.0 * load.tokens * config.vocab_size * FLOAT32


# --- which GPU fits, and what to change if none does ---


@dataclass(frozen=True)
class Machine:
    """A GPU as its data sheet describes it.

    Attributes:
        memory: bytes that PyTorch can use, slightly less than the nominal size.
        flops: dense bfloat16 operations per second.
        bandwidth: of its memory, in bytes per second.
    """

    name: str
    memory: float
    flops: float
    bandwidth: float


#: Four common sizes. Memory is what PyTorch reports, the rest is from NVIDIA's data sheets (dense, not sparse).
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
        changes: fields of the profile to override so that it fits. Empty if it already fits.
        estimate: the memory estimate with these changes.
        fits: whether the run fits with these changes.
    """

    changes: dict[str, object]
    estimate: MemoryEstimate
    fits: bool

    def __str__(self) -> str:
        needs = f"{self.estimate.peak / GIB:.1f} GiB during {self.estimate.peak_phase}"
        if not self.fits:
            return f"does not fit: it still needs {needs}. Use a smaller model or a larger GPU"
        if not self.changes:
            return f"fits: {needs}"
        return f"fits with {', '.join(f'{k}={v!r}' for k, v in self.changes.items())}: {needs}"


def plan(p: Profile, gpu: float, config: PretrainedConfig | None = None, **lengths: int | None) -> Plan:
    """Change profile ``p`` until it fits into ``gpu`` bytes. No change affects what is learned.

    Each iteration reduces the phase that needs the most memory. If that is not enough, we start again without vLLM and its
    copy of the weights. ``lengths`` are ``prompt_tokens`` and ``completion_tokens`` of :func:`estimate`.
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
    """Return the next change that reduces ``phase``, as ``{field: value}``. Empty if there is none.

    Gradient checkpointing and fewer rows at a time cost time but do not affect what is learned.
    """
    learning = phase in ("supervised", "update")
    if not learning and p.eval_batch > 1:
        return {"eval_batch": p.eval_batch // 2}
    if learning and not p.gradient_checkpointing:
        return {"gradient_checkpointing": True}
    if learning and p.micro_batch > 1:
        return {"micro_batch": largest_divisor(p.batch_size, p.micro_batch // 2)}
    return {}


# --- time ---


def least_seconds(
    p: Profile,
    machine: Machine,
    config: PretrainedConfig | None = None,
    *,
    prompt_tokens: int | None = None,
    completion_tokens: int | None = None,
) -> dict[str, float]:
    """Return a lower bound in seconds for one step on ``machine``: ``{"rollout": ..., "update": ...}``.

    This is not a forecast: it assumes the peak numbers of the data sheet (roofline model, Williams et al. 2009), and real
    runs are slower. Prefill and updates are compute-bound. Per weight and token, forward takes 2 operations, backward 2
    (4 without LoRA, because frozen weights need no gradients), and recomputing checkpointed blocks another 2. Sampling a
    token is usually memory-bound: it reads all weights and the cache.
    """
    config = config or model_config(p.model)
    prompt, completion = prompt_tokens or p.max_prompt_length, completion_tokens or p.max_completion_length
    weights, rows = parameter_count(config), p.batch_size
    size, cache = DTYPE_BYTES[p.dtype], kv_bytes_per_token(p, config)
    read_per_token = weights * size + rows * (prompt + completion / 2) * cache
    sample = max(read_per_token / machine.bandwidth, 2 * weights * rows / machine.flops)
    rollout = 2 * weights * rows * prompt / machine.flops + completion * sample
    passes = (6 if p.adapter == "none" else 4) + (2 if p.gradient_checkpointing else 0)
    update = passes * weights * rows * (prompt + completion) / machine.flops
    return {"rollout": rollout, "update": update}


def hours(p: Profile, seconds_per_step: float) -> float:
    """Return the hours of all training steps, without evaluations."""
    return p.max_steps * seconds_per_step / 3600

"""Memory estimates against measured memory, and plans against the estimates."""

from __future__ import annotations

import contextlib
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import pytest
import torch
from peak_memory import measure_update, peak_memory, trial_generation
from transformers import LlamaConfig, LlamaForCausalLM

from rlvr_utils.memory import (
    GIB,
    GPUS,
    PARTS,
    PHASES,
    Machine,
    MemoryEstimate,
    Workload,
    estimate,
    full_logits_bytes,
    hours,
    kv_bytes_per_token,
    least_seconds,
    parameter_count,
    plan,
    saved_per_token,
    vllm_utilization,
)
from rlvr_utils.models import LLAMA_8B, SMOL_135M, attach_lora, count_parameters
from rlvr_utils.profiles import PROFILES, get_profile

MINI = LlamaConfig(
    vocab_size=640,
    hidden_size=224,
    intermediate_size=608,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=1024,
    tie_word_embeddings=True,
)
TWENTY_MILLION = LlamaConfig(
    vocab_size=4096,
    hidden_size=512,
    intermediate_size=1408,
    num_hidden_layers=6,
    num_attention_heads=8,
    num_key_value_heads=2,
    tie_word_embeddings=True,
)
TINY = LlamaConfig(
    vocab_size=64, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1
)
L40S, A100 = GPUS[1].memory, GPUS[2].memory
HUGE = 1e15
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning")


def trial_profile(rows: int, prompts: int = 1, shared_prefix: bool = False, **overrides):
    return get_profile(
        "mini",
        prompts_per_step=prompts,
        group_size=rows // prompts,
        micro_batch=rows,
        eval_batch=rows,
        shared_prefix=shared_prefix,
        **overrides,
    )


def new_model(config: LlamaConfig, p):
    torch.manual_seed(0)
    return attach_lora(LlamaForCausalLM(config).to(getattr(torch, p.dtype)), p)


def warm_up() -> None:
    """Run a tiny generation first, so that lazy imports and thread pools do not count."""
    torch.set_num_threads(1)
    trial_generation(new_model(TINY, trial_profile(2)), 2, 4, 4)


@contextlib.contextmanager
def new_process():
    """Measure in a new process, because free blocks in this one's heap would change the peak."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=warm_up) as pool:
        yield lambda work, *arguments: pool.submit(work, *arguments).result()


@pytest.fixture(scope="module")
def fresh():
    with new_process() as measure:
        yield measure


def measure_generation(config, rows: int, prompt: int, completion: int):
    model = new_model(config, trial_profile(rows))
    return peak_memory(lambda: trial_generation(model, rows, prompt, completion))


def measure_weights(config) -> tuple:
    box = []
    measured = peak_memory(lambda: box.append(new_model(config, trial_profile(2))))
    return measured, count_parameters(box[0])["total"]


# --- against measured memory ---

MEASURED = [
    ("mini", MINI, 24, 60, 96, {}),
    ("mini, checkpointing", MINI, 32, 60, 96, {"gradient_checkpointing": True}),
    ("20 million", TWENTY_MILLION, 4, 64, 64, {}),
    ("20 million, checkpointing", TWENTY_MILLION, 6, 64, 64, {"gradient_checkpointing": True}),
    ("mini, attention only", MINI, 24, 60, 96, {"lora_targets": ("q_proj", "v_proj")}),
    ("mini, one shared prompt", MINI, 32, 120, 60, {"shared_prefix": True}),
    ("mini, four shared prompts", MINI, 32, 120, 60, {"shared_prefix": True, "prompts": 4}),
    ("20 million, two shared prompts", TWENTY_MILLION, 8, 128, 64, {"shared_prefix": True, "prompts": 2}),
    (
        "20 million, shared, checkpointing",
        TWENTY_MILLION,
        8,
        128,
        64,
        {"shared_prefix": True, "prompts": 2, "gradient_checkpointing": True},
    ),
]


@pytest.mark.parametrize(
    ("config", "rows", "prompt", "completion", "overrides"), [m[1:] for m in MEASURED], ids=[m[0] for m in MEASURED]
)
def test_the_estimate_of_an_update_matches_measured_memory(fresh, config, rows, prompt, completion, overrides) -> None:
    p = trial_profile(rows, **overrides)
    compare_update(fresh, p, config, prompt, completion)


def compare_update(measure, p, config, prompt: int, completion: int) -> None:
    measured = measure(measure_update, config, p, prompt, completion)
    e = estimate(p, config, prompt_tokens=prompt, completion_tokens=completion)
    there = e.phases["update"]["weights"] + e.phases["update"]["adapter"]
    assert measured.bytes == pytest.approx(e.total("update") - there, rel=0.2)


@pytest.mark.parametrize(
    ("config", "rows", "prompt", "completion"),
    [(MINI, 160, 60, 6), (TWENTY_MILLION, 16, 128, 4)],
    ids=["mini", "20 million"],
)
def test_the_estimate_of_generation_matches_measured_memory(fresh, config, rows, prompt, completion) -> None:
    compare_generation(fresh, config, rows, prompt, completion)


def compare_generation(measure, config, rows: int, prompt: int, completion: int) -> None:
    measured = measure(measure_generation, config, rows, prompt, completion)
    parts = estimate(trial_profile(rows), config, prompt_tokens=prompt, completion_tokens=completion).phases["evaluation"]
    assert measured.bytes == pytest.approx(parts["KV cache"] + parts["generation"], rel=0.25)


def test_the_estimates_match_measured_memory_for_the_shape_of_smollm2() -> None:
    with new_process() as measure:  # of its own: the large blocks that it leaves would change the other measurements
        compare_update(measure, trial_profile(8, shared_prefix=True), SMOL_135M, 72, 48)
        compare_generation(measure, SMOL_135M, 32, 72, 6)


@pytest.mark.parametrize("config", [MINI, TWENTY_MILLION], ids=["mini", "20 million"])
def test_the_estimate_of_weights_matches_measured_memory(fresh, config) -> None:
    measured, parameters = fresh(measure_weights, config)
    parts = estimate(trial_profile(2), config).phases["update"]
    assert measured.bytes == pytest.approx(parts["weights"] + parts["adapter"], rel=0.2, abs=4e6)
    assert parameters == parts["weights"] / 4 + parts["adapter"] / 4


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "targets",
    [
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        ("q_proj", "k_proj", "v_proj", "down_proj"),
    ],
    ids=["all", "some"],
)
def test_saved_per_token_matches_the_tensors_that_autograd_saves(dtype, targets) -> None:
    p = trial_profile(4, dtype=dtype, lora_targets=targets)
    model, ids = new_model(MINI, p), torch.ones(4, 32, dtype=torch.long)
    mask = torch.ones_like(ids)
    mask[0, :5] = 0
    weights = {q.untyped_storage().data_ptr() for q in model.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        # Skip weights, and their bfloat16 copies, which have no dimension of 4 x 32 tokens.
        if storage.data_ptr() not in weights and (tensor.ndim > 2 or 128 in tensor.shape):
            kept[storage.data_ptr()] = storage
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"),
    ):
        output = model.get_base_model().model(input_ids=ids, attention_mask=mask, use_cache=False)
    found = sum(storage.nbytes() for storage in kept.values()) / ids.numel()
    ends = 2 * 4 * MINI.hidden_size
    assert output.last_hidden_state.requires_grad
    assert found == pytest.approx(MINI.num_hidden_layers * saved_per_token(p, MINI) + ends, rel=0.1)


def test_peak_memory_counts_a_block_that_was_freed() -> None:
    measured = peak_memory(lambda: torch.ones(40 * 2**20 // 4).sum())
    assert measured.bytes == pytest.approx(40 * 2**20, rel=0.1)
    assert measured.seconds > 0


def test_peak_memory_without_a_high_water_mark(monkeypatch) -> None:
    monkeypatch.setattr("peak_memory._resets", lambda: False)

    def work() -> None:
        block = torch.ones(60 * 2**20 // 4)
        for _ in range(20):
            block.mul_(1.01)

    assert peak_memory(work).bytes == pytest.approx(60 * 2**20, rel=0.2)


# --- the arithmetic ---


def test_llama_8b_has_the_known_numbers() -> None:
    p = get_profile("llama-8b")
    parts = estimate(p, gpu=A100).phases["update"]
    assert parts["weights"] == 2 * 8_030_261_248
    assert parts["adapter"] == parts["gradients"] == 4 * 83_886_080
    assert parts["optimizer"] == 8 * 83_886_080
    assert kv_bytes_per_token(p, LLAMA_8B) == 131_072


#: Profile llama-8b's update, counted by hand: 8 rows of 2,560 + 1,024 = 28,672 tokens, hidden 4,096, MLP 14,336, 32 layers.
UPDATE_8B = {
    "weights": 2 * 8_030_261_248,
    "adapter": 4 * 83_886_080,
    "optimizer": 2 * 4 * 83_886_080,
    "gradients": 4 * 83_886_080,
    # The input of every layer, and three float32 tensors at the last norm,
    "activations": 32 * 28_672 * 4_096 * 2
    + 3 * 28_672 * 4_096 * 4
    # one recomputed block with norms, attention, MLP and the inputs and outputs (rank 32) of seven adapters, masks,
    + 28_672 * (2 * 4_096 * 4 + 4 * 4_096 * 2 + 3 * 14_336 * 2 + 32 * 4 + 2 * (6 * 4_096 + 14_336 + 7 * 32))
    + 8 * 3_584**2 * 2
    # and the MLP's gradients, minus the memory of the log-probabilities, which is free by then.
    + 2 * 28_672 * 14_336 * 2
    - (8_192 * 4_096 * (2 + 4) + 4_096 * 32_768 * 2),
    "log-probs": 8_192 * 4_096 * (2 + 4) + 4_096 * 32_768 * 2,
}


def test_the_update_of_the_8b_matches_a_count_by_hand() -> None:
    p = get_profile("llama-8b")
    parts = estimate(p, LLAMA_8B, gpu=80 * GIB).phases["update"]
    assert {name: parts[name] for name in UPDATE_8B} == UPDATE_8B
    assert parts["vLLM"] == pytest.approx(0.4 * 80 * GIB)
    sampled = estimate(replace(p, use_vllm="never"), LLAMA_8B, gpu=80 * GIB).phases["rollout"]
    assert sampled["KV cache"] == pytest.approx(32 * 3_584 * 131_072, rel=0.01), "eval_batch rows, keys and values"


def test_all_parts_are_known_and_in_order() -> None:
    for name in PROFILES:
        config = MINI if name == "mini" else None
        e = estimate(get_profile(name), config, gpu=A100)
        assert tuple(e.phases) == (PHASES if get_profile(name).sft_steps else PHASES[1:])
        for parts in e.phases.values():
            assert list(parts) == [part for part in PARTS if part in parts]
            assert min(parts.values()) > 0


def test_checkpointing_trades_memory_for_time() -> None:
    on = get_profile("llama-8b")
    off = replace(on, gradient_checkpointing=False)
    assert (
        estimate(off, gpu=HUGE).phases["update"]["activations"] > 5 * estimate(on, gpu=HUGE).phases["update"]["activations"]
    )
    assert least_seconds(off, GPUS[2])["update"] == pytest.approx(least_seconds(on, GPUS[2])["update"] * 4 / 6)


def test_full_fine_tuning_needs_a_reference_and_lora_does_not() -> None:
    lora = get_profile("llama-8b", beta=0.01)
    full = replace(lora, adapter="none")
    assert "reference" not in estimate(lora).phases["update"]
    parts = estimate(full).phases["update"]
    assert parts["reference"] == parts["weights"] == parts["gradients"] == parts["optimizer"] / 2


def test_chunked_log_probs_need_far_less_than_full_logits() -> None:
    p = get_profile("llama-8b")
    chunked = estimate(p, gpu=A100).phases["update"]["log-probs"]
    load = Workload(p.micro_batch, p.max_prompt_length, p.max_completion_length)
    assert chunked < full_logits_bytes(LLAMA_8B, load) / 20


def test_vllm_takes_its_share_only_on_a_gpu_and_holds_a_copy_of_the_weights() -> None:
    p = get_profile("llama-8b")
    assert all("vLLM" not in parts for parts in estimate(p).phases.values())
    for gpu in GPUS[1:]:
        share = estimate(p, gpu=gpu.memory).phases["rollout"]["vLLM"]
        assert share > 2 * parameter_count(LLAMA_8B)
        assert share == pytest.approx(vllm_utilization(p, LLAMA_8B, gpu.memory) * gpu.memory)
    assert vllm_utilization(p, LLAMA_8B, GPUS[3].memory) == 0.4
    assert vllm_utilization(p, LLAMA_8B, L40S) > 0.4


def test_memory_for_sampling_is_counted_only_if_the_model_samples() -> None:
    p = get_profile("llama-8b")
    assert all("generation" not in parts for parts in estimate(p, gpu=A100).phases.values())
    served = estimate(replace(p, vllm_server="http://localhost:8000"), gpu=A100).phases
    assert "generation" not in served["rollout"] and "generation" in served["evaluation"]
    assert "generation" in estimate(replace(p, use_vllm="never"), gpu=A100).phases["rollout"]


def test_the_peak_is_that_of_the_largest_phase() -> None:
    e = MemoryEstimate({"rollout": {"weights": 1, "KV cache": 5}, "update": {"weights": 1, "activations": 2}})
    assert (e.peak_phase, e.peak, e.total("update")) == ("rollout", 6, 3)


# --- plans ---


@pytest.mark.parametrize("gpu", GPUS, ids=lambda gpu: gpu.name)
@pytest.mark.parametrize("name", ["smol", "llama-8b", "small-gpu"])
def test_a_plan_matches_an_estimate_with_its_changes(name: str, gpu: Machine) -> None:
    p = get_profile(name)
    found = plan(p, gpu.memory)
    again = estimate(replace(p, **found.changes), gpu=gpu.memory)
    assert found.estimate == again
    assert found.fits == (again.peak <= gpu.memory)
    assert bool(found.changes) == (estimate(p, gpu=gpu.memory).peak > gpu.memory)


def test_a_plan_prefers_changes_that_do_not_affect_the_result() -> None:
    found = plan(get_profile("llama-8b", gradient_checkpointing=False, micro_batch=64), A100)
    assert found.fits and found.changes["gradient_checkpointing"] is True
    assert set(found.changes) <= {"gradient_checkpointing", "micro_batch", "eval_batch"}
    assert "fits with" in str(found) and "GiB during" in str(found)


def test_a_plan_without_enough_memory_does_not_fit() -> None:
    found = plan(get_profile("llama-8b"), 12 * GIB)
    assert not found.fits
    assert "Use a smaller model or a larger GPU" in str(found)


def test_a_plan_for_a_run_that_fits_has_no_changes() -> None:
    found = plan(get_profile("small-gpu"), A100)
    assert found.fits and not found.changes
    assert str(found).startswith("fits: ")


# --- time ---


def test_least_seconds_follow_from_the_data_sheet() -> None:
    p = get_profile("llama-8b", prompts_per_step=1, group_size=2, micro_batch=2, gradient_checkpointing=False)
    machine = Machine("one of each", HUGE, 1e15, 1e12)
    least = least_seconds(p, machine, prompt_tokens=100, completion_tokens=10)
    weights = 8_030_261_248
    assert least["update"] == pytest.approx(4 * weights * 2 * 110 / 1e15)
    reading = (2 * weights + 2 * 105 * 131_072) / 1e12
    assert least["rollout"] == pytest.approx(2 * weights * 200 / 1e15 + 10 * reading)


def test_hours_of_a_run() -> None:
    assert hours(get_profile("llama-8b", max_steps=100), 36.0) == 1.0

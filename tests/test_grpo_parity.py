"""Our GRPO against TRL's: the same loss and the same gradient, for every setting that changes a formula.

When a newer TRL gives another number, the failing test's name and message say which formula moved.
"""

from __future__ import annotations

import itertools

import pytest
import torch
import trl
from trl.trainer import utils as trl_utils

from rlvr_utils import grpo
from rlvr_utils.grpo.trl_reference import trl_loss

KL = {"beta 0": (0.0, True), "kl": (0.04, False), "bias-corrected kl": (0.04, True)}
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6}
CLIP = dict(epsilon=0.2, epsilon_high=0.28)
LENGTHS = [7, 1, 4, 0, 6, 7, 3, 2]


def toy_batch(seed: int, off_policy: bool, dtype: torch.dtype = torch.float64) -> dict[str, torch.Tensor]:
    """Ragged random tensors, 8 responses of up to 7 tokens (one of them empty)."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape, scale=1.0):
        return (torch.randn(*shape, generator=generator, dtype=torch.float64) * scale).to(dtype)

    mask = (torch.arange(7) < torch.tensor(LENGTHS).unsqueeze(1)).int()
    logps = -normal(8, 7).abs() - 0.01
    batch = {
        "logps": logps,
        "mask": mask,
        "advantages": grpo.group_advantages(normal(8), 4),
        "ref_per_token_logps": logps + normal(8, 7, scale=0.3),
        "entropies": normal(8, 7).abs(),
        "sampling_per_token_logps": logps + normal(8, 7, scale=0.2),
        "importance_sampling_ratio": normal(8, 7, scale=0.2).exp(),
    }
    # Off-policy by enough that about half of all tokens leave the clip range.
    batch["old_per_token_logps"] = logps + normal(8, 7, scale=0.5) if off_policy else None
    return batch


def value_and_gradient(loss_of, logps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    logps = logps.clone().requires_grad_()
    loss = loss_of(logps)
    (gradient,) = torch.autograd.grad(loss, logps)
    return loss.detach(), gradient


def mean_abs_term(batch: dict, loss_type: str, level: str, beta: float) -> float:
    """Mean |per-token term| of the loss: the loss itself nearly cancels on-policy and is no scale for its
    error."""
    logps, mask, old = batch["logps"], batch["mask"], batch["old_per_token_logps"]
    ratio = grpo.importance_ratio(logps, logps if old is None else old, mask, level)
    kl = grpo.kl_k3(logps, batch["ref_per_token_logps"])
    size = batch["advantages"].abs().unsqueeze(1) * ratio + beta * kl
    if loss_type in ("cispo", "vespo"):
        size = size * logps.abs()
    return ((size * mask).sum() / mask.sum()).item()


def assert_equal_to_trl(formula: str, ours: tuple, theirs: tuple, scale: float) -> None:
    """Loss within the tolerance of ``scale``, gradient within that of its largest entry."""
    tolerance = TOLERANCE[ours[0].dtype]
    errors = {
        "loss": (ours[0] - theirs[0]).abs().item() / scale,
        "gradient": ((ours[1] - theirs[1]).abs().max() / theirs[1].abs().max().clamp(min=1e-30)).item(),
    }
    for what, error in errors.items():
        assert error <= tolerance, (
            f"the {what} of {formula} moved: TRL {trl.__version__} (ours: 1.16.0) is off by {error:.1g}, "
            f"allowed {tolerance:g}. Compare _compute_loss in TRL's grpo_trainer.py with rlvr_utils/grpo."
        )


def compare(formula: str, batch: dict, ours: dict, theirs: dict, level: str = "token") -> None:
    """Both losses of one batch, with ``ours`` and ``theirs`` the same settings under either's names."""
    old = batch["old_per_token_logps"]
    ref = {"ref_per_token_logps": batch["ref_per_token_logps"]}
    mine = value_and_gradient(
        lambda logps: grpo.grpo_loss(
            logps,
            batch["advantages"],
            batch["mask"],
            old_per_token_logps=old,
            importance_sampling_level=level,
            **ref,
            **ours,
        ),
        batch["logps"],
    )
    inputs = ref | theirs.pop("inputs", {}) | ({} if old is None else {"old_per_token_logps": old})
    reference = value_and_gradient(
        lambda logps: trl_loss(
            logps, batch["advantages"], batch["mask"], inputs=inputs, importance_sampling_level=level, **theirs
        )[0],
        batch["logps"],
    )
    loss_type = theirs.get("loss_type", "dapo")
    scale = mean_abs_term(batch, loss_type, level, theirs.get("beta", 0.0))
    assert_equal_to_trl(formula, mine, reference, scale)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("off_policy", [False, True], ids=["on-policy", "off-policy"])
@pytest.mark.parametrize("kl", KL)
@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("loss_type", grpo.LOSS_TYPES)
def test_loss_and_gradient(loss_type, level, kl, off_policy, dtype):
    beta, corrected = KL[kl]
    for seed in range(3):
        batch = toy_batch(seed, off_policy, dtype)
        shared = dict(loss_type=loss_type, beta=beta, max_completion_length=11)
        compare(
            f"{loss_type}, {level} ratio, {kl}",
            batch,
            {**shared, **CLIP, "bias_correct_kl": corrected},
            {**shared, "epsilon_low": 0.2, "epsilon_high": 0.28, "use_bias_correction_kl": corrected},
            level,
        )


def test_kl_alone():
    """With every advantage 0, only the KL is left."""
    for corrected, off_policy in itertools.product([False, True], repeat=2):
        batch = toy_batch(0, off_policy) | {"advantages": torch.zeros(8, dtype=torch.float64)}
        ours, theirs = dict(bias_correct_kl=corrected), dict(use_bias_correction_kl=corrected)
        compare("the KL", batch, {"beta": 1.0, **ours}, {"beta": 1.0, **theirs})


@pytest.mark.parametrize("loss_type", grpo.LOSS_TYPES)
def test_accumulation_and_normalisers(loss_type):
    """4 micro-batches a step, 8 a generation, 2 processes, and more tokens elsewhere than here."""
    batch = toy_batch(1, off_policy=True)
    tokens = torch.tensor(900)
    ours = dict(
        loss_type=loss_type,
        max_completion_length=11,
        num_items_in_batch=tokens,
        gradient_accumulation_steps=4,
        steps_per_generation=8,
        num_processes=2,
    )
    theirs = dict(
        loss_type=loss_type,
        max_completion_length=11,
        inputs={"num_items_in_batch": tokens},
        num_processes=2,
        current_gradient_accumulation_steps=4,
        steps_per_generation=8,
    )
    compare(f"the normaliser of {loss_type}", batch, ours, theirs)


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("loss_type", grpo.LOSS_TYPES)
@pytest.mark.parametrize("setting", ["delta", "off_policy_mask", "entropy_mask", "engine_ratio", "constants"])
def test_further_terms(setting, loss_type, level):
    batch = toy_batch(2, off_policy=True)
    shared = {
        "delta": dict(delta=1.1),
        "off_policy_mask": dict(off_policy_mask_threshold=0.05),
        "entropy_mask": dict(top_entropy_quantile=0.4),
        "engine_ratio": {},
        "constants": dict(
            sapo_temperature_pos=0.7,
            sapo_temperature_neg=2.0,
            vespo_k_pos=1.5,
            vespo_lambda_pos=0.5,
            vespo_k_neg=0.4,
            vespo_lambda_neg=4.0,
        ),
    }[setting] | dict(loss_type=loss_type, max_completion_length=11, beta=0.04)
    ours, theirs = dict(shared), dict(shared)
    if setting == "off_policy_mask":
        ours["sampling_per_token_logps"] = batch["sampling_per_token_logps"]
        theirs["inputs"] = {"sampling_per_token_logps": batch["sampling_per_token_logps"]}
    if setting == "entropy_mask":
        ours["entropies"] = theirs["entropies"] = batch["entropies"]
    if setting == "engine_ratio":
        ours["importance_sampling_ratio"] = batch["importance_sampling_ratio"]
        theirs["inputs"] = {"importance_sampling_ratio": batch["importance_sampling_ratio"]}
        theirs["use_vllm"] = True
    compare(f"{setting} with {loss_type}", batch, ours, theirs, level)


@pytest.mark.parametrize("quantile", [1.0, 0.4])
def test_entropy_bonus(quantile):
    """The bonus is the mean entropy; its gradient flows through the entropies."""
    batch = toy_batch(3, off_policy=True)

    def loss_and_entropy_gradient(loss_of):
        entropies = batch["entropies"].clone().requires_grad_()
        loss = loss_of(entropies)
        return loss.detach(), torch.autograd.grad(loss, entropies)[0]

    settings = dict(entropy_coef=0.03, top_entropy_quantile=quantile)
    ours = loss_and_entropy_gradient(
        lambda entropies: grpo.grpo_loss(
            batch["logps"],
            batch["advantages"],
            batch["mask"],
            entropies=entropies,
            gradient_accumulation_steps=2,
            num_items_in_batch=60,
            old_per_token_logps=batch["old_per_token_logps"],
            **settings,
        )
    )
    theirs = loss_and_entropy_gradient(
        lambda entropies: trl_loss(
            batch["logps"],
            batch["advantages"],
            batch["mask"],
            entropies=entropies,
            steps_per_generation=2,
            current_gradient_accumulation_steps=2,
            **settings,
            inputs={"old_per_token_logps": batch["old_per_token_logps"], "num_items_in_batch": torch.tensor(60)},
        )[0]
    )
    assert_equal_to_trl("the entropy bonus", ours, theirs, scale=1.0)


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_clip_fractions_are_those_trl_logs(level):
    clipped = []
    for seed in range(5):
        batch = toy_batch(seed, off_policy=True)
        logps, mask, old = batch["logps"], batch["mask"], batch["old_per_token_logps"]
        _, metrics = trl_loss(
            logps,
            batch["advantages"],
            mask,
            inputs={"old_per_token_logps": old},
            importance_sampling_level=level,
            epsilon_high=0.28,
        )
        ratio = grpo.importance_ratio(logps, old, mask, level)
        ours = grpo.clip_fractions(ratio, batch["advantages"], mask, **CLIP)
        clipped.append(ours["region_mean"])
        for name, value in ours.items():
            assert value == pytest.approx(metrics[f"clip_ratio/{name}"], abs=1e-7), name
    assert max(clipped) > 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_selected_logps_and_entropy(dtype):
    logits = torch.randn(3, 5, 11, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    ids = torch.randint(11, (3, 5), generator=torch.Generator().manual_seed(1))
    for temperature in (1.0, 0.7):
        theirs = trl_utils.selective_log_softmax(logits, ids, temperature=temperature)
        assert torch.equal(grpo.selected_logps(logits, ids, temperature), theirs)
        theirs = trl_utils.entropy_from_logits(logits / temperature)
        torch.testing.assert_close(grpo.entropy(logits, temperature, chunk_size=4), theirs)


def test_nan_std_is_trls():
    rewards = torch.tensor([[1.0, 0.0, float("nan"), 0.5], [2.0, float("nan"), float("nan"), float("nan")]])
    ours, theirs = grpo.advantages.nan_std(rewards, dim=1).squeeze(1), trl_utils.nanstd(rewards, dim=1)
    torch.testing.assert_close(ours, theirs, equal_nan=True)


def test_a_moved_formula_is_named():
    """The comparison itself can fail, and then says where."""
    batch = toy_batch(5, off_policy=True)
    with pytest.raises(AssertionError, match="the loss of sapo moved"):
        compare("sapo", batch, dict(loss_type="sapo"), dict(loss_type="sapo", sapo_temperature_neg=1.0500001))

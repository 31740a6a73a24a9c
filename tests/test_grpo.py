"""What holds for GRPO's formulas by themselves: hand arithmetic, derivatives, masks, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr_utils import grpo

f64 = torch.float64
rewards_of_groups = st.lists(
    st.lists(st.sampled_from([0.0, 1.0, 0.5, -2.0]), min_size=4, max_size=4), min_size=1, max_size=4
)


# --- advantages ---------------------------------------------------------------------------------------------


def test_advantages_by_hand():
    """One right out of four: mean 1/4, sample std 1/2."""
    expected = [0.75 / 0.5001, *[-0.25 / 0.5001] * 3]
    rewards = torch.tensor([1.0, 0, 0, 0], dtype=f64)
    assert grpo.group_advantages(rewards, 4).tolist() == pytest.approx(expected)
    assert grpo.group_advantages([1, 0, 0, 0], 4, scale="none").tolist() == [0.75, -0.25, -0.25, -0.25]


def test_batch_scale_has_the_groups_mean_and_one_std():
    rewards = torch.tensor([1.0, 0, 1, 1, 0, 0, 0, 0], dtype=f64)
    centred = grpo.group_advantages(rewards, 4, scale="none")
    assert torch.allclose(grpo.group_advantages(rewards, 4, scale="batch"), centred / (rewards.std() + 1e-4))


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
@pytest.mark.parametrize("reward", [0.0, 1.0, 0.1])
def test_equal_rewards_give_zero_advantages(scale, reward):
    """Also for 0.1, whose float32 mean is not exactly 0.1."""
    assert grpo.group_advantages([reward] * 8, 8, scale=scale).abs().max() < 1e-3
    assert grpo.group_advantages([1.0] * 8, 8, scale=scale).tolist() == [0.0] * 8


def test_missing_rewards_are_left_out_and_get_zero():
    with_gap = grpo.group_advantages([1.0, None, 0.0, 0.0], 4)
    without = grpo.group_advantages([1.0, 0.0, 0.0], 3)
    assert with_gap[1] == 0 and with_gap[[0, 2, 3]].tolist() == pytest.approx(without.tolist())
    assert grpo.group_advantages([None] * 4, 4).tolist() == [0.0] * 4
    assert grpo.group_advantages([None, None, None, 1.0], 4).tolist() == [0.0] * 4


@given(groups=rewards_of_groups, shift=st.floats(-5, 5), factor=st.floats(0.5, 20))
@settings(max_examples=50, deadline=None)
def test_advantages_sum_to_zero_and_ignore_shift_and_size(groups, shift, factor):
    rewards = torch.tensor(groups, dtype=f64).flatten()
    advantages = grpo.group_advantages(rewards, 4)
    assert advantages.view(-1, 4).sum(1).abs().max() < 1e-9
    assert torch.allclose(grpo.group_advantages(rewards * factor + shift, 4), advantages, atol=2e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0, 0, 0], 2), "cannot be split into groups of 2"),
        (([1.0, 0], 1), "compared with its group"),
        (([], 2), "one reward per response"),
        ((torch.zeros(2, 2), 2), "one reward per response"),
        (([math.inf, 0.0], 2), "infinite"),
        (([1.0, 0], 2, "std"), "group, batch, none"),
    ],
)
def test_bad_rewards_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        grpo.group_advantages(*arguments)


# --- log-probabilities --------------------------------------------------------------------------------------


def test_logits_are_shifted_by_one():
    logits = torch.arange(2 * 5 * 3).view(2, 5, 3)
    assert torch.equal(grpo.completion_logits(logits, 2), logits[:, 2:4])
    with pytest.raises(ValueError, match="0 < n_completion < L"):
        grpo.completion_logits(logits, 5)


def test_logps_normalise_and_entropy_is_their_mean():
    logits = torch.randn(1, 2, 6, dtype=f64)
    every_id = torch.arange(6).repeat_interleave(2).view(6, 2)
    logps = grpo.selected_logps(logits.expand(6, 2, 6), every_id, temperature=0.5)
    assert torch.allclose(logps.exp().sum(0), torch.ones(2, dtype=f64))
    assert torch.allclose(-(logps.exp() * logps).sum(0), grpo.entropy(logits, temperature=0.5)[0])


def test_entropy_of_a_masked_vocabulary_is_finite():
    logits = torch.tensor([0.0, 0.0, -math.inf])
    assert grpo.entropy(logits).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_temperature_must_be_positive(temperature):
    with pytest.raises(ValueError, match="Set it above 0"):
        grpo.selected_logps(torch.zeros(1, 1, 2), torch.zeros(1, 1, dtype=torch.long), temperature)


def test_logits_and_ids_must_fit():
    with pytest.raises(ValueError, match="do not match"):
        grpo.selected_logps(torch.zeros(1, 3, 2), torch.zeros(1, 2, dtype=torch.long))


# --- masks --------------------------------------------------------------------------------------------------


def test_the_end_token_counts_and_later_tokens_do_not():
    ids = torch.tensor([[5, 2, 2, 7], [5, 6, 7, 8], [2, 5, 5, 5], [5, 3, 2, 5]])
    mask = grpo.completion_mask(ids, eos_token_id=[2, 3])
    assert mask.tolist() == [[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 0, 0]]
    assert grpo.completion_mask(ids, eos_token_id=2)[3].tolist() == [1, 1, 1, 0]


def test_high_entropy_mask_keeps_the_top_share():
    entropies, mask = torch.arange(10.0).view(2, 5), torch.ones(2, 5)
    mask[1, 4] = 0  # the highest does not count
    kept = grpo.high_entropy_mask(entropies, mask, 0.25)
    assert entropies[kept].tolist() == [6.0, 7.0, 8.0]
    assert not grpo.high_entropy_mask(entropies, torch.zeros(2, 5), 0.25).any()


def test_off_policy_mask_drops_only_bad_responses_that_went_stale():
    stale = torch.tensor([[1.0, 1.0], [1.0, 1.0], [0.1, math.nan]])
    keep = grpo.off_policy_mask(
        torch.tensor([[1.0], [-1.0], [-1.0]]), torch.zeros(3, 2), stale, torch.ones(3, 2), threshold=0.5
    )
    assert keep.flatten().tolist() == [1, 0, 1]


# --- the loss -----------------------------------------------------------------------------------------------


def random_batch(seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Log-probabilities now, when sampled and of the reference, advantages and mask: 4 responses of 5
    tokens."""
    generator = torch.Generator().manual_seed(seed)
    now = -torch.rand(4, 5, generator=generator, dtype=f64) - 0.1
    old, ref = (now + 0.2 * torch.randn(4, 5, generator=generator, dtype=f64) for _ in range(2))
    mask = (torch.arange(5) < torch.tensor([5, 2, 4, 1]).unsqueeze(1)).int()
    return now, old, ref, grpo.group_advantages(torch.tensor([1.0, 0, 0, 1], dtype=f64), 4), mask


def numeric_gradient(function, point: torch.Tensor, step: float = 1e-6) -> torch.Tensor:
    """Central differences."""
    gradient = torch.zeros_like(point)
    for index in range(point.numel()):
        shift = torch.zeros_like(point).flatten()
        shift[index] = step
        shift = shift.view_as(point)
        gradient.view(-1)[index] = (function(point + shift) - function(point - shift)) / (2 * step)
    return gradient


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("loss_type", ["grpo", "bnpo", "dr_grpo", "dapo", "sapo", "luspo"])
def test_gradient_is_the_derivative(loss_type, level):
    now, old, ref, advantages, mask = random_batch()

    def loss(logps):
        return grpo.grpo_loss(
            logps,
            advantages,
            mask,
            old_per_token_logps=old,
            ref_per_token_logps=ref,
            beta=0.1,
            loss_type=loss_type,
            importance_sampling_level=level,
            max_completion_length=5,
        )

    logps = now.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(logps), logps)
    assert gradient.abs().max() > 0.01
    assert torch.allclose(gradient, numeric_gradient(loss, now), atol=1e-8)


@pytest.mark.parametrize("loss_type", ["cispo", "vespo"])
def test_gradient_with_the_weight_held_still(loss_type):
    """These two stop the gradient of their weight: the derivative is that of ``-weight A log p``."""
    now, old, _, advantages, mask = random_batch()
    column = advantages.unsqueeze(1)
    weight = {"cispo": (now - old).exp().clamp(max=0.9), "vespo": grpo.vespo_weight(now - old, column, mask)}[loss_type]

    def loss(logps):
        return grpo.aggregate(-weight * column * logps, mask, loss_type)

    logps = now.clone().requires_grad_()
    ours = grpo.grpo_loss(logps, advantages, mask, old_per_token_logps=old, loss_type=loss_type, epsilon_high=0.9)
    (gradient,) = torch.autograd.grad(ours, logps)
    assert torch.allclose(gradient, numeric_gradient(loss, now), atol=1e-8)


def test_loss_is_zero_on_policy_and_its_gradient_is_not():
    now, _, _, advantages, mask = random_batch()
    logps = now.clone().requires_grad_()
    equal_lengths = torch.ones_like(mask)
    loss = grpo.grpo_loss(logps, advantages, equal_lengths)
    (gradient,) = torch.autograd.grad(loss, logps)
    assert loss.abs() < 1e-15
    assert torch.allclose(gradient, -advantages.unsqueeze(1).expand(4, 5) / equal_lengths.sum())


def test_clipping_cuts_only_what_went_too_far():
    """Ratio 1.5 or 0.5 against advantage +1 or -1: no gradient where the move already went the right way."""
    ratio = torch.tensor([[1.5], [0.5], [1.5], [0.5]], requires_grad=True)
    advantages = torch.tensor([[1.0], [1.0], [-1.0], [-1.0]])
    grpo.clipped_term(ratio, advantages, 0.2, 0.2).sum().backward()
    assert ratio.grad.flatten().tolist() == [0.0, -1.0, 1.0, 0.0]
    assert grpo.clipped_term(ratio, advantages, 0.2, 0.2, delta=1.3)[2].item() == pytest.approx(1.3)


@pytest.mark.parametrize("loss_type", grpo.LOSS_TYPES)
def test_padding_does_not_reach_the_loss(loss_type):
    now, old, ref, advantages, mask = random_batch()

    def loss_and_gradient(poison):
        tensors = [torch.where(mask.bool(), x, poison) for x in (now, old, ref)]
        logps = tensors[0].requires_grad_()
        loss = grpo.grpo_loss(
            logps,
            advantages,
            mask,
            old_per_token_logps=tensors[1],
            ref_per_token_logps=tensors[2],
            beta=0.1,
            loss_type=loss_type,
            max_completion_length=5,
            off_policy_mask_threshold=0.05,
        )
        return loss.detach(), torch.autograd.grad(loss, logps)[0]

    clean, poisoned = loss_and_gradient(-1.0), loss_and_gradient(math.nan)
    assert torch.equal(clean[0], poisoned[0]) and torch.equal(clean[1], poisoned[1])
    assert (poisoned[1][mask == 0] == 0).all()


@pytest.mark.parametrize("loss_type", grpo.LOSS_TYPES)
def test_an_empty_mask_gives_zero(loss_type):
    now, _, _, advantages, mask = random_batch()
    logps = now.clone().requires_grad_()
    nothing = torch.zeros_like(mask)
    loss = grpo.grpo_loss(logps, advantages, nothing, loss_type=loss_type, max_completion_length=5)
    assert loss.item() == 0 and (torch.autograd.grad(loss, logps)[0] == 0).all()


@pytest.mark.parametrize("loss_type", grpo.LOSS_TYPES)
def test_micro_batches_add_up(loss_type):
    """Two halves accumulated equal the whole, except for bnpo, which divides by each half's own tokens."""
    now, old, _, advantages, mask = random_batch()
    settings = dict(loss_type=loss_type, max_completion_length=5, num_items_in_batch=mask.sum())
    whole = grpo.grpo_loss(now, advantages, mask, old_per_token_logps=old, **settings)
    halves = sum(
        grpo.grpo_loss(
            now[rows], advantages[rows], mask[rows], old_per_token_logps=old[rows], gradient_accumulation_steps=2, **settings
        )
        for rows in (slice(0, 2), slice(2, 4))
    )
    assert torch.allclose(whole, halves) == (loss_type != "bnpo")


def test_k3_is_kl_on_average_and_expm1_keeps_its_digits():
    policy, reference = torch.tensor([0.5, 0.3, 0.2], dtype=f64), torch.tensor([0.2, 0.3, 0.5], dtype=f64)
    k3 = grpo.kl_k3(policy.log(), reference.log())
    assert (k3 >= 0).all()
    assert (policy * k3).sum() == pytest.approx((policy * (policy / reference).log()).sum().item())
    tiny = torch.tensor(1e-4)
    exact = 1e-4**2 / 2 * (1 + 1e-4 / 3)
    values = [f(torch.tensor(0.0), tiny).item() for f in (grpo.kl_k3, grpo.kl_k3_expm1)]
    assert abs(values[0] / exact - 1) > 0.1 > 0.01 > abs(values[1] / exact - 1)


def test_bias_correction_makes_the_kl_gradient_the_true_one():
    """Averaged over the policy, k3 alone has another gradient than KL(policy || reference); k3 * ratio has
    it."""
    logits, reference = torch.tensor([0.3, -0.2, 0.5], dtype=f64), torch.tensor([0.2, 0.3, 0.5], dtype=f64)

    def gradient(objective):
        point = logits.clone().requires_grad_()
        return torch.autograd.grad(objective(point.log_softmax(0)), point)[0]

    probabilities = logits.softmax(0)
    true = gradient(lambda logps: (logps.exp() * (logps - reference.log())).sum())

    def sampled(corrected):  # each token weighted by how often it is drawn, the weight held still
        return gradient(
            lambda logps: (
                probabilities
                @ torch.stack(
                    [
                        grpo.grpo_loss(
                            logps[token].view(1, 1),
                            torch.zeros(1),
                            torch.ones(1, 1),
                            beta=1.0,
                            bias_correct_kl=corrected,
                            ref_per_token_logps=reference[token].log().view(1, 1),
                        )
                        for token in range(3)
                    ]
                )
            )
        )

    assert torch.allclose(sampled(True), true)
    assert not torch.allclose(sampled(False), true, atol=1e-3)


NAN = torch.full((2, 3), math.nan)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(loss_type="ppo"), "loss_type is 'ppo'; use one of grpo"),
        (dict(loss_type="dr_grpo"), "give max_completion_length"),
        (dict(loss_type="dr_grpo", max_completion_length=0), "give max_completion_length"),
        (dict(beta=0.1), "need ref_per_token_logps"),
        (dict(top_entropy_quantile=0.2), "need entropies"),
        (dict(entropy_coef=0.1), "need entropies"),
        (dict(gradient_accumulation_steps=2), "give num_items_in_batch"),
        (dict(gradient_accumulation_steps=0), "use 1 or more"),
        (dict(importance_sampling_level="word"), "'token' or 'sequence'"),
        (dict(per_token_logps=NAN), "per_token_logps contains NaN"),
        (dict(old_per_token_logps=-NAN), "old_per_token_logps contains NaN"),
        (dict(old_per_token_logps=torch.zeros(2, 4)), "old_per_token_logps has shape"),
        (dict(per_token_logps=torch.zeros(2, 0), completion_mask=torch.zeros(2, 0)), "B and T above 0"),
        (dict(per_token_logps=torch.zeros(3)), "B and T above 0"),
        (dict(per_token_logps=torch.zeros(2, 3, dtype=torch.long)), "Give floats"),
        (dict(completion_mask=torch.ones(3, 2)), "completion_mask has shape"),
        (dict(completion_mask=torch.full((2, 3), 0.5)), "values other than 0 and 1"),
        (dict(advantages=torch.ones(3)), "advantages has shape"),
        (dict(advantages=torch.tensor([math.nan, 1.0])), "advantages contains NaN"),
    ],
)
def test_bad_input_is_refused(changes, message):
    good = dict(per_token_logps=-torch.ones(2, 3), advantages=torch.ones(2), completion_mask=torch.ones(2, 3))
    assert grpo.grpo_loss(**good).item() == -1
    with pytest.raises(ValueError, match=message):
        grpo.grpo_loss(**(good | changes))

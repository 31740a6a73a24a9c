"""Checks of notebook 08: k3, the weight of a difficulty, dynamic sampling, a process reward, your own advantage."""

from __future__ import annotations

from .attempts import Attempt, brief, close, exercise
from .grpo import random_tensor


@exercise("08-k3", "8.1 The KL estimate k3", difficulty=3, minutes=10)
def check_k3(mine: Attempt) -> None:
    """``my_k3(logps, ref_logps)``: never negative, zero for equal policies, unbiased, precise for small differences."""
    import torch

    logps, reference = random_tensor(8), random_tensor(8, seed=1)
    mine.must("it is never negative", mine.numbers(logps, reference, shape=(8,)).min() >= 0)
    mine.equals("equal policies give 0", mine.numbers(logps, logps.clone()), [0] * 8)
    mine.must(
        "it is positive for a token that became more likely and for one that became less likely",
        bool((mine.numbers(torch.tensor([-1.0, -3.0]), torch.tensor([-2.0, -2.0])) > 0.1).all()),
    )
    for seed in range(3):
        p, q = random_tensor(5, seed=seed).log_softmax(0), random_tensor(5, seed=seed + 10).log_softmax(0)
        mean, exact = p.exp().numpy() @ mine.numbers(p, q), (p.exp() * (p - q)).sum().item()
        mine.equals("its mean over the policy's own samples is KL(policy, reference)", mean, exact)
    small = torch.tensor([1e-2, 1e-3, 3e-4], dtype=torch.float32)
    half_square = small.double().numpy() ** 2 / 2
    found = mine.numbers(torch.zeros(3), small)
    mine.must(
        "small differences stay precise in float32",
        close(found / half_square, [1, 1, 1], 1e-2),
        expected=f"about d^2 / 2, {brief(half_square)}",
    )


@exercise("08-difficulty-weight", "8.2 The weight of a difficulty", difficulty=4, minutes=20)
def check_difficulty_weight(mine: Attempt) -> None:
    """``my_weight(advantage, p, group_size)``: the w in "expected gradient = w times the gradient of p"."""
    from rlvr_utils.grpo import variants

    weight = mine.numbers(lambda rewards: rewards, 0.3, 4, shape=())
    mine.equals("rewards without a baseline give weight 1", weight, 1.0)
    weight = mine.numbers(lambda rewards: rewards + 5, 0.3, 4)
    mine.equals("adding a constant to all advantages changes nothing: the score has mean 0", weight, 1.0)
    for group_size in (2, 8):
        for p in (0.1, 0.5, 0.9):
            found = mine.numbers(variants.centred, p, group_size)
            mine.equals("the group mean as the baseline gives 1 - 1 / G for every p", found, 1 - 1 / group_size)
    mine.equals("twice the advantages give twice the weight", mine.numbers(lambda r: 2 * variants.centred(r), 0.2, 4), 1.5)
    for p in (0.05, 0.5):
        # E[1 - K/G; K > 0] / (p (1 - p)), up to the small constant in the division
        wanted = (1 - (1 - p) ** 7) / p
        found = mine.numbers(variants.maxrl, p, 8)
        mine.equals("dividing by the group mean gives (1 - (1 - p)^(G - 1)) / p", found, wanted, 2e-3)


@exercise("08-dynamic-batch", "8.3 A batch without zero-advantage groups", difficulty=2, minutes=10)
def check_dynamic_batch(mine: Attempt) -> None:
    """``my_batch(groups, size)``: the first ``size`` mixed groups, and the number of groups sampled to find them."""

    def found(groups: list, size: int) -> tuple[list, int]:
        result = mine(groups, size)
        if not (isinstance(result, tuple) and len(result) == 2):
            mine.fail("it returns two values: the kept groups and the number of sampled groups", brief(result))
        return list(result[0]), result[1]

    right, wrong, a, b = [1, 1], [0, 0], [0, 1], [1, 0]
    mine.must("mixed groups are kept unchanged", found([a, b], 2) == ([a, b], 2), expected="([[0, 1], [1, 0]], 2)")
    kept, sampled = found([right, a, wrong, b], 2)
    mine.must("groups with equal rewards are dropped, whether correct or wrong", kept == [a, b], expected=brief([a, b]))
    mine.must("dropped groups count as sampled", sampled == 4, expected="4 sampled")
    mine.must("sampling ends when the batch is full", found([a, b, a, right], 1) == ([a], 1), expected="([[0, 1]], 1)")
    mine.must(
        "if the groups run out, the batch is smaller than `size`", found([right, a], 3) == ([a], 2), expected="([[0, 1]], 2)"
    )
    mine.must(
        "groups with equal partial rewards are dropped too", found([[0.5, 0.5], a], 1) == ([a], 2), expected="([[0, 1]], 2)"
    )


@exercise("08-process-reward", "8.4 A process reward that resists padding", difficulty=3, minutes=20)
def check_process_reward(mine: Attempt) -> None:
    """``my_process_reward(steps, correct)``: steps are (left, right, is it true). Repeated and empty steps earn nothing."""

    def reward(steps: list, correct: bool) -> float:
        return float(mine.numbers(steps, correct, shape=()))

    one, two, false = ("6^2", "36", True), (r"3 \cdot 36", "108", True), (r"5 \cdot 6", "28", False)
    mine.equals("true steps to a correct answer get 1", reward([one, two], True), 1)
    mine.equals("a wrong answer without steps gets 0", reward([], False), 0)
    partial = reward([one, two, false], False)
    mine.must("true steps before a false one get part of the reward", 0 < partial, f"{partial:.6g}", "more than 0")
    mine.must("a wrong answer gets at most half", reward([one, two], False) <= 0.5, expected="at most 0.5")
    mine.must("a correct answer without steps gets less than 1", reward([], True) < 1, expected="less than 1")
    slipped = reward([one, false], True)
    mine.must("a false step lowers the reward, even if the answer is correct", slipped < 1, f"{slipped:.6g}", "below 1")
    again = reward([one, two, false, *[two] * 5], False)
    mine.must("repeating a true step earns nothing", again <= partial + 1e-9, f"{again:.6g}", f"at most {partial:.6g}")
    empty = reward([("1", "1", True)] * 3 + [one, two, false], False)
    mine.must("steps with the same text on both sides earn nothing", empty <= partial + 1e-9, f"{empty:.6g}")
    mine.must("a response with only such steps gets 0", reward([("7", "7", True)], False) == 0, expected="0")
    fresh = [(f"{n} + 1", f"{n + 1}", True) for n in range(9)]
    late = reward([one, two, false, *fresh], False)
    mine.must("true steps after a false one earn nothing", late <= partial + 1e-9, f"{late:.6g}", f"at most {partial:.6g}")


@exercise("08-own-advantage", "8.5 An advantage of your own", difficulty=2, minutes=10)
def check_own_advantage(mine: Attempt) -> None:
    """``my_estimator(rewards)``: shape (P, G) to (P, G), each reward minus the mean of the others in its group."""
    import torch

    rewards = torch.tensor([[1.0, 0, 0, 0], [0, 1, 1, 1]], dtype=torch.float64)
    found = mine.numbers(rewards, shape=(2, 4))
    mine.equals("one correct response of four gets 1, because the others have mean 0", found[0, 0], 1)
    mine.equals("each of the three wrong responses gets -1/3", found[0, 1:], [-1 / 3] * 3)
    mine.equals("the advantages of a group sum to 0", found.sum(1), [0, 0])
    mine.equals("a group with equal rewards gets advantages of 0", mine.numbers(torch.ones(1, 4)), [[0] * 4])
    mine.equals("adding a constant to all rewards changes nothing", mine.numbers(rewards + 3), found)
    for seed in range(3):
        drawn = random_tensor(3, 5, seed=seed)
        others = (drawn.sum(1, keepdim=True) - drawn) / 4
        mine.equals("it is the reward minus the mean of the others", mine.numbers(drawn), drawn - others)

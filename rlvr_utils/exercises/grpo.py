"""Checks of notebook 02: advantages, the clipped term, averages, the gradient on the logits.

The checks import PyTorch themselves, because notebook 01 runs without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING
from unittest.mock import patch

from .attempts import Attempt, brief, close, exercise

if TYPE_CHECKING:
    from torch import Tensor


def random_tensor(*shape: int, seed: int = 0) -> Tensor:
    """Return a standard normal float64 tensor."""
    import torch

    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@exercise("02-advantages", "2.1 Advantages of several groups", difficulty=2, minutes=10)
def check_advantages(mine: Attempt) -> None:
    """``my_advantages(rewards, group_size)``: zero sums, invariance to shift and scale, separate groups, sample std."""
    import torch

    from rlvr_utils.grpo import group_advantages

    rewards = torch.tensor([0, 1, 1, 0, 0, 0, 0, 1], dtype=torch.float64)
    found = mine.numbers(rewards, 4, shape=(8,))
    sums = found.reshape(2, 4).sum(axis=1)
    mine.must("the advantages of each group sum to 0", close(sums, [0, 0]), f"sums {brief(sums)}")
    mine.must("the better response has the higher advantage", found[1] > found[0] and found[7] > found[4])
    mine.equals("adding a constant to all rewards changes nothing", mine.numbers(rewards + 5, 4), found)
    scaled = mine.numbers(rewards * 10, 4)
    mine.equals("rewards of 10 instead of 1 change nothing (except through the small constant)", scaled, found, 2e-3)
    equal = mine.numbers(torch.tensor([1.0, 1, 1, 1, 0, 0, 0, 0], dtype=torch.float64), 4)
    mine.equals("a group with equal rewards gets advantages of 0", equal, [0] * 8)
    other = mine.numbers(torch.cat([rewards[:4], rewards[4:] + rewards[4:].flip(0)]), 4)
    mine.equals("a group's advantages do not depend on other groups", other[:4], found[:4])
    for seed in range(5):
        drawn = random_tensor(12, seed=seed)
        wanted = group_advantages(drawn, 4)
        mine.equals("it divides by the sample std (n - 1) plus 1e-4", mine.numbers(drawn, 4), wanted)


def slope(mine: Attempt, ratio: float, advantage: float) -> float:
    """Return d term / d log p of one token, by autograd through the learner's function."""
    import torch

    logps = torch.tensor([[ratio]], dtype=torch.float64).log().requires_grad_()
    term = mine(logps, torch.zeros(1, 1, dtype=torch.float64), torch.tensor([advantage], dtype=torch.float64), 0.2)
    if not getattr(term, "requires_grad", False):
        mine.fail(
            "the gradient can flow back to log p",
            "a result without a gradient",
            "a result computed from logps without detach, item or numpy",
        )
    return torch.autograd.grad(term.sum(), logps)[0].item()


def course_term(logps: Tensor, old: Tensor, advantages: Tensor, epsilon: float) -> Tensor:
    """Return the course's own term, with the arguments of the exercise."""
    from rlvr_utils.grpo import clipped_term

    return clipped_term((logps - old).exp(), advantages.unsqueeze(1), epsilon, epsilon)


def slope_of(term: Callable, logps: Tensor, old: Tensor, advantages: Tensor) -> Tensor:
    """Return d (sum of the terms) / d log p, shape (B, T), for epsilon = 0.3."""
    import torch

    point = logps.clone().requires_grad_()
    return torch.autograd.grad(term(point, old, advantages, 0.3).sum(), point)[0]


@exercise("02-clipped-term", "2.2 Ratio and clip", difficulty=3, minutes=15)
def check_clipped_term(mine: Attempt) -> None:
    """``my_clipped_term(logps, old_logps, advantages, epsilon)``: value and slope inside and outside the clip range."""
    logps, old, advantages = random_tensor(3, 4), random_tensor(3, 4, seed=1), random_tensor(3, seed=2)
    found = mine.numbers(logps, logps.clone(), advantages, 0.2, shape=(3, 4))
    mine.equals("at ratio 1 the term of each token is minus its advantage", found, -advantages.unsqueeze(1).expand(3, 4))
    for advantage in (1.0, -2.0):
        found = slope(mine, 1.0, advantage)
        mine.equals("at ratio 1 the slope on log p is minus the advantage", found, -advantage, what="slope")
    found = slope(mine, 1.5, 1.0)
    mine.equals("a correct response whose ratio exceeds 1 + epsilon gets no gradient", found, 0, what="slope")
    found = slope(mine, 0.5, -1.0)
    mine.equals("a wrong response whose ratio is below 1 - epsilon gets no gradient", found, 0, what="slope")
    for ratio, advantage in ((1.5, -1.0), (0.5, 1.0)):
        found = slope(mine, ratio, advantage)
        mine.equals(
            "a move in the wrong direction is always pushed back: take the min, not the clip alone",
            found,
            -advantage * ratio,
            what="slope",
        )
    slopes = [slope_of(f, logps, old, advantages) for f in (mine, course_term)]
    mine.equals("the gradient of each token agrees with the course's term", slopes[0], slopes[1], what="gradient")
    wanted = course_term(logps, old, advantages, 0.3)
    mine.equals(
        "it agrees with the course's term, also for another epsilon", mine.numbers(logps, old, advantages, 0.3), wanted
    )


@exercise("02-averages", "2.3 Two averages under a mask", difficulty=2, minutes=10)
def check_averages(mine: Attempt) -> None:
    """``my_average(term, mask, loss_type)``, "grpo" or "dapo": padding, constants, and the weight of each token."""
    import torch

    mask = (torch.arange(6) < torch.tensor([[2], [6], [3]])).to(torch.float64)
    term = random_tensor(3, 6)
    for kind in ("grpo", "dapo"):
        found = mine.numbers(torch.full((3, 6), 2.5, dtype=torch.float64), mask, kind, shape=())
        mine.equals("the average of equal terms is that term", found, 2.5)
        padded = mine.numbers(term + 1e6 * (1 - mask), mask, kind)
        mine.must("the values in the padding do not matter", close(padded, mine.numbers(term, mask, kind), 1e-5))
    full = torch.ones_like(mask)
    mine.must(
        "for responses of equal length both averages agree",
        close(mine.numbers(term, full, "grpo"), mine.numbers(term, full, "dapo")),
    )
    bump = torch.zeros(3, 6, dtype=torch.float64)
    for row, length in enumerate((2, 6, 3)):
        one = bump.clone()
        one[row, 0] = 1.0
        mine.must(
            "dapo: every token has the same weight, 1 / tokens",
            close(mine.numbers(one, mask, "dapo"), 1 / 11),
            expected="1 / 11, for any response length",
        )
        mine.must(
            "grpo: every response has the same weight, so a token of a long response has less",
            close(mine.numbers(one, mask, "grpo"), 1 / (3 * length)),
            expected=f"1 / (3 responses x {length} tokens)",
        )


@contextmanager
def autograd_watched() -> Iterator[list[str]]:
    """Yield a list that collects the names of the PyTorch gradient functions called inside the block."""
    import torch

    calls: list[str] = []

    def noting(owner: object, name: str) -> Callable:
        original = getattr(owner, name)

        def call(*args, **keywords):
            calls.append(name)
            return original(*args, **keywords)

        return call

    places = [(torch.autograd, "grad"), (torch.autograd, "backward"), (torch.Tensor, "backward"), (torch.func, "grad")]
    with ExitStack() as stack:
        for owner, name in places:
            stack.enter_context(patch.object(owner, name, noting(owner, name)))
        yield calls


@exercise("02-logit-gradient", "2.4 Which way do the logits go?", difficulty=3, minutes=10)
def check_logit_gradient(mine: Attempt) -> None:
    """``my_logit_gradient(logits, action, advantage)``: d loss / d logits of one sampled token at ratio 1."""
    import torch

    logits = torch.tensor([1.0, 0.0, -1.0, 2.0], dtype=torch.float64)
    with autograd_watched() as used:
        mine(logits.clone(), 1, 1.0)
    mine.must("it uses a formula, without autograd", not used, f"a call of {', '.join(used)}", "a formula with softmax")
    mine.equals("the gradients of all logits sum to 0", mine.numbers(logits, 1, 1.0, shape=(4,)).sum(), 0)
    found = mine.numbers(logits, 1, 1.0)
    mine.must(
        "a positive advantage: a step *against* the gradient raises the sampled token",
        found[1] < 0,
        f"{found[1]:.6g} on the sampled token",
        "a negative number there",
    )
    mine.must("it lowers all other tokens, likely ones more than unlikely ones", found[3] > found[0] > found[2] > 0)
    mine.equals("advantage 0 gives gradient 0", mine.numbers(logits, 1, 0.0), [0] * 4)
    mine.equals("the gradient is proportional to the advantage", mine.numbers(logits, 1, -3.0), -3 * found)
    sure = torch.tensor([20.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    mine.must("a token with probability close to 1 gets almost no gradient", abs(mine.numbers(sure, 0, 1.0)).max() < 1e-6)
    for seed in range(5):
        point, action = random_tensor(6, seed=seed).requires_grad_(), seed % 6
        (wanted,) = torch.autograd.grad(-0.7 * point.log_softmax(0)[action], point)
        mine.equals("it agrees with autograd", mine.numbers(point.detach(), action, 0.7), wanted)

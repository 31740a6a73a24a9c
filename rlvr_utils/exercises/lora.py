"""Checks of notebook 03: LoRA's first gradients, merging, parameter counts, Adam's first step, memory.

The checks import PyTorch themselves, because notebook 01 runs without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .attempts import Attempt, brief, close, exercise
from .grpo import random_tensor

if TYPE_CHECKING:
    from torch import Tensor

#: Llama-3.1-8B's hidden and inner width, attention heads, key/value heads and blocks, from its config.json.
LLAMA_8B = (4096, 14336, 32, 8, 32)


def lora_tensors(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return g (3, 5), x (3, 4), A (2, 4), B (5, 2): three rows and a rank-2 adapter from width 4 to width 5."""
    return tuple(random_tensor(*shape, seed=seed + i) for i, shape in enumerate(((3, 5), (3, 4), (2, 4), (5, 2))))


def two_gradients(mine: Attempt, g: Tensor, x: Tensor, A: Tensor, B: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Return the learner's gradients of A and B. Raises Broken unless they have the shapes of A and B."""
    result = mine(g, x, A, B, scale)
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        mine.fail("it returns two gradients, A's and B's", f"a {type(result).__name__}")
    shapes = [tuple(getattr(gradient, "shape", ())) for gradient in result]
    if shapes != [tuple(A.shape), tuple(B.shape)]:
        mine.fail("each gradient has the shape of its matrix", f"shapes {shapes}", f"{[tuple(A.shape), tuple(B.shape)]}")
    return tuple(result)


@exercise("03-first-gradients", "3.1 The first gradients", difficulty=3, minutes=15)
def check_first_gradients(mine: Attempt) -> None:
    """``my_gradients(g, x, A, B, scale)``: zero gradients at initialisation, sums over rows, the scale, autograd."""
    import torch

    g, x, A, B = lora_tensors()
    of_a, of_b = two_gradients(mine, g, x, A, torch.zeros_like(B), 2.0)
    mine.must("with B = 0, A has no gradient and B has a gradient", not of_a.any() and bool(of_b.any()))
    of_a, of_b = two_gradients(mine, g, x, torch.zeros_like(A), B, 2.0)
    mine.must("with A = 0, B has no gradient and A has a gradient", not of_b.any() and bool(of_a.any()))
    whole = two_gradients(mine, g, x, A, B, 2.0)
    first, rest = two_gradients(mine, g[:1], x[:1], A, B, 2.0), two_gradients(mine, g[1:], x[1:], A, B, 2.0)
    mine.must(
        "the gradient of several rows is the sum of the rows' gradients",
        all(close(w, a + b) for w, a, b in zip(whole, first, rest, strict=True)),
    )
    half = two_gradients(mine, g, x, A, B, 1.0)
    mine.must("twice the scale gives twice the gradients", all(close(w, 2 * h) for w, h in zip(whole, half, strict=True)))
    a, b = A.clone().requires_grad_(), B.clone().requires_grad_()
    wanted = torch.autograd.grad((g * (2.0 * (x @ a.T) @ b.T)).sum(), (a, b))
    for name, found, right in zip("AB", two_gradients(mine, g, x, A, B, 2.0), wanted, strict=True):
        mine.must("it agrees with autograd", close(found, right), f"for {name} {brief(found)}", brief(right))


@exercise("03-merge", "3.2 Merge by hand", difficulty=2, minutes=10)
def check_merge(mine: Attempt) -> None:
    """``my_merge(W, A, B, alpha)``: the merged layer gives the outputs of layer plus adapter, and W is unchanged."""
    import torch

    _, _, A, B = lora_tensors()
    W, x = random_tensor(5, 4, seed=9), random_tensor(7, 4, seed=8)
    untouched = W.clone()
    mine.equals("with B = 0 the merged weight is W", mine.numbers(W, A, torch.zeros_like(B), 8, shape=(5, 4)), untouched)
    merged = torch.as_tensor(mine.numbers(W, A, B, 8, shape=(5, 4)))
    mine.must("W itself is not changed", torch.equal(W, untouched), f"W is now {brief(W)}", "a new matrix")
    for alpha in (8, 32):
        merged = torch.as_tensor(mine.numbers(W, A, B, alpha, shape=(5, 4)))
        beside = x @ W.T + alpha / 2 * (x @ A.T) @ B.T
        mine.must(
            "the merged weight gives the same outputs as W plus the adapter, scaled by alpha / r",
            close(x @ merged.T, beside),
            f"outputs that differ by up to {(x @ merged.T - beside).abs().max().item():.6g}",
        )
    change = torch.as_tensor(mine.numbers(W, A, B, 8)) - W
    padded = torch.as_tensor(mine.numbers(W, torch.cat([A, 0 * A]), torch.cat([B, 0 * B], 1), 8)) - W
    mine.must("twice the rank at the same alpha halves the scale", close(padded, change / 2))


def lora_count(hidden: int, inner: int, n_heads: int, n_kv_heads: int, n_blocks: int, rank: int) -> int:
    """Return the number of LoRA parameters on all seven linear layers of each Llama block."""
    keys = hidden * n_kv_heads // n_heads
    return n_blocks * rank * (2 * 2 * hidden + 2 * (hidden + keys) + 3 * (hidden + inner))


@exercise("03-count", "3.3 Count the numbers", difficulty=3, minutes=15)
def check_count(mine: Attempt) -> None:
    """``my_lora_count(hidden, inner, n_heads, n_kv_heads, n_blocks, rank)``: rank, blocks, key/value heads, Llama-3.1-8B."""
    one = mine.numbers(*LLAMA_8B, 1, shape=())
    mine.equals("it is proportional to the rank", mine.numbers(*LLAMA_8B, 64), 64 * one)
    shape = (192, 512, 6, 2)
    mine.equals("it is proportional to the number of blocks", mine.numbers(*shape, 12, 16), 3 * mine.numbers(*shape, 4, 16))
    more, fewer = mine.numbers(192, 512, 6, 6, 1, 1), mine.numbers(192, 512, 6, 2, 1, 1)
    mine.equals("fewer key/value heads reduce only the output width of k and v", more - fewer, 2 * (192 - 64))
    wider, narrow = mine.numbers(192, 513, 6, 2, 1, 1), mine.numbers(192, 512, 6, 2, 1, 1)
    mine.equals(
        "three layers per block use the inner width: one unit more adds one parameter per rank to each", wider - narrow, 3
    )
    for arguments in ((*shape, 4, 16), (*LLAMA_8B, 16), (64, 160, 4, 4, 2, 3)):
        mine.equals(
            "it is the sum of rank x (in + out) over all seven layers",
            mine.numbers(*arguments),
            lora_count(*arguments),
            1e-9,
        )


def adams_change(A: Tensor, g: Tensor, x: Tensor, alpha: float, lr: float) -> Tensor:
    """Return the change of W after one step of torch's Adam on B, starting from B = 0."""
    import torch

    B = torch.zeros(len(g), len(A), dtype=A.dtype, requires_grad=True)
    scale = alpha / len(A)
    optimizer = torch.optim.Adam([B], lr=lr, eps=1e-12)
    (g * (scale * B @ (A @ x))).sum().backward()
    optimizer.step()
    return scale * B.detach() @ A


@exercise("03-first-step", "3.4 What Adam's first step does", difficulty=4, minutes=20)
def check_first_step(mine: Attempt) -> None:
    """``my_first_change(A, g, x, alpha, lr)``: direction, alpha against learning rate, rank, and Adam itself."""
    import torch

    A, g, x = random_tensor(2, 4), random_tensor(5, seed=1), random_tensor(4, seed=2)
    found = mine.numbers(A, g, x, 32, 1e-3, shape=(5, 4))
    uphill = float((found * torch.outer(g, x).numpy()).sum())
    mine.must("the change lowers the loss", uphill < 0, f"a change of the loss by {uphill:.6g}", "a negative change")
    mine.equals(
        "Adam's first step uses only signs: a gradient ten times as large changes nothing",
        mine.numbers(A, 10 * g, x, 32, 1e-3),
        found,
        what="for the larger gradient",
    )
    mine.must(
        "doubling alpha has the same effect as doubling the learning rate",
        close(mine.numbers(A, g, x, 64, 1e-3), mine.numbers(A, g, x, 32, 2e-3)),
    )
    mine.equals("twice the learning rate gives twice the change", mine.numbers(A, g, x, 32, 2e-3), 2 * found)
    doubled = mine.numbers(torch.cat([A, A]), g, x, 32, 1e-3)
    mine.equals("with alpha fixed, twice the rank (A's rows repeated) gives the same change", doubled, found)
    for seed in range(3):
        drawn = random_tensor(3, 6, seed=seed), random_tensor(4, seed=seed + 5), random_tensor(6, seed=seed + 9)
        wanted = adams_change(*drawn, 16, 1e-2)
        mine.equals("it agrees with torch's Adam", mine.numbers(*drawn, 16, 1e-2), wanted, 1e-4)


@exercise("03-memory", "3.5 Bytes for training", difficulty=2, minutes=10)
def check_memory(mine: Attempt) -> None:
    """``my_bytes(n_model, n_lora)``: bytes in memory during training, with an adapter or without one (None)."""
    bare = mine.numbers(8_000, 0, shape=())
    mine.equals("with 0 LoRA parameters only the model's weights remain, 2 bytes each", bare, 16_000)
    with_lora = mine.numbers(8_000, 10)
    mine.equals("each LoRA parameter takes 16 bytes: weight, gradient and two moments in float32", with_lora - bare, 10 * 16)
    more = mine.numbers(16_000, 10) - mine.numbers(8_000, 10)
    mine.equals("the frozen model needs no gradients and no moments", more, 8_000 * 2)
    mine.equals(
        "in full fine-tuning each parameter takes 8 bytes: weight, gradient and two moments in bfloat16",
        mine.numbers(8_000, None),
        8_000 * 8,
    )

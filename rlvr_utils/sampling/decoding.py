"""Our decoding loop: prefill each prompt once for all its samples, and drop finished rows from the batch.

``model.generate`` repeats the prefill for every sample, copies the whole cache at every token and keeps every row until
the longest has ended. This loop also computes the few-shot examples only once per batch. The distribution is the same:
the model's logits divided by the temperature, without truncation (no top-k, no top-p). Each row has its own uniform
random numbers, so a response depends neither on the batch size nor on when other rows end.

Not supported: beams, sliding windows, and models whose state is not a plain key-value cache (:func:`can_decode`). LoRA is
not merged into the weights. Merging would save a tenth of the time, but it changes the policy by rounding.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import takewhile

import torch
from peft import PeftModel
from transformers import DynamicCache
from transformers.cache_utils import Cache, DynamicLayer

ROOM = 64  # tokens by which the cache grows at a time
WORTH_SHARING = 32  # tokens: for a shorter common prefix a separate forward pass costs more than it saves
KEPT_UNTIL = 7 / 8  # drop finished rows when at most this share of rows is unfinished (copying costs time)

#: Keys and values of one layer, ``(1, heads, length, size)`` each.
Layer = tuple[torch.Tensor, torch.Tensor]


class RoomyLayer(DynamicLayer):
    """A cache layer that writes new tokens in place, where ``DynamicLayer`` copies the whole cache."""

    slab: list[torch.Tensor] | None = None

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs) -> Layer:
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if self.slab is None or end > self.slab[0].shape[-2]:
            self.lazy_initialization(key_states, value_states)
            grown = [new.new_empty(*new.shape[:2], end + ROOM, new.shape[-1]) for new in (key_states, value_states)]
            for new, old in zip(grown, self.slab or (), strict=False):
                new[:, :, :start] = old[:, :, :start]
            self.slab = grown
        for slab, new in zip(self.slab, (key_states, value_states), strict=True):
            slab[:, :, start:end] = new
        self.keys, self.values = (slab[:, :, :end] for slab in self.slab)
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        end = self.get_seq_length()
        self.slab = [slab.index_select(0, indices) for slab in self.slab]
        self.keys, self.values = (slab[:, :, :end] for slab in self.slab)


def can_decode(model) -> bool:
    """Whether this loop supports the model: it accepts positions, and its only state is a plain key-value cache."""
    needed = {"position_ids", "past_key_values", "logits_to_keep"}
    return needed <= set(inspect.signature(model.forward).parameters) and all(
        type(layer) is DynamicLayer for layer in DynamicCache(config=model.config).layers
    )


@contextmanager
def sampling_mode(model) -> Iterator:
    """The model without PEFT's wrapper (its adapter stays active), in evaluation mode within the block."""
    training = model.training
    model.eval()
    try:
        yield model.get_base_model() if isinstance(model, PeftModel) else model
    finally:
        model.train(training)


def choose(logits: torch.Tensor, uniform: torch.Tensor, temperature: float) -> torch.Tensor:
    """One token per row by inverse transform sampling: the first whose cumulative probability exceeds ``uniform``.

    Args:
        logits: ``(rows, vocabulary)``.
        uniform: ``(rows,)``, float64 in [0, 1).
        temperature: 0 takes the most likely token.

    Returns:
        Token ids ``(rows,)``.
    """
    if not temperature:
        return logits.argmax(-1)
    weights = logits.to(torch.float64, copy=True)  # in place below: allocating large tensors takes half of the time
    weights -= weights.amax(-1, keepdim=True)
    cumulated = weights.div_(temperature).exp_().cumsum_(-1)
    index = torch.searchsorted(cumulated, uniform[:, None] * cumulated[:, -1:], right=True)
    return index[:, 0].clamp(max=logits.shape[-1] - 1)


def common_beginning(prompt_ids: list[list[int]]) -> int:
    """Length of the common prefix of all prompts, leaving at least one token each. 0 if too short to pay off."""
    alike = (len(set(tokens)) == 1 for tokens in zip(*prompt_ids, strict=False))
    n = min(sum(takewhile(bool, alike)), min(map(len, prompt_ids)) - 1)
    return n if n >= WORTH_SHARING else 0


@torch.no_grad()
def read_beginning(model, prompt_ids: list[list[int]]) -> list[Layer]:
    """Keys and values, per layer, of the common prefix (such as few-shot examples). Empty if it is too short."""
    n = common_beginning(prompt_ids)
    if not n:
        return []
    cache = Cache(layer_class_to_replicate=DynamicLayer)
    ids = torch.tensor([prompt_ids[0][:n]], device=model.device)
    model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return [(layer.keys, layer.values) for layer in cache.layers]


def read_prompts(model, prompt_ids: list[list[int]], beginning: list[Layer], pad: int) -> tuple:
    """Prefill each distinct prompt once.

    Returns:
        Next-token logits ``(rows, vocabulary)``, the cache of all rows and their attention mask ``(rows, length)``.
    """
    distinct = list(dict.fromkeys(map(tuple, prompt_ids)))
    place = {ids: i for i, ids in enumerate(distinct)}
    cache = Cache(layer_class_to_replicate=RoomyLayer)
    for i, layer in enumerate(beginning):
        cache.update(*(states.expand(len(distinct), -1, -1, -1) for states in layer), i)
    shared = cache.get_seq_length() if beginning else 0
    width = max(map(len, distinct))
    ids = torch.tensor([(pad,) * (width - len(p)) + p[shared:] for p in distinct], device=model.device)
    mask = torch.tensor(
        [[1] * shared + [0] * (width - len(p)) + [1] * (len(p) - shared) for p in distinct], device=model.device
    )
    positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, shared:]
    logits = model(
        input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1
    ).logits[:, -1]
    rows = torch.tensor([place[tuple(p)] for p in prompt_ids], device=model.device)
    cache.batch_select_indices(rows)
    return logits[rows], cache, mask[rows]


@torch.no_grad()
def decode(
    model,
    prompt_ids: list[list[int]],
    beginning: list[Layer],
    *,
    max_new_tokens: int,
    temperature: float,
    pad: int,
    ended: Callable[[torch.Tensor], torch.Tensor],
) -> list[list[int]]:
    """New tokens per prompt. A row may continue past its end, because finished rows are dropped in groups.

    Args:
        model: from :func:`sampling_mode`.
        beginning: from :func:`read_beginning`, for these prompts and possibly more.
        ended: takes the new tokens so far ``(rows, n)``, returns which rows end with the last one ``(rows,)``.
    """
    logits, cache, mask = read_prompts(model, prompt_ids, beginning, pad)
    uniform = torch.rand(len(prompt_ids), max_new_tokens, dtype=torch.float64, device=model.device)
    tokens = torch.full(uniform.shape, pad, device=model.device)
    position, mask = mask.sum(-1, keepdim=True), torch.nn.functional.pad(mask, (0, max_new_tokens), value=1)
    batch, alive = torch.arange(len(tokens), device=model.device), torch.ones_like(tokens[:, 0], dtype=torch.bool)
    for n in range(max_new_tokens):
        last = choose(logits, uniform[batch, n], temperature)
        tokens[batch, n] = last
        alive &= ~ended(tokens[batch, : n + 1])
        if n + 1 == max_new_tokens or not alive.any():
            break
        if alive.sum() <= KEPT_UNTIL * len(alive):
            keep = alive.nonzero()[:, 0]
            cache.batch_select_indices(keep)
            batch, alive, last, position, mask = (x[keep] for x in (batch, alive, last, position, mask))
        seen = cache.get_seq_length() + 1
        logits = model(
            input_ids=last[:, None],
            attention_mask=mask[:, :seen],
            position_ids=position + n,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
    return tokens[:, : n + 1].tolist()

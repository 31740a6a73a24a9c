r"""Compute a shared prompt once: G responses to a prompt cost P + G·R tokens instead of G·(P + R).

A micro-batch is a tree. At its root are the tokens that all prompts begin with (few-shot examples), below
it the rest of each prompt, below that its responses. Here the whole tree goes through the network as *one* row, each
token once and no padding::

    [ few-shot examples | rest of prompt 1 | rest of prompt 2 | … | response 1 | response 2 | … ]

Only attention needs to change, because all other parts of a transformer treat each token separately. A token attends only
to its own branch, from the root to itself. :func:`tree_attention` gathers the keys of each branch and calls PyTorch's
attention. There is no cache and no second forward pass, so one backward pass is enough, and gradient checkpointing and
data parallelism work as usual.

The idea is that of Prefix Grouper (Liu et al. 2025, arXiv:2506.05433) with the root added; the code is ours.
"""

from __future__ import annotations

import contextlib
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "shared_prefix"  # the name under which our attention is registered
ROOT_PAYS = 16  # tokens: a shorter root costs more, by one attention call per layer, than it saves

#: Attention variants that are not supported: option of transformers' attention -> its name.
UNKNOWN = {
    "sliding_window": "a sliding window",
    "softcap": "capped scores",
    "s_aux": "attention sinks",
    "sinks": "attention sinks",
    "position_bias": "a bias by position",
    "indices": "sparse attention",
}
#: Allowed mean difference of the log-probabilities in nats, by precision. It covers rounding.
ROUNDING = {torch.float64: 1e-6, torch.float32: 1e-3}
COARSE = 0.1  # in bfloat16 and float16
PROBED = 20  # tokens that the rows of the comparison begin with: enough for a root


class Branches(NamedTuple):
    """Some branches of the tree that attend together. A *place* is an index into the packed row.

    Attributes:
        queries: (branches, length) places of their own tokens; padding holds any place.
        keys: (branches, path) places of all tokens from the root to their last own token.
        mask: (branches or 1, 1, length, path), True where a query may look.
        real: (tokens,) which of the ``branches * length`` queries are no padding.
    """

    queries: Tensor
    keys: Tensor
    mask: Tensor
    real: Tensor


class Packed(NamedTuple):
    """A micro-batch as one row of T tokens.

    Attributes:
        input_ids: (1, T).
        position_ids: (1, T), counted along each branch from the root.
        labels: (1, T) the token that each position predicts, or -100 where none is needed.
        tree: which tokens attend to which.
        places: (N, R) where the log-probability of each response token is computed.
        asked: (N, R) which of them are tokens and no padding.
    """

    input_ids: Tensor
    position_ids: Tensor
    labels: Tensor
    tree: list[Branches]
    places: Tensor
    asked: Tensor


def spread(starts: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Places of runs of tokens as a padded table: ``(places, is_token)``, both (runs, longest)."""
    offsets = torch.arange(int(lengths.max()), device=lengths.device)
    is_token = offsets < lengths[:, None]
    return (starts[:, None] + offsets).masked_fill(~is_token, 0), is_token


def attend(own: Tensor, is_token: Tensor, above: Tensor, above_is_token: Tensor) -> Branches:
    """Branches whose tokens look at everything above them and, causally, at their own.

    Args:
        own, is_token: (branches, length) from :func:`spread`.
        above, above_is_token: (branches, path above) the same for all tokens from the root to their parent.
    """
    n, length = own.shape
    if above_is_token.all():  # no gaps: one mask serves all branches
        above_is_token, n = above_is_token[:1], 1
    causal = torch.ones(length, length, dtype=torch.bool, device=own.device).tril()
    mask = torch.cat([above_is_token[:, None].expand(n, length, -1), causal.expand(n, -1, -1)], dim=2)
    return Branches(own, torch.cat([above, own], dim=1), mask[:, None], is_token.flatten().nonzero().flatten())


def distinct_prompts(prompt_ids: Tensor, prompt_mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Each prompt once: ``(ids (n, P) without left padding, lengths (n,), which of them each row has (N,))``."""
    marked, prompt_of = prompt_ids.masked_fill(prompt_mask == 0, -1).unique(dim=0, return_inverse=True)
    padding_last = (marked < 0).to(torch.uint8).argsort(dim=1, stable=True)
    return marked.gather(1, padding_last), (marked >= 0).sum(1), prompt_of


def root_length(prompts: Tensor, lengths: Tensor) -> int:
    """Length of the common prefix, excluding the last token of each prompt. 0 if a root would not save time."""
    same = (prompts == prompts[0]).all(dim=0)[: int(lengths.min()) - 1]
    length = int(same.cumprod(0).sum())
    return length if len(prompts) > 1 and length >= ROOT_PAYS else 0


def pack(prompt_ids: Tensor, prompt_mask: Tensor, completion_ids: Tensor, completion_mask: Tensor) -> Packed:
    """A micro-batch in TRL's layout as one row without repetitions.

    The last token of a prompt predicts the first token of each response, so it goes with the responses: a response of R
    tokens is then R inputs, the last token of the prompt and all of its own but the last.

    Args:
        prompt_ids, prompt_mask: (N, P), padded on the left.
        completion_ids, completion_mask: (N, R), padded on the right.
    """
    prompts, lengths, prompt_of = distinct_prompts(prompt_ids, prompt_mask)
    openings, root = prompts.gather(1, lengths[:, None] - 1), root_length(prompts, lengths)
    stem_lengths, leaf_lengths = lengths - 1 - root, completion_mask.sum(1).clamp(min=1)
    root_places, root_is = spread(lengths.new_zeros(1), lengths.new_full((1,), root))
    stem_places, stem_is = spread(root + stem_lengths.cumsum(0) - stem_lengths, stem_lengths)
    leaf_places, leaf_is = spread(root + stem_lengths.sum() + leaf_lengths.cumsum(0) - leaf_lengths, leaf_lengths)
    n, longest = len(prompts), leaf_places.shape[1]

    trunk = torch.cat([root_places.expand(n, -1), stem_places], dim=1)
    trunk_is = torch.cat([root_is.expand(n, -1), stem_is], dim=1)
    tree = [
        attend(root_places, root_is, root_places[:, :0], root_is[:, :0]),
        attend(stem_places, stem_is, root_places.expand(n, -1), root_is.expand(n, -1)),
        attend(leaf_places, leaf_is, trunk[prompt_of], trunk_is[prompt_of]),
    ]

    leaf_ids = torch.cat([openings[prompt_of], completion_ids[:, :-1]], dim=1)[:, :longest]
    ids = [prompts[0, :root], prompts[:, root : root + stem_places.shape[1]][stem_is], leaf_ids[leaf_is]]
    positions = [
        torch.arange(root, device=lengths.device),
        root + offsets(stem_is),
        (lengths - 1)[prompt_of].repeat_interleave(leaf_lengths) + offsets(leaf_is),
    ]
    labels = completion_ids.masked_fill(completion_mask == 0, -100)[:, :longest][leaf_is]
    asked = completion_mask.bool()
    return Packed(
        torch.cat(ids)[None],
        torch.cat(positions)[None],
        torch.cat([labels.new_full((root + int(stem_lengths.sum()),), -100), labels])[None],
        [branches for branches in tree if branches.real.numel()],
        torch.nn.functional.pad(leaf_places, (0, asked.shape[1] - longest)),
        asked,
    )


def offsets(is_token: Tensor) -> Tensor:
    """(tokens,) the column of each token of a padded table."""
    return is_token.nonzero()[:, 1]


def tree_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    tree: list[Branches] | None = None,
    **options,
) -> tuple[Tensor, None]:
    """Attention for transformers' attention interface: along each branch of ``tree``, or standard attention without a tree.

    Args:
        query, key, value: (1, heads, T, size) of the packed row.

    Returns:
        (1, T, heads, size).

    Raises:
        ValueError: the layer's attention is of a kind that :data:`UNKNOWN` lists.
    """
    if kind := unknown(options):  # also without a tree, because PyTorch's attention silently ignores most of them
        raise ValueError(
            f"This model's attention has {kind}, which shared_prefix does not support. Set shared_prefix=False."
        )
    if tree is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    scaling, dropout = options.get("scaling"), options.get("dropout", 0.0)
    return torch.cat([along(branches, query, key, value, scaling, dropout) for branches in tree])[None], None


def unknown(options: dict) -> str | None:
    """The first unsupported option in an attention call, or None."""
    return next((kind for option, kind in UNKNOWN.items() if options.get(option) is not None), None)


def along(branches: Branches, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, dropout: float) -> Tensor:
    """Attention of some branches: (tokens, heads, size).

    Query heads that share keys become further queries of one head. This avoids repeating the keys, which take most of the
    memory for the backward pass.
    """
    heads_of_key = query.shape[1] // key.shape[1]
    # (branches, length, key heads, of each, size)
    asking = at_places(query, branches.queries).unflatten(2, (-1, heads_of_key))
    keys, values = (at_places(x, branches.keys).transpose(1, 2) for x in (key, value))
    out = torch.nn.functional.scaled_dot_product_attention(
        asking.transpose(1, 2).flatten(2, 3),
        keys,
        values,
        attn_mask=branches.mask.repeat_interleave(heads_of_key, 2),
        dropout_p=dropout,
        scale=scaling,
    )
    out = out.unflatten(2, (-1, heads_of_key)).transpose(1, 2)  # (branches, length, key heads, of each, size)
    return out.flatten(2, 3).flatten(0, 1).index_select(0, branches.real)


def at_places(x: Tensor, places: Tensor) -> Tensor:
    """(1, heads, T, size) at (branches, length) places: (branches, length, heads, size)."""
    return x[0].transpose(0, 1).index_select(0, places.flatten()).unflatten(0, places.shape)


AttentionInterface.register(ATTENTION, tree_attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def enable(model: PreTrainedModel) -> None:
    """Enable tree attention in a model. Without a tree it works as before.

    Raises:
        ValueError: the model does not support it, or gives other log-probabilities along a tree than row by row.
    """
    refuse_unsuitable(model)
    rows = [list(range(1, 20)) + rest for rest in ([1, 2, 3, 4, 5], [1, 2, 6, 7], [3, 4, 5])]
    vocabulary = model.config.get_text_config().vocab_size
    rows = [[token % vocabulary for token in row] for row in rows]
    usual, training = model.config._attn_implementation, model.training
    model.eval()
    with torch.no_grad():
        expected = [own_logps(model(input_ids=torch.tensor([row], device=model.device)).logits[0], row) for row in rows]
        model.set_attn_implementation(ATTENTION)
        try:
            found = branch_logps(model, rows)
        except ValueError:
            model.set_attn_implementation(usual)
            raise
    model.train(training)
    apart = float((torch.cat(expected) - torch.cat(found)).abs().mean())
    if not apart <= ROUNDING.get(model.dtype, COARSE):
        model.set_attn_implementation(usual)
        raise ValueError(
            f"Along a shared prefix {type(model).__name__} gives other probabilities than row by row "
            f"({apart:.2g} nats per token apart). Parts other than its attention mix tokens. "
            "Set shared_prefix=False."
        )


def refuse_unsuitable(model: PreTrainedModel) -> None:
    """Check what is visible without weights. :func:`enable` also compares probabilities.

    Raises:
        ValueError: the model's attention cannot be replaced, or a layer keeps more than keys and values.
    """
    if not model._supports_attention_backend:
        raise ValueError(
            f"{type(model).__name__} has a fixed attention, which shared_prefix cannot replace. Set shared_prefix=False."
        )
    kinds = {type(layer).__name__ for layer in DynamicCache(config=model.config).layers if type(layer) is not DynamicLayer}
    if kinds:
        kind = "a sliding window" if any("Sliding" in name for name in kinds) else f"layers of another kind ({min(kinds)})"
    else:
        kind = seen_by_attention(model) if model.device.type == "meta" else None
    if kind:
        raise ValueError(
            f"{type(model).__name__} has {kind}, which shared_prefix does not support. Set shared_prefix=False."
        )


def seen_by_attention(model: PreTrainedModel) -> str | None:
    """The first unsupported feature of a model's attention, found by a probe on the meta device, or None."""
    found = []

    def probe(module, query, key, value, attention_mask=None, tree=None, **options):
        found.append(unknown(options) or ("layers that pass nothing on to their attention" if tree is None else None))
        return query.transpose(1, 2), None

    AttentionInterface.register("probe", probe)
    AttentionMaskInterface.register("probe", sdpa_mask)
    usual = model.config._attn_implementation
    ids = torch.zeros(1, 2, dtype=torch.long, device=model.device)
    model.set_attn_implementation("probe")
    with contextlib.suppress(Exception):  # some layers, such as experts, do not run on the meta device
        model(input_ids=ids, position_ids=ids, attention_mask=torch.ones(1, 1, 1, 1, device=model.device), tree=[])
    model.set_attn_implementation(usual)
    return next(filter(None, found), None)


def own_logps(logits: Tensor, row: list[int]) -> Tensor:
    """(len(row) - 1,) the log-probability of each token after the first, from the row's own logits."""
    logps = logits.float().log_softmax(-1)
    return logps[:-1].gather(1, torch.tensor(row[1:], device=logits.device)[:, None])[:, 0][PROBED:]


def branch_logps(model: PreTrainedModel, rows: list[list[int]]) -> list[Tensor]:
    """The same for rows of one batch, computed along their tree."""
    prompts, ends = [row[: PROBED + 1] for row in rows], [row[PROBED + 1 :] for row in rows]
    longest = max(map(len, ends))
    ids = torch.tensor([end + [0] * (longest - len(end)) for end in ends], device=model.device)
    mask = torch.tensor([[1] * len(end) + [0] * (longest - len(end)) for end in ends], device=model.device)
    prompt_ids = torch.tensor(prompts, device=model.device)
    packed = pack(prompt_ids, torch.ones_like(prompt_ids), ids, mask)
    logits = model(**tree_inputs(packed)).logits[0].float().log_softmax(-1)  # (T, vocabulary)
    logps = logits[packed.places].gather(2, ids[:, :, None])[:, :, 0]
    return [row[: len(end)] for row, end in zip(logps, ends, strict=True)]


def tree_inputs(packed: Packed) -> dict:
    """The model's inputs for a packed row."""
    ready = torch.ones(1, 1, 1, 1, device=packed.input_ids.device)  # a 4D mask keeps the model from building its own
    return {"input_ids": packed.input_ids, "position_ids": packed.position_ids, "attention_mask": ready, "tree": packed.tree}


def token_logps(model, packed: Packed) -> tuple[Tensor, Tensor | None]:
    """Log-probabilities of the response tokens, and entropies, both (N, R) with 0 at padding.

    Args:
        model: with TRL's fused head (``trl.trainer.utils.add_fused_lm_head``), possibly wrapped, after :func:`enable`.
    """
    output = model(**tree_inputs(packed), shift_labels=packed.labels, fused_lm_head=True)
    return tuple(None if x is None else unpack(x, packed) for x in (output.log_probs, output.entropy))


def unpack(values: Tensor, packed: Packed) -> Tensor:
    """(1, T) back to (N, R), 0 at padding."""
    return values[0].index_select(0, packed.places.flatten()).view_as(packed.places).masked_fill(~packed.asked, 0)

"""View of notebook 07: the effect of one optimizer step on each token of a response."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial

import torch
from transformers import PreTrainedTokenizerBase

from ..grpo import grpo_loss
from ..grpo.variants import GSPO_RANGE
from ..profiles import Profile
from .frame import Markup, Output, interactive_or_static, picker, table, token_name

#: Name -> the loss's arguments in TRL.
LOSSES = {
    "dapo": {"loss_type": "dapo"},
    "grpo": {"loss_type": "grpo"},
    "dr_grpo": {"loss_type": "dr_grpo"},
    "gspo": {"loss_type": "grpo", "importance_sampling_level": "sequence", **GSPO_RANGE},
    "cispo": {"loss_type": "cispo", "epsilon_high": 5.0},
}
#: The update to show: the one that was taken, with all ratios 1, or a second one on the same samples.
UPDATES = {"the update that was taken": "before", "a second update on the same samples": "after"}
UP, DOWN = (0, 158, 115), (213, 94, 0)  # backgrounds on which black text is readable


def padded(rows: Sequence[Mapping], name: str) -> torch.Tensor:
    """Return the values of one column, shape (B, T), 0 in the padding."""
    longest = max(len(row["ids"]) for row in rows)
    return torch.tensor([[*row[name], *[0.0] * (longest - len(row["ids"]))] for row in rows])


def token_pushes(rows: Sequence[Mapping], loss: str, update: str, p: Profile) -> list[list[float]]:
    """Return minus the derivative of the loss with respect to each token's log-probability.

    A token with a positive value becomes more likely.

    Args:
        rows: all responses of one step, from ``Run.tokens``. The loss averages over all of them.
        loss: a key of :data:`LOSSES`.
        update: ``"before"`` or ``"after"``, the policy at which to take the derivative.

    Returns:
        One list per row, as long as its ``ids``.
    """
    logps_BT = padded(rows, update).requires_grad_()
    options = {"epsilon": p.epsilon, "epsilon_high": p.epsilon_high, "max_completion_length": p.max_completion_length}
    grpo_loss(
        logps_BT,
        torch.tensor([row["advantage"] for row in rows]),
        padded(rows, "sampled"),
        old_per_token_logps=sampled_logps(rows),
        **options | LOSSES[loss],
    ).backward()
    return [push[: len(row["ids"])].tolist() for push, row in zip(-logps_BT.grad, rows, strict=True)]


def contributions(rows: Sequence[Mapping], loss: str, update: str, p: Profile) -> list[list[float]]:
    """Return the push on each token's own logit, ``push * (1 - probability)``. It is 0 for a token of probability 1."""
    pushes = token_pushes(rows, loss, update, p)
    return [
        [push * (1 - math.exp(logp)) for push, logp in zip(row_pushes, row[update], strict=True)]
        for row_pushes, row in zip(pushes, rows, strict=True)
    ]


def sampled_logps(rows: Sequence[Mapping]) -> torch.Tensor:
    """Return the sampling policy's log-probabilities, shape (B, T): ``old`` if recorded, else ``before``."""
    return padded(rows, "old" if "old" in rows[0] else "before")


def token_boxes(tokens: Sequence[str], row: Mapping, ratios: Sequence[float], pushes: Sequence[float]) -> Markup:
    """Return the escaped tokens, each with its probability before and after, its ratio and its contribution."""
    largest = max(map(abs, pushes), default=0) or 1.0
    boxes, spelled = [], []
    for token, before, after, ratio, push in zip(tokens, row["before"], row["after"], ratios, pushes, strict=True):
        name = token_name(token)
        mark = "\u25b2" if push > 0 else "\u25bc" if push < 0 else "\u00b7"
        red, green, blue = UP if push > 0 else DOWN
        style = (
            "display:inline-block;text-align:center;margin:1px;padding:0 3px;color:black;background-color:white;"
            f"background-image:linear-gradient(rgba({red},{green},{blue},{0.7 * abs(push) / largest:.2f}) 0 0)"
        )
        numbers = f"{percent(before)}\u2192{percent(after)}<br>\u00d7{ratio:.3f}<br>{mark} {1000 * abs(push):.2f}"
        code = f'<code style="background:none;color:black">{name}</code>'
        boxes.append(f'<span style="{style}">{code}<br><small>{numbers}</small></span>')
        spelled.append(f"{token!r} {percent(before)}->{percent(after)} x{ratio:.3f} {mark}{1000 * abs(push):.2f}")
    return Markup(" ".join(boxes), "  ".join(spelled))


def percent(logp: float) -> str:
    """Return a log-probability as a percentage."""
    return f"{100 * math.exp(logp):.0f}" if math.exp(logp) < 0.995 else ">99"


def draw_tokens(
    steps: Mapping[int, Sequence[Mapping]],
    tokenizer: PreTrainedTokenizerBase,
    p: Profile,
    step: int,
    group: int,
    response: int,
    loss: str,
    update: str,
) -> Output:
    """Return a table with the tokens of one response.

    Raises:
        ValueError: this step has no such group or response.
    """
    rows = steps[step]
    members = [i for i, row in enumerate(rows) if row["group"] == group - 1]
    if response > len(members):
        raise ValueError(f"Step {step} has {len(members)} recorded responses in group {group}. Choose another response.")
    i = members[response - 1]
    row, at = rows[i], UPDATES[update]
    ratios = (padded(rows, at) - sampled_logps(rows)).exp()[i, : len(row["ids"])].tolist()
    boxes = token_boxes([tokenizer.decode([t]) for t in row["ids"]], row, ratios, contributions(rows, loss, at, p)[i])
    others = ", ".join(f"{rows[j]['advantage']:+.2f}" for j in members)
    return table(
        f"Step {step}, group {group}, response {response} of {len(members)}: advantage {row['advantage']:+.2f} "
        f"(advantages of the group: {others})",
        (row["prompt"].rpartition("Question: ")[2].removesuffix("\nAnswer:").strip(),),
        [(boxes,)],
        "Below each token: its probability in percent before and after the step, its importance ratio, and its contribution "
        f"to the gradient in thousandths under {loss}. \u25b2 green: the update makes it more likely. \u25bc orange: it "
        "becomes less likely. \u00b7: no effect.",
    )


def token_inspector(
    steps: Mapping[int, Sequence[Mapping]],
    tokenizer: PreTrainedTokenizerBase,
    p: Profile,
    step: int,
    group: int = 1,
    response: int = 1,
) -> None:
    """Show one response of one step, with controls for step, group, response, loss and update in a live notebook.

    Args:
        steps: ``Run.tokens``.
        p: the run's profile, for its loss, clip range and length limit.
    """
    most = max(sum(row["group"] == 0 for row in rows) for rows in steps.values())
    groups = 1 + max(row["group"] for rows in steps.values() for row in rows)
    loss = p.loss_type if p.loss_type in LOSSES else "dapo"
    interactive_or_static(
        "tokens",
        partial(draw_tokens, steps, tokenizer, p),
        {
            "step": picker("step", step, list(steps), stepwise=True),
            "group": picker("group", group, range(1, groups + 1)),
            "response": picker("response", response, range(1, most + 1)),
            "loss": picker("loss", loss, tuple(LOSSES)),
            "update": picker("update", next(iter(UPDATES)), tuple(UPDATES)),
        },
    )

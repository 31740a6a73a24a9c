"""Dynamic sampling: further problems in place of groups whose rewards are all equal (DAPO, arXiv:2503.14476).

These are zero-advantage groups, which add nothing to the gradient. DAPO draws further prompts until a step has its full
number of groups with different rewards. We do the same up to a limit of ``dynamic_sampling`` further problems per step. If
groups are still missing at that limit, zero-advantage groups fill the batch, so that every step has the same size.

The further problems come next in the training order. Their position is computed from the log in the trainer's state, which
is part of every checkpoint. A resumed run therefore continues at the same problem.

TRL's metrics (reward, lengths, share of equal groups) are those of the first draw. A step without dynamic sampling would log
the same values. The mean reward of the kept groups would not measure the policy, because they are selected by their
rewards. The draws of a step are logged as :data:`~rlvr_utils.runs.PROMPTS_DRAWN`, ``SAMPLES_DRAWN`` and ``GROUPS_KEPT``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..grpo import group_advantages
from ..runs import GROUPS_KEPT, PROMPTS_DRAWN, SAMPLES_DRAWN

#: The column with the index of the draw within the step, 0 for the first. Reward functions receive it.
DRAW = "draw_number"


class DynamicSampling:
    """Mixin for a trainer class: with ``further_prompts`` above 0, a generation replaces zero-advantage groups."""

    further_prompts = 0  # the maximum per generation
    rewards: Tensor  # (N,) of the latest draw

    def _calculate_rewards(self, *args):
        rewards = super()._calculate_rewards(*args)  # (N, 1): we have one reward function
        self.rewards = rewards[:, 0]
        return rewards

    def _generate_and_score_completions(self, inputs):
        if not self.further_prompts or not self.model.training:
            return super()._generate_and_score_completions(inputs)
        groups = len(inputs) // self.num_generations
        drawn, draws, rewards, varied = 0, [], [], []
        while drawn < groups + self.further_prompts:
            missing = groups - sum(int(part.sum()) for part in varied)
            if not missing:
                break
            n = min(missing, groups + self.further_prompts - drawn)
            draws.append(self.draw(drawn, n, number=len(draws)))
            rewards.append(self.rewards.view(-1, self.num_generations))
            varied.append(differ(rewards[-1]))
            drawn += n
        kept = sum(int(part.sum()) for part in varied)
        for name, value in ((PROMPTS_DRAWN, drawn), (SAMPLES_DRAWN, drawn * self.num_generations), (GROUPS_KEPT, kept)):
            self._metrics["train"][name].append(float(value))
        if not any(part.any() for part in varied[1:]):
            return draws[0]  # no replacements, so the first draw is the batch
        return self.join(draws, rewards, chosen(varied, groups))

    def draw(self, skip: int, n: int, number: int) -> dict:
        """Sample and score the next ``n`` problems of the training order, after the first ``skip`` of this generation.

        Returns:
            TRL's dictionary with ``n * num_generations`` rows. Only the first draw is logged in TRL's metrics.
        """
        first = skip + int(sum(row.get(PROMPTS_DRAWN, 0) for row in self.state.log_history))
        rows = [self.train_dataset[i] | {DRAW: number} for i in range(first, first + n) for _ in range(self.num_generations)]
        metrics = self._metrics["train"]
        before = {name: list(values) for name, values in metrics.items()}
        made = super()._generate_and_score_completions(rows)
        if number:
            metrics.clear()
            metrics.update(before)
            metrics["num_tokens"] = [self.state.num_input_tokens_seen]  # a sum over all draws
        return made

    def join(self, draws: list[dict], rewards: list[Tensor], groups: list[Tensor]) -> dict:
        """TRL's dictionary for the chosen groups of all draws, in the form of a single generation."""
        size = self.num_generations
        rows = [(part[:, None] * size + torch.arange(size, device=part.device)).flatten() for part in groups]
        batch = joined(draws, rows, self.processing_class.pad_token_id)
        if self.scale_rewards == "batch":  # the only scaling that depends on the other groups
            kept = torch.cat([part[index] for part, index in zip(rewards, groups, strict=True)])
            batch["advantages"] = group_advantages(kept.flatten(), size, "batch")
        batch["num_items_in_batch"] = (batch["completion_mask"] * batch["tool_mask"]).sum()
        return batch


def differ(rewards: Tensor) -> Tensor:
    """Which groups have different rewards: ``(groups, G)`` to ``(groups,)``. Missing rewards (NaN) are ignored."""
    inf = float("inf")
    return rewards.nan_to_num(-inf).amax(1) > rewards.nan_to_num(inf).amin(1)


def chosen(varied: Sequence[Tensor], groups: int) -> list[Tensor]:
    """The groups of each draw to train on: all with different rewards, then others from the first draw to fill the batch."""
    found = [part.nonzero()[:, 0] for part in varied]
    lacking = groups - sum(map(len, found))
    others = (~varied[0]).nonzero()[:, 0][:lacking]
    return [torch.cat([found[0], others]), *found[1:]]


def joined(draws: Sequence[dict], rows: Sequence[Tensor], pad_token: int) -> dict[str, Tensor]:
    """Join the chosen rows of several TRL dictionaries, padded to the longest prompt and response as in TRL."""
    batch = {}
    for name, value in draws[0].items():
        if not torch.is_tensor(value) or not value.ndim:
            continue
        parts = [draw[name][index] for draw, index in zip(draws, rows, strict=True)]
        if value.ndim == 2:  # (N, tokens)
            longest = max(part.shape[1] for part in parts)
            fill = pad_token if name.endswith("_ids") else 0
            gaps = [longest - part.shape[1] for part in parts]  # prompts are padded on the left, responses on the right
            sides = [(gap, 0) if name.startswith("prompt") else (0, gap) for gap in gaps]
            parts = [pad(part, side, value=fill) for part, side in zip(parts, sides, strict=True)]
        batch[name] = torch.cat(parts)
    used = {side: batch[f"{side}_mask"].any(0) for side in ("prompt", "completion")}
    return {
        name: value[:, used["prompt" if name.startswith("prompt") else "completion"]] if value.ndim == 2 else value
        for name, value in batch.items()
    }

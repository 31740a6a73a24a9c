"""Record what an optimizer step does to its tokens: their log-probabilities before and after, every tenth step.

Notebook 07 shows advantage, importance ratio and gradient weight of each token from these numbers. They cost two forward
passes over a few responses and some kilobytes per recorded step, where an adapter per step would take a thousand times that.
"""

from __future__ import annotations

import torch
from transformers import TrainerCallback

from ..profiles import Profile
from ..runs import RunWriter
from .processes import is_first
from .rewards import is_recorded

#: Groups per recorded step.
GROUPS = 4
#: What is taken from TRL's dictionary. ``tool_mask`` is 0 at end tokens that the policy did not sample.
TENSORS = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "tool_mask", "advantages")
OLD = "old_per_token_logps"  # only where the policy was updated since it sampled


class TokenRecorder(TrainerCallback):
    """Writes ``rollouts/tokens-STEP.jsonl.gz`` at the steps whose training responses are recorded.

    Attributes:
        trainer: set when it is built; its buffer holds the responses of the current step.
    """

    trainer = None

    def __init__(self, p: Profile, writer: RunWriter):
        self.p, self.writer, self.rows = p, writer, []

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        """The gradient is there, the weights are still those before the step."""
        step = state.global_step + 1
        self.rows = []
        if is_first() and is_recorded(step, self.p.log_rollouts_every):
            self.batch = first_groups(current_batch(self.trainer))
            self.rows = token_rows(self.batch, self.trainer.processing_class, self.p.group_size)
            self.add("before")

    def on_step_end(self, args, state, control, **kwargs):
        """The weights are those after the step."""
        if self.rows:
            self.add("after")
            self.writer.log_tokens(state.global_step, self.rows)

    @torch.no_grad()
    def add(self, name: str) -> None:
        """Put the current log-probability of every token into the rows."""
        trainer, batch = self.trainer, self.batch
        ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
        mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
        logps_BT, *_ = trainer._get_per_token_logps_and_entropies(
            trainer.model, ids, mask, batch["completion_ids"].shape[1], batch_size=self.p.group_size
        )
        for row, logps in zip(self.rows, logps_BT.tolist(), strict=True):
            row[name] = [round(value, 5) for value in logps[: len(row["ids"])]]


def current_batch(trainer) -> dict:
    """TRL's dictionary of the micro-batch that was computed last."""
    return trainer._buffered_inputs[(trainer._step - 1) % trainer.args.steps_per_generation]


def first_groups(batch: dict) -> dict:
    """The rows of the first :data:`GROUPS` distinct prompts, side by side."""
    prompts = batch["prompt_ids"].tolist()
    first = list(dict.fromkeys(map(tuple, prompts)))[:GROUPS]
    rows = [i for prompt in first for i, other in enumerate(prompts) if tuple(other) == prompt]
    return {name: batch[name][rows] for name in (*TENSORS, OLD) if name in batch}


def token_rows(batch: dict, tokenizer, group_size: int) -> list[dict]:
    """One row per response: ``prompt, group, ids, sampled, advantage``, and ``old`` where the policy has moved since."""
    rows, groups = [], {}
    for i, ids in enumerate(batch["completion_ids"]):
        length = int(batch["completion_mask"][i].sum())
        prompt = tokenizer.decode(batch["prompt_ids"][i][batch["prompt_mask"][i].bool()], skip_special_tokens=True)
        ours = batch["tool_mask"][i, :length].tolist() if "tool_mask" in batch else [1] * length
        row = {
            "prompt": prompt,
            "group": groups.setdefault(prompt, len(groups)),
            "ids": ids[:length].tolist(),
            "sampled": ours,
            "advantage": round(float(batch["advantages"][i]), 5),
        }
        if OLD in batch:
            row["old"] = [round(value, 5) for value in batch[OLD][i, :length].tolist()]
        rows.append(row)
    return rows

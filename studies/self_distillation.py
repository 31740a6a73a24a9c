"""On-policy self-distillation compared with RLVR: the teacher is the same model with four few-shot examples.

The student samples responses without examples. The teacher is the base model with four examples in its prompt. It gives
next-token probabilities for the same responses, and we train the student towards them (KL from student to teacher, per
token, on the student's own samples). Training does not use the verifier. We compute rewards only to report them.
Problems, their order, LoRA, learning rate and batch are those of profile ``mini``.

Writes data/reference_runs/self_distillation.jsonl, one row per step (``seed, step, reward, boxed, kl, mean_tokens``), which
notebook 08 plots. Seeds that are already in the file are skipped:

    make self-distillation      (or: python studies/self_distillation.py [--seeds 0 1 2] [--steps 100])
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch.nn.functional import kl_div
from torch.nn.utils import clip_grad_norm_
from transformers import set_seed

from rlvr_utils.grpo import completion_logits
from rlvr_utils.models import attach_lora, load_model, load_tokenizer
from rlvr_utils.problems import training_order, training_rows
from rlvr_utils.profiles import Profile, get_profile
from rlvr_utils.runs import REFERENCE_RUNS
from rlvr_utils.sampling.rollouts import Response, Sampling, encode_prompts, prompts_for, sample_responses
from rlvr_utils.training.own_trainer import collate
from rlvr_utils.verifier import boxed_reward, last_boxed

RESULT = REFERENCE_RUNS / "self_distillation.jsonl"
SHOTS = 4


def token_logps(model, prompts: list[list[int]], responses: list[Response], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the log-probabilities of the vocabulary at every response position, (B, T, V), and the loss mask, (B, T)."""
    ids, attention, mask = collate(prompts, responses, pad)
    n = mask.shape[1]
    logits = completion_logits(model(ids, attention_mask=attention, logits_to_keep=n + 1).logits, n)
    return logits.log_softmax(-1), mask


def distillation_loss(student_BTV: torch.Tensor, teacher_BTV: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
    """Return KL(student || teacher) in nats per token, over the whole vocabulary, averaged over unmasked tokens."""
    kl_BT = kl_div(teacher_BTV, student_BTV, log_target=True, reduction="none").sum(-1)
    return (kl_BT * mask_BT).sum() / mask_BT.sum()


def train(p: Profile) -> Iterator[dict]:
    """Train and yield one row per step."""
    set_seed(p.seed)
    tokenizer, model = load_tokenizer(p), attach_lora(load_model(p), p)
    rows = training_rows(p)
    order = iter(training_order(len(rows), p.max_steps * p.prompts_per_step, p.seed))
    optimizer = torch.optim.AdamW([w for w in model.parameters() if w.requires_grad], p.learning_rate, weight_decay=0)
    for step in range(1, p.max_steps + 1):
        problems = [rows[i] for i in itertools.islice(order, p.prompts_per_step)]
        yield {"step": step} | update(model, tokenizer, optimizer, problems, p)


def update(model, tokenizer, optimizer, problems: list[dict], p: Profile) -> dict[str, float]:
    """Do one step: sample from the student, score with the teacher, update the student. Return the metrics."""
    prompts, shown = prompts_for(problems, tokenizer, p), prompts_for(problems, tokenizer, replace(p, shots=SHOTS))
    groups = sample_responses(model, tokenizer, prompts, Sampling.of(p, n_samples=p.group_size))
    responses = [response for group in groups for response in group]
    each = [[ids for ids in encode_prompts(tokenizer, texts) for _ in range(p.group_size)] for texts in (prompts, shown)]
    with torch.no_grad(), model.disable_adapter():  # the teacher is the base model without the adapter
        teacher, _ = token_logps(model, each[1], responses, tokenizer.pad_token_id)
    student, mask = token_logps(model, each[0], responses, tokenizer.pad_token_id)
    loss = distillation_loss(student, teacher, mask)
    loss.backward()
    clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    rows, texts = [row for row in problems for _ in range(p.group_size)], [response.text for response in responses]
    columns = {"ground_truth": [row["ground_truth"] for row in rows], "problem": [row["problem"] for row in rows]}
    return {
        "reward": sum(boxed_reward(texts, **columns)) / len(texts),
        "boxed": sum(last_boxed(text) is not None for text in texts) / len(texts),
        "kl": loss.item(),
        "mean_tokens": mask.sum().item() / len(texts),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()
    lines = RESULT.read_text(encoding="utf-8").splitlines() if RESULT.is_file() else []
    for seed in set(options.seeds) - {json.loads(line)["seed"] for line in lines}:
        rows = []
        for row in train(get_profile("mini", seed=seed, max_steps=options.steps)):
            rows.append({"seed": seed} | {name: round(value, 5) for name, value in row.items()})
            print(rows[-1], flush=True)
        with RESULT.open("a", encoding="utf-8") as file:  # written at the end, so that a killed run leaves no rows
            file.writelines(json.dumps(row) + "\n" for row in rows)


if __name__ == "__main__":
    main()

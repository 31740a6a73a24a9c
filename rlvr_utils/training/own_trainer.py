"""A minimal GRPO: sample, score, normalise rewards within the group, update. It is for reading. Runs use TRL's trainer.

Model, LoRA, problems and their order, and learning rate are those of ``training.train`` for the same profile. Not
implemented: checkpoints, evaluation, several GPUs, gradient accumulation, several updates per generation, a KL term.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

import torch
from torch.nn.utils import clip_grad_norm_
from transformers import set_seed

from ..grpo import completion_logits, group_advantages, grpo_loss, selected_logps
from ..models import attach_lora, load_model, load_tokenizer
from ..problems import training_order, training_rows
from ..profiles import get_profile
from ..sampling.rollouts import Response, Sampling, encode_prompts, prompts_for, sample_responses
from ..verifier import boxed_reward


def train(profile: str = "mini", seconds: float | None = None, **overrides: object) -> Iterator[dict]:
    """Train and yield one row per step: ``step, reward, mean_tokens, loss, grad_norm, seconds``.

    Args:
        profile: as for ``training.train``. ``overrides`` replace its fields.
        seconds: stop after the first step that ends later than this. None: stop after ``max_steps``.
    """
    p = get_profile(profile, **overrides)
    set_seed(p.seed)
    tokenizer, model = load_tokenizer(p), attach_lora(load_model(p), p)
    rows = training_rows(p)
    order = iter(training_order(len(rows), p.max_steps * p.prompts_per_step, p.seed))
    optimizer = torch.optim.AdamW([w for w in model.parameters() if w.requires_grad], p.learning_rate, weight_decay=0)
    began = time.monotonic()
    for step in range(1, p.max_steps + 1):
        problems = [rows[i] for i in itertools.islice(order, p.prompts_per_step)]
        yield {"step": step} | update(model, tokenizer, optimizer, problems, p) | {"seconds": time.monotonic() - began}
        if seconds is not None and time.monotonic() - began > seconds:
            return


def update(model, tokenizer, optimizer, problems: list[dict], p) -> dict[str, float]:
    """One step of GRPO: sample ``group_size`` responses per problem, compute their advantages, make one gradient step."""
    prompts = prompts_for(problems, tokenizer, p)
    groups = sample_responses(model, tokenizer, prompts, Sampling.of(p, n_samples=p.group_size))
    responses = [response for group in groups for response in group]
    rows = [problem for problem in problems for _ in range(p.group_size)]
    rewards = boxed_reward(
        [response.text for response in responses],
        ground_truth=[row["ground_truth"] for row in rows],
        problem=[row["problem"] for row in rows],
    )
    advantages = group_advantages(rewards, p.group_size, p.scale_rewards).to(model.device)
    prompt_ids = [ids for ids in encode_prompts(tokenizer, prompts) for _ in range(p.group_size)]

    ids, attention, mask = (x.to(model.device) for x in collate(prompt_ids, responses, tokenizer.pad_token_id))
    n = mask.shape[1]  # completion tokens T. The LM head is applied to these positions only
    logits = completion_logits(model(ids, attention_mask=attention, logits_to_keep=n + 1).logits, n)
    logps = selected_logps(logits, ids[:, -n:], p.temperature)
    loss = grpo_loss(
        logps,
        advantages,
        mask,
        loss_type=p.loss_type,
        epsilon=p.epsilon,
        epsilon_high=p.epsilon_high,
        max_completion_length=p.max_completion_length,
    )
    loss.backward()
    grad_norm = clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return {
        "reward": sum(rewards) / len(rewards),
        "mean_tokens": mask.sum().item() / len(responses),
        "loss": loss.item(),
        "grad_norm": grad_norm.item(),
    }


def collate(prompts: list[list[int]], responses: list[Response], pad: int) -> tuple[torch.Tensor, ...]:
    """Pad prompts on the left and responses on the right. Returns ids and attention ``(B, L)``, loss mask ``(B, T)``."""
    left, right = max(map(len, prompts)), max(len(r.ids) for r in responses)
    gaps = [(left - len(prompt), right - len(r.ids)) for prompt, r in zip(prompts, responses, strict=True)]
    pairs = list(zip(prompts, responses, gaps, strict=True))
    ids = [[pad] * before + prompt + r.ids + [pad] * after for prompt, r, (before, after) in pairs]
    attention = [[0] * before + [1] * len(prompt + r.ids) + [0] * after for prompt, r, (before, after) in pairs]
    mask = [r.sampled + [0] * after for _, r, (_, after) in pairs]  # 0 for an end token added by the stop rule
    return torch.tensor(ids), torch.tensor(attention), torch.tensor(mask)

"""A rival to RL: supervised fine-tuning on the base model's own right answers (rejection sampling).

It draws as many samples as the GRPO run would, on the same problems in the same order, keeps the right ones
(:func:`imitated`), and makes as many optimizer steps on batches as large. So it differs from GRPO in one thing: it
imitates the base's right answers instead of weighing right against wrong ones as the policy changes. With TRL's
``SFTTrainer``; the method is STaR's (Zelikman et al. 2022, arXiv:2203.14465) in one round.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from datasets import Dataset
from transformers import set_seed
from trl import SFTConfig, SFTTrainer

from ..models import lora_config, refuse_unknown_targets
from ..problems import training_rows
from ..profiles import Profile
from ..runs import RunWriter
from ..sampling.rollouts import Sampling, encode_prompts, has_chat_template, sample_responses
from .build import common_arguments, prepared, training_dataset
from .recording import Recorder
from .rewards import data_columns, reward_function, train_rows, trl_columns


def own_right_answers(model, tokenizer, p: Profile, writer: RunWriter | None = None) -> Dataset:
    """Sample the whole run's responses from the base model and keep those that the reward pays for.

    Returns:
        ``input_ids`` and ``completion_mask`` (0 on the prompt and on an end token that was put in), one row a right
        response, in training order.

    Raises:
        ValueError: not one sample is right, so there is nothing to imitate.
    """
    problems = training_dataset(p, tokenizer)
    prompts = list(problems["prompt"])
    groups = sample_responses(model, tokenizer, prompts, Sampling.of(p, n_samples=p.group_size, seed=p.seed))
    by_id = {row["id"]: row for row in training_rows(p)}
    rows = [by_id[name] for name in problems["problem_id"] for _ in range(p.group_size)]
    asked = [prompt for prompt in prompts for _ in range(p.group_size)]
    responses = [response for group in groups for response in group]
    chat = has_chat_template(tokenizer)  # then a reward gets lists of messages, as from TRL
    texts = [[{"role": "assistant", "content": r.text}] if chat else r.text for r in responses]
    lengths = [response.n_tokens for response in responses]
    rewards = reward_function(p)(texts, prompts=asked, completion_ids=[r.ids for r in responses], n_tokens=lengths,
                                 **trl_columns(p) | data_columns(rows))
    if writer is not None:
        first = slice(0, p.batch_size)  # what it learns from, as a sample to read
        writer.log_train_rollouts(train_rows(1, *(values[first] for values in (asked, rows, texts, lengths, rewards))))
    prompt_ids = encode_prompts(tokenizer, prompts)
    right = imitated(rewards, p.group_size)
    if not right:
        raise ValueError(f"None of the {len(texts):,} samples of the base model is right (has a reward above 0 and not "
                         "below its group's mean), so there is nothing to imitate; take an easier data set or more shots.")
    pairs = [(prompt_ids[i // p.group_size], responses[i]) for i in right]
    return Dataset.from_dict({"input_ids": [prompt + response.ids for prompt, response in pairs],
                              "completion_mask": [[0] * len(prompt) + response.sampled for prompt, response in pairs]})


def imitated(rewards: Sequence[float | None], group_size: int) -> list[int]:
    """Which responses are imitated: those with a reward above 0 (a wrong answer's) that is not below their group's mean.

    The mean is GRPO's baseline. A group of right answers alone has all of them at its mean, and all are imitated.
    """
    kept = []
    for start in range(0, len(rewards), group_size):
        group = [(i, rewards[i]) for i in range(start, start + group_size) if rewards[i] is not None]
        baseline = sum(reward for _, reward in group) / max(1, len(group))
        # Rounding may put the mean of equal rewards just above them.
        kept += [i for i, reward in group if reward > 0 and (reward >= baseline or math.isclose(reward, baseline))]
    return kept


def build_rejection_trainer(p: Profile, model, tokenizer, writer: RunWriter, live=None, say=print) -> SFTTrainer:
    """TRL's SFT trainer on the base's own right answers: steps, batch, learning rate and adapter are the profile's."""
    refuse_unknown_targets(model, p)
    data = own_right_answers(model, tokenizer, p, writer)
    samples = p.max_steps * p.batch_size
    say(f"{len(data):,} of {samples:,} samples of the base model are right; {p.max_steps} steps of {p.batch_size} go over "
        f"them {samples / len(data):.1f} times")
    set_seed(p.seed)
    recorder = Recorder(p, writer, len(training_rows(p)), live, say)
    config = SFTConfig(packing=False, max_length=None, completion_only_loss=True,
                       **common_arguments(p, writer.path / "checkpoints"))
    trainer = SFTTrainer(model=model, args=config, train_dataset=data, processing_class=tokenizer,
                         peft_config=lora_config(p), callbacks=[recorder])
    return prepared(trainer, recorder, p, writer, say)

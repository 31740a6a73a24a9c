r"""Supervised fine-tuning (SFT): the stage before RL, and two alternatives to RL. All use TRL's ``SFTTrainer``.

A model that never answers correctly gives RL nothing to reinforce. The stage before RL (``sft_steps``) trains it on
worked solutions until it sometimes answers correctly, as in Tulu 3: SFT, then RLVR (arXiv:2411.15124). The resulting model
is the base model for RL and for its KL term. Steps of this stage have negative numbers, so that RL starts at step 0 in
every run.

The alternatives replace GRPO. Both use the same problems in the same order and the same number of optimizer steps:

- ``method="sft"`` trains on the worked solution of each problem.
- ``method="rejection"`` trains on the model's own correct responses (rejection sampling): one round of STaR (Zelikman et
  al. 2022, arXiv:2203.14465). Number of samples and batch size are those of GRPO.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from datasets import Dataset, are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from transformers import set_seed
from trl import SFTConfig, SFTTrainer

from ..models import load_adapter, load_model, lora_config, merge_adapter, refuse_unknown_targets
from ..problems import judge_response, training_order, training_rows
from ..profiles import Profile, solutions_at_once
from ..runs import RunWriter
from ..sampling.rollouts import Sampling, encode_prompts, has_chat_template, prompts_for, sample_responses
from .build import common_arguments, prepared, training_dataset
from .processes import world_size
from .recording import Recorder
from .rewards import data_columns, reward_function, train_rows, trl_columns
from .trl_patches import ScoringOnlySolutions

#: Folder in a run with the checkpoints and the adapter of the stage before RL.
SFT_FOLDER = "sft"


def own_right_answers(model, tokenizer, p: Profile, writer: RunWriter | None = None) -> Dataset:
    """Rejection sampling: sample all responses of the run from the base model and keep the rewarded ones.

    Returns:
        ``input_ids`` and ``completion_mask`` (0 on the prompt and on an added end token), one row per kept response, in
        training order.

    Raises:
        ValueError: no sample is correct, so there are no training examples.
    """
    problems = training_dataset(p, tokenizer)
    prompts = list(problems["prompt"])
    groups = sample_responses(model, tokenizer, prompts, Sampling.of(p, n_samples=p.group_size, seed=p.seed))
    by_id = {row["id"]: row for row in training_rows(p)}
    rows = [by_id[name] for name in problems["problem_id"] for _ in range(p.group_size)]
    asked = [prompt for prompt in prompts for _ in range(p.group_size)]
    responses = [response for group in groups for response in group]
    chat = has_chat_template(tokenizer)  # if so, a reward gets lists of messages, as in TRL
    texts = [[{"role": "assistant", "content": r.text}] if chat else r.text for r in responses]
    lengths = [response.n_tokens for response in responses]
    rewards = reward_function(p)(
        texts,
        prompts=asked,
        completion_ids=[r.ids for r in responses],
        n_tokens=lengths,
        **trl_columns(p) | data_columns(rows),
    )
    if writer is not None:
        first = slice(0, p.batch_size)  # a sample of the training data to read
        writer.log_train_rollouts(train_rows(1, *(values[first] for values in (asked, rows, texts, lengths, rewards))))
    prompt_ids = encode_prompts(tokenizer, prompts)
    right = imitated(rewards, p.group_size)
    if not right:
        raise ValueError(
            f"None of the {len(texts):,} samples of the base model is correct (reward above 0 and not below the "
            "mean of its group), so there are no training examples. Use an easier data set or more shots."
        )
    return examples((prompt_ids[i // p.group_size], responses[i].ids, responses[i].sampled) for i in right)


def imitated(rewards: Sequence[float | None], group_size: int) -> list[int]:
    """The responses to train on (indices): reward above 0 and not below the group's mean.

    An incorrect answer has reward 0. The mean is GRPO's baseline. In a group of correct answers, all rewards equal the
    mean, so all responses are kept.
    """
    kept = []
    for start in range(0, len(rewards), group_size):
        group = [(i, rewards[i]) for i in range(start, start + group_size) if rewards[i] is not None]
        baseline = sum(reward for _, reward in group) / max(1, len(group))
        # With rounding errors, the mean of equal rewards may be slightly above them.
        kept += [i for i, reward in group if reward > 0 and (reward >= baseline or math.isclose(reward, baseline))]
    return kept


def solution_tokens(row: dict, tokenizer, chat: bool) -> list[int]:
    """The tokens of the worked solution with the end token. Adds a box with the answer if it has none that is correct."""
    text = row["solution"].strip()
    if not judge_response(row, text).correct:
        text += rf" The answer is $\boxed{{{row['ground_truth']}}}$."
    return [*tokenizer(text if chat else f" {text}", add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]


def worked_solutions(p: Profile, tokenizer, order: Sequence[int]) -> Dataset:
    """The problems with their worked solutions, in ``order``.

    Returns:
        ``input_ids`` and ``completion_mask`` (0 on the prompt), one row per problem.

    Raises:
        ValueError: a problem has no solution, or a solution exceeds ``max_completion_length``.
    """
    rows = training_rows(p)
    rows = [rows[i] for i in order]
    if missing := [row["id"] for row in rows if not row.get("solution")]:
        raise ValueError(
            f"{len(missing)} of {len(rows)} training problems have no worked solution, the first is "
            f"{missing[0]}. Add the field `solution`, or set sft_steps=0 and method='grpo'."
        )
    prompts = prompts_for(rows, tokenizer, p)
    chat = has_chat_template(tokenizer)
    solutions = [solution_tokens(row, tokenizer, chat) for row in rows]
    if (longest := max(map(len, solutions))) > p.max_completion_length:
        raise ValueError(
            f"max_completion_length={p.max_completion_length} is too small for the worked solutions (longest: "
            f"{longest} tokens), so the model would learn responses that are truncated. Set "
            f"max_completion_length={longest}."
        )
    asked = encode_prompts(tokenizer, prompts)
    return examples((prompt, ids, [1] * len(ids)) for prompt, ids in zip(asked, solutions, strict=True))


def examples(rows: Iterable[tuple[list[int], list[int], list[int]]]) -> Dataset:
    """TRL's columns from rows of (prompt ids, response ids, loss mask of the response)."""
    columns = [(prompt + response, [0] * len(prompt) + loss) for prompt, response, loss in rows]
    return Dataset.from_dict({"input_ids": [ids for ids, _ in columns], "completion_mask": [mask for _, mask in columns]})


def build_rejection_trainer(p: Profile, model, tokenizer, writer: RunWriter, live=None, say=print) -> SFTTrainer:
    """TRL's trainer on the model's own correct responses, with the profile's hyperparameters."""
    data = own_right_answers(model, tokenizer, p, writer)
    samples = p.max_steps * p.batch_size
    say(
        f"{len(data):,} of {samples:,} samples of the base model are correct. {p.max_steps} steps of {p.batch_size} "
        f"are {samples / len(data):.1f} epochs over them."
    )
    recorder = Recorder(p, writer, len(training_rows(p)), live, say)
    return supervised_trainer(p, model, tokenizer, data, recorder, common_arguments(p, writer.path / "checkpoints"))


def build_sft_trainer(p: Profile, model, tokenizer, writer: RunWriter, live=None, say=print) -> SFTTrainer:
    """TRL's trainer on the worked solutions of the problems that GRPO would use, in the same order."""
    n_problems = len(training_rows(p))
    order = training_order(n_problems, p.max_steps * p.prompts_per_step, p.seed)
    recorder = Recorder(p, writer, n_problems, live, say)
    return supervised_trainer(
        p,
        model,
        tokenizer,
        worked_solutions(p, tokenizer, order),
        recorder,
        common_arguments(p, writer.path / "checkpoints") | one_response_each(p),
    )


def build_sft_stage(p: Profile, model, tokenizer, writer: RunWriter, live=None, say=print) -> SFTTrainer:
    """TRL's trainer for the stage before RL. RL uses other problems, unless it needs more than one epoch."""
    n_problems = len(training_rows(p))
    order = training_order(n_problems, p.most_prompts + p.sft_steps * p.prompts_per_step, p.seed)
    data = worked_solutions(p, tokenizer, order[p.most_prompts :])
    stage = replace(
        p,
        method="sft",
        max_steps=p.sft_steps,
        learning_rate=p.sft_learning_rate,
        lr_schedule="linear",
        dynamic_sampling=0,  # only GRPO has groups and advantages
        estimator=None,
    )
    recorder = Recorder(stage, writer, n_problems, live, say, before=p.sft_steps)
    options = common_arguments(stage, writer.path / SFT_FOLDER / "checkpoints") | one_response_each(p)
    return supervised_trainer(stage, model, tokenizer, data, recorder, options)


def one_response_each(p: Profile) -> dict:
    """TRL's batch arithmetic for one response per problem, in micro-batches no larger than GRPO's."""
    share = p.prompts_per_step // world_size()
    if share * world_size() != p.prompts_per_step:
        raise ValueError(
            f"{world_size()} processes do not divide the {p.prompts_per_step} problems per supervised step. "
            "Set another prompts_per_step or use another number of processes."
        )
    at_once = solutions_at_once(p, world_size())
    return {"per_device_train_batch_size": at_once, "gradient_accumulation_steps": share // at_once}


def supervised_trainer(p: Profile, model, tokenizer, data: Dataset, recorder: Recorder, options: dict) -> SFTTrainer:
    """TRL's ``SFTTrainer`` on token ids, with the profile's adapter and our recorder."""
    refuse_unknown_targets(model, p)
    set_seed(p.seed)
    config = SFTConfig(packing=False, max_length=None, completion_only_loss=True, **options)
    bars = not are_progress_bars_disabled()
    disable_progress_bars()  # TRL shows one per pass over the data
    trainer = ScoringOnlySolutions(
        model=model,
        args=config,
        train_dataset=data,
        processing_class=tokenizer,
        peft_config=lora_config(p),
        callbacks=[recorder],
    )
    if bars:
        enable_progress_bars()
    return prepared(trainer, recorder, p, recorder.writer, recorder.say)


def after_sft(model, p: Profile, run: Path):
    """The model that RL starts from: ``model``, or the model trained in the stage before RL."""
    if not p.sft_steps:
        return model
    trained = run / SFT_FOLDER / "adapter"
    return merge_adapter(load_adapter(model, trained)) if p.adapter == "lora" else load_model(replace(p, model=str(trained)))

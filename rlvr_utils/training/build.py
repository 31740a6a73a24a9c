"""Build TRL's ``GRPOTrainer`` for a profile: data in its order, every setting, our rollout and reward."""

from __future__ import annotations

import functools
from pathlib import Path

import torch
from datasets import Dataset
from transformers import PrinterCallback, set_seed
from trl import GRPOConfig, GRPOTrainer

from ..memory import vllm_utilization
from ..models import check_adapter, lora_config, model_config, quiet_libraries, refuse_unknown_targets
from ..problems import training_order, training_rows
from ..problems.prompts import STOP
from ..profiles import Profile
from ..runs import RunWriter
from ..sampling.rollouts import prompts_for, rollout, use_vllm
from .estimators import with_estimator
from .evaluation import evaluate_interim
from .processes import world_size
from .recording import Recorder, TokenRecorder
from .rewards import recorded_reward, reward_function
from .trl_patches import SharedTrainer, StockTrainer, own_environment, same_precision, settle_vllm


def training_dataset(p: Profile, tokenizer, rows: list[dict] | None = None) -> Dataset:
    """One row per prompt of the whole run, in training order: ``prompt, problem, ground_truth, problem_id``."""
    rows = rows or training_rows(p)
    prompts = prompts_for(rows, tokenizer, p)
    order = training_order(len(rows), p.most_prompts, p.seed)
    return Dataset.from_dict(
        {
            "prompt": [prompts[i] for i in order],
            "problem": [rows[i]["problem"] for i in order],  # an echo of it is no answer
            "ground_truth": [rows[i]["ground_truth"] for i in order],
            "problem_id": [rows[i]["id"] for i in order],
        }
    )


@quiet_libraries()
def grpo_config(p: Profile, checkpoints: Path) -> GRPOConfig:
    """Every TRL value of this profile; batch arithmetic is derived, never given."""
    options = common_arguments(p, checkpoints)
    return GRPOConfig(
        steps_per_generation=options["gradient_accumulation_steps"] * p.updates_per_generation,
        num_generations=p.group_size,
        loss_type=p.loss_type,
        scale_rewards=p.scale_rewards,
        beta=p.beta,
        epsilon=p.epsilon,
        epsilon_high=p.epsilon_high,
        temperature=p.temperature,
        max_completion_length=p.max_completion_length,
        shuffle_dataset=False,
        **options | {"save_steps": p.save_every * p.updates_per_generation},
        **vllm_options(p),
    )


def common_arguments(p: Profile, checkpoints: Path) -> dict:
    """What GRPO and its supervised rival share: batch, learning rate, precision, checkpoints."""
    cuda = torch.cuda.is_available()
    return {
        "output_dir": str(checkpoints),
        "seed": p.seed,
        "max_steps": p.max_steps,
        "num_train_epochs": 1,
        "per_device_train_batch_size": micro_batch_here(p),
        "gradient_accumulation_steps": accumulation_here(p),
        "learning_rate": p.learning_rate,
        "lr_scheduler_type": p.lr_schedule,
        "warmup_steps": 0,
        "gradient_checkpointing": p.gradient_checkpointing,
        "bf16": cuda and p.dtype == "bfloat16",
        "fp16": cuda and p.dtype == "float16",  # with loss scaling: small gradients would underflow in float16
        "use_cpu": not cuda,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "steps",
        "save_steps": p.save_every,
        "save_total_limit": 2,
        "disable_tqdm": True,
        "report_to": [],
        "dataloader_pin_memory": False,
    }


def micro_batch_here(p: Profile) -> int:
    """Responses per forward/backward pass of each process: a step's batch is shared by all of them."""
    return min(p.micro_batch, max(1, p.batch_size // world_size()))


def accumulation_here(p: Profile) -> int:
    """Forward/backward passes per optimizer step that fall to each process.

    Raises:
        ValueError: the batch cannot be shared evenly.
    """
    at_once = micro_batch_here(p) * world_size()
    if p.batch_size % at_once:
        raise ValueError(
            f"{world_size()} processes with micro_batch={micro_batch_here(p)} do not divide the {p.batch_size} "
            f"responses of a step ({p.prompts_per_step} prompts x {p.group_size} samples); choose another "
            "micro_batch or another number of processes."
        )
    return p.batch_size // at_once


def vllm_options(p: Profile) -> dict:
    """TRL's vLLM settings: the one stop rule, room for prompt and response, and the memory that the estimator allots."""
    if not use_vllm(p):
        return {}
    # TRL weighs responses by the ratio of trainer's to vLLM's probability. Its default multiplies the ratio over the whole
    # response and drops those above 3: in bfloat16 one token's log-probabilities differ by 0.037 on average (SmolLM2-135M,
    # 64 tokens: products from 0.35 to 1.47), and over 1,024 tokens that noise alone drops many. So: token by token, and cut
    # off at 2, as in truncated importance sampling (Yao et al. 2025), instead of dropped.
    common = {
        "use_vllm": True,
        "generation_kwargs": {"stop": [STOP]},
        "vllm_importance_sampling_mode": "token_truncate",
        "vllm_importance_sampling_clip_max": 2.0,
    }
    if p.vllm_server:
        return common | {"vllm_mode": "server", "vllm_server_base_url": p.vllm_server}
    total = torch.cuda.get_device_properties(0).total_memory
    return common | {
        "vllm_mode": "colocate",
        "vllm_max_model_length": p.max_prompt_length + p.max_completion_length,
        "vllm_gpu_memory_utilization": vllm_utilization(p, model_config(p.model), total),
    }


@own_environment()
def build_trainer(p: Profile, model, tokenizer, writer: RunWriter, live=None, say=print) -> GRPOTrainer:
    """TRL's trainer with our reward, our rollout (the one stop rule) and the callback that records the run."""
    set_seed(p.seed)
    if p.dynamic_sampling and world_size() > 1:
        raise ValueError(
            f"dynamic_sampling={p.dynamic_sampling} works in one process, and there are {world_size()}: a group may be "
            "divided among them. Set dynamic_sampling=0, or start one process."
        )
    rows = training_rows(p)
    refuse_unknown_targets(model, p)
    recorder, tokens = Recorder(p, writer, len(rows), live, say), TokenRecorder(p, writer)
    with same_precision(p.dtype):
        trainer = with_estimator(SharedTrainer if p.shared_prefix else StockTrainer, p)(
            model=model,
            reward_funcs=recorded_reward(reward_function(p), writer, p.log_rollouts_every, rows),
            args=grpo_config(p, writer.path / "checkpoints"),
            train_dataset=training_dataset(p, tokenizer, rows),
            processing_class=tokenizer,
            peft_config=lora_config(p),
            rollout_func=functools.partial(rollout, batch_size=p.eval_batch),
            callbacks=[recorder, tokens],
        )
    tokens.trainer = trainer
    trainer.further_prompts = p.dynamic_sampling * p.updates_per_generation
    settle_vllm(trainer, p.seed)
    return prepared(trainer, recorder, p, writer, say)


def prepared(trainer, recorder: Recorder, p: Profile, writer: RunWriter, say):
    """The last steps of building a trainer: what it trains is what the profile says, and its recorder can evaluate."""
    check_adapter(trainer.accelerator.unwrap_model(trainer.model), p)
    trainer.remove_callback(PrinterCallback)
    recorder.evaluate = lambda step: evaluate_interim(trainer, p, writer, step, say)
    return trainer

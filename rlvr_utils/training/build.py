"""Build TRL's ``GRPOTrainer`` for a profile: ordered data, all hyperparameters, our rollout function and our reward."""

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
            "problem": [rows[i]["problem"] for i in order],  # a response that repeats it is not an answer
            "ground_truth": [rows[i]["ground_truth"] for i in order],
            "problem_id": [rows[i]["id"] for i in order],
        }
    )


@quiet_libraries()
def grpo_config(p: Profile, checkpoints: Path) -> GRPOConfig:
    """TRL's configuration for this profile. Batch sizes and accumulation steps are derived from the profile."""
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
    """The arguments that GRPO and SFT share: batch, learning rate, precision, checkpoints."""
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
    """Responses per forward/backward pass and process. The processes share the batch of a step."""
    return min(p.micro_batch, max(1, p.batch_size // world_size()))


def accumulation_here(p: Profile) -> int:
    """Forward/backward passes per optimizer step and process.

    Raises:
        ValueError: the batch cannot be divided evenly among the processes.
    """
    at_once = micro_batch_here(p) * world_size()
    if p.batch_size % at_once:
        raise ValueError(
            f"{world_size()} processes with micro_batch={micro_batch_here(p)} do not divide the {p.batch_size} "
            f"responses per step ({p.prompts_per_step} prompts x {p.group_size} samples). Set another "
            "micro_batch or use another number of processes."
        )
    return p.batch_size // at_once


def vllm_options(p: Profile) -> dict:
    """TRL's vLLM options: our stop string, the context length, and the share of GPU memory from our memory estimate."""
    if not use_vllm(p):
        return {}
    # TRL weights responses by the importance ratio of the trainer's to vLLM's probability. By default it multiplies the
    # ratios over the whole response and drops responses above 3. In bfloat16, the log-probabilities of a token differ by
    # 0.037 on average (SmolLM2-135M, 64 tokens: products from 0.35 to 1.47). Over 1,024 tokens, this noise alone would drop
    # many responses. We use one ratio per token, truncated at 2, as in truncated importance sampling (Yao et al. 2025).
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
    """TRL's trainer with our reward, our rollout function (with our stop string) and the callbacks that record the run."""
    set_seed(p.seed)
    if p.dynamic_sampling and world_size() > 1:
        raise ValueError(
            f"dynamic_sampling={p.dynamic_sampling} needs a single process, but there are {world_size()}, which may "
            "split a group. Set dynamic_sampling=0 or start one process."
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
    """The last steps of building a trainer: check the adapter against the profile, and connect the interim evaluation."""
    check_adapter(trainer.accelerator.unwrap_model(trainer.model), p)
    trainer.remove_callback(PrinterCallback)
    recorder.evaluate = lambda step: evaluate_interim(trainer, p, writer, step, say)
    return trainer

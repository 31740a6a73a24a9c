"""Trials that need the model: is there a learning signal, and what will the whole run cost?

:func:`trainability` samples the base model on training problems and counts the groups with mixed rewards.
:func:`time_steps` runs three training steps in a scratch folder and projects hours and price.
"""

from __future__ import annotations

import gc
import random
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context

import numpy as np
import pandas as pd
import torch

from ..diagnosis import LOGP_DIFFERENCE, RATIO
from ..memory import GIB
from ..models import load_model, load_tokenizer, quiet_libraries
from ..problems import evaluation_rows, judge_response, training_rows
from ..profiles import Profile, get_profile
from ..runs import RunWriter, load_run
from ..sampling.rollouts import Sampling, encode_prompts, evaluate, prompts_for, sample_responses, use_vllm, vllm_engine
from ..stats import Estimate, bootstrap_over_problems, pass_at_k, percent, wilson_interval

# --- is there anything to learn from? ---


@dataclass(frozen=True)
class Trainability:
    """What the base model does on a sample of training problems.

    Attributes:
        right: correct responses per problem, out of ``k``.
        k: responses per problem.
        prompts_per_step: the profile's value, to convert the share of mixed groups into groups per step.
        dynamic_sampling: the profile's value, to estimate its cost.
    """

    right: Sequence[int]
    k: int
    prompts_per_step: int
    dynamic_sampling: int = 0

    @property
    def mixed(self) -> int:
        """Groups with both correct and wrong responses. Only these have non-zero advantages."""
        return sum(0 < count < self.k for count in self.right)

    @property
    def signal(self) -> Estimate:
        """Share of groups that are mixed, with its 95 % interval (Wilson)."""
        return Estimate(self.mixed / len(self.right), *wilson_interval(self.mixed, len(self.right)))

    @property
    def trainable(self) -> bool:
        """Whether there is a learning signal: at least one mixed group in the sample."""
        return self.mixed > 0

    @property
    def price_of_full_steps(self) -> str:
        """The cost of dynamic sampling with this share of mixed groups. Empty if dynamic sampling is off."""
        if not self.dynamic_sampling:
            return ""
        most = self.prompts_per_step + self.dynamic_sampling
        problems = min(self.prompts_per_step / self.signal.mean, most)
        return (
            f" With dynamic_sampling={self.dynamic_sampling} a step draws about {problems:.0f} problems (at most {most}), "
            f"{problems / self.prompts_per_step:.1f} times the samples of a default step."
        )

    def pass_at(self, k: int) -> Estimate:
        """pass@k (Chen et al. 2021, arXiv:2107.03374) with its 95 % bootstrap interval over problems."""
        return bootstrap_over_problems(pass_at_k(self.k, np.asarray(self.right), k))

    def __str__(self) -> str:
        once, best, signal = self.pass_at(1), self.pass_at(self.k), self.signal
        seen = (
            f"On {len(self.right)} training problems {percent(once)} of the base model's responses are correct (pass@1), "
            f"and {percent(best)} of the problems have at least one correct response in {self.k} (pass@{self.k})."
        )
        if self.trainable:
            groups = signal.mean * self.prompts_per_step
            return (
                f"{seen} {self.mixed} groups are mixed, so {percent(signal)} of all groups carry a learning signal, "
                f"about {groups:.1f} of the {self.prompts_per_step} in a step.{self.price_of_full_steps}"
            )
        advice = (
            "The base model already solves these problems. Use harder ones"
            if once.mean > 0.5
            else "Use easier problems, few-shot examples (shots), longer responses, or a stronger model"
        )
        return (
            f"{seen} No group is mixed (at most {signal.high:.0%} of all groups could be), so there is no learning "
            f"signal. Don't rent the GPU yet. {advice}."
        )


def trainability(
    profile: str | Profile = "mini",
    n_problems: int = 32,
    k: int | None = None,
    *,
    model=None,
    tokenizer=None,
    **overrides: object,
) -> Trainability:
    """Sample the base model ``k`` times on ``n_problems`` training problems. The profile's seed fixes both draws.

    Args:
        k: responses per problem. None uses the profile's group size, so that a group here matches a group of the run.
        model, tokenizer: the base model, if it is already loaded.
        overrides: any field of the profile.

    Raises:
        ValueError: the model or the problems cannot be loaded.
    """
    p = get_profile(profile, **overrides)
    k = k or p.group_size
    tokenizer, model = tokenizer or load_tokenizer(p), model or load_model(p)
    rows = training_rows(p)
    rows = random.Random(p.seed).sample(rows, min(n_problems, len(rows)))
    prompts = prompts_for(rows, tokenizer, p)
    groups = sample_responses(model, tokenizer, prompts, Sampling.of(p, n_samples=k, seed=p.seed))
    right = [
        sum(judge_response(row, response.text).correct for response in group)
        for row, group in zip(rows, groups, strict=True)
    ]
    return Trainability(right, k, p.prompts_per_step, p.dynamic_sampling)


# --- what will it cost? ---


@dataclass(frozen=True)
class Timing:
    """Measured seconds, and the projection for the whole run.

    Attributes:
        steps: seconds per step. The first includes one-time work.
        per_response: seconds per evaluation response.
        mean_tokens: mean response length while this was measured.
        peak: peak GPU memory in bytes, None without a GPU.
        profile: the profile of the projected run.
        dollars_per_hour: price of the machine, None if not given.
        samplers: how far vLLM and the trained model were apart: mean difference of log-probabilities in nats per token, and
            mean importance ratio. None if the model itself samples.
    """

    steps: tuple[float, ...]
    per_response: float
    mean_tokens: float
    peak: int | None
    profile: Profile
    dollars_per_hour: float | None = None
    samplers: tuple[float, float] | None = None

    @property
    def seconds_per_step(self) -> float:
        """Mean over the steps after the first."""
        later = self.steps[1:] or self.steps
        return sum(later) / len(later)

    @property
    def training_hours(self) -> float:
        """Hours of all training steps."""
        return (self.steps[0] + (self.profile.max_steps - 1) * self.seconds_per_step) / 3600

    @property
    def evaluation_hours(self) -> float:
        """Hours of all evaluations: before, on the way, after."""
        return count_evaluation_responses(self.profile) * self.per_response / 3600

    @property
    def hours(self) -> float:
        """Hours of the whole run."""
        return self.training_hours + self.evaluation_hours

    @property
    def dollars(self) -> float | None:
        """Price of the whole run, None without a price per hour."""
        return None if self.dollars_per_hour is None else self.hours * self.dollars_per_hour

    def __str__(self) -> str:
        p = self.profile
        price = "" if self.dollars is None else f", ${self.dollars:.2f} at ${self.dollars_per_hour:.2f} per hour"
        peak = "" if self.peak is None else f" The GPU held {self.peak / GIB:.1f} GiB at most."
        samplers = (
            ""
            if self.samplers is None
            else (
                f" vLLM's log-probabilities differ from the trained model's by {self.samplers[0]:.3f} nats per token (0.04 "
                f"is usual in bfloat16), and the mean importance ratio is {self.samplers[1]:.2f} (it should be 1)."
            )
        )
        return (
            f"{len(self.steps)} steps took {', '.join(f'{s:.1f}' for s in self.steps)} s, so {p.max_steps} steps take "
            f"about {spell(self.training_hours)} and {count_evaluation_responses(p):,} evaluation responses "
            f"{spell(self.evaluation_hours)}: {spell(self.hours)} in all{price}. That holds for responses of "
            f"{self.mean_tokens:.0f} tokens. If responses grow during training, so does the time.{peak}{samplers}"
        )


def spell(hours: float) -> str:
    """``40 s``, ``5.2 min`` or ``3.4 h``."""
    for limit, unit, size in ((1.5 / 60, "s", 3600), (1.5, "min", 60)):
        if hours < limit:
            return f"{hours * size:.1f} {unit}" if unit == "min" else f"{hours * size:.0f} {unit}"
    return f"{hours:.1f} h"


def count_evaluation_responses(p: Profile) -> int:
    """Responses that all evaluations of a run sample: in full before and after, one per problem of one split in between."""
    sizes = [len(evaluation_rows(p, split)) for split in p.eval_splits]
    between = (p.max_steps - 1) // p.eval_every
    return 2 * sum(sizes) * (p.eval_samples + 1) + between * sizes[0]


def time_steps(
    profile: str | Profile = "mini",
    *,
    steps: int = 3,
    dollars_per_hour: float | None = None,
    responses: int | None = None,
    **overrides: object,
) -> Timing:
    """Run ``steps`` real training steps and one evaluation batch. Leaves no files.

    Args:
        dollars_per_hour: price of the machine, to project the cost.
        responses: evaluation responses to time. None uses one batch (``eval_batch``).
        overrides: any field of the profile.

    Raises:
        ValueError: the model or the problems cannot be loaded, or ``steps`` is below 1.
    """
    if steps < 1:
        raise ValueError(f"steps={steps} is too small. Set steps to at least 1.")
    p = get_profile(profile, **overrides)
    if keeps_memory(p):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            return process.submit(time_here, p, steps, dollars_per_hour, responses).result()
    return time_here(p, steps, dollars_per_hour, responses)


def keeps_memory(p: Profile) -> bool:
    """Whether steps are timed in a separate process: vLLM keeps its share of GPU memory until its process ends."""
    return use_vllm(p) and p.vllm_server is None and not p.reward.startswith("__main__:")


def time_here(p: Profile, steps: int, dollars_per_hour: float | None, responses: int | None) -> Timing:
    """:func:`time_steps` in this process."""
    from ..training.processes import join_processes  # importing TRL takes seconds that other checks do not need

    join_processes()  # otherwise the trainer waits silently for the other processes
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with quiet_libraries():
        tokenizer, model = load_tokenizer(p), load_model(p)
        metrics, per_response = time_training(p, model, tokenizer, steps, responses or p.eval_batch)
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
    del model
    gc.collect()
    torch.cuda.empty_cache()
    seconds = metrics["seconds"].diff().fillna(metrics["seconds"]).tolist()
    samplers = tuple(metrics[[LOGP_DIFFERENCE, RATIO]].mean()) if RATIO in metrics else None
    return Timing(
        tuple(seconds), per_response, float(metrics["completions/mean_length"].mean()), peak, p, dollars_per_hour, samplers
    )


def time_evaluation(p: Profile, trainer, n: int) -> float:
    """Seconds per evaluation response, from ``n`` responses that are sampled and scored as in the run."""
    model, tokenizer = trainer.accelerator.unwrap_model(trainer.model), trainer.processing_class
    engine = vllm_engine(trainer)
    if engine:
        engine(encode_prompts(tokenizer, ["warm-up"]), 1.0)  # vLLM's first call includes one-time work
    rows = evaluation_rows(p, p.eval_splits[0])[: max(1, n // p.eval_samples)]
    began = time.perf_counter()
    made = evaluate(model, tokenizer, rows, p, engine=engine)
    return (time.perf_counter() - began) / len(made)


def time_training(p: Profile, model, tokenizer, steps: int, responses: int) -> tuple[pd.DataFrame, float]:
    """One row of metrics per step, and seconds per evaluation response, by the run's own trainer."""
    from ..training.build import build_trainer  # importing TRL takes seconds that other checks do not need

    short = replace(p, max_steps=steps, eval_every=steps + 1, save_every=steps + 1, guard="off", wandb_mode="disabled")
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng():
        writer = RunWriter(folder)
        trainer = build_trainer(short, model, tokenizer, writer, say=lambda text: None)
        per_response = time_evaluation(p, trainer, responses)
        trainer.train()
        return load_run(folder).metrics, per_response

"""What will it cost? Three real steps in a scratch folder, and from them hours and price of the whole run."""

from __future__ import annotations

import gc
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context

import torch

from ..memory import GIB
from ..models import load_model, load_tokenizer
from ..problems import evaluation_rows
from ..profiles import Profile, get_profile
from ..runs import RunWriter, load_run
from ..sampling.rollouts import encode_prompts, evaluate, vllm_engine
from ..tracking import installed


@dataclass(frozen=True)
class Timing:
    """Measured seconds, and what follows from them for the whole run.

    Attributes:
        steps: seconds of each step that was run; the first includes what happens only once.
        per_response: seconds a response takes in an evaluation.
        mean_tokens: mean response length while this was measured.
        peak: bytes of the GPU's memory at most; None without one.
        profile: of the run that is projected.
        dollars_per_hour: the reader's price; None where none was given.
    """

    steps: tuple[float, ...]
    per_response: float
    mean_tokens: float
    peak: int | None
    profile: Profile
    dollars_per_hour: float | None = None

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
        """Price of the whole run; None without a price an hour."""
        return None if self.dollars_per_hour is None else self.hours * self.dollars_per_hour

    def __str__(self) -> str:
        p = self.profile
        price = "" if self.dollars is None else f", ${self.dollars:.2f} at ${self.dollars_per_hour:.2f} an hour"
        peak = "" if self.peak is None else f" The GPU held {self.peak / GIB:.1f} GiB at most."
        return (f"{len(self.steps)} steps took {', '.join(f'{s:.1f}' for s in self.steps)} s, so {p.max_steps} steps take "
                f"about {spell(self.training_hours)} and {count_evaluation_responses(p):,} evaluation responses "
                f"{spell(self.evaluation_hours)}: {spell(self.hours)} in all{price}. That holds for responses of "
                f"{self.mean_tokens:.0f} tokens; if they grow in training, so does the time.{peak}")


def spell(hours: float) -> str:
    """``40 s``, ``5.2 min`` or ``3.4 h``."""
    for limit, unit, size in ((1.5 / 60, "s", 3600), (1.5, "min", 60)):
        if hours < limit:
            return f"{hours * size:.1f} {unit}" if unit == "min" else f"{hours * size:.0f} {unit}"
    return f"{hours:.1f} h"


def count_evaluation_responses(p: Profile) -> int:
    """Responses that all evaluations of a run sample: in full before and after, one a problem of one split between."""
    sizes = [len(evaluation_rows(p, split)) for split in p.eval_splits]
    between = (p.max_steps - 1) // p.eval_every
    return 2 * sum(sizes) * (p.eval_samples + 1) + between * sizes[0]


def time_steps(profile: str | Profile = "mini", *, steps: int = 3, dollars_per_hour: float | None = None,
               responses: int | None = None, **overrides: object) -> Timing:
    """Run ``steps`` real training steps and one batch of an evaluation, and leave nothing behind.

    Args:
        dollars_per_hour: price of the machine, to project the cost.
        responses: evaluation responses to time; None: one batch (``eval_batch``).
        overrides: any field of the profile.

    Raises:
        ValueError: the model or the problems cannot be had, or ``steps`` is below 1.
    """
    if steps < 1:
        raise ValueError(f"steps={steps}: at least one step has to be run to be timed.")
    p = profile if isinstance(profile, Profile) else get_profile(profile, **overrides)
    if keeps_memory(p):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            return process.submit(time_here, p, steps, dollars_per_hour, responses).result()
    return time_here(p, steps, dollars_per_hour, responses)


def keeps_memory(p: Profile) -> bool:
    """Whether steps are timed in a process of their own: vLLM keeps its share of the GPU until its process ends."""
    shared = p.use_vllm == "auto" and p.vllm_server is None and not p.reward.startswith("__main__:")
    return shared and torch.cuda.is_available() and installed("vllm") is not None


def time_here(p: Profile, steps: int, dollars_per_hour: float | None, responses: int | None) -> Timing:
    """:func:`time_steps` in this process."""
    from ..training.build import quiet_libraries  # importing TRL takes seconds that other checks do not need
    from ..training.processes import join_processes

    join_processes()  # the trainer would wait for announced processes in silence
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with quiet_libraries():
        tokenizer, model = load_tokenizer(p), load_model(p)
        seconds, mean_tokens, per_response = time_training(p, model, tokenizer, steps, responses or p.eval_batch)
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
    del model
    gc.collect()
    torch.cuda.empty_cache()
    return Timing(tuple(seconds), per_response, mean_tokens, peak, p, dollars_per_hour)


def time_evaluation(p: Profile, trainer, n: int) -> float:
    """Seconds for each of ``n`` sampled evaluation responses, sampled and scored as in the run."""
    model, tokenizer = trainer.accelerator.unwrap_model(trainer.model), trainer.processing_class
    engine = vllm_engine(trainer)
    if engine:
        engine(encode_prompts(tokenizer, ["warm-up"]), 1.0)  # vLLM's first call takes what no later one does
    rows = evaluation_rows(p, p.eval_splits[0])[: max(1, n // p.eval_samples)]
    began = time.perf_counter()
    made = evaluate(model, tokenizer, rows, dataset=p.dataset, shots=p.shots, n_samples=p.eval_samples,
                    max_prompt_length=p.max_prompt_length, max_new_tokens=p.max_completion_length,
                    batch_size=p.eval_batch, seed=p.seed, engine=engine)
    return (time.perf_counter() - began) / len(made)


def time_training(p: Profile, model, tokenizer, steps: int, responses: int) -> tuple[list[float], float, float]:
    """Seconds of each step, mean response length, and seconds an evaluation response, by the run's own trainer."""
    from ..training.build import build_trainer  # importing TRL takes seconds that other checks do not need

    short = replace(p, max_steps=steps, eval_every=steps + 1, save_every=steps + 1, guard="off", wandb_mode="disabled")
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng():
        writer = RunWriter(folder)
        trainer = build_trainer(short, model, tokenizer, writer, say=lambda text: None)
        per_response = time_evaluation(p, trainer, responses)
        trainer.train()
        metrics = load_run(folder).metrics
    seconds = metrics["seconds"].diff().fillna(metrics["seconds"]).tolist()
    return seconds, float(metrics["completions/mean_length"].mean()), per_response

"""Start or continue a run, finish it, and load what it trained."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from transformers.utils import logging as hf_logging
from trl import GRPOTrainer

from .. import REPO
from ..models import load_adapter, load_model, load_tokenizer, save_adapter
from ..profiles import Profile, get_profile
from ..runs import Run, RunWriter, load_run
from ..tracking import environment_record, start_wandb
from .build import build_trainer
from .checkpoints import checkpoint_step, newest_checkpoint
from .evaluation import evaluate_all, evaluate_split, has_evaluation
from .rejection import build_rejection_trainer


def train(profile: str = "mini", output_dir: str | Path | None = None, *,
          live: Callable[[list[dict]], None] | None = None, quiet: bool = False, **overrides: object) -> Run:
    """Train, evaluate before and after, and record everything; continues an interrupted run by itself.

    Args:
        profile: ``"mini"``, ``"llama-8b"``, ...; see :mod:`rlvr_utils.profiles`.
        output_dir: the run's folder; default ``runs/PROFILE-seedN``.
        live: called every few steps with the metrics so far, for a live plot.
        quiet: print no progress.
        overrides: any field of the profile.

    Returns:
        The finished run.

    Raises:
        ValueError: impossible settings, a model or data set that cannot be had, or a folder that holds another run.
    """
    p = get_profile(profile, **overrides)
    folder = Path(output_dir) if output_dir else REPO / "runs" / f"{p.profile}-seed{p.seed}"
    say = (lambda text: None) if quiet else functools.partial(print, flush=True)
    if refuse_other_run(folder, p):
        say(f"{folder.name} is finished already; delete its folder to train again.")
        return load_run(folder)
    began = time.monotonic()
    hf_logging.set_verbosity_error()
    writer = RunWriter(folder)
    writer.write_config(p.to_dict())
    checkpoint = newest_checkpoint(folder, say)
    writer.cut_back(checkpoint_step(checkpoint))
    tokenizer, model = load_tokenizer(p), load_model(p)
    if not has_evaluation(folder, 0):
        evaluate_all(model, tokenizer, p, writer, 0, say)
    tracker = start_wandb(p, folder, say)
    build = build_trainer if p.method == "grpo" else build_rejection_trainer
    trainer = build(p, model, tokenizer, writer, live, say, report_to=["wandb"] if tracker else [])
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    finish_run(trainer, p, writer, folder, time.monotonic() - began, say)
    if tracker:
        tracker.finish()
    return load_run(folder)


def refuse_other_run(folder: Path, p: Profile) -> bool:
    """Whether ``folder`` holds this very run, finished.

    Raises:
        ValueError: it holds a run with other settings.
    """
    if not (folder / "config.yaml").is_file():
        return False
    old, new = load_run(folder).config, p.to_dict()
    changed = [k for k in new if k in old and old[k] != new[k] and not k.startswith(("wandb", "guard"))]
    if changed:
        k = changed[0]
        raise ValueError(f"{folder} holds a run with {k}={old[k]!r}, not {new[k]!r}. "
                         "Give another output_dir, or delete that folder.")
    return bool(load_run(folder).environment.get("finished"))


def finish_run(trainer: GRPOTrainer, p: Profile, writer: RunWriter, folder: Path, seconds: float, say) -> None:
    """Save the adapter (or the model), evaluate in full, record the environment."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    if trainer.is_world_process_zero():
        if p.adapter == "lora":
            save_adapter(model, folder / "adapter", p.model)
        else:
            model.save_pretrained(folder / "adapter")
    if not has_evaluation(folder, p.max_steps):
        evaluate_all(model, trainer.processing_class, p, writer, p.max_steps, say)
    metrics = load_run(folder).metrics
    training_seconds = float(metrics["seconds"].iloc[-1]) if len(metrics) else 0.0
    writer.write_environment(environment_record() | {
        "finished": True, "seconds": round(seconds, 1), "training_seconds": round(training_seconds, 1)})


def profile_of(run: Run) -> Profile:
    """The profile that a run was made with."""
    known = {k: v for k, v in run.config.items() if k != "profile"}
    return get_profile(run.config["profile"], **known)


def load_trained(run: Run) -> tuple:
    """(model, tokenizer) of a finished run: its base model with its adapter, or its fully tuned model."""
    p = profile_of(run)
    if p.adapter == "none":
        return load_model(replace(p, model=str(run.path / "adapter"))), load_tokenizer(p)
    return load_adapter(load_model(p), run.path / "adapter"), load_tokenizer(p)


def evaluate_run(path: str | Path, split: str = "test", shots: int | None = None, decoding: str = "sampled",
                 n_samples: int = 4) -> dict:
    """Evaluate a finished run's model once more, at any number of shots; the row joins the run's evaluations."""
    run = load_run(path)
    p = profile_of(run)
    model, tokenizer = load_trained(run)
    p = replace(p, shots=p.shots if shots is None else shots)
    return evaluate_split(model, tokenizer, p, RunWriter(run.path), p.max_steps, split, decoding, n_samples, print)

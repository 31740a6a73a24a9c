"""The steps of a run in order, and the functions that use a finished run.

    check configuration and reward     trl_patches, rewards, runs.tracking
    check the run's folder             continuing, recovery
    load model and tokenizer           models, rewards
    open the record                    runs
    supervised stage, if configured    supervised
    build the trainer                  build (rewards, recording, trl_patches) or supervised
    evaluate, train, save, evaluate    evaluation, TRL with recording as its callback, recovery
    close the record                   runs.tracking

No module on the right imports this one. ``processes`` coordinates several processes.
"""

from __future__ import annotations

import contextlib
import functools
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from transformers import Trainer

from .. import models
from ..diagnosis import RunStopped
from ..problems import evaluation_rows, overlap_sentence
from ..profiles import Profile, get_profile
from ..runs import Run, RunWriter, SilentWriter, load_run
from ..runs.tracking import TrackedWriter, environment_record, start_wandb, wandb_mode
from ..sampling.rollouts import check_evaluation, has_chat_template
from ..system.paths import expanded, run_folder
from . import recovery
from .build import build_trainer
from .continuing import hashed_rows, hashed_sources, is_finished, refuse_other_sources, reopen
from .estimators import try_estimator
from .evaluation import Part, evaluate_all, evaluate_split
from .processes import first_decides, is_first, join_processes, wait, world_size
from .rewards import reward_function, try_reward
from .supervised import SFT_FOLDER, after_sft, build_rejection_trainer, build_sft_stage, build_sft_trainer
from .trl_patches import refuse_moved_names, release_vllm, sampler_of

STEPS_FILE = "trained-steps.txt"


def train(
    profile: str | Profile = "mini",
    output_dir: str | Path | None = None,
    *,
    live: Callable[[list[dict]], None] | None = None,
    quiet: bool = False,
    extend: bool = False,
    **overrides: object,
) -> Run:
    """Train, evaluate before and after, and record everything. Resumes an interrupted run automatically.

    Args:
        profile: ``"mini"``, ``"llama-8b"``, ... or a Profile. See :mod:`rlvr_utils.profiles`.
        output_dir: the run's folder. Default: ``runs/PROFILE-seedN``.
        live: called every few steps with the metrics so far, for a live plot.
        quiet: print no progress.
        extend: allow a larger ``max_steps`` than an existing run was started with.
        overrides: any field of the profile. ``train(**read_config("my.yaml"))`` reads them from a file.

    Returns:
        The finished run.

    Raises:
        ValueError: an invalid configuration, a model or data set that cannot be loaded, or a folder that holds another run.
        OSError: a full disk, a folder that cannot be read or written, or another process that trains in the folder.
    """
    refuse_moved_names()
    p = get_profile(profile, **overrides)
    reward_function(p)  # raises now if it does not exist, not after the first evaluation
    if p.estimator:
        try_estimator(p)
    wandb_mode(p)  # the same for W&B
    folder = run_folder(output_dir or p.folder)
    join_processes()
    say = functools.partial(print, flush=True) if is_first() and not quiet else (lambda text: None)
    with recovery.in_plain_words(folder), models.quiet_libraries():
        if first_decides(lambda: is_finished(folder, p, extend)):
            say(f"{folder.name} is already finished. Delete its folder to train again.")
        else:
            with recovery.only_one(folder):
                start_or_continue(p, folder, extend, live, say)
        return load_run(folder)


def start_or_continue(p: Profile, folder: Path, extend: bool, live, say) -> None:
    """Train from the newest checkpoint, or from step 0, to the end."""
    began = time.monotonic()
    read = hashed_sources(p)
    first_decides(lambda: reopen(folder, p, read, extend, say))
    checkpoint = first_decides(lambda: recovery.newest_checkpoint(folder, say))
    model, tokenizer = load_base(p, read, say)
    with writing(p, folder, say) as writer:
        writer.write_config(p.to_dict())
        writer.write_sources(read)
        model = sft_stage(p, model, tokenizer, writer, live, say)
        writer.cut_back(recovery.checkpoint_step(checkpoint))
        wait()  # every process reads the shortened files
        build = {"grpo": build_trainer, "rejection": build_rejection_trainer, "sft": build_sft_trainer}[p.method]
        trainer = build(p, model, tokenizer, writer, live, say)  # before the evaluation, so that errors appear early
        try:
            evaluate_all(trainer, p, writer, 0, say)
            train_from(trainer, p, folder, checkpoint)
            finish_run(trainer, p, writer, say)
        finally:
            release_vllm(trainer)
        writer.summarise(p.max_steps)
    writer.write_environment(
        environment_record()
        | {
            "finished": True,
            "processes": world_size(),
            "sampled_by": sampler_of(trainer),
            "seconds": round(time.monotonic() - began, 1),
            "training_seconds": training_seconds(folder),
        }
    )
    wait()


def load_base(p: Profile, read: dict, say) -> tuple:
    """Load (base model, tokenizer), try the reward, and print notes about data and model."""
    tokenizer = models.load_tokenizer(p)
    try_reward(p, has_chat_template(tokenizer))
    if any(read["overlap"].values()):
        say(overlap_sentence(read["overlap"]).capitalize() + ".")
    model = models.load_model(p)
    models.check_vocabulary(tokenizer, model, p.model)
    if left_out := models.untrained_experts(model, p):
        say(left_out)
    return model, tokenizer


@contextlib.contextmanager
def writing(p: Profile, folder: Path, say, repair: bool = True) -> Iterator[RunWriter]:
    """The writer of the run, on disk and in W&B. Only the first process writes."""
    if not is_first():
        yield SilentWriter(folder)
        return
    with contextlib.closing(start_wandb(p, folder, say)) as tracker:
        yield TrackedWriter(folder, tracker, repair)


def sft_stage(p: Profile, model, tokenizer, writer: RunWriter, live, say):
    """Supervised training before RL, from its newest checkpoint. Returns the model that RL starts from."""
    folder = writer.path / SFT_FOLDER
    trained = (folder / "adapter").is_dir() and trained_steps(folder / "adapter", p) == p.sft_steps
    if p.sft_steps and not trained:
        checkpoint = first_decides(lambda: recovery.newest_checkpoint(folder, say))
        writer.cut_back(recovery.checkpoint_step(checkpoint) - p.sft_steps)
        wait()
        trainer = build_sft_stage(p, model, tokenizer, writer, live, say)
        evaluate_all(trainer, p, writer, -p.sft_steps, say)
        train_from(trainer, replace(p, max_steps=p.sft_steps), folder, checkpoint)
        if is_first():
            save_trained(trainer, p, folder / "adapter", p.sft_steps)
        wait()
        model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
        model = model.unload() if p.adapter == "lora" else model  # the base model, whose weights LoRA did not change
    return after_sft(model, p, writer.path)


def train_from(trainer: Trainer, p: Profile, folder: Path, checkpoint: Path | None) -> None:
    """Train to the end. A run that was shortened to its newest checkpoint needs no further steps.

    If a rule stops the run, the model of the newest checkpoint is saved.

    Raises:
        RunStopped: a rule stopped the run.
    """
    if recovery.checkpoint_step(checkpoint) >= p.max_steps:
        trainer._load_from_checkpoint(str(checkpoint))
        return
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except RunStopped:
        last = first_decides(lambda: recovery.newest_checkpoint(folder, lambda text: None))
        if last and is_first():
            trainer._load_from_checkpoint(str(last))
            save_trained(trainer, p, folder / "adapter", recovery.checkpoint_step(last))
        raise


def finish_run(trainer: Trainer, p: Profile, writer: RunWriter, say) -> None:
    """Save the adapter (or the model) and run the full evaluation."""
    if is_first():
        save_trained(trainer, p, writer.path / "adapter", p.max_steps)
    evaluate_all(trainer, p, writer, p.max_steps, say)


def save_trained(trainer: Trainer, p: Profile, folder: Path, step: int) -> None:
    """Save the adapter, or the fully fine-tuned model, with its step. Replaces ``folder`` as a whole."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    part = folder.with_name(folder.name + ".part")
    if p.adapter == "lora":
        models.save_adapter(model, part, p.model)
    else:
        model.save_pretrained(part)
    (part / STEPS_FILE).write_text(f"{step}\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


def training_seconds(folder: Path) -> float:
    """Seconds spent in training steps, including all restarts."""
    metrics = load_run(folder).metrics
    return round(float(metrics["seconds"].iloc[-1]), 1) if len(metrics) else 0.0


# --- using a finished run ---


def load_trained(run: Run) -> tuple:
    """Load (model, tokenizer) of a finished run: the base model with its adapter, or the fully fine-tuned model.

    Raises:
        ValueError: the run has not come to its end.
    """
    p = run.profile
    if not (run.path / "adapter").is_dir():
        raise ValueError(
            f"{run.path} has no trained model yet. Start the same training again to finish it, or set max_steps "
            "to the step of its newest checkpoint to end it there."
        )
    if p.adapter == "none":
        return models.load_model(replace(p, model=str(run.path / "adapter"))), models.load_tokenizer(p)
    base = after_sft(models.load_model(p), p, run.path)
    return models.load_adapter(base, run.path / "adapter"), models.load_tokenizer(p)


def export_run(path: str | Path, folder: str | Path) -> Path:
    """Save a finished run's model as a standard Hugging Face model folder, with the adapter merged.

    Raises:
        ValueError: the run is not finished, or ``folder`` is not empty.
        RunInterrupted: the disk is full. Partial files are removed.
    """
    folder = expanded(folder).resolve()
    if folder.exists() and (folder.is_file() or any(folder.iterdir())):
        raise ValueError(f"{folder} is not empty. Choose a new folder.")
    model, tokenizer = load_trained(load_run(path))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{folder.name}.", suffix=".part", dir=folder.parent) as room:
            part = Path(room) / folder.name
            models.export_merged(model, tokenizer, part)
            if folder.exists():
                folder.rmdir()
            part.rename(folder)
    except Exception as error:
        if recovery.error_number(error) not in recovery.NO_ROOM:
            raise
        raise recovery.RunInterrupted(
            f"The disk under {folder} is full, or the quota is used up. Partial files were removed. "
            "Free some space or choose a folder on another disk."
        ) from error
    return folder


def refuse_smaller_evaluation(run: Run, key: dict, n_samples: int) -> None:
    """Check the number of samples. An evaluation replaces the existing one with the same ``key``.

    Raises:
        ValueError: the new evaluation has fewer samples per problem.
    """
    made = run.evaluations
    for name, value in key.items():
        made = made[made[name] == value]
    if len(made) and n_samples < (most := made["n_samples"].max()):
        raise ValueError(
            f"{run.path} holds this evaluation with {most:.0f} samples per problem, but n_samples={n_samples} would "
            f"replace it. Set n_samples={most:.0f} or more, or another split, decoding or number of shots."
        )


def evaluate_run(
    path: str | Path,
    split: str | None = None,
    shots: int | None = None,
    decoding: str = "sampled",
    n_samples: int | None = None,
    eval_batch: int | None = None,
) -> dict:
    """Evaluate a finished run's model again, with any number of shots. The row is added to the run's evaluations and to W&B.

    ``split=None`` is the first split of the run. ``n_samples=None`` is the number of samples of its final evaluation.
    """
    run = load_run(path)
    p = run.profile
    n_samples = p.eval_samples if n_samples is None else n_samples
    check_evaluation(decoding, n_samples)
    join_processes()
    if recovery.is_going(run.path):
        raise ValueError(f"A process is training in {run.path}. Wait until it ends, then evaluate the run.")
    p = replace(p, shots=p.shots if shots is None else shots, eval_batch=p.eval_batch if eval_batch is None else eval_batch)
    split = split or run.split
    refuse_other_sources(run.path, {f"evaluation problems ({split})": hashed_rows(evaluation_rows(p, split))})
    step = trained_steps(run.path / "adapter", p)
    refuse_smaller_evaluation(run, {"step": step, "split": split, "shots": p.shots, "decoding": decoding}, n_samples)
    model, tokenizer = load_trained(run)
    say = print if is_first() else lambda text: None
    with writing(p, run.path, say, repair=False) as writer:
        return evaluate_split(model, tokenizer, replace(p, eval_samples=n_samples), writer, Part(step, split, decoding), say)


def trained_steps(folder: Path, p: Profile) -> int:
    """The step of the model in ``folder``. A run that is being extended still has the model of its earlier end."""
    file = folder / STEPS_FILE
    return int(file.read_text(encoding="utf-8")) if file.is_file() else p.max_steps

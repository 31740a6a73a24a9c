"""Start or continue a run, finish it, and load what it trained."""

from __future__ import annotations

import functools
import shutil
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import fields, replace
from pathlib import Path

from transformers import Trainer
from transformers.utils import logging as hf_logging

from ..diagnosis import RunStopped
from ..models import (
    check_vocabulary,
    export_merged,
    load_adapter,
    load_model,
    load_tokenizer,
    save_adapter,
    untrained_experts,
)
from ..problems import evaluation_rows, overlap_sentence
from ..profiles import Profile, get_profile
from ..runs import Run, RunWriter, SilentWriter, load_run
from ..sampling.rollouts import check_evaluation, has_chat_template
from ..system.paths import expanded, run_folder
from ..tracking import TrackedWriter, Tracker, environment_record, evaluation_values, start_wandb, wandb_mode
from .attach import is_going
from .build import build_trainer
from .checkpoints import checkpoint_step, checkpoints, newest_checkpoint
from .evaluation import evaluate_all, evaluate_split
from .private_api import refuse_moved_names
from .processes import first_decides, is_first, join_processes, wait, world_size
from .rejection import build_rejection_trainer
from .rewards import reward_function, try_reward
from .safety import NO_ROOM, RunInterrupted, error_number, in_plain_words, only_one
from .sources import described, refuse_other_sources, sources
from .weight_sync import release_vllm, sampler_of

STEPS = "trained-steps.txt"


def train(profile: str = "mini", output_dir: str | Path | None = None, *,
          live: Callable[[list[dict]], None] | None = None, quiet: bool = False, extend: bool = False,
          **overrides: object) -> Run:
    """Train, evaluate before and after, and record everything; continues an interrupted run by itself.

    Args:
        profile: ``"mini"``, ``"llama-8b"``, ...; see :mod:`rlvr_utils.profiles`.
        output_dir: the run's folder; default ``runs/PROFILE-seedN``.
        live: called every few steps with the metrics so far, for a live plot.
        quiet: print no progress.
        extend: let a run that has begun, or ended, go on to a larger ``max_steps`` than it was begun with.
        overrides: any field of the profile; ``train(**read_config("my.yaml"))`` takes them from a file.

    Returns:
        The finished run.

    Raises:
        ValueError: impossible settings, a model or data set that cannot be had, or a folder that holds another run.
        OSError: a full disk, a folder that cannot be read or written, or one in which another call is training.
    """
    refuse_moved_names()
    p = get_profile(profile, **overrides)
    reward_function(p)  # one that cannot be found is refused now, not after the first evaluation
    wandb_mode(p)  # likewise
    folder = run_folder(output_dir or p.folder)
    join_processes()
    say = functools.partial(print, flush=True) if is_first() and not quiet else (lambda text: None)
    with in_plain_words(folder):
        if first_decides(lambda: refuse_other_run(folder, p, say, extend)):
            say(f"{folder.name} is finished already; delete its folder to train again.")
        else:
            with only_one(folder):
                start_or_continue(p, folder, live, say)
        return load_run(folder)


def start_or_continue(p: Profile, folder: Path, live, say) -> None:
    """Train from the newest checkpoint, or from the beginning, to the end."""
    began = time.monotonic()
    hf_logging.set_verbosity_error()
    checkpoint = first_decides(lambda: newest_checkpoint(folder, say))
    tokenizer = load_tokenizer(p)
    try_reward(p, has_chat_template(tokenizer))
    read = sources(p)
    if any(read["overlap"].values()):
        say(overlap_sentence(read["overlap"]).capitalize() + ".")
    model = load_model(p)
    check_vocabulary(tokenizer, model, p.model)
    if left_out := untrained_experts(model, p):
        say(left_out)
    with closing(start_wandb(p, folder, say) if is_first() else Tracker()) as tracker:
        writer = TrackedWriter(folder, tracker) if is_first() else SilentWriter(folder)
        writer.write_config(p.to_dict())
        writer.write_sources(read)
        writer.cut_back(checkpoint_step(checkpoint))
        wait()
        build = build_trainer if p.method == "grpo" else build_rejection_trainer
        trainer = build(p, model, tokenizer, writer, live, say)  # first: what cannot be built fails before it costs an hour
        try:
            evaluate_all(trainer, p, writer, 0, say)
            train_from(trainer, p, folder, checkpoint)
            finish_run(trainer, p, writer, say)
        finally:
            release_vllm(trainer)
        send_summary(tracker, folder, p.max_steps)
    writer.write_environment(environment_record() | {
        "finished": True, "processes": world_size(), "sampled_by": sampler_of(trainer),
        "seconds": round(time.monotonic() - began, 1),
        "training_seconds": training_seconds(folder)})
    wait()


def refuse_other_run(folder: Path, p: Profile, say, extend: bool = False) -> bool:
    """Whether ``folder`` holds this very run, finished.

    A run may go on with other values of the fields with ``may_change``. With a constant learning rate it may also end at
    its newest checkpoint, and with ``extend`` become longer. Only ``extend`` changes a finished run.

    Raises:
        ValueError: it holds a run with other settings, or of another number of steps.
    """
    if not (folder / "config.yaml").is_file():
        return False
    run = load_run(folder)
    changed = changed_settings(run, p, extend)
    if run.environment.get("finished") and "max_steps" not in changed:
        return True
    refuse_other_sources(folder, sources(p))
    for name, (old, new) in changed.items():
        say(f"{name} is {new!r} from here on; it was {old!r}.")
    (folder / "environment.json").unlink(missing_ok=True)  # it is not finished any more
    return False


def changed_settings(run: Run, p: Profile, extend: bool) -> dict[str, tuple]:
    """(old value, new value) of each setting in which ``p`` differs from a run that has begun, all of which may be changed.

    Raises:
        ValueError: one may not.
    """
    old, new = run.profile.to_dict(), p.to_dict()
    changed = {f.name: (old[f.name], new[f.name]) for f in fields(p) if old[f.name] != new[f.name]}
    for f in fields(p):
        free = f.metadata["may_change"] or f.name == "max_steps" and p.lr_schedule == "constant"
        if f.name in changed and not free:
            raise ValueError(f"{run.path} holds a run with {f.name}={old[f.name]!r}, not {new[f.name]!r}. "
                             "Give another output_dir, or delete that folder.")
    if "max_steps" in changed:
        refuse_other_length(run, p.max_steps, extend)
    return changed


def refuse_other_length(run: Run, steps: int, extend: bool) -> None:
    """Let a run become longer only where that is said in so many words, since somebody may pay for these steps.

    Raises:
        ValueError: it would become longer unasked, or shorter than it can.
    """
    was, finished = run.profile.max_steps, bool(run.environment.get("finished"))
    there = checkpoint_step(next(iter(checkpoints(run.path)), None))
    if steps < there or finished and (steps < was or not there):
        there = was if finished else there
        raise ValueError(f"{run.path} holds a run that has made {there} steps: ask for max_steps={there}, or for more with "
                         "extend while its checkpoints are there; or give another output_dir.")
    if steps > was and not extend:
        state = "ended" if finished else "was begun to end"
        raise ValueError(f"{run.path} holds a run that {state} after {was} steps, not {steps}: set max_steps={was} for just "
                         f"that run, or say extend=True (`rlvr train --extend`) to train {steps - was} more.")


def settings_of(folder: str | Path, profile: str = "mini", *, extend: bool = False, say: Callable[[str], None] = print,
                **changes: object) -> Profile:
    """The settings for a folder: those of the run that it holds, else those of the profile with ``changes``.

    So a notebook that is opened beside a run shows that run, whatever it was started with. Of ``changes``, only what may be
    changed on a run that has begun counts (:func:`changed_settings`).

    Raises:
        ValueError: the folder holds a run with other settings than ``changes`` names, or of another profile.
    """
    asked, folder = get_profile(profile, **changes), run_folder(folder)
    if not (folder / "config.yaml").is_file():
        return asked
    run = load_run(folder)
    named = {name: getattr(asked, name) for name in ("profile", *changes)}
    settings = replace(run.profile, **named)
    changed_settings(run, settings, extend)
    apart = {k: v for k, v in settings.to_dict().items() if v != asked.to_dict()[k]}
    if apart:
        say(f"{folder.name} holds a run, and its settings count: {', '.join(f'{k}={v!r}' for k, v in apart.items())}.")
    return settings


def train_from(trainer: Trainer, p: Profile, folder: Path, checkpoint: Path | None) -> None:
    """Train to the end. A run that was shortened to its checkpoint is there already; one that a rule ends keeps its model.

    Raises:
        RunStopped: a rule ended it.
    """
    if checkpoint_step(checkpoint) >= p.max_steps:
        trainer._load_from_checkpoint(str(checkpoint))
        return
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except RunStopped:
        last = first_decides(lambda: newest_checkpoint(folder, lambda text: None))
        if last and is_first():
            trainer._load_from_checkpoint(str(last))
            save_trained(trainer.accelerator.unwrap_model(trainer.model), p, folder / "adapter", checkpoint_step(last))
        raise


def finish_run(trainer: Trainer, p: Profile, writer: RunWriter, say) -> None:
    """Save the adapter (or the model) and evaluate in full."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    if is_first():
        save_trained(model, p, writer.path / "adapter", p.max_steps)
    evaluate_all(trainer, p, writer, p.max_steps, say)


def save_trained(model, p: Profile, folder: Path, step: int) -> None:
    """Save the adapter, or the fully tuned model, as a whole, with its step: ``folder`` never holds half of it."""
    part = folder.with_name(folder.name + ".part")
    if p.adapter == "lora":
        save_adapter(model, part, p.model)
    else:
        model.save_pretrained(part)
    (part / STEPS).write_text(f"{step}\n")
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


def trained_steps(folder: Path, p: Profile) -> int:
    """The step that the model in ``folder`` was saved at: a run that is made longer keeps the model of its earlier end."""
    file = folder / STEPS
    return int(file.read_text()) if file.is_file() else p.max_steps


def send_summary(tracker: Tracker, folder: Path, step: int) -> None:
    """Put the final evaluation into W&B's summary, as ``final/...``."""
    rows = load_run(folder).evaluations
    for row in rows[rows.step == step].to_dict("records"):
        tracker.summarise({f"final/{name.removeprefix('eval/')}": value for name, value in evaluation_values(row).items()})


def training_seconds(folder: Path) -> float:
    """Seconds spent in training steps, over all restarts."""
    metrics = load_run(folder).metrics
    return round(float(metrics["seconds"].iloc[-1]), 1) if len(metrics) else 0.0


def load_trained(run: Run) -> tuple:
    """(model, tokenizer) of a finished run: its base model with its adapter, or its fully tuned model.

    Raises:
        ValueError: the run has not come to its end.
    """
    p = run.profile
    if not (run.path / "adapter").is_dir():
        raise ValueError(f"{run.path} has no trained model yet: start the same training again, it goes on to its end, or "
                         "ends at its newest checkpoint with max_steps set to that.")
    if p.adapter == "none":
        return load_model(replace(p, model=str(run.path / "adapter"))), load_tokenizer(p)
    return load_adapter(load_model(p), run.path / "adapter"), load_tokenizer(p)


def export_run(path: str | Path, folder: str | Path) -> Path:
    """Write a finished run's model as an ordinary model folder, its adapter merged in; any program reads such folders.

    Raises:
        ValueError: the run has not come to its end, or ``folder`` holds something already.
        RunInterrupted: the disk is full. Nothing stays of what was written.
    """
    folder = expanded(folder).resolve()
    if folder.exists() and (folder.is_file() or any(folder.iterdir())):
        raise ValueError(f"{folder} holds something already: name a new folder.")
    model, tokenizer = load_trained(load_run(path))
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        if hasattr(model, "merge_and_unload"):
            export_merged(model, tokenizer, part)
        else:
            model.save_pretrained(str(part))
            tokenizer.save_pretrained(str(part))
        if folder.exists():
            folder.rmdir()
        part.rename(folder)
    except Exception as error:
        if error_number(error) not in NO_ROOM:
            raise
        raise RunInterrupted(f"The disk under {folder} is full, or the quota is used up. Nothing was left there. Make room, "
                             "or name a folder on another disk.") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def refuse_smaller_evaluation(run: Run, key: dict, n_samples: int) -> None:
    """An evaluation replaces one of the same ``key``, so it must not have fewer samples per problem.

    Raises:
        ValueError: it has.
    """
    made = run.evaluations
    for name, value in key.items():
        made = made[made[name] == value]
    if len(made) and n_samples < (most := made["n_samples"].max()):
        raise ValueError(f"{run.path} holds this evaluation with {most:.0f} samples per problem, and {n_samples} would "
                         f"replace it. Set n_samples={most:.0f} or more, or another split, decoding or number of shots.")


def evaluate_run(path: str | Path, split: str | None = None, shots: int | None = None, decoding: str = "sampled",
                 n_samples: int | None = None, eval_batch: int | None = None) -> dict:
    """Evaluate a finished run's model once more, at any number of shots; the row joins the run's evaluations, in W&B too.

    ``split`` None is the first split of the run, ``n_samples`` None as many per problem as at its end.
    """
    run = load_run(path)
    p = run.profile
    n_samples = p.eval_samples if n_samples is None else n_samples
    check_evaluation(decoding, n_samples)
    join_processes()
    if is_going(run.path):
        raise ValueError(f"A process is training in {run.path} at this moment: evaluate the run when it has ended.")
    p = replace(p, shots=p.shots if shots is None else shots, eval_batch=p.eval_batch if eval_batch is None else eval_batch)
    split = split or run.split
    refuse_other_sources(run.path, {f"evaluation problems ({split})": described(evaluation_rows(p, split))})
    step = trained_steps(run.path / "adapter", p)
    refuse_smaller_evaluation(run, {"step": step, "split": split, "shots": p.shots, "decoding": decoding}, n_samples)
    model, tokenizer = load_trained(run)
    say = print if is_first() else lambda text: None
    with closing(start_wandb(p, run.path, say) if is_first() else Tracker()) as tracker:
        writer = TrackedWriter(run.path, tracker, repair=False) if is_first() else SilentWriter(run.path)
        return evaluate_split(model, tokenizer, p, writer, step, split, decoding, n_samples, say)

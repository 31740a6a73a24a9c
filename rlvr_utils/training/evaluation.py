"""Evaluations before, during and after a run. They save every response and leave the training's RNG state unchanged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from transformers import Trainer

from ..problems import evaluation_rows
from ..profiles import Profile
from ..runs import RunWriter, load_run, summarise_evaluation
from ..sampling.rollouts import DECODINGS, Engine, evaluate, vllm_engine
from .processes import first_decides, gather, own_seed, share
from .recording import paced


class Part(NamedTuple):
    """One part of the evaluation at a step: one split with one decoding."""

    step: int
    split: str
    decoding: str

    def __str__(self) -> str:
        return f"evaluation at step {self.step}, {self.split}, {self.decoding}"


def evaluate_all(trainer: Trainer, p: Profile, writer: RunWriter, step: int, say) -> None:
    """The full evaluation, before and after training: every split, sampled at T = 1 and greedy. Skips finished parts."""
    evaluate_parts(trainer, p, writer, first_decides(lambda: missing_evaluations(writer.path, p, step)), say)


def evaluate_interim(trainer: Trainer, p: Profile, writer: RunWriter, step: int, say) -> None:
    """The evaluation during training: the first split with one sample per problem. Leaves the RNG state unchanged."""
    evaluate_parts(trainer, replace(p, eval_samples=1), writer, [Part(step, p.eval_splits[0], "sampled")], say)


def missing_evaluations(folder: Path, p: Profile, step: int) -> list[Part]:
    """The parts of the full evaluation at ``step`` that are not on disk yet, in order."""
    rows = load_run(folder).evaluations
    rows = rows[(rows.step == step) & (rows.shots == p.shots)]
    # An evaluation during training has one sample per problem, so it does not replace the full one. Greedy decoding returns
    # the same response every time, so the full evaluation needs one greedy sample only.
    wanted = {"sampled": p.eval_samples, "greedy": 1}
    done = {(row.split, row.decoding) for row in rows.itertuples() if (row.n_samples or 0) >= wanted[row.decoding]}
    return [Part(step, split, how) for how in DECODINGS for split in p.eval_splits if (split, how) not in done]


def evaluate_parts(trainer: Trainer, p: Profile, writer: RunWriter, parts: list[Part], say) -> None:
    """Evaluate the trainer's current model, with vLLM if the trainer uses it."""
    model, engine = trainer.accelerator.unwrap_model(trainer.model), vllm_engine(trainer) if parts else None
    for part in parts:
        evaluate_split(model, trainer.processing_class, p, writer, part, say, engine)


def evaluate_split(model, tokenizer, p: Profile, writer: RunWriter, part: Part, say, engine: Engine | None = None) -> dict:
    """Evaluate one split with ``eval_samples`` responses per problem. Write responses and summary, return the summary row.

    The processes share the problems.
    """
    rows, here = share(evaluation_rows(p, part.split)), replace(p, seed=own_seed(p.seed))
    responses = gather(
        evaluate(model, tokenizer, rows, here, part.decoding, engine=engine, progress=paced(say, str(part))) if rows else []
    )
    key = {"step": part.step, "split": part.split, "shots": p.shots, "decoding": part.decoding}
    row = key | {k: v for k, v in summarise_evaluation(responses).items() if k not in key}
    writer.log_evaluation(row, responses)
    say(
        f"{part}: accuracy {row['accuracy']:.3f} [{row['accuracy_low']:.3f}, {row['accuracy_high']:.3f}] "
        f"(n = {row['n_problems']} x {row['n_samples']}), boxed {row['boxed_rate']:.3f}, {row['mean_tokens']:.1f} tokens"
    )
    return row

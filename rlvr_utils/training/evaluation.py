"""Evaluations before, during and after a run: every response kept, the training's random state left alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from transformers import Trainer

from ..problems import evaluation_rows
from ..profiles import Profile
from ..runs import RunWriter, load_run, summarise_evaluation
from ..sampling.rollouts import DECODINGS, Engine, evaluate, vllm_engine
from .processes import first_decides, gather, own_seed, share
from .recording import paced


def missing_evaluations(folder: Path, p: Profile, step: int) -> list[tuple[str, str]]:
    """(split, decoding) of every part of the full evaluation at ``step`` that is not on disk yet, in order."""
    rows = load_run(folder).evaluations
    rows = rows[(rows.step == step) & (rows.shots == p.shots)]
    # An evaluation on the way has one sample per problem: it is a part of the full one, not the full one.
    done = {(row.split, row.decoding) for row in rows.itertuples() if (row.n_samples or 0) >= samples_of(p, row.decoding)}
    return [(split, decoding) for decoding in DECODINGS for split in p.eval_splits if (split, decoding) not in done]


def samples_of(p: Profile, decoding: str) -> int:
    """Responses per problem in a full evaluation: greedy decoding gives the same one every time."""
    return 1 if decoding == "greedy" else p.eval_samples


def evaluate_all(trainer: Trainer, p: Profile, writer: RunWriter, step: int, say) -> None:
    """The full evaluation, before and after training: every split, sampled at T = 1 and greedy; made parts are kept."""
    parts = first_decides(lambda: missing_evaluations(writer.path, p, step))
    evaluate_parts(trainer, p, writer, step, parts, p.eval_samples, say)


def evaluate_interim(trainer: Trainer, p: Profile, writer: RunWriter, step: int, say) -> None:
    """On the way: the first split, one sample a problem; the random state of the training is left as it was."""
    evaluate_parts(trainer, p, writer, step, [(p.eval_splits[0], "sampled")], 1, say)


def evaluate_parts(trainer: Trainer, p: Profile, writer: RunWriter, step: int, parts: list[tuple[str, str]], n_samples: int,
                   say) -> None:
    """Evaluate (split, decoding) parts with the trainer's model as it is now, through its vLLM where it has one."""
    model, engine = trainer.accelerator.unwrap_model(trainer.model), vllm_engine(trainer) if parts else None
    for split, decoding in parts:
        evaluate_split(model, trainer.processing_class, p, writer, step, split, decoding, n_samples, say, engine)


def evaluate_split(model, tokenizer, p: Profile, writer: RunWriter, step: int, split: str, decoding: str,
                   n_samples: int, say, engine: Engine | None = None) -> dict:
    """Evaluate one split, write responses and summary, return the summary row. Processes share the problems."""
    rows = share(evaluation_rows(p, split))
    here = replace(p, eval_samples=n_samples, seed=own_seed(p.seed))
    responses = gather(evaluate(model, tokenizer, rows, here, decoding, engine=engine,
                                progress=paced(say, f"evaluation at step {step}, {split}, {decoding}")) if rows else [])
    key = {"step": step, "split": split, "shots": p.shots, "decoding": decoding}
    row = key | {k: v for k, v in summarise_evaluation(responses).items() if k not in key}
    writer.log_evaluation(row, responses)
    say(f"evaluation at step {step}, {split}, {decoding}: accuracy {row['accuracy']:.3f} "
        f"[{row['accuracy_low']:.3f}, {row['accuracy_high']:.3f}] (n = {row['n_problems']} x {row['n_samples']}), "
        f"boxed {row['boxed_rate']:.3f}, {row['mean_tokens']:.1f} tokens")
    return row

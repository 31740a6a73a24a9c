r"""Pretrain MiniLlama, a small ``LlamaForCausalLM`` that can do more than it usually does, like real base models.

The documents mix three independent features: boxed or unboxed answers, reasoning (mostly correct) or direct answers
(often wrong), and one problem or several in one consistent style. The first part of pretraining builds the ability
(mostly reasoning, few errors), the last part the behaviour (:data:`HABIT`). The model can reason and box, but rarely does
both, so RLVR has real behaviour to change. It never sees a test or ood problem.

Run it:  make minillama [ARGS="--output-dir runs/minillama --steps 7500"]  (seeded, resumable, shows the time left)
Not included: several devices, evaluation during training.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from minimath import Template, Work, pretraining_rows, slipped_work, solution_text
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from rlvr_utils import REPO
from rlvr_utils.problems import load_problems
from rlvr_utils.problems.prompts import ANSWER, QUESTION
from rlvr_utils.system.paths import run_folder
from rlvr_utils.system.platforms import take

BOS, EOS, PAD = "<|begin_of_text|>", "<|end_of_text|>", "<|finetune_right_pad_id|>"


@dataclass(frozen=True)
class Mix:
    """Shares of the pretraining documents. Each feature is drawn independently."""

    boxed: float = 0.42  # documents with boxed answers
    worked: float = 0.50  # documents with step-by-step reasoning
    several: float = 0.30  # documents with two to five problems in one style
    slip_worked: float = 0.38  # answers with reasoning and one error that leads to a wrong answer
    slip_blurted: float = 0.30  # direct answers that are wrong


ABILITY = Mix(worked=0.90, slip_worked=0.02, slip_blurted=0.30)
HABIT = Mix()


def write_answer(
    template: Template, params: dict[str, int], boxed: bool, worked: bool, slip: bool, rng: random.Random
) -> tuple[str, str]:
    """Return (problem, answer text) of one problem in one style."""
    work = Work()
    steps, answer = work.steps, template.solve(work, **params)
    if slip:
        steps, answer = slipped_work(template, params, rng)
    return work.problem_text, solution_text(steps if worked else [], answer, boxed)


def documents(rng: random.Random, mix: Mix, forbidden: set[str]) -> Iterator[list[tuple[str, str]]]:
    """Yield documents without end. Each is a list of (question, answer) in one style."""
    problems = pretraining_rows(rng, forbidden)
    while True:
        boxed, worked = rng.random() < mix.boxed, rng.random() < mix.worked
        count = rng.randint(2, 5) if rng.random() < mix.several else 1
        slip = mix.slip_worked if worked else mix.slip_blurted
        yield [write_answer(*next(problems), boxed, worked, rng.random() < slip, rng) for _ in range(count)]


def document_text(pairs: list[tuple[str, str]]) -> str:
    """Return the document as text, in the format of a few-shot prompt."""
    return "\n\n".join(f"{QUESTION}{question}{ANSWER} {answer}" for question, answer in pairs)


def train_tokenizer(texts: Iterator[str], vocab_size: int = 640) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE in which every digit and every frequent LaTeX command is one token."""
    tokenizer = Tokenizer(models.BPE())
    pieces = r" ?\\[A-Za-z]+| ?\\[^A-Za-z]| ?[A-Za-z]+| ?\d|\n+| ?[^\sA-Za-z\d\\]+|\s+"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pieces), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[BOS, EOS, PAD],
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )


def new_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """Return an initialised MiniLlama: 4 layers, width 224, 4 heads of width 56 that share 2 key/value heads."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=224,
        intermediate_size=608,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        rope_theta=10000.0,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def encode_document(
    pairs: list[tuple[str, str]], tokenizer: PreTrainedTokenizerFast, question_weight: float
) -> tuple[list[int], list[float]]:
    """Return token ids and loss weights of one document. Questions contain random numbers, so they get a low weight."""
    ids, weights = [tokenizer.bos_token_id], [0.0]
    for index, (question, answer) in enumerate(pairs):
        prefix = ("\n\n" if index else "") + QUESTION + question + ANSWER
        for text, weight in ((prefix, question_weight), (" " + answer, 1.0)):
            piece = tokenizer(text, add_special_tokens=False)["input_ids"]
            ids += piece
            weights += [weight] * len(piece)
    return ids + [tokenizer.eos_token_id], weights + [1.0]


def batches(
    stream: Iterator[list[tuple[str, str]]],
    tokenizer: PreTrainedTokenizerFast,
    rng: random.Random,
    tokens_per_batch: int,
    question_weight: float,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield padded batches of documents of similar length: ids ``(B, T)`` and loss weights ``(B, T)``."""
    while True:
        pool = sorted(
            (encode_document(next(stream), tokenizer, question_weight) for _ in range(1024)), key=lambda pair: len(pair[0])
        )
        groups, group = [], []
        for document in pool:
            if group and (len(group) + 1) * len(document[0]) > tokens_per_batch:
                groups.append(group)
                group = []
            group.append(document)
        rng.shuffle(groups)  # the last, unfinished group of longest documents is dropped
        for group in groups:
            width = max(len(ids) for ids, _ in group)
            yield (
                torch.tensor([ids + [tokenizer.pad_token_id] * (width - len(ids)) for ids, _ in group]),
                torch.tensor([w + [0.0] * (width - len(w)) for _, w in group]),
            )


def weighted_loss(model: LlamaForCausalLM, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the weighted mean next-token cross-entropy in nats. Causal attention needs no mask for right padding."""
    logits = model(input_ids=ids).logits[:, :-1]
    losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    weight = weights[:, 1:].flatten()
    return (losses * weight).sum() / weight.sum()


def learning_rate(step: int, total: int, peak: float, warmup: int = 100) -> float:
    """Return the learning rate: linear warm-up, then cosine decay to a tenth of ``peak``."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (0.1 + 0.45 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup))))


@dataclass(frozen=True)
class PretrainConfig:
    """Configuration of a pretraining run. ``fast`` compiles the loss and uses bfloat16 (about twice the speed)."""

    steps: int = 7500
    seed: int = 0
    habit_share: float = 0.35  # the last part of the steps, on HABIT's documents
    peak_learning_rate: float = 2e-3
    tokens_per_batch: int = 3072
    question_weight: float = 0.1
    fast: bool = True
    save_every: int = 500


def forbidden_ids() -> set[str]:
    """Return the ids of all test and ood problems, which pretraining must never see."""
    return {row["id"] for split in ("test", "ood") for row in load_problems("minimath", split)}


def pretrain(output_dir: str | Path, config: PretrainConfig = PretrainConfig()) -> Path:
    """Pretrain MiniLlama and save it, its tokenizer and the loss curve to ``output_dir``.

    The same call continues an interrupted run from ``output_dir/state.pt``, which is loaded with ``weights_only=True`` and
    removed at the end.

    Raises:
        ValueError: ``output_dir`` contains an interrupted run with another configuration or tokenizer, or a damaged state,
            or another process is pretraining there.
    """
    output_dir = run_folder(output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    with (output_dir / "state.lock").open("ab") as lock:
        try:
            take(lock)
        except BlockingIOError as error:
            raise ValueError(
                f"Another process is pretraining in {output_dir}. Wait until it ends, or set another output_dir."
            ) from error
        _pretrain(output_dir, config)
    return output_dir


def _pretrain(output_dir: Path, config: PretrainConfig) -> None:
    forbidden = forbidden_ids()
    sample = documents(random.Random(config.seed), HABIT, forbidden)
    tokenizer = train_tokenizer(document_text(next(sample)) for _ in range(20_000))
    model = new_model(tokenizer, config.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.peak_learning_rate, betas=(0.9, 0.98), weight_decay=0.05)
    made_by = {"config": asdict(config), "tokenizer": fingerprint(tokenizer)}
    start, losses, spent = restore(output_dir / "state.pt", model, optimizer, made_by)
    ability, habit = (batch_stream(mix, config, forbidden, tokenizer, start) for mix in (ABILITY, HABIT))
    loss_of = torch.compile(weighted_loss, dynamic=True) if config.fast else weighted_loss
    began = time.monotonic() - spent
    for step in range(start, config.steps):
        batch = next(habit if in_habit_part(step, config) else ability)
        losses.append(train_step(model, optimizer, loss_of, batch, config, step))
        done = step + 1
        if done % 100 == 0 or done == config.steps:
            elapsed = time.monotonic() - began
            left = elapsed / done * (config.steps - done)
            print(
                f"step {done}/{config.steps}  loss {sum(losses[-100:]) / len(losses[-100:]):.3f}  "
                f"{elapsed / 60:.1f} min, about {left / 60:.1f} min left",
                flush=True,
            )
        if done % config.save_every == 0 and done < config.steps:
            save_state(output_dir / "state.pt", model, optimizer, done, losses, time.monotonic() - began, made_by)
    finish(output_dir, model, tokenizer, config, losses, time.monotonic() - began)


def batch_stream(mix: Mix, config: PretrainConfig, forbidden: set[str], tokenizer, start: int):
    """Return batches of one mix. A resumed run continues with new documents."""
    rng = random.Random(f"{config.seed}-{start}-{mix.worked}")
    return batches(documents(rng, mix, forbidden), tokenizer, rng, config.tokens_per_batch, config.question_weight)


def in_habit_part(step: int, config: PretrainConfig) -> bool:
    """Return whether this step belongs to the last part, which uses :data:`HABIT`."""
    return step >= round(config.steps * (1 - config.habit_share))


def train_step(model, optimizer, loss_of, batch, config: PretrainConfig, step: int) -> float:
    """Do one optimizer step and return the loss in nats."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step, config.steps, config.peak_learning_rate)
    with torch.autocast("cpu", torch.bfloat16, enabled=config.fast):
        loss = loss_of(model, *batch)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def fingerprint(tokenizer: PreTrainedTokenizerFast) -> str:
    """Return a digest of the tokenizer, because weights only fit the tokenizer that they were trained with."""
    return hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()


def restore(path: Path, model, optimizer, made_by: dict) -> tuple[int, list[float], float]:
    """Return (first step, losses so far, seconds spent) of an interrupted run, or (0, [], 0) for a new one.

    Raises:
        ValueError: the state cannot be read, or differs from ``made_by`` in anything but ``save_every``.
    """
    if not path.is_file():
        return 0, [], 0.0
    elsewhere = f"Set another output_dir, or delete {path} to start over."
    try:
        state = torch.load(path, weights_only=True)
        old, new = state.get("config", {}), made_by["config"]
    except Exception as error:  # torch and pickle raise many types of errors
        raise ValueError(f"{path} is damaged and cannot be read. {elsewhere}") from error
    changed = [name for name in new if name != "save_every" and old.get(name) != new[name]]
    if changed:
        said = ", ".join(f"{name}={old.get(name)!r}, not {new[name]!r}" for name in changed)
        raise ValueError(
            f"{path.parent} contains an interrupted pretraining with {said}. Use the same configuration. {elsewhere}"
        )
    if state.get("tokenizer") != made_by["tokenizer"]:
        raise ValueError(
            f"{path.parent} contains an interrupted pretraining with another tokenizer, because the problems or the code "
            f"have changed. {elsewhere}"
        )
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    print(f"continuing from step {state['step']}", flush=True)
    return state["step"], state["losses"], state["seconds"]


def save_state(path: Path, model, optimizer, step: int, losses: list[float], seconds: float, made_by: dict) -> None:
    """Write the state to a temporary file first, so that an interruption never leaves a partial file."""
    torch.save(
        {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": step,
            "losses": losses,
            "seconds": seconds,
        }
        | made_by,
        path.with_suffix(".tmp"),
    )
    path.with_suffix(".tmp").replace(path)


def finish(output_dir: Path, model, tokenizer, config: PretrainConfig, losses: list[float], seconds: float) -> None:
    """Save weights (safetensors), tokenizer and ``pretraining.json`` (configuration, mix, smoothed loss curve)."""
    model.save_pretrained(output_dir)
    tokenizer.save_pretrained(output_dir)
    curve = [[end, round(sum(losses[end - 100 : end]) / 100, 4)] for end in range(100, len(losses) + 1, 100)]
    record = {
        "config": asdict(config),
        "ability": asdict(ABILITY),
        "habit": asdict(HABIT),
        "minutes": round(seconds / 60, 1),
        "parameters": sum(p.numel() for p in model.parameters()),
        "torch": torch.__version__,
        "loss_curve": curve,
    }
    (output_dir / "pretraining.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    for name in ("state.pt", "state.lock"):
        (output_dir / name).unlink(missing_ok=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output-dir", type=Path, default=REPO / "runs" / "minillama")
    for field in fields(PretrainConfig):
        kind = {"type": type(field.default)}
        if isinstance(field.default, bool):
            kind = {"action": argparse.BooleanOptionalAction}
        name = "--" + field.name.replace("_", "-")
        parser.add_argument(name, default=field.default, help="(default: %(default)s)", **kind)
    options = vars(parser.parse_args())
    print(f"MiniLlama is in {pretrain(options.pop('output_dir'), PretrainConfig(**options))}.")


if __name__ == "__main__":
    main()

"""Kill a training run with -9 at random moments, start it again, and compare everything with a run that was not killed.

Three kinds of moment: any time at all ("clock"); just before the k-th change of a file in the run's folder ("file":
between a checkpoint and its mark, between an evaluation's responses and its row, during the removal of an old
checkpoint, ...); and in the middle of the k-th write ("half", which leaves half a line, half a gzip member or half a
file). The model is a Llama of a few thousand parameters, the run twelve steps over three passes. Leaves out: W&B
(tests/test_tracking.py) and power cuts, which lose what the system had not yet written. Each start is a process of its
own, forked so that the libraries are imported once:

    make test-resume   (or: python tests/resume.py [--kills 20] [--seed 0])
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from rlvr_utils import training
from rlvr_utils.runs import disk, load_run

sys.path.append(str(Path(__file__).resolve().parent.parent / "tools"))  # for whoever starts this file by itself
from pretrain import HABIT, document_text, documents, train_tokenizer

SETTINGS = {
    "prompts_per_step": 2,
    "group_size": 4,
    "max_steps": 12,
    "train_subset": 8,
    "eval_problems": 3,
    "eval_every": 3,
    "save_every": 2,
    "max_completion_length": 8,
    "log_rollouts_every": 2,
    "wandb_mode": "disabled",
    "guard": "off",
}
CLOCKS = ["seconds", "step_time"]  # the only columns that may differ
KINDS = ("file", "half", "clock")
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")


def tiny_model(folder: Path) -> Path:
    """A random Llama of about ten thousand parameters with MiniLlama's kind of tokenizer."""
    stream = documents(random.Random(0), HABIT, set())
    tokenizer = train_tokenizer(document_text(next(stream)) for _ in range(300))
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def odd(completions, **columns) -> list[float]:
    """A reward that varies without any skill, so that the weights of an untrained model really move."""
    return [float(sum(map(ord, text)) % 2) for text in completions]


def odd_rewards():
    """A context in which runs are rewarded by :func:`odd`: an untrained model is never right."""
    return patch.object(training.rewards, "boxed_reward", odd)


# --- killing ---


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at_change(folder: Path, act: Callable[[str], None]) -> None:
    """Call ``act`` with the path before every change of a file or folder under ``folder``."""

    def hook(event: str, arguments: tuple) -> None:
        if event == "open":
            path, mode, flags = arguments
            changes = flags & (os.O_WRONLY | os.O_RDWR) and isinstance(path, str)
        else:
            changes = event in CHANGES
            path = arguments[0] if changes else ""
        if changes and (str(path).startswith(str(folder)) or not os.path.isabs(str(path))):
            act(str(path))

    sys.addaudithook(hook)


def at_write(act: Callable[[Path, bytes], None]) -> None:
    """Call ``act`` with the target and the data before every write of the run's own files."""

    def watched(write: Callable, target: Callable[[Path], Path]) -> Callable:
        def first_act(file: Path, data: bytes) -> None:
            act(target(file), data)
            write(file, data)

        return first_act

    disk.append_to = watched(disk.append_to, lambda file: file)
    disk.replace_file = watched(disk.replace_file, lambda file: file.with_name(file.name + ".part"))


def countdown(k: int, act: Callable) -> Callable:
    """A function that does nothing until its ``k``-th call, which calls ``act``."""
    left = itertools.count(k, -1)
    return lambda *arguments: act(*arguments) if next(left) == 1 else None


def write_half(file: Path, data: bytes) -> None:
    """Leave what a process leaves that is killed in the middle of a write."""
    with file.open("ab") as out:
        out.write(data[: len(data) // 2])
    die()


def prepare_death(kind: str, k: int, folder: Path) -> None:
    """Arm this process: at its ``k``-th change or write it kills itself."""
    if kind == "file":
        at_change(folder, countdown(k, die))
    elif kind == "half":
        at_write(countdown(k, write_half))


# --- running ---


def start(folder: Path, model: Path, prepare: Callable[[], None] = lambda: None, kill_after: float | None = None) -> bool:
    """Start the run in a process of its own and wait for its end; whether it finished (False: it was killed)."""
    child = os.fork()
    if child == 0:
        run_in_child(folder, model, prepare)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return False
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"the run failed by itself:\n{folder.with_suffix('.log').read_text()[-3000:]}")
    return True


def run_in_child(folder: Path, model: Path, prepare: Callable[[], None]) -> None:
    """Train, with everything that is said in a log beside the folder; never returns."""
    log = os.open(folder.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    try:
        prepare()
        training.train("mini", folder, model=str(model), **SETTINGS)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def uninterrupted(folder: Path, model: Path) -> tuple[float, dict[str, int]]:
    """Make the run to compare with; (its seconds, how many moments of each kind it has)."""
    counts = {"file": 0, "half": 0}
    noted = folder.with_suffix(".json")

    def count(kind: str, *_: object) -> None:
        counts[kind] += 1
        os.write(tally, (json.dumps(counts) + "\n").encode())

    def prepare() -> None:
        at_change(folder, lambda path: count("file"))
        at_write(lambda file, data: count("half"))

    tally = os.open(noted, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    began = time.monotonic()
    start(folder, model, prepare)
    return time.monotonic() - began, json.loads(noted.read_text().splitlines()[-1])


# --- comparing ---


def differences(whole: Path, other: Path) -> list[str]:
    """What is not the same, bit for bit, in two finished runs; clocks and hardware notes aside."""
    found = [f"{path.relative_to(other)} is left over" for path in other.rglob("*.part")]
    for path in sorted(whole.rglob("*")):
        name = path.relative_to(whole)
        compared = name.parts[0] in ("adapter", "rollouts", "evaluations.jsonl", "config.yaml")
        if compared and path.is_file() and name.name != "train.jsonl.gz":
            if not (other / name).is_file() or (other / name).read_bytes() != path.read_bytes():
                found.append(f"{name} differs")
    a, b = load_run(whole), load_run(other)
    if not a.metrics.drop(columns=CLOCKS, errors="ignore").equals(b.metrics.drop(columns=CLOCKS, errors="ignore")):
        found.append("metrics differ")
    if not a.rollouts.equals(b.rollouts):
        found.append("rollouts differ")
    if not b.environment.get("finished"):
        found.append("not marked as finished")
    return found


def trial(folder: Path, model: Path, pick: Callable[[], tuple[str, float]], kills: int) -> int:
    """Kill and restart one run until it finishes, at most ``kills`` times; how often it was killed."""
    for killed in range(kills):
        kind, moment = pick()
        if kind == "clock":
            finished = start(folder, model, kill_after=moment)
        else:
            finished = start(folder, model, functools.partial(prepare_death, kind, int(moment), folder))
        steps = len(load_run(folder).metrics) if folder.is_dir() else 0
        print(f"  {kind:5} {moment:6.1f}: " + ("had finished" if finished else f"killed after step {steps}"), flush=True)
        if finished:
            return killed
    start(folder, model)
    return kills


def study(root: Path, wanted: int, seed: int) -> None:
    """Make the uninterrupted run, then killed ones until ``wanted`` kills; SystemExit at the first difference."""
    torch.set_num_threads(1)  # a forked process cannot use its parent's threads
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    training.rewards.boxed_reward = odd
    model = tiny_model(root / "model")
    seconds, counts = uninterrupted(root / "whole", model)
    print(f"uninterrupted: {seconds:.0f} s, {counts['file']} changes of files, {counts['half']} writes", flush=True)
    draw, kinds, killed, number = random.Random(seed), itertools.cycle(KINDS), 0, 0

    def pick() -> tuple[str, float]:
        kind = next(kinds)
        return kind, draw.uniform(0, seconds) if kind == "clock" else draw.randint(1, counts[kind])

    while killed < wanted:
        number += 1
        print(f"run {number}", flush=True)
        killed += trial(root / f"run-{number}", model, pick, min(4, wanted - killed))
        found = differences(root / "whole", root / f"run-{number}")
        if found:
            raise SystemExit(f"run {number} is not the uninterrupted one: {'; '.join(found)}")
        print("  resumed to the same bits", flush=True)
    print(f"{killed} kills in {number} runs: weights, metrics, rollouts and evaluations are the same, bit for bit")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        study(Path(folder).resolve(), arguments.kills, arguments.seed)


if __name__ == "__main__":
    main()

"""Time a mini training step, an evaluation and a sampling call, on an idle machine and next to busy processes.

The arms alternate in one process: a fixed number of threads (one, or one per core), and the number chosen by
``rlvr_utils.system.threads``. A busy process is a Python loop that never waits. We time a step from its start to the start
of the next. The learning rate is almost 0, so every block has the same work. An evaluation samples 2 responses per problem
for 64 test problems, a sampling call 8 for each of 16. The first unit of each block is a warm-up, in which the adaptive
arm chooses its number of threads. ``settling`` is its duration, and ``changes`` counts changes of the number. Ratios
compare blocks of the same round.

On an idle machine the arms differ less than single units vary. There ``--pairs`` repeats identical work (same problems,
same seed, same tokens) with both arms in turn, and we report the ratio over pairs.

    python studies/busy_machine.py [--pairs 60] [--rounds 8] [--units 2] [--busy 1 2] [--spinning]

``--spinning`` adds one unit with one thread per core next to one busy process (some minutes). ``--pairs 0`` or
``--rounds 0`` keeps that part of studies/results/busy_machine.json unchanged.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
from mini_step import Side, ratio_with_interval
from shared_prefix import environment
from transformers import TrainerCallback
from transformers.utils import logging as hf_logging

from rlvr_utils.models import load_model, load_tokenizer
from rlvr_utils.problems import evaluation_rows
from rlvr_utils.profiles import get_profile
from rlvr_utils.sampling.rollouts import Sampling, evaluate, prompts_for, sample_responses
from rlvr_utils.system import threads
from rlvr_utils.system.threads import Threads, cores

RESULT = Path(__file__).parent / "results" / "busy_machine.json"
KINDS = ("training", "evaluation", "sampling")


def spin(parent: int) -> None:
    while os.getppid() == parent:  # ends even if the benchmark is killed
        pass


@contextmanager
def busy_processes(n: int) -> Iterator[None]:
    """Run ``n`` processes that never wait, inside the context."""
    others = [multiprocessing.get_context("spawn").Process(target=spin, args=(os.getpid(),), daemon=True) for _ in range(n)]
    for other in others:
        other.start()
    time.sleep(0.5 * bool(n))  # wait until they are running
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.join()


def choose_threads(arm: str) -> None:
    """Set the number of threads: ``"adapted"`` or a fixed number."""
    torch.set_num_threads(len(cores()) if arm == "adapted" else int(arm))
    threads._threads = Threads(say=lambda text: None) if arm == "adapted" else None


def timed(call: Callable[[], object]) -> float:
    """Return the seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


class Work:
    """The timed work: training steps, evaluations and sampling calls of one model."""

    def __init__(self, units: int, folder: Path):
        p = get_profile(
            "mini",
            max_steps=units + 2,
            wandb_mode="disabled",
            eval_every=10**6,
            save_every=10**6,
            log_rollouts_every=10**6,
            learning_rate=1e-12,
        )
        self.p, self.units = p, units
        self.side = Side("ours", p, None, folder, time.perf_counter)
        self.model, self.tokenizer = load_model(p), load_tokenizer(p)
        self.rows = evaluation_rows(p, "test")

    def training(self) -> list[float]:
        return [step[0] for step in self.side.block()]

    def evaluation(self) -> list[float]:
        return [timed(self.evaluation_call()) for _ in range(self.units + 1)]

    def sampling(self) -> list[float]:
        return [timed(self.sampling_call()) for _ in range(self.units + 1)]

    def evaluation_call(self) -> Callable[[], object]:
        p = replace(self.p, eval_samples=2, max_completion_length=96)
        return lambda: evaluate(self.model, self.tokenizer, self.rows[:64], p)

    def sampling_call(self) -> Callable[[], object]:
        prompts = prompts_for(self.rows[:16], self.tokenizer, self.p)
        return lambda: sample_responses(self.model, self.tokenizer, prompts, Sampling.of(self.p, n_samples=8, seed=0))


class SameStep(TrainerCallback):
    """Makes every step sample the same responses, and calls ``choose(step)`` before each."""

    def __init__(self, choose: Callable[[int], None]):
        self.choose, self.step = choose, 0

    def on_step_begin(self, args, state, control, **kwargs):
        torch.manual_seed(0)
        self.choose(self.step)
        self.step += 1


def measure_alone(pairs: int) -> dict:
    """Return ``{kind: {"seconds": [[fixed, adapted] per pair], "ratio": [adapted / fixed, low, high], "changes": n}}``."""
    most, changes = str(len(cores())), 0

    def choose(number: int) -> None:  # fixed, adapted, adapted, fixed, ...: a drift affects both arms equally
        nonlocal changes
        changes += threads._threads.changes if threads._threads else 0
        choose_threads("adapted" if number % 4 in (1, 2) else most)

    def paired(seconds: list[float]) -> dict:
        both = zip(seconds[::2], seconds[1::2], strict=True)
        couples = [(a, b) if i % 2 == 0 else (b, a) for i, (a, b) in enumerate(both)]
        fixed, adapted = map(list, zip(*couples, strict=True))
        return {
            "seconds": [[round(a, 4), round(b, 4)] for a, b in couples],
            "ratio": ratio_with_interval(adapted, fixed),
            "changes": changes,
        }

    with tempfile.TemporaryDirectory() as folder:
        work, result = Work(2 * pairs + 4, Path(folder)), {}
        step = list(range(work.p.prompts_per_step))
        work.side.trainer.train_dataset = work.side.trainer.train_dataset.select(step * work.p.max_steps)
        work.side.trainer.add_callback(SameStep(choose))
        result["training"] = paired(work.training()[4 : 4 + 2 * pairs])  # the first four warm up
        for kind in KINDS[1:]:
            changes, call = 0, getattr(work, kind + "_call")()
            call()
            seconds = []
            for number in range(2 * pairs):
                choose(number)
                seconds.append(timed(call))
            result[kind] = paired(seconds)
    return result


def measure(rounds: int, units: int, busy: list[int], spinning: bool) -> dict:
    """Return ``{kind: {arm: {"seconds": [[...] per round], "settling": [...], "changes": [...]}}}``."""
    arms = [(arm, n) for n in (0, *busy) for arm in ("1", str(len(cores())), "adapted") if n == 0 or arm in ("1", "adapted")]
    result = {kind: {} for kind in KINDS}
    with tempfile.TemporaryDirectory() as folder:
        work = Work(units, Path(folder))
        work.training()  # warm-up
        for number in range(rounds):
            for n in (0, *busy):
                with busy_processes(n):
                    for kind in KINDS:
                        for arm in [arm for arm, beside in arms if beside == n][:: 1 if number % 2 == 0 else -1]:
                            choose_threads(arm)
                            note(result[kind], arm, n, getattr(work, kind)())
        if spinning:
            work.units = 1
            work.side.trainer.args.max_steps = 3
            with busy_processes(1):
                for kind in KINDS:
                    choose_threads(str(len(cores())))
                    note(result[kind], str(len(cores())), 1, getattr(work, kind)())
    return result


def note(result: dict, arm: str, n: int, seconds: list[float]) -> None:
    """Record one block. Its first unit is the settling time."""
    where = result.setdefault(f"{arm} beside {n}", {"settling": [], "seconds": [], "changes": []})
    where["settling"].append(round(seconds[0], 3))
    where["seconds"].append([round(s, 3) for s in seconds[1:]])
    where["changes"].append(threads._threads.changes if threads._threads else 0)
    print(f"{arm} beside {n}: first {seconds[0]:.2f} s, then {median(seconds[1:]):.2f} s", flush=True)


def ratios(arms: dict, above: str, below: str) -> list[float]:
    """Return the sorted ratios of the median seconds of two arms, one per round."""
    pairs = zip(arms[above]["seconds"], arms[below]["seconds"], strict=True)
    return sorted(median(one) / median(other) for one, other in pairs)


def table(result: dict, most: str) -> str:
    """Return a table of the ratios and of the medians of all arms."""
    lines = [
        f"{kind}: alone, adapted / {most} threads: {block['ratio'][0]:.3f} [{block['ratio'][1]:.3f}, "
        f"{block['ratio'][2]:.3f}] over {len(block['seconds'])} pairs, {block['changes']} changes"
        for kind, block in result.get("alone", {}).get("kinds", {}).items()
    ]
    for kind, arms in result.get("kinds", {}).items():
        for above, below in ((arm, "1 beside 0") for arm in arms if arm.startswith("adapted") and arm[-1] != "0"):
            all_rounds = ratios(arms, above, below)
            lines.append(
                f"{kind}: {above} busy / {below} busy: {median(all_rounds):.3f} ({all_rounds[0]:.2f} to "
                f"{all_rounds[-1]:.2f} in {len(all_rounds)} rounds), {sum(arms[above]['changes'])} changes"
            )
        for arm, block in arms.items():
            lines.append(
                f"  {arm + ' busy':<24}{median(s for unit in block['seconds'] for s in unit):8.2f} s   "
                f"first unit at most {max(block['settling']):.2f} s"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=60, help="pairs of identical work on an idle machine")
    parser.add_argument("--rounds", type=int, default=8, help="rounds next to busy processes")
    parser.add_argument("--units", type=int, default=2, help="timed units per block")
    parser.add_argument("--busy", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--spinning", action="store_true")
    a = parser.parse_args()
    hf_logging.set_verbosity_error()
    where = environment("wall") | {"cores": len(cores())}
    result = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    if a.pairs:
        result["alone"] = {"environment": where, "kinds": measure_alone(a.pairs)}
    if a.rounds:
        result |= {"environment": where, "kinds": measure(a.rounds, a.units, a.busy, a.spinning)}
    print(table(result, str(len(cores()))))
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

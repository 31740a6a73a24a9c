"""Compare a whole mini training step with stock TRL's and with a lower bound, and attribute its time to phases.

Both sides are TRL's trainer with the profile's configuration, problems, reward and records. Ours computes each prompt once,
in generation and in the training pass. Stock is the plain ``GRPOTrainer`` with ``model.generate`` and the same stop rule
(without it every response would run to the length limit). Blocks of steps alternate in one process. We time a step from
its start to the start of the next, with logging and without checkpoints.

The floor is the time of a step's floating-point operations at this machine's matrix rate, which we measure in between.
It counts each distinct prompt token and each response token once forward in generation, and once forward and backward in
training (frozen weights need no gradients).

    python studies/mini_step.py [--shots 0 4] [--rounds 4] [--steps 4] [--clock cpu] [--run runs/mini-seed0]

Takes about five minutes on 2 idle cores. On a busy machine, ``--clock cpu`` measures CPU time (set OMP_NUM_THREADS=1).
``--run`` starts from a finished run's model, whose responses are longer. Writes studies/results/mini_step.json.
"""

from __future__ import annotations

import argparse
import functools
import json
import random
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import mean, median
from unittest.mock import patch

import torch
from shared_prefix import CLOCKS, environment
from transformers import TrainerCallback
from transformers.utils import logging as hf_logging
from trl import GRPOTrainer

from rlvr_utils.models import linear_shapes, load_model, load_tokenizer, merge_adapter
from rlvr_utils.profiles import Profile, get_profile
from rlvr_utils.runs import RunWriter, load_run
from rlvr_utils.sampling import decoding, rollouts
from rlvr_utils.training import build, build_trainer, load_trained

RESULT = Path(__file__).parent / "results" / "mini_step.json"
SIDES = {"stock": False, "ours": True}  # name -> shared_prefix


class Phases:
    """Seconds per phase. Time in a nested phase counts only for the nested one."""

    def __init__(self, clock: Callable[[], float]):
        self.clock, self.spent, self.inner = clock, Counter(), [0.0]

    def timed(self, name: str, function: Callable) -> Callable:
        @functools.wraps(function)
        def timed(*args, **kwargs):
            start = self.clock()
            self.inner.append(0.0)
            try:
                return function(*args, **kwargs)
            finally:
                taken = self.clock() - start
                self.spent[name] += taken - self.inner.pop()
                self.inner[-1] += taken

        return timed

    def watch(self, owner: object, attribute: str, name: str) -> None:
        """Time every call of ``owner.attribute`` as the phase ``name``."""
        setattr(owner, attribute, self.timed(name, getattr(owner, attribute)))


class Stopwatch(TrainerCallback):
    """Records the start of each step and the phase times up to then."""

    def __init__(self, phases: Phases):
        self.phases, self.marks = phases, []

    def on_train_begin(self, args, state, control, optimizer=None, **kwargs):
        self.phases.watch(optimizer, "step", "optimizer")

    def on_step_begin(self, args, state, control, **kwargs):
        self.marks.append((self.phases.clock(), Counter(self.phases.spent)))

    def steps(self) -> list[tuple[float, dict[str, float]]]:
        """Return (seconds, seconds by phase) of every step of the block except the last, and clear the block."""
        marks, self.marks = self.marks, []
        return [
            (later - start, {name: after[name] - before[name] for name in after})
            for (start, before), (later, after) in zip(marks, marks[1:], strict=False)
        ]


class Side:
    """One trainer, its clock, and the lengths of its samples."""

    def __init__(self, name: str, p: Profile, run: str | None, folder: Path, clock: Callable[[], float]):
        self.name, self.lengths, self.phases = name, [], Phases(clock)
        with patch.object(
            build, "StockTrainer", GRPOTrainer
        ):  # our trainer would skip the backward pass for zero advantages
            self.trainer = build_trainer(p, start_model(p, run), load_tokenizer(p), RunWriter(folder), say=lambda text: None)
        self.watch = Stopwatch(self.phases)
        self.trainer.add_callback(self.watch)
        self.trainer.rollout_func = self.noted(self.trainer.rollout_func)
        watch_phases(self.trainer, self.phases)

    def noted(self, rollout: Callable) -> Callable:
        def noted(prompts, trainer):
            out = rollout(prompts, trainer)
            self.lengths.append(
                (
                    [len(ids) for ids in {tuple(ids): ids for ids in out["prompt_ids"]}.values()],
                    decoding.common_beginning(out["prompt_ids"]),
                    out["n_tokens"],
                )
            )
            return out

        return noted

    def block(self) -> list[tuple[float, dict[str, float], tuple]]:
        """Run one block and return (seconds, seconds by phase, lengths) per step."""
        self.lengths.clear()
        with patch.object(rollouts, "own_loop", stock_loop if self.name == "stock" else rollouts.own_loop):
            self.trainer.train()
        return [(*step, lengths) for step, lengths in zip(self.watch.steps(), self.lengths, strict=False)]


def stock_loop(model, tokenizer, prompt_ids, end_ids) -> Callable:
    """Use ``model.generate`` instead of our loop."""
    return rollouts.stock_loop(model, tokenizer, end_ids)


def start_model(p: Profile, run: str | None):
    """Return the profile's base model, or the trained model of a finished run."""
    return merge_adapter(load_trained(load_run(run))[0]) if run else load_model(p)


def watch_phases(trainer: GRPOTrainer, phases: Phases) -> None:
    """Time all phases of a step."""
    for owner, attribute, name in (
        (trainer, "rollout_func", "generate"),
        (trainer, "_calculate_rewards", "reward"),
        (trainer, "_generate_and_score_completions", "batch, decoding to text, metrics"),
        (trainer, "_get_per_token_logps_and_entropies", "log-probs forward"),
        (trainer, "_compute_loss", "loss"),
        (trainer.accelerator, "backward", "backward"),
        (trainer.accelerator, "clip_grad_norm_", "gradient norm"),
        (trainer, "log", "logging"),
        (trainer.model, "train", "train() and eval() of each module"),
    ):
        phases.watch(owner, attribute, name)


def operations(p: Profile, config, prompts: list[int], shared: int, responses: list[int]) -> float:
    """Return the minimum floating-point operations of a step. A multiply-add counts as two.

    Args:
        prompts: lengths of the distinct prompts.
        shared: number of tokens at the start that all prompts share.
        responses: lengths of the responses, whole groups in the order of their prompts.
    """
    shapes = linear_shapes(config)
    base = config.num_hidden_layers * sum(a * b for a, b in shapes.values())
    lora = config.num_hidden_layers * sum(p.lora_rank * (a + b) for a, b in map(shapes.get, p.lora_targets))
    head = config.vocab_size * config.hidden_size
    starts = [prompts[i * len(prompts) // len(responses)] for i in range(len(responses))]
    spans = [
        (0, shared),
        *((shared, n) for n in prompts),
        *((start, start + n) for start, n in zip(starts, responses, strict=True)),
    ]
    tokens = sum(end - start for start, end in spans)
    pairs = sum((end * (end + 1) - start * (start + 1)) / 2 for start, end in spans)  # (query, visible key) pairs
    attention = 4 * config.num_hidden_layers * shapes["q_proj"][1] * pairs
    forward = 2 * (base + lora) * tokens + 2 * head * sum(responses) + attention
    backward = (2 * base + 4 * lora) * tokens + 2 * head * sum(responses) + 2 * attention
    return 2 * forward + backward


def matrix_rate(clock: Callable[[], float], size: int = 1024, repeats: int = 5) -> float:
    """Return the floating-point operations per second of a large float32 matrix product, the best of ``repeats``."""
    a, times = torch.rand(size, size), []
    for _ in range(repeats):
        start = clock()
        a @ a
        times.append(clock() - start)
    return 2 * size**3 / min(times)


def ratio_with_interval(stock: list[float], ours: list[float], draws: int = 2000) -> list[float]:
    """Return [ratio of the mean seconds, low, high], 95 %, bootstrap over pairs of steps on the same prompts."""
    rng, pairs = random.Random(0), list(zip(stock, ours, strict=True))
    resampled = [rng.choices(pairs, k=len(pairs)) for _ in range(draws)]
    ratios = sorted(sum(a for a, _ in sample) / sum(b for _, b in sample) for sample in resampled)
    return [round(x, 3) for x in (sum(stock) / sum(ours), ratios[int(0.025 * draws)], ratios[int(0.975 * draws)])]


def measure(shots: int, rounds: int, steps: int, clock: Callable[[], float], run: str | None) -> dict:
    """Measure both sides with one number of few-shot examples."""
    p = get_profile(
        "mini",
        shots=shots,
        max_prompt_length=900,
        max_steps=steps + 1,
        wandb_mode="disabled",
        eval_every=10**6,
        save_every=10**6,
        log_rollouts_every=10**6,
    )
    taken, rates = {name: [] for name in SIDES}, []
    with tempfile.TemporaryDirectory() as folder:
        sides = [
            Side(name, replace(p, shared_prefix=shared), run, Path(folder) / name, clock) for name, shared in SIDES.items()
        ]
        for number in range(rounds):
            for side in sides:
                taken[side.name] += side.block()[number == 0 :]  # the first step is a warm-up
                rates.append(matrix_rate(clock))
    config = sides[1].trainer.model.config
    return row_of(shots, taken, median(rates), [operations(p, config, *lengths) for *_, lengths in taken["ours"]])


def row_of(shots: int, taken: dict[str, list], rate: float, counts: list[float]) -> dict:
    """Return the results for one number of few-shot examples."""
    seconds = {name: [step[0] for step in steps] for name, steps in taken.items()}
    phases = {
        name: {phase: round(mean(step[1].get(phase, 0.0) for step in steps), 4) for phase in steps[-1][1]}
        for name, steps in taken.items()
    }
    floor = mean(counts) / rate
    return {
        "shots": shots,
        "seconds": {name: [round(x, 3) for x in values] for name, values in seconds.items()},
        "times_as_fast": ratio_with_interval(seconds["stock"], seconds["ours"]),
        "mean_tokens": {name: round(mean(mean(step[2][2]) for step in steps), 1) for name, steps in taken.items()},
        "prompt_tokens": round(mean(mean(step[2][0]) for step in taken["ours"]), 1),
        "floor": {
            "gigaflop": round(mean(counts) / 1e9, 1),
            "gigaflop_per_second": round(rate / 1e9, 1),
            "seconds": round(floor, 3),
            "step_over_floor": round(mean(seconds["ours"]) / floor, 2),
        },
        "phases": phases,
        "attributed": {name: round(sum(phases[name].values()) / mean(seconds[name]), 3) for name in phases},
    }


def table(row: dict) -> str:
    """Format one row."""
    stock, ours = (mean(row["seconds"][name]) for name in ("stock", "ours"))
    estimate, low, high = row["times_as_fast"]
    floor, spent = row["floor"], row["phases"]
    lines = [
        f"{row['shots']} shots, prompts of {row['prompt_tokens']} tokens, responses of {row['mean_tokens']['ours']} "
        f"(stock {row['mean_tokens']['stock']})",
        f"  stock {stock:.2f} s, ours {ours:.2f} s: {estimate:.2f} times as fast [{low:.2f}, {high:.2f}]",
        f"  floor {floor['gigaflop']} GFLOP at {floor['gigaflop_per_second']} GFLOP/s = {floor['seconds']:.2f} s, "
        f"the step takes {floor['step_over_floor']} times as long",
        f"  {'seconds per step':<36}{'stock':>8}{'ours':>8}",
    ]
    lines += [
        f"  {name:<36}{spent['stock'].get(name, 0.0):>8.3f}{seconds:>8.3f}"
        for name, seconds in sorted(spent["ours"].items(), key=lambda item: -item[1])
    ]
    return "\n".join(lines + [f"  {'attributed':<36}{row['attributed']['stock']:>8.1%}{row['attributed']['ours']:>8.1%}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shots", type=int, nargs="+", default=[0, 4])
    parser.add_argument("--rounds", type=int, default=4, help="blocks per side")
    parser.add_argument("--steps", type=int, default=4, help="steps per block")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--run", help="directory of a finished mini run to start from")
    a = parser.parse_args()
    hf_logging.set_verbosity_error()
    rows = []
    for shots in a.shots:
        rows.append(measure(shots, a.rounds, a.steps, CLOCKS[a.clock], a.run))
        print(table(rows[-1]), flush=True)
    if not a.run and a.shots == [0, 4]:
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(json.dumps({"environment": environment(a.clock), "steps": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()

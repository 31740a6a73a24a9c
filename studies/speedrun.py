"""Compare your estimator with the default, paired over seeds: time and samples to 70 % strict held-out accuracy.

Both runs of a seed see the same problems in the same order and differ only in the estimator. We measure accuracy on
MiniMATH's test problems (one sample per problem) every few steps and interpolate the crossing. Accuracy on ``ood`` is
printed as well: it confirms a winner on problems that did not select it. A run that never reaches the target is
reported, and its pair is left out of the interval. Runs are saved in runs/speedrun/ and continued, so you can add seeds
later. docs/speedrun.md describes the rules of the board and how to submit an entry.

    make speedrun ESTIMATOR=my_file.py:my_function ARGS="--seeds 0 1 2 --steps 60"
    python studies/speedrun.py my_file.py:my_function --set learning_rate=2e-3 --record
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rlvr_utils import REPO
from rlvr_utils.cli import setting
from rlvr_utils.profiles import get_profile
from rlvr_utils.runs import REFERENCE_RUNS, Run
from rlvr_utils.stats import t_interval

TARGET = 0.70
BOARD = REFERENCE_RUNS / "speedrun.jsonl"
MADE = REPO / "runs" / "speedrun"
DEFAULT = "default"
#: One sample per problem, so that evaluations can be frequent. The crossing is measured on the first split only, so the
#: second one was not used to select a winner.
SETTINGS = {"eval_splits": ["test", "ood"], "eval_samples": 1, "wandb_mode": "disabled", "guard": "warn"}


def crossing(steps: Sequence[float], accuracies: Sequence[float], target: float = TARGET) -> float | None:
    """Return the step at which the accuracy first reaches ``target``, interpolated between evaluations, or None."""
    before = None
    for step, accuracy in zip(steps, accuracies, strict=True):
        if accuracy >= target:
            if before is None:
                return float(step)
            share = (target - before[1]) / (accuracy - before[1])
            return before[0] + share * (step - before[0])
        before = step, accuracy
    return None


def row_of(run: Run, estimator: str, seed: int, every: int) -> dict:
    """Return a run's row for the board: its crossing of the target in steps, samples and seconds of training."""
    sampled = run.evaluations.query("decoding == 'sampled'").sort_values("step")
    table = sampled[sampled["split"] == "test"]
    step = crossing(table["step"], table["accuracy"])
    times = run.metrics.set_index("step")["step_time"].cumsum()
    seconds = None if step is None else float(times[: max(1, round(step))].iloc[-1])
    usual = get_profile("mini").to_dict()
    return {
        "estimator": estimator,
        "seed": seed,
        "steps": run.profile.max_steps,
        "eval_every": every,
        "crossing": step,
        "samples": None if step is None else step * run.profile.batch_size,
        "seconds": seconds,
        "last_accuracy": float(table["accuracy"].iloc[-1]),
        "ood_accuracy": float(sampled.loc[sampled["split"] == "ood", "accuracy"].iloc[-1]),
        "commit": run.environment["commit"],
        "settings": {k: v for k, v in run.profile.to_dict().items() if v != usual[k]},
    }


def race(estimator: str | None, seed: int, steps: int, every: int, changes: dict) -> dict:
    """Train one run, or load the finished one, and return its row."""
    from rlvr_utils.training import train

    name = DEFAULT if estimator is None else estimator
    folder = MADE / f"{Path(name.replace(':', '-')).name}-seed-{seed}-steps-{steps}"
    changes = changes if estimator is not None else {}
    print(f"{name}, seed {seed}: {folder.relative_to(REPO)}", flush=True)
    settings = SETTINGS | changes | {"seed": seed, "max_steps": steps, "eval_every": every, "estimator": estimator}
    return row_of(train("mini", folder, **settings), name, seed, every)


def summary(rows: list[dict], estimator: str) -> list[str]:
    """Return lines with the mean crossing of both estimators, and the paired difference with its interval over seeds."""
    by_seed: dict[int, dict[str, dict]] = {}
    for row in rows:
        by_seed.setdefault(row["seed"], {})[row["estimator"]] = row
    pairs = [(pair[DEFAULT], pair[estimator]) for pair in by_seed.values() if {DEFAULT, estimator} <= pair.keys()]
    lines = [f"{len(pairs)} seeds, target {TARGET:.0%} strict accuracy on held-out problems:"]
    for place, name in enumerate((DEFAULT, estimator)):
        reached = [pair[place] for pair in pairs if pair[place]["crossing"] is not None]
        means = [f"{sum(r[k] for r in reached) / len(reached):,.0f} {k}" for k in ("samples", "seconds")] if reached else []
        ood = sum(pair[place]["ood_accuracy"] for pair in pairs) / len(pairs)
        reach = f"reached by {len(reached)} of {len(pairs)} seeds, {', '.join(means) or 'no mean'}"
        lines.append(f"  {name}: {reach}, ood accuracy at the end {ood:.0%}")
    both = [pair for pair in pairs if None not in (pair[0]["crossing"], pair[1]["crossing"])]
    for unit in ("samples", "seconds") if both else ():
        gap = t_interval([mine[unit] - usual[unit] for usual, mine in both])
        interval = f"95 % interval {gap.low:+,.0f} to {gap.high:+,.0f}" if len(both) > 1 else "one pair, so no interval"
        lines.append(f"  difference in {unit}: {gap.mean:+,.0f} ({interval})")
    return lines


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("estimator", help="file.py:function or module:function ('default' runs only the default)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--every", type=int, default=10, help="steps between evaluations")
    parser.add_argument("--set", metavar="KEY=VALUE", type=setting, action="append", default=[], dest="settings")
    parser.add_argument("--record", action="store_true", help=f"add the rows to {BOARD.relative_to(REPO)}")
    options = parser.parse_args(arguments)
    names = [None] if options.estimator == DEFAULT else [None, get_profile("mini", estimator=options.estimator).estimator]
    rows = []
    for seed in options.seeds:
        rows += [race(name, seed, options.steps, options.every, dict(options.settings)) for name in names]
    print("\n".join(summary(rows, names[-1] or DEFAULT)))
    if options.record:
        record(rows)


def record(rows: list[dict]) -> None:
    """Append the rows that are not on the board yet."""
    lines = BOARD.read_text(encoding="utf-8").splitlines() if BOARD.is_file() else []
    new = [line for row in rows if (line := json.dumps(row)) not in lines]
    with BOARD.open("a", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in new)


if __name__ == "__main__":
    main(sys.argv[1:])

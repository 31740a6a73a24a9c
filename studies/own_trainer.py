"""Compare our one-page trainer with TRL's: same model, problems, order, learning rate and LoRA, several seeds each.

Writes data/reference_runs/own_trainer.jsonl, one row per step (``trainer, seed, step, reward, mean_tokens``), which
notebook 02 plots. TRL's rows come from the included run with that seed, if it exists. Runs that are already in the file
are skipped, so an interrupted study continues. About seven minutes per run on 2 cores:

    python studies/own_trainer.py [--seeds 0 1 2]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator

from rlvr_utils import REPO
from rlvr_utils.runs import REFERENCE_RUNS, load_run
from rlvr_utils.training import own_trainer, train

PROFILE = "mini"
RESULT = REFERENCE_RUNS / "own_trainer.jsonl"


def own_rows(seed: int) -> Iterator[dict]:
    """Yield our trainer's steps."""
    for row in own_trainer.train(PROFILE, seed=seed):
        yield {name: row[name] for name in ("step", "reward", "mean_tokens")}


def trl_rows(seed: int) -> Iterator[dict]:
    """Yield TRL's steps, from the included run with this seed or from a new run."""
    shipped = REFERENCE_RUNS / f"{PROFILE}-seed-{seed}"
    if shipped.is_dir():
        run = load_run(shipped)
    else:
        run = train(PROFILE, REPO / "runs" / "own_trainer" / f"trl-seed{seed}", seed=seed, wandb_mode="disabled")
    columns = {"step": "step", "reward": "reward", "completions/mean_length": "mean_tokens"}
    yield from run.metrics[list(columns)].dropna().rename(columns=columns).to_dict("records")


def finished() -> set[tuple[str, int]]:
    """Return (trainer, seed) of the runs in the file."""
    if not RESULT.is_file():
        return set()
    rows = map(json.loads, RESULT.read_text().splitlines())
    return {(row["trainer"], row["seed"]) for row in rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    seeds = parser.parse_args().seeds
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        for trainer, rows_of in (("ours", own_rows), ("TRL", trl_rows)):
            if (trainer, seed) in finished():
                continue
            print(f"{trainer}, seed {seed}", flush=True)
            rows = [{"trainer": trainer, "seed": seed} | row for row in rows_of(seed)]
            with RESULT.open("a", encoding="utf-8") as file:  # written at the end, so that a killed run leaves no rows
                file.writelines(json.dumps(row) + "\n" for row in rows)
            last = [row["reward"] for row in rows[-10:]]
            print(f"  mean reward of the last {len(last)} steps: {sum(last) / len(last):.3f}", flush=True)


if __name__ == "__main__":
    main()

"""Make the reference runs that are included in the repository, ``data/reference_runs/NAME``.

Run:  make reference-runs                          the five of the default
      make reference-runs ARGS="--tier A"          a whole tier of the experiment (rlvr_utils.experiment.ALL_ARMS)
      make reference-runs ARGS="--tier S"          the pretrained model, after `make smol-model`
      make reference-runs ARGS="mini-format-seed-0 mini-long"      runs by name or prefix
      make reference-runs ARGS="--many mini-seed mini-full"        32 samples per problem from their trained models
Finished runs are skipped and interrupted ones continue. ``--jobs 2`` makes two runs at a time, each in a process with
its share of the cores. This is faster than one run at a time, because a model this small hardly uses two cores.

To keep the repository small, the included copies have no checkpoints, adapters and W&B files. These stay under ``runs/``.
Arms other than the default also have no training rollouts (except the arm with a KL term), and their metrics are
compressed and rounded to six digits. Their evaluations before training are links to those of another run with the same
seed, because model and random numbers are the same. ``--many`` writes to ``data/reference_runs/many/NAME``, and the base
model's samples to ``many/base``.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch

from rlvr_utils import REPO
from rlvr_utils.experiment import ALL_ARMS, MANY, MANY_SAMPLES, Arm
from rlvr_utils.models import load_model, load_tokenizer
from rlvr_utils.profiles import Profile, get_profile
from rlvr_utils.runs import REFERENCE_RUNS, RunWriter, load_run
from rlvr_utils.training import Part, evaluate_split, load_trained, train

#: name of the run -> its arm
RUNS: dict[str, Arm] = {name: arm for arm in ALL_ARMS for name in arm.runs}
MADE = REPO / "runs" / "reference"
LEFT_OUT = ("checkpoints", "adapter", "sft", "wandb", "wandb-run-id.txt", "lock")


def make_run(name: str) -> None:
    """Train one run under ``runs/reference`` and copy the included part.

    The guard of an arm only warns, because the end of a failing run is a result too.
    """
    arm = RUNS[name]
    default = name.startswith("mini-seed-")
    guard = {} if default else {"guard": "warn"}
    p = get_profile(arm.profile, wandb_mode="disabled", cpu_threads=torch.get_num_threads(), **guard, **arm.runs[name])
    begin_after_sft(MADE / name, p)
    run = train(p, MADE / name)
    shipped = REFERENCE_RUNS / name
    shutil.rmtree(shipped, ignore_errors=True)
    shutil.copytree(run.path, shipped, ignore=shutil.ignore_patterns(*LEFT_OUT))
    if not default:
        slim(shipped, REFERENCE_RUNS.glob(f"{arm.profile}-*seed-{p.seed}"))


def begin_after_sft(folder: Path, p: Profile) -> None:
    """Copy the supervised stage of the profile's first arm with this seed, so that it is trained once per seed.

    The copy has everything up to step 0: the trained model, its metrics and its evaluations. ``train`` removes the rest.
    """
    first = MADE / f"{p.profile}-seed-{p.seed}"
    if p.sft_steps and not folder.exists() and (first / "adapter").is_dir():
        shutil.copytree(first / "rollouts", folder / "rollouts")
        for file in ("metrics.jsonl", "evaluations.jsonl"):
            shutil.copy(first / file, folder)
        shutil.copytree(first / "sft", folder / "sft")  # last: without it an interrupted copy is a run before its SFT


def slim(shipped: Path, others: Iterable[Path]) -> None:
    """Remove what the copy of an arm does not need (see above). ``others`` are the included runs with the same seed."""
    if not load_run(shipped).config["beta"]:  # notebook 04 reads the training responses of runs with a KL term
        (shipped / "rollouts" / "train.jsonl.gz").unlink(missing_ok=True)
    plain = shipped / "metrics.jsonl"
    if plain.exists():
        metrics = [
            json.loads(line, parse_float=lambda digits: float(f"{float(digits):.6g}"))
            for line in plain.read_text().splitlines()
        ]
        lines = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in metrics)
        plain.with_suffix(".jsonl.gz").write_bytes(gzip.compress(lines.encode(), mtime=0))
        plain.unlink()
    folders = sorted(other / "rollouts" for other in others if other != shipped)
    for file in (shipped / "rollouts").glob("eval-*"):
        for same in (folder / file.name for folder in folders):
            if same.is_file() and not same.is_symlink() and same.read_bytes() == file.read_bytes():
                link(file, same)
                break


def link(file: Path, target: Path) -> None:
    """Replace ``file`` with a relative link to ``target``."""
    file.unlink(missing_ok=True)
    file.symlink_to(os.path.relpath(target, file.parent))


def make_many(name: str) -> None:
    """Sample many responses per test problem, from the base model for ``"base"``, else from that run's trained model."""
    folder = MANY / name
    shutil.rmtree(folder, ignore_errors=True)
    if name == "base":
        p = get_profile("mini")
        model, tokenizer, step = load_model(p), load_tokenizer(p), 0
    else:
        run = load_run(MADE / name)
        model, tokenizer = load_trained(run)
        p, step = run.profile, run.profile.max_steps
    writer = RunWriter(folder)
    evaluate_split(model, tokenizer, replace(p, eval_samples=MANY_SAMPLES), writer, Part(step, "test", "sampled"), print)
    if name != "base":
        for row in load_run(MANY / "base").evaluations.to_dict("records"):
            writer.log_evaluation(row, [])
        file = "rollouts/eval-0-test-0-sampled.jsonl.gz"
        link(folder / file, MANY / "base" / file)
        shutil.copy(MADE / name / "environment.json", folder)
    writer.write_config(
        replace(p, eval_samples=MANY_SAMPLES, wandb_mode="disabled").to_dict()
    )  # written last: marks the directory as complete


def chosen(names: list[str], tier: str | None) -> list[str]:
    """Return the selected runs in the order of the experiment, by default the five runs of the default arm."""
    if tier:
        return [name for name, arm in RUNS.items() if arm.tier == tier]
    for wish in names:
        if not any(name.startswith(wish) for name in RUNS):
            raise SystemExit(f"There is no reference run {wish!r}. Choose from {', '.join(RUNS)}.")
    return [name for name in RUNS if name.startswith(tuple(names or ["mini-seed-"]))]


def is_there(name: str, many: bool) -> bool:
    """Return whether this run is already included."""
    return (MANY / name / "config.yaml" if many else REFERENCE_RUNS / name / "environment.json").is_file()


def in_processes(names: list[str], many: bool, jobs: int, tell: Callable[[], None]) -> None:
    """Make ``jobs`` runs at a time, each in its own process with its share of the cores."""
    environment = os.environ | {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // jobs))}

    def make(name: str) -> None:
        command = [sys.executable, __file__, "--here", *(["--many"] if many else []), name]
        subprocess.run(command, env=environment, check=True)
        tell()

    with ThreadPoolExecutor(jobs) as pool:
        failed = [made for made in [pool.submit(make, name) for name in names] if made.exception()]
    if failed:
        raise SystemExit(f"{len(failed)} of {len(names)} runs failed. Run the same command again to retry them.")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help="names of runs, or prefixes of names")
    parser.add_argument("--tier", choices=sorted({arm.tier for arm in ALL_ARMS}), help="all runs of a tier")
    parser.add_argument(
        "--many", action="store_true", help=f"sample {MANY_SAMPLES} responses per problem from the trained models"
    )
    parser.add_argument("--jobs", type=int, default=1, help="number of runs at a time")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    make = make_many if options.many else make_run
    if options.here:
        return make(*options.names)
    wanted = ["base"] * options.many + chosen(options.names, options.tier)
    missing = [name for name in wanted if not is_there(name, options.many)]
    print(f"{len(wanted) - len(missing)} of {len(wanted)} runs exist, {len(missing)} to make.", flush=True)
    began, done = time.monotonic(), []

    def tell() -> None:
        done.append(None)
        minutes = (time.monotonic() - began) / 60
        print(
            f"{len(done)} of {len(missing)} made in {minutes:.0f} min, about "
            f"{minutes / len(done) * (len(missing) - len(done)):.0f} min left",
            flush=True,
        )

    if "base" in missing:
        missing.remove("base")
        make("base")  # the others link to it
    in_processes(missing, options.many, options.jobs, tell)


if __name__ == "__main__":
    main(sys.argv[1:])

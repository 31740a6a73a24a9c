"""Make the reference runs that the course ships: ``data/reference_runs/NAME``, one finished run after the other.

Run:  make reference-runs                          the five of the default
      make reference-runs ARGS="--tier A"          a whole tier of the experiment (rlvr_utils.analysis.EXPERIMENT)
      make reference-runs ARGS="mini-format-seed-0 mini-long"      runs, or all whose name starts so
Resumable: a finished run is skipped, an interrupted one goes on. Leaves out of the shipped copy: checkpoints, the
adapter and the W&B files (sizes), all of which stay under ``runs/``.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time

from rlvr_utils import REPO
from rlvr_utils.analysis import EXPERIMENT
from rlvr_utils.training import train

#: name of the run -> overrides of profile ``mini``
RUNS: dict[str, dict] = {name: overrides for arm in EXPERIMENT for name, overrides in arm.runs.items()}
LEFT_OUT = ("checkpoints", "adapter", "wandb", "wandb-run-id.txt")


def make(name: str) -> None:
    """Train one run under ``runs/reference`` and copy what is shipped."""
    shipped = REPO / "data" / "reference_runs" / name
    run = train("mini", REPO / "runs" / "reference" / name, wandb_mode="disabled", **RUNS[name])
    shutil.rmtree(shipped, ignore_errors=True)
    shutil.copytree(run.path, shipped, ignore=shutil.ignore_patterns(*LEFT_OUT))


def chosen(names: list[str], tier: str | None) -> list[str]:
    """The runs asked for, in the order of the experiment; the default's five where nothing is asked for."""
    if tier:
        return [name for arm in EXPERIMENT if arm.tier == tier for name in arm.runs]
    for wish in names:
        if not any(name.startswith(wish) for name in RUNS):
            raise SystemExit(f"No reference run is called {wish!r}; choose from {', '.join(RUNS)}.")
    return [name for name in RUNS if name.startswith(tuple(names or ["mini-seed-"]))]


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help="names of runs, or beginnings of names")
    parser.add_argument("--tier", choices=sorted({arm.tier for arm in EXPERIMENT}), help="all runs of a tier")
    options = parser.parse_args(arguments)
    wanted = chosen(options.names, options.tier)
    missing = [n for n in wanted if not (REPO / "data" / "reference_runs" / n / "environment.json").is_file()]
    print(f"{len(wanted) - len(missing)} of {len(wanted)} reference runs are there; {len(missing)} to make.")
    began = time.monotonic()
    for done, name in enumerate(missing):
        print(f"== {name}", flush=True)
        make(name)
        minutes = (time.monotonic() - began) / 60
        print(f"{done + 1} of {len(missing)} made in {minutes:.0f} min, about "
              f"{minutes / (done + 1) * (len(missing) - done - 1):.0f} min left", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

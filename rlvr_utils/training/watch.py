"""Watch a run that another process trains, from its files: the laptop may be closed in between."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..runs import Run, load_run
from ..stats import t_interval
from ..system.paths import run_folder
from .recording import clock, level, measured, shown
from .safety import is_going

WINDOW = 10  # steps behind the reward that is told


def watch_run(folder: str | Path, live: Callable[[list[dict]], None] | None = None, *, poll: float = 5.0,
              patience: float = 600.0, say: Callable[[str], None] = print) -> Run:
    """Tell reward (with a 95 % interval over the last steps), progress and time left, until the run ends.

    Args:
        folder: the run's folder; waits for it where the training is only starting.
        live: called with the metrics so far whenever there are new ones, for a live plot.
        poll: seconds between two looks.
        patience: seconds to wait for the folder to appear.
        say: takes the lines of progress.

    Returns:
        The run as it stands: finished, or not where its process has ended. ``train`` goes on with such a run.

    Raises:
        TimeoutError: no such folder has appeared.
    """
    folder, seen = wait_for(folder, poll, patience), None
    while True:
        going = is_going(folder)  # asked before reading: what is written until it ends is read, then
        run = load_run(folder)
        state = len(run.metrics), len(run.evaluations)
        if state != seen:
            seen = state
            say(progress_line(run))
            if live and len(run.metrics):
                live = shown(live, run.metrics.to_dict("records"), say)
        if run.environment.get("finished"):
            return run
        if not going:
            say(f"No process is training in {folder.name} now. Start it again: it continues from its last checkpoint.")
            return run
        time.sleep(poll)


def wait_for(folder: str | Path, poll: float, patience: float) -> Path:
    """The run's folder, once a training that is only starting has made it."""
    began = time.monotonic()
    while not (found := run_folder(folder)).is_dir():
        if time.monotonic() - began > patience:
            raise TimeoutError(f"No run has appeared in {found} within {clock(patience)} minutes: see what the training's "
                               "own log says, or name another folder.")
        time.sleep(poll)
    return found


def progress_line(run: Run) -> str:
    """One line: where it is, the reward with its interval, and the time that the remaining steps will take."""
    total, rows = run.profile.max_steps, run.metrics
    if rows.empty:
        return f"{run.path.name}: no step yet, {len(run.evaluations)} evaluations made"
    step = int(rows["step"].iloc[-1])
    rewards = measured(rows.to_dict("records"), "reward", WINDOW)
    interval = t_interval(rewards) if len(rewards) > 1 else None
    now = (f"reward {interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]" if interval else
           level(rows.to_dict("records")))
    end = "finished" if run.environment.get("finished") else (
        f"about {clock(step_seconds(run) * (total - step))} left, evaluations apart")
    return f"step {step}/{total}  {now}  {end}"


def step_seconds(run: Run) -> float:
    """Seconds of a typical step: the median, so that an evaluation between two steps does not count."""
    return float(np.median(np.diff(run.metrics["seconds"], prepend=0.0)))

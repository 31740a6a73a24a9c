"""What a run tells while it goes: metrics as they come, progress with the time left, marks on finished checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from transformers import TrainerCallback

from ..profiles import Profile
from ..runs import RunWriter, load_run
from .checkpoints import MARK


class Recorder(TrainerCallback):
    """Writes metrics as they come, tells the progress, evaluates on the way, marks finished checkpoints."""

    def __init__(self, p: Profile, writer: RunWriter, n_problems: int, live, say):
        self.p, self.writer, self.n_problems, self.live, self.say = p, writer, n_problems, live, say
        self.rows: list[dict] = []
        self.evaluate: Callable[[int], None] = lambda step: None
        self.began, self.first = time.monotonic(), 0

    def on_train_begin(self, args, state, control, **kwargs):
        self.began, self.first = time.monotonic(), state.global_step
        self.rows = load_run(self.writer.path).metrics.to_dict("records")

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_world_process_zero or "loss" not in logs:
            return
        seconds = time.monotonic() - self.began
        row = {"step": state.global_step} | logs | {
            "epoch": state.global_step * self.p.prompts_per_step / self.n_problems, "seconds": round(seconds, 2)}
        self.rows.append(row)
        self.writer.log_metrics(row)
        if state.global_step % 10 == 0 or state.global_step == self.p.max_steps:
            left = seconds / (state.global_step - self.first) * (self.p.max_steps - state.global_step)
            self.say(f"step {state.global_step}/{self.p.max_steps}  reward {recent(self.rows, 'reward'):.3f}  "
                     f"{recent(self.rows, 'completions/mean_length'):.1f} tokens  {clock(seconds)} gone, "
                     f"about {clock(left)} left")
        if self.live and state.global_step % 5 == 0:
            self.live(self.rows)

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step % self.p.eval_every == 0 and state.global_step < self.p.max_steps:
            self.evaluate(state.global_step)

    def on_save(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            (Path(args.output_dir) / f"checkpoint-{state.global_step}" / MARK).touch()


def recent(rows: list[dict], name: str, n: int = 10) -> float:
    """The mean of a metric over the last ``n`` rows that have it; nan where none has."""
    values = [row[name] for row in rows[-n:] if name in row]
    return sum(values) / len(values) if values else float("nan")


def clock(seconds: float) -> str:
    """``75`` as ``1:15``."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"

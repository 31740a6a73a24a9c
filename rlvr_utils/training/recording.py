"""Record a run: metrics, progress with the remaining time, findings of the rules, completion marks on checkpoints.

:class:`Recorder` runs in the training process. :func:`watch_run` reads the run's files from another process, so that you may
close the notebook in between. :class:`TokenRecorder` records how a step changed the log-probabilities of its tokens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import TrainerCallback

from ..diagnosis import NOT_A_NUMBER, Finding, Record, RunStopped, findings, finite
from ..profiles import Profile
from ..runs import PROMPTS_DRAWN, Run, RunWriter, load_run
from ..stats import t_interval
from ..system.paths import run_folder
from .processes import first_decides, is_first, wait
from .recovery import is_going, mark_complete
from .rewards import is_recorded

#: Maximum number of seconds between two progress lines.
SILENCE = 60.0
#: Groups per recorded step.
RECORDED_GROUPS = 4
#: The tensors used from TRL's dictionary. ``tool_mask`` is 0 at end tokens that the policy did not sample.
TENSORS = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "tool_mask", "advantages")
OLD = "old_per_token_logps"  # only present if the policy was updated after sampling


class Recorder(TrainerCallback):
    """Writes metrics after each step, prints progress, runs interim evaluations, marks complete checkpoints.

    ``before`` is the number of steps of a stage before RL. The last of these is step 0 of the run.
    """

    def __init__(self, p: Profile, writer: RunWriter, n_problems: int, live, say, before: int = 0):
        self.p, self.writer, self.n_problems, self.live, self.say = p, writer, n_problems, live, say
        self.before = before
        self.rows: list[dict] = []
        self.evaluations: list[dict] = []  # read again after each evaluation
        self.told: set[tuple[str, str]] = set()
        self.told_at = 0.0  # time of the last progress line
        self.stop: Finding | None = None
        self.evaluate: Callable[[int], None] = lambda step: None
        self.began, self.first, self.earlier = time.monotonic(), 0, 0.0  # earlier: seconds before the run was resumed

    def on_train_begin(self, args, state, control, **kwargs):
        rows = load_run(self.writer.path).metrics.to_dict("records")
        self.earlier = rows[-1]["seconds"] if rows else 0.0
        self.rows = [row for row in rows if row["step"] > -self.before]
        self.read_evaluations()
        self.began, self.first, self.told_at = time.monotonic(), state.global_step, 0.0

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" not in logs:
            return
        if state.is_world_process_zero:
            self.record(state, logs)
        self.guard(state, control)

    def record(self, state, logs: dict) -> None:
        """Write the metrics of one step, print progress, update the live plot."""
        seconds = time.monotonic() - self.began
        row = (
            {"step": state.global_step - self.before}
            | logs
            | {"epoch": self.prompts_so_far(state, logs) / self.n_problems, "seconds": round(self.earlier + seconds, 2)}
        )
        self.rows.append(row)
        self.writer.log_metrics(row)
        late = seconds - self.told_at > SILENCE
        if state.global_step % 10 == 0 or state.global_step == self.p.max_steps or late:
            self.told_at = seconds
            left = seconds / (state.global_step - self.first) * (self.p.max_steps - state.global_step)
            where = f"{'SFT ' * bool(self.before)}step {state.global_step}/{self.p.max_steps}"
            self.say(f"{where}  {level(self.rows)}  {clock(seconds)} gone, about {clock(left)} left")
        if self.live and state.global_step % 5 == 0:
            self.live = shown(self.live, self.rows, self.say)

    def prompts_so_far(self, state, logs: dict) -> float:
        """Problems drawn since the first step of this stage, including this step."""
        if PROMPTS_DRAWN in logs or any(PROMPTS_DRAWN in row for row in self.rows):
            return sum(measured([*self.rows, logs], PROMPTS_DRAWN, n=len(self.rows) + 1))
        return state.global_step * self.p.prompts_per_step

    def guard(self, state, control) -> None:
        """Print each new finding once. For an unrecoverable problem, save the state and stop the run.

        Weights with NaN or infinity are not saved, so that the newest checkpoint is the one before them.
        """
        self.stop = first_decides(self.ask_rules) if self.p.guard != "off" else None  # all processes stop at the same step
        if self.stop and state.global_step < self.p.max_steps:
            control.should_training_stop = True
            control.should_save = self.stop.name != NOT_A_NUMBER

    def ask_rules(self) -> Finding | None:
        """Print new findings. Return the finding that stops the run, if any."""
        found = findings(Record(self.rows, self.evaluations, self.p))
        for finding in found:
            if (finding.name, finding.severity) not in self.told:
                self.told.add((finding.name, finding.severity))
                self.say(str(finding))
        stops = [finding for finding in found if finding.severity == "stop"]
        return stops[0] if stops and self.p.guard == "stop" else None

    def on_train_end(self, args, state, control, **kwargs):
        if self.stop and state.global_step < self.p.max_steps:
            raise RunStopped(
                f"The run was stopped at {self.stop} The records are kept in {self.writer.path.name}. "
                "To continue despite this finding, set guard='warn'."
            )

    def on_step_end(self, args, state, control, **kwargs):
        due = state.global_step % self.p.eval_every == 0 and state.global_step < self.p.max_steps
        if due and finite_weights(kwargs["model"]):  # otherwise a rule is about to stop the run
            self.evaluate(state.global_step - self.before)
            self.read_evaluations()

    def read_evaluations(self) -> None:
        """Read the evaluations so far, as input of the rules."""
        rows = load_run(self.writer.path).evaluations.to_dict("records")
        self.evaluations = [row for row in rows if row["step"] >= -self.before]

    def on_save(self, args, state, control, **kwargs):
        wait()  # every process saves a part of the checkpoint
        if state.is_world_process_zero:
            mark_complete(Path(args.output_dir) / f"checkpoint-{state.global_step}")


def finite_weights(model: torch.nn.Module) -> bool:
    """Whether all trained weights are finite."""
    return all(bool(weight.isfinite().all()) for weight in model.parameters() if weight.requires_grad)


def measured(rows: Sequence[Mapping], name: str, n: int = 10) -> list[float]:
    """The last ``n`` finite values of a metric.

    Steps without generation have no reward and no length. Steps in which no response could be judged have no reward.
    Supervised training has no reward at all.
    """
    return [float(row[name]) for row in rows if finite(row.get(name))][-n:]


def recent(rows: Sequence[Mapping], name: str) -> float:
    """The mean of :func:`measured`, NaN if there are no values."""
    values = measured(rows, name)
    return sum(values) / len(values) if values else float("nan")


def level(rows: Sequence[Mapping]) -> str:
    """A summary of the last steps: reward and length, or else the loss."""
    if not measured(rows, "reward"):
        missing = "no reward, " if any("reward" in row for row in rows) else ""
        return f"{missing}loss {recent(rows, 'loss'):.3f}"
    length, drawn = recent(rows, "completions/mean_length"), recent(rows, PROMPTS_DRAWN)
    said = f"reward {recent(rows, 'reward'):.3f}" + (f"  {length:.1f} tokens" if finite(length) else "")
    return said + (f"  {drawn:.1f} problems drawn per step" if finite(drawn) else "")


def shown(live: Callable[[list[dict]], None], rows: list[dict], say: Callable[[str], None]) -> Callable | None:
    """Update the live plot. If it fails, print the error once and disable the plot, so that the training continues.

    Returns:
        ``live``, or None if it failed.
    """
    try:
        live(rows)
    except Exception as error:
        say(f"The live plot failed ({type(error).__name__}: {error}) and is disabled. The training continues.")
        return None
    return live


def clock(seconds: float) -> str:
    """``75`` as ``1:15``."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def paced(say: Callable[[str], None], what: str) -> Callable[[float], None]:
    """A progress callback for long work. It prints the share done at most once per :data:`SILENCE` seconds."""
    began = told = time.monotonic()

    def tell(share: float) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told > SILENCE:
            told = now
            say(f"{what}: {share:.0%} done, about {clock((now - began) * (1 - share) / share)} left")

    return tell


# --- log-probabilities before and after a step ---


class TokenRecorder(TrainerCallback):
    """Writes ``rollouts/tokens-STEP.jsonl.gz`` at the steps whose training responses are recorded (every tenth).

    The file has the log-probability of each token before and after the step. Notebook 07 shows advantage, importance ratio
    and gradient weight per token from these numbers. They cost two forward passes over a few responses and some kilobytes
    per recorded step. Saving an adapter per step would take a thousand times as much.

    Attributes:
        trainer: set after the trainer is built. Its buffer holds the responses of the current step.
    """

    trainer = None

    def __init__(self, p: Profile, writer: RunWriter):
        self.p, self.writer, self.rows = p, writer, []

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        """At this point the gradient is computed and the weights are still those before the step."""
        step = state.global_step + 1
        self.rows = []
        if is_first() and is_recorded(step, self.p.log_rollouts_every):
            self.batch = first_groups(current_batch(self.trainer))
            self.rows = token_rows(self.batch, self.trainer.processing_class, self.p.group_size)
            self.add("before")

    def on_step_end(self, args, state, control, **kwargs):
        """At this point the weights are those after the step."""
        if self.rows:
            self.add("after")
            self.writer.log_tokens(state.global_step, self.rows)

    @torch.no_grad()
    def add(self, name: str) -> None:
        """Add the current log-probability of every token to the rows."""
        trainer, batch = self.trainer, self.batch
        ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
        mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
        logps_BT, *_ = trainer._get_per_token_logps_and_entropies(
            trainer.model, ids, mask, batch["completion_ids"].shape[1], batch_size=self.p.group_size
        )
        for row, logps in zip(self.rows, logps_BT.tolist(), strict=True):
            row[name] = [round(value, 5) for value in logps[: len(row["ids"])]]


def current_batch(trainer) -> dict:
    """TRL's dictionary of the most recent micro-batch."""
    return trainer._buffered_inputs[(trainer._step - 1) % trainer.args.steps_per_generation]


def first_groups(batch: dict) -> dict:
    """The rows of the first :data:`RECORDED_GROUPS` distinct prompts, grouped by prompt."""
    prompts = batch["prompt_ids"].tolist()
    first = list(dict.fromkeys(map(tuple, prompts)))[:RECORDED_GROUPS]
    rows = [i for prompt in first for i, other in enumerate(prompts) if tuple(other) == prompt]
    return {name: batch[name][rows] for name in (*TENSORS, OLD) if name in batch}


def token_rows(batch: dict, tokenizer, group_size: int) -> list[dict]:
    """One row per response: ``prompt, group, ids, sampled, advantage``, and ``old`` if the policy was updated since."""
    rows, groups = [], {}
    for i, ids in enumerate(batch["completion_ids"]):
        length = int(batch["completion_mask"][i].sum())
        prompt = tokenizer.decode(batch["prompt_ids"][i][batch["prompt_mask"][i].bool()], skip_special_tokens=True)
        ours = batch["tool_mask"][i, :length].tolist() if "tool_mask" in batch else [1] * length
        row = {
            "prompt": prompt,
            "group": groups.setdefault(prompt, len(groups)),
            "ids": ids[:length].tolist(),
            "sampled": ours,
            "advantage": round(float(batch["advantages"][i]), 5),
        }
        if OLD in batch:
            row["old"] = [round(value, 5) for value in batch[OLD][i, :length].tolist()]
        rows.append(row)
    return rows


# --- from another process ---


def watch_run(
    folder: str | Path,
    live: Callable[[list[dict]], None] | None = None,
    *,
    poll: float = 5.0,
    patience: float = 600.0,
    say: Callable[[str], None] = print,
) -> Run:
    """Print reward (with a 95 % interval over the last steps), progress and remaining time until the run ends.

    Args:
        folder: the run's folder. It may not exist yet if the training has just started.
        live: called with the metrics so far whenever there are new ones, for a live plot.
        poll: seconds between two reads.
        patience: seconds to wait for the folder to appear.
        say: prints a progress line.

    Returns:
        The run in its current state. It is unfinished if its process has ended early. ``train`` continues such a run.

    Raises:
        TimeoutError: the folder has not appeared.
    """
    folder, seen = wait_for_folder(folder, poll, patience), None
    while True:
        going = is_going(folder)  # checked before reading, so that the last read includes everything that the process wrote
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
            say(f"No process is training in {folder.name}. Start it again to continue from its checkpoint.")
            return run
        time.sleep(poll)


def wait_for_folder(folder: str | Path, poll: float, patience: float) -> Path:
    """Wait until the training has created the run's folder, and return it."""
    began = time.monotonic()
    while not (found := run_folder(folder)).is_dir():
        if time.monotonic() - began > patience:
            raise TimeoutError(
                f"No run has appeared in {found} within {clock(patience)} minutes. Check the log of the training "
                "or use another folder."
            )
        time.sleep(poll)
    return found


def progress_line(run: Run) -> str:
    """One line with the step, the reward with its interval, and the remaining time."""
    total, rows = run.profile.max_steps, run.metrics
    if rows.empty:
        return f"{run.path.name}: no step yet, {len(run.evaluations)} evaluations so far"
    step = int(rows["step"].iloc[-1])
    records = rows.to_dict("records")
    rewards = measured(records, "reward")
    interval = t_interval(rewards) if len(rewards) > 1 else None
    now = f"reward {interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]" if interval else level(records)
    left = f"about {clock(step_seconds(run) * (total - step))} left without evaluations"
    return f"step {step}/{total}  {now}  {'finished' if run.environment.get('finished') else left}"


def step_seconds(run: Run) -> float:
    """Median seconds per step. The median is robust to evaluations between two steps."""
    return float(np.median(np.diff(run.metrics["seconds"], prepend=0.0)))

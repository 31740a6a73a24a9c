"""What a run tells while it goes: metrics, progress with the time left, what the guards see, marks on checkpoints.

:class:`Recorder` tells it in the process that trains. :func:`watch_run` reads it from the run's files in another process, so
that the laptop may be closed in between. :class:`TokenRecorder` records what a step did to its tokens.
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

#: Seconds after which a line of progress is due, whatever the step.
SILENCE = 60.0
#: Groups per recorded step.
RECORDED_GROUPS = 4
#: What is taken from TRL's dictionary. ``tool_mask`` is 0 at end tokens that the policy did not sample.
TENSORS = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "tool_mask", "advantages")
OLD = "old_per_token_logps"  # only where the policy was updated since it sampled


class Recorder(TrainerCallback):
    """Writes metrics as they come, tells the progress, evaluates on the way, marks finished checkpoints.

    ``before`` is the number of steps of a stage before RL: its last step is step 0 of the run.
    """

    def __init__(self, p: Profile, writer: RunWriter, n_problems: int, live, say, before: int = 0):
        self.p, self.writer, self.n_problems, self.live, self.say = p, writer, n_problems, live, say
        self.before = before
        self.rows: list[dict] = []
        self.evaluations: list[dict] = []  # read again only when one was made
        self.told: set[tuple[str, str]] = set()
        self.told_at = 0.0  # when the last line of progress came
        self.stop: Finding | None = None
        self.evaluate: Callable[[int], None] = lambda step: None
        self.began, self.first, self.earlier = time.monotonic(), 0, 0.0  # earlier: seconds before it was resumed

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
        """Write one step's metrics, tell the progress, draw the live picture."""
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
        """Problems drawn from the first step of this stage on, this step's included."""
        if PROMPTS_DRAWN in logs or any(PROMPTS_DRAWN in row for row in self.rows):
            return sum(measured([*self.rows, logs], PROMPTS_DRAWN, n=len(self.rows) + 1))
        return state.global_step * self.p.prompts_per_step

    def guard(self, state, control) -> None:
        """Say once what a rule finds; where no further step can mend it, save this one's state and end the run.

        Weights that are no numbers any more are not saved: the checkpoint before them is the one to go back to.
        """
        self.stop = first_decides(self.ask_rules) if self.p.guard != "off" else None  # all end at the same step, or none
        if self.stop and state.global_step < self.p.max_steps:
            control.should_training_stop = True
            control.should_save = self.stop.name != NOT_A_NUMBER

    def ask_rules(self) -> Finding | None:
        """Say what is new; return what ends the run."""
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
                f"The run was stopped at {self.stop} What was recorded is kept in {self.writer.path.name}; "
                "guard='warn' goes on all the same."
            )

    def on_step_end(self, args, state, control, **kwargs):
        due = state.global_step % self.p.eval_every == 0 and state.global_step < self.p.max_steps
        if due and finite_weights(kwargs["model"]):  # a guard is about to end the run where they are not
            self.evaluate(state.global_step - self.before)
            self.read_evaluations()

    def read_evaluations(self) -> None:
        """What the rules see of the evaluations made so far."""
        rows = load_run(self.writer.path).evaluations.to_dict("records")
        self.evaluations = [row for row in rows if row["step"] >= -self.before]

    def on_save(self, args, state, control, **kwargs):
        wait()  # every process has a part to save
        if state.is_world_process_zero:
            mark_complete(Path(args.output_dir) / f"checkpoint-{state.global_step}")


def finite_weights(model: torch.nn.Module) -> bool:
    """Whether every trained weight is a number."""
    return all(bool(weight.isfinite().all()) for weight in model.parameters() if weight.requires_grad)


def measured(rows: Sequence[Mapping], name: str, n: int = 10) -> list[float]:
    """The last ``n`` values of a metric that are numbers.

    A step that does not generate has no reward and no length, one in which no response could be judged has no reward, and
    the supervised rival never has one.
    """
    return [float(row[name]) for row in rows if finite(row.get(name))][-n:]


def recent(rows: Sequence[Mapping], name: str) -> float:
    """The mean of :func:`measured`; nan where there is none."""
    values = measured(rows, name)
    return sum(values) / len(values) if values else float("nan")


def level(rows: Sequence[Mapping]) -> str:
    """What the last steps were like: their reward and length, or else their loss."""
    if not measured(rows, "reward"):
        missing = "no reward, " if any("reward" in row for row in rows) else ""
        return f"{missing}loss {recent(rows, 'loss'):.3f}"
    length, drawn = recent(rows, "completions/mean_length"), recent(rows, PROMPTS_DRAWN)
    said = f"reward {recent(rows, 'reward'):.3f}" + (f"  {length:.1f} tokens" if finite(length) else "")
    return said + (f"  {drawn:.1f} problems drawn per step" if finite(drawn) else "")


def shown(live: Callable[[list[dict]], None], rows: list[dict], say: Callable[[str], None]) -> Callable | None:
    """Draw the live picture. One that fails is said once and left out: no picture ends a training.

    Returns:
        ``live``, or None where it failed.
    """
    try:
        live(rows)
    except Exception as error:
        say(f"The live plot failed ({type(error).__name__}: {error}) and is left out from here on; the training goes on.")
        return None
    return live


def clock(seconds: float) -> str:
    """``75`` as ``1:15``."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def paced(say: Callable[[str], None], what: str) -> Callable[[float], None]:
    """For work that may take long: told the share done, says it at most once in :data:`SILENCE` seconds."""
    began = told = time.monotonic()

    def tell(share: float) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told > SILENCE:
            told = now
            say(f"{what}: {share:.0%} done, about {clock((now - began) * (1 - share) / share)} left")

    return tell


# --- what a step did to its tokens ---


class TokenRecorder(TrainerCallback):
    """Writes ``rollouts/tokens-STEP.jsonl.gz`` at the steps whose training responses are recorded, every tenth.

    The file has the log-probability of each token before and after the step. Notebook 07 shows advantage, importance ratio
    and gradient weight of each token from these numbers. They cost two forward passes over a few responses and some
    kilobytes per recorded step, where an adapter per step would take a thousand times that.

    Attributes:
        trainer: set when it is built; its buffer holds the responses of the current step.
    """

    trainer = None

    def __init__(self, p: Profile, writer: RunWriter):
        self.p, self.writer, self.rows = p, writer, []

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        """The gradient is there, the weights are still those before the step."""
        step = state.global_step + 1
        self.rows = []
        if is_first() and is_recorded(step, self.p.log_rollouts_every):
            self.batch = first_groups(current_batch(self.trainer))
            self.rows = token_rows(self.batch, self.trainer.processing_class, self.p.group_size)
            self.add("before")

    def on_step_end(self, args, state, control, **kwargs):
        """The weights are those after the step."""
        if self.rows:
            self.add("after")
            self.writer.log_tokens(state.global_step, self.rows)

    @torch.no_grad()
    def add(self, name: str) -> None:
        """Put the current log-probability of every token into the rows."""
        trainer, batch = self.trainer, self.batch
        ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
        mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
        logps_BT, *_ = trainer._get_per_token_logps_and_entropies(
            trainer.model, ids, mask, batch["completion_ids"].shape[1], batch_size=self.p.group_size
        )
        for row, logps in zip(self.rows, logps_BT.tolist(), strict=True):
            row[name] = [round(value, 5) for value in logps[: len(row["ids"])]]


def current_batch(trainer) -> dict:
    """TRL's dictionary of the micro-batch that was computed last."""
    return trainer._buffered_inputs[(trainer._step - 1) % trainer.args.steps_per_generation]


def first_groups(batch: dict) -> dict:
    """The rows of the first :data:`RECORDED_GROUPS` distinct prompts, side by side."""
    prompts = batch["prompt_ids"].tolist()
    first = list(dict.fromkeys(map(tuple, prompts)))[:RECORDED_GROUPS]
    rows = [i for prompt in first for i, other in enumerate(prompts) if tuple(other) == prompt]
    return {name: batch[name][rows] for name in (*TENSORS, OLD) if name in batch}


def token_rows(batch: dict, tokenizer, group_size: int) -> list[dict]:
    """One row per response: ``prompt, group, ids, sampled, advantage``, and ``old`` where the policy has moved since."""
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
    folder, seen = wait_for_folder(folder, poll, patience), None
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


def wait_for_folder(folder: str | Path, poll: float, patience: float) -> Path:
    """The run's folder, once a training that is only starting has made it."""
    began = time.monotonic()
    while not (found := run_folder(folder)).is_dir():
        if time.monotonic() - began > patience:
            raise TimeoutError(
                f"No run has appeared in {found} within {clock(patience)} minutes: see what the training's "
                "own log says, or name another folder."
            )
        time.sleep(poll)
    return found


def progress_line(run: Run) -> str:
    """One line: where it is, the reward with its interval, and the time that the remaining steps will take."""
    total, rows = run.profile.max_steps, run.metrics
    if rows.empty:
        return f"{run.path.name}: no step yet, {len(run.evaluations)} evaluations made"
    step = int(rows["step"].iloc[-1])
    records = rows.to_dict("records")
    rewards = measured(records, "reward")
    interval = t_interval(rewards) if len(rewards) > 1 else None
    now = f"reward {interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]" if interval else level(records)
    left = f"about {clock(step_seconds(run) * (total - step))} left, evaluations apart"
    return f"step {step}/{total}  {now}  {'finished' if run.environment.get('finished') else left}"


def step_seconds(run: Run) -> float:
    """Seconds of a typical step: the median, so that an evaluation between two steps does not count."""
    return float(np.median(np.diff(run.metrics["seconds"], prepend=0.0)))

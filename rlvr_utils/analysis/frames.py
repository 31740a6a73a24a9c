"""From runs to frames: one row per response, with what can be read off it."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

import pandas as pd

from rlvr_utils.problems import judge_response
from rlvr_utils.prompts import question_in
from rlvr_utils.runs import Run, is_worked, load_run, newest_run, reference_runs
from rlvr_utils.stats import t_interval
from rlvr_utils.system.paths import run_folder
from rlvr_utils.verifier import last_boxed

PROBLEM_COLUMNS = ("subject", "level", "template", "answer_form")
#: Runs that differ in one of these are no seeds of one experiment.
WHAT_IS_LEARNED = ("model", "dataset", "eval_dataset")


def runs_to_analyse(profile: str = "mini", run: str | Path | None = None) -> tuple[list[Run], list[Run], str]:
    """The runs to look at, the reference runs to hold them against, and a sentence that says which they are.

    The first that has been evaluated twice: the folder ``run``, the newest run of
    ``profile``, the reference runs. A run is held against those of its own profile, model and problems. Raises
    FileNotFoundError where there is none of them.
    """
    own = run_folder(run) if run else newest_run(profile)
    reference = [load_run(path) for path in reference_runs(f"{profile}-seed-")]
    if own is not None:
        found = load_run(own)
        if evaluations_of(found)["step"].nunique() > 1:
            config = found.config
            reference = [load_run(path) for path in reference_runs(f"{config.get('profile', profile)}-seed-")]
            alike = [other for other in reference if all(other.config.get(k) == config.get(k) for k in WHAT_IS_LEARNED)]
            return [found], alike, f"Your run {found.path.name}, beside {len(alike)} reference runs."
    if not reference:
        raise FileNotFoundError(f"no evaluated run of profile {profile}: notebook 04, or `rlvr train`, makes one")
    why = "There is no run of your own yet" if own is None else f"Your run {own.name} has no second evaluation yet"
    return reference, reference, f"{why}: these are the {len(reference)} reference runs that come with the course."


def evaluation_responses(
    runs: Iterable[Run], split: str | None = None, decoding: str = "sampled", problems: Sequence[dict] = ()
) -> pd.DataFrame:
    """Every response of every evaluation of ``runs``, one row each.

    Without a ``split``, each run's first. Besides the columns of a rollout: ``run`` (the folder's name), ``boxed``,
    ``worked``, ``at_limit`` (it was cut off) and, where ``problems`` holds the row of that id, the columns of
    ``PROBLEM_COLUMNS``. Only evaluations with as many shots as the run was trained at. May be empty.
    """
    frames = [_of_one_run(run, split, decoding) for run in runs]
    frame = pd.concat([f for f in frames if len(f)] or frames[:1], ignore_index=True)
    facts = pd.DataFrame([{"problem_id": row["id"]} | {c: row[c] for c in PROBLEM_COLUMNS} for row in problems])
    return frame.merge(facts, on="problem_id", how="left") if len(facts) and len(frame) else frame


def evaluations_of(run: Run, split: str | None = None, decoding: str = "sampled") -> pd.DataFrame:
    """The rows of ``run.evaluations`` for this split (or the first) and decoding, at the shots the run was trained at.

    The column ``samples`` counts the responses that were sampled for training until then (:attr:`.Run.samples`). Runs with
    and without dynamic sampling are compared by it.
    """
    made = run.evaluations
    shots = run.config.get("shots", 0)
    made = made[(made["split"] == (split or run.split)) & (made["decoding"] == decoding) & (made["shots"] == shots)]
    return made.assign(samples=made["step"].clip(lower=0).map(run.samples))


def _of_one_run(run: Run, split: str | None, decoding: str) -> pd.DataFrame:
    made = evaluations_of(run, split, decoding)
    keys = made[["step", "split", "shots", "decoding"]].itertuples(index=False)
    frames = [run.responses(*key) for key in keys]
    if not frames:
        return pd.DataFrame()
    frame = pd.concat(frames, ignore_index=True).assign(run=run.path.name)
    frame["correct"] = frame["correct"].astype(bool)
    frame["boxed"] = frame["response"].map(last_boxed).notna()
    frame["worked"] = is_worked(frame["response"])
    limit = run.config.get("max_completion_length", float("inf"))
    frame["at_limit"] = frame["cut_off"].astype(bool) if "cut_off" in frame else frame["n_tokens"] >= limit
    return frame


def endpoints(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The responses of each run's first evaluation and of its last, over the problems that all runs answered.

    A run that is still going or died counts as far as it got. Raises ValueError where no run has been evaluated
    twice, for then there is no "after".
    """
    if frame.empty:
        raise ValueError("no evaluation yet: wait for the run's first one, or read a reference run")
    steps = frame.groupby("run")["step"].agg(["min", "max"])
    steps = steps[steps["min"] < steps["max"]]
    if steps.empty:
        raise ValueError("no run has been evaluated twice yet: there is a before, but no after to compare it with")
    frame = frame[frame["run"].isin(steps.index)]
    runs_of_problem = frame.groupby("problem_id")["run"].nunique()
    frame = frame[frame["problem_id"].map(runs_of_problem) == len(steps)]
    first, last = frame["run"].map(steps["min"]), frame["run"].map(steps["max"])
    return frame[frame["step"] == first], frame[frame["step"] == last]


def pooled_base(before: pd.DataFrame) -> pd.DataFrame:
    """The first evaluations of several runs as one pool of samples of the base model that they all started from.

    Runs that drew the very same responses count once: copies are no further samples.
    """
    drawn = {run: tuple(rows["response"]) for run, rows in before.groupby("run")}
    distinct = {responses: run for run, responses in drawn.items()}
    return before[before["run"].isin(distinct.values())].assign(run="base")


def rescored(frame: pd.DataFrame, problems: Sequence[dict] = ()) -> pd.Series:
    """What today's verifier says about each saved response: correct or not.

    Args:
        frame: responses with ``response, ground_truth``, and ``problem_id`` or ``prompt`` to know the question by.
        problems: their problem rows; without them the question is read off the prompt.
    """
    questions = {row["id"]: row["problem"] for row in problems}
    prompts = frame["prompt"] if "prompt" in frame else pd.Series(None, index=frame.index, dtype=object)
    names = frame["problem_id"] if "problem_id" in frame else prompts
    asked = [
        questions[name] if isinstance(name, str) and name in questions else question_in(prompt)
        for name, prompt in zip(names, prompts, strict=True)
    ]

    @cache
    def judge(response: str, truth: str, question: str | None) -> bool:
        return judge_response({"ground_truth": truth, "problem": question}, response).correct

    keys = zip(frame["response"], frame["ground_truth"], asked, strict=True)
    return pd.Series([judge(*key) for key in keys], index=frame.index, dtype=bool)


def training_curve(runs: Sequence[Run], metric: str = "reward", window: int = 10) -> pd.DataFrame:
    """``metric`` by training step, averaged over the last ``window`` steps: columns ``step, mean, low, high``.

    With several runs the interval is Student's t over their windowed means (what another seed would do); with
    one run it is over the steps of the window (how sure this run's own level is).
    """
    tables = [run.metrics.set_index("step")[metric].dropna() for run in runs if metric in run.metrics]
    tables = [table for table in tables if len(table)]
    steps = sorted(set.intersection(*(set(table.index) for table in tables))) if tables else []  # may have none in common
    window, rows = max(1, min(window, len(steps))), []
    for end in range(window, len(steps) + 1):
        block = [table.loc[steps[end - window : end]] for table in tables]
        values = [values.mean() for values in block] if len(block) > 1 else block[0]
        rows.append((steps[end - 1], *t_interval(values)))
    return pd.DataFrame(rows, columns=["step", "mean", "low", "high"])


# --- W&B's offline files, for a run of which nothing else is left: no account, no network, no sync ---

# A run-ID.wandb file is a LevelDB log: a file header of 7 bytes, then blocks of 32 KiB that hold pieces of records, each
# piece with a header of its checksum (4 bytes), length (2) and kind (1: whole, 2: first, 3: middle, 4: last).
# Format: github.com/google/leveldb, doc/log_format.md; records: wandb/proto/wandb_internal.proto, the only part of it
# that wandb itself reads in Python.
FILE_HEADER, BLOCK, PIECE_HEADER = 7, 32 * 1024, 7
WHOLE, FIRST, _MIDDLE, LAST = 1, 2, 3, 4


def wandb_metrics(folder: str | Path) -> pd.DataFrame:
    """One row per training step (``step`` and TRL's metric names) from every offline run under ``folder``.

    A run that was resumed has several files; where they overlap the later one counts. Empty where there is none.
    """
    rows: dict[int, dict] = {}
    for file in sorted(run_folder(folder).rglob("run-*.wandb"), key=lambda file: file.parent.name):
        for history in _histories(file):
            step = history.get("train/global_step")
            if step is not None:
                metrics = {name.removeprefix("train/"): v for name, v in history.items() if name.startswith("train/")}
                if len(metrics) > 1:  # evaluations and tables come with nothing but the step
                    rows[int(step)] = rows.get(int(step), {}) | metrics
    columns = [{"step": step} | rows[step] for step in sorted(rows)]
    return pd.DataFrame(columns).drop(columns="global_step", errors="ignore")


def _histories(file: Path) -> Iterator[dict]:
    """What each ``wandb.log`` of the file recorded, as plain values by key."""
    from wandb.proto import wandb_internal_pb2

    for data in _records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            yield {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def _records(data: bytes) -> Iterator[bytes]:
    """The records of a LevelDB log, whole ones only: the last may be half written where a run was killed."""
    at, pieces = FILE_HEADER, b""
    while at + PIECE_HEADER <= len(data):
        left = BLOCK - at % BLOCK
        if left < PIECE_HEADER:  # the rest of a block that is too short for a header is padding
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        at += PIECE_HEADER
        if kind not in (WHOLE, FIRST, _MIDDLE, LAST) or at + length > len(data):
            return
        piece = data[at : at + length]
        at += length
        pieces = piece if kind in (WHOLE, FIRST) else pieces + piece
        if kind in (WHOLE, LAST):
            yield pieces

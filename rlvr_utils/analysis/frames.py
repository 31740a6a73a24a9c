"""Read runs as frames with one row per response."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

import pandas as pd

from rlvr_utils.problems import judge_response
from rlvr_utils.problems.prompts import question_in
from rlvr_utils.runs import EVALUATION_KEY, Run, is_worked, load_run, newest_run, reference_runs
from rlvr_utils.stats import t_interval
from rlvr_utils.system.paths import run_folder
from rlvr_utils.verifier import last_boxed

PROBLEM_COLUMNS = ("subject", "level", "template", "answer_form")
#: Runs that differ in one of these are not seeds of one experiment.
WHAT_IS_LEARNED = ("model", "dataset", "eval_dataset")


def runs_to_analyse(profile: str = "mini", run: str | Path | None = None) -> tuple[list[Run], list[Run]]:
    """Return the runs to analyse, and the included runs of the same profile, model and problems to compare them with.

    Reads the folder ``run``, or else the newest run of ``profile``. If there is none, or it has fewer than two evaluations,
    both lists are the included runs of ``profile``.

    Raises:
        FileNotFoundError: there is no included run of ``profile`` either.
    """
    own = run_folder(run) if run else newest_run(profile)
    if own is not None:
        found = load_run(own)
        if evaluations_of(found)["step"].nunique() > 1:
            config = found.config
            included = [load_run(path) for path in reference_runs(f"{config.get('profile', profile)}-seed-")]
            return [found], [
                other for other in included if all(other.config.get(k) == config.get(k) for k in WHAT_IS_LEARNED)
            ]
    included = [load_run(path) for path in reference_runs(f"{profile}-seed-")]
    if not included:
        raise FileNotFoundError(f"There is no evaluated run of profile {profile}. Run notebook 04 or `rlvr train`.")
    return included, included


def evaluation_responses(
    runs: Iterable[Run], split: str | None = None, decoding: str = "sampled", problems: Sequence[dict] = ()
) -> pd.DataFrame:
    """Return every response of every evaluation of ``runs``, one row each. The frame may be empty.

    Reads only evaluations with the number of shots that the run was trained with.

    Args:
        runs: runs on disk.
        split: None reads the first split of each run.
        decoding: ``"sampled"`` or ``"greedy"``.
        problems: rows of problems. With them the frame also has ``PROBLEM_COLUMNS``.

    Returns:
        The columns of a rollout, ``run`` (the folder's name), ``boxed``, ``worked`` (has at least one step) and
        ``at_limit`` (truncated).
    """
    frames = [_of_one_run(run, split, decoding) for run in runs]
    frame = pd.concat([f for f in frames if len(f)] or frames[:1], ignore_index=True)
    facts = pd.DataFrame([{"problem_id": row["id"]} | {c: row[c] for c in PROBLEM_COLUMNS} for row in problems])
    return frame.merge(facts, on="problem_id", how="left") if len(facts) and len(frame) else frame


def evaluations_of(run: Run, split: str | None = None, decoding: str = "sampled") -> pd.DataFrame:
    """Return the rows of ``run.evaluations`` with this split (None: the run's first), this decoding and the run's shots.

    The column ``samples`` is the number of responses sampled for training until then (:attr:`.Run.samples`). Use it instead
    of ``step`` to compare runs with and without dynamic sampling.
    """
    made = run.evaluations
    shots = run.config.get("shots", 0)
    made = made[(made["split"] == (split or run.split)) & (made["decoding"] == decoding) & (made["shots"] == shots)]
    return made.assign(samples=made["step"].clip(lower=0).map(run.samples))


def _of_one_run(run: Run, split: str | None, decoding: str) -> pd.DataFrame:
    made = evaluations_of(run, split, decoding)
    if made.empty:
        return pd.DataFrame()
    frame = saved_responses(run, made)
    frame["boxed"] = frame["response"].map(last_boxed).notna()
    frame["worked"] = is_worked(frame["response"])
    limit = run.config.get("max_completion_length", float("inf"))
    frame["at_limit"] = frame["cut_off"].astype(bool) if "cut_off" in frame else frame["n_tokens"] >= limit
    return frame


def saved_responses(run: Run, made: pd.DataFrame) -> pd.DataFrame:
    """Read the responses of the evaluations ``made`` (rows of :func:`evaluations_of`, at least one) as one frame.

    Adds the column ``run``, the folder's name, and makes ``correct`` boolean.
    """
    frames = [run.responses(*key) for key in made[list(EVALUATION_KEY)].itertuples(index=False)]
    frame = pd.concat(frames, ignore_index=True)
    return frame.assign(run=run.path.name, correct=frame["correct"].astype(bool))


def endpoints(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the responses of each run's first and last evaluation, for the problems that all runs answered.

    In a run with a supervised stage the first evaluation is that of the base model, before SFT (see :func:`stages`). If a
    run was interrupted or is still training, we use the last evaluation so far.

    Raises:
        ValueError: no run has been evaluated twice.
    """
    if frame.empty:
        raise ValueError("There is no evaluation yet. Wait for the run's first one, or read an included run.")
    steps = frame.groupby("run")["step"].agg(["min", "max"])
    steps = steps[steps["min"] < steps["max"]]
    if steps.empty:
        raise ValueError("No run has been evaluated twice yet. Wait for the next evaluation, or read an included run.")
    frame = frame[frame["run"].isin(steps.index)]
    runs_of_problem = frame.groupby("problem_id")["run"].nunique()
    frame = frame[frame["problem_id"].map(runs_of_problem) == len(steps)]
    first, last = frame["run"].map(steps["min"]), frame["run"].map(steps["max"])
    return frame[frame["step"] == first], frame[frame["step"] == last]


def stages(frame: pd.DataFrame) -> dict[str, tuple[pd.DataFrame, pd.DataFrame]]:
    """Return (before, after) of each training stage by name, as from :func:`endpoints`: "SFT" if the runs had it, then "RL".

    Steps of a supervised stage are negative and RL starts at step 0, so the evaluation at step 0 is the end of SFT. A run
    that ended within SFT has no RL stage. A stage without two evaluations is omitted.
    """
    parts = {"SFT": frame[frame["step"] <= 0], "RL": frame[frame["step"] >= 0]}
    return {name: endpoints(part) for name, part in parts.items() if part.groupby("run")["step"].nunique().gt(1).any()}


def pooled_base(before: pd.DataFrame) -> pd.DataFrame:
    """Pool the first evaluations of several runs, because they sample the same base model. ``run`` becomes "base".

    Runs with identical responses count once, because copies are not independent samples.
    """
    drawn = {run: tuple(rows["response"]) for run, rows in before.groupby("run")}
    distinct = {responses: run for run, responses in drawn.items()}
    return before[before["run"].isin(distinct.values())].assign(run="base")


def rescored(frame: pd.DataFrame, problems: Sequence[dict] = ()) -> pd.Series:
    """Return whether the current verifier accepts each saved response, as booleans with the index of ``frame``.

    Args:
        frame: responses with ``response, ground_truth``, and ``problem_id`` or ``prompt`` to find the question.
        problems: rows of the problems. Without them we take the question from the prompt.
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
    """Return ``metric`` averaged over ``window`` steps: ``step`` (the middle of the window), ``mean, low, high``.

    With several runs the interval is Student's t over their windowed means. With one run it is Student's t over the steps
    of the window, so it describes this run and not other seeds. Empty if no run has the metric.
    """
    tables = [run.metrics.set_index("step")[metric].dropna() for run in runs if metric in run.metrics]
    tables = [table for table in tables if len(table)]
    steps = sorted(set.intersection(*(set(table.index) for table in tables))) if tables else []  # may share no step
    window, rows = max(1, min(window, len(steps))), []
    for end in range(window, len(steps) + 1):
        block = [table.loc[steps[end - window : end]] for table in tables]
        values = [values.mean() for values in block] if len(block) > 1 else block[0]
        rows.append((sum(steps[end - window : end]) / window, *t_interval(values)))
    return pd.DataFrame(rows, columns=["step", "mean", "low", "high"])


# --- W&B's offline files, for a run whose other files are lost. Needs no account, network or sync ---

# A run-ID.wandb file is a LevelDB log (github.com/google/leveldb, doc/log_format.md): a file header of 7 bytes, then blocks
# of 32 KiB with pieces of records. The header of a piece has its checksum (4 bytes), length (2) and kind (1 whole, 2 first,
# 3 middle, 4 last). The records are protocol buffers (wandb/proto/wandb_internal.proto). wandb has Python code for these,
# but not for the log.
FILE_HEADER, BLOCK, PIECE_HEADER = 7, 32 * 1024, 7
WHOLE, FIRST, _MIDDLE, LAST = 1, 2, 3, 4


def wandb_metrics(folder: str | Path) -> pd.DataFrame:
    """Return one row per training step (``step`` and TRL's metric names) from all offline runs under ``folder``.

    A resumed run has several files. If they overlap, the later one counts. Empty if there is no file.
    """
    rows: dict[int, dict] = {}
    for file in sorted(run_folder(folder).rglob("run-*.wandb"), key=lambda file: file.parent.name):
        for history in _histories(file):
            step = history.get("train/global_step")
            if step is not None:
                metrics = {name.removeprefix("train/"): v for name, v in history.items() if name.startswith("train/")}
                if len(metrics) > 1:  # rows of evaluations and tables have no other metric
                    rows[int(step)] = rows.get(int(step), {}) | metrics
    columns = [{"step": step} | rows[step] for step in sorted(rows)]
    return pd.DataFrame(columns).drop(columns="global_step", errors="ignore")


def _histories(file: Path) -> Iterator[dict]:
    """Yield what each ``wandb.log`` recorded in the file, as plain values by key."""
    from wandb.proto import wandb_internal_pb2

    for data in _records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            yield {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def _records(data: bytes) -> Iterator[bytes]:
    """Yield the complete records of a LevelDB log. The last record of a killed run may be incomplete."""
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

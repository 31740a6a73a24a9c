"""A run on disk: written as it goes, read while it is still going, cut back when it resumes.

    config.yaml                        what was asked for
    metrics.jsonl                      one row a training step, TRL's metric names (of some shipped runs: .gz). With
                                       dynamic sampling: what the step drew, under the names of PROMPTS_DRAWN and so on
    evaluations.jsonl                  one row an evaluation, the first before any training
    rollouts/train.jsonl.gz            sampled training responses, every 10th step
    rollouts/tokens-STEP.jsonl.gz      log-probabilities of some of them before and after that step
    rollouts/eval-STEP-SPLIT-SHOTS-DECODING.jsonl.gz    every response of that evaluation
    environment.json                   versions, commit, hardware, seconds
    sources.json                       hashes of the problems and of a reward of one's own
    sft/                               checkpoints and adapter of a supervised stage before RL

Steps of a supervised stage have negative numbers up to 0, so that RL starts at step 0 in every run.

A reader never fails on a run that was killed: files that are missing become empty frames, and a last line or
gzip member that was only half written is left out. To keep shipped runs small, an evaluation file holds each
problem's prompt once, with its first response; ``load_run`` puts it back into every row.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import re
import shutil
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from urllib.parse import quote, unquote

import numpy as np
import pandas as pd
import yaml

from .. import REPO
from ..problems import ROLLOUT_COLUMNS, find_steps
from ..profiles import Profile, get_profile
from ..stats import bootstrap_over_problems
from ..system.paths import run_folder
from ..system.platforms import alone, append_to, replace_file
from ..verifier import last_boxed

REFERENCE_RUNS = REPO / "data" / "reference_runs"
EVALUATION_KEY = ("step", "split", "shots", "decoding")
EVALUATION_COLUMNS = (
    *EVALUATION_KEY,
    "n_problems",
    "n_samples",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "boxed_rate",
    "accuracy_if_boxed",
    "worked_rate",
    "mean_tokens",
)
#: What a step with dynamic sampling adds to its metrics: problems and responses that it drew, groups of different rewards
#: that it trains on. TRL's own metrics (reward, lengths, share of equal groups) stay those of the step's first draw, so
#: that they mean the same with and without dynamic sampling.
PROMPTS_DRAWN, SAMPLES_DRAWN, GROUPS_KEPT = (f"dynamic_sampling/{name}" for name in ("prompts", "samples", "groups_kept"))
SETTINGS = {field.name for field in fields(Profile)}
_RESTORE = "Restore it from a copy (`git checkout` for a run that is included), or move it away."
_EVALUATION_FILE = re.compile(r"eval-(-?\d+)-(.+)-(\d+)-([^-]+)\.jsonl\.gz")  # a split's name may hold "-"


class DamagedRun(ValueError):
    """A file of a run holds what no training wrote; the message names it."""


@dataclass(frozen=True)
class Run:
    """A run's folder and what is in it. Each part is read when first asked for; load again to see more."""

    path: Path

    @cached_property
    def config(self) -> dict:
        """What the run was asked to do; empty where the file is missing.

        Raises:
            DamagedRun: the file cannot be read, or is no run's configuration.
        """
        file = self.path / "config.yaml"
        try:
            config = (yaml.safe_load(file.read_text("utf-8")) or {}) if file.exists() else {}
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise DamagedRun(f"{file} is damaged and cannot be read. Delete that file.") from error
        if not isinstance(config, dict):
            raise DamagedRun(f"{file} is damaged: it holds no settings. Delete that file.")
        return config

    @cached_property
    def profile(self) -> Profile:
        """The same as a Profile. A run of an earlier version lacks settings, which have the profile's values, or has others.

        Raises:
            ValueError: a setting has a value that no run can have.
        """
        return get_profile(**{name: value for name, value in self.config.items() if name in SETTINGS})

    @property
    def split(self) -> str:
        """The split that accuracy is told of: the first of ``eval_splits``."""
        return self.profile.eval_splits[0]

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """One row a training step: ``step`` and TRL's metric names."""
        file = self.path / "metrics.jsonl"
        return _frame(_read_jsonl(file) or _read_jsonl_gz(file.with_suffix(".jsonl.gz")), ("step",))

    @cached_property
    def samples(self) -> pd.Series:
        """Responses sampled for training up to each step (the index, from 0 on): what a run costs, whatever its steps are.

        Steps with dynamic sampling differ in samples. Rejection sampling draws all of them before its first step.
        """
        p, steps = self.profile, self.metrics.loc[self.metrics["step"] > 0].set_index("step")
        if p.method != "grpo":
            drawn = pd.Series({"sft": 0, "rejection": p.max_steps * p.batch_size}[p.method], steps.index)
        elif SAMPLES_DRAWN in steps:
            drawn = steps[SAMPLES_DRAWN].fillna(0).cumsum()  # a step on an earlier generation draws none
        else:
            generations = np.ceil(steps.index / p.updates_per_generation)
            drawn = pd.Series(generations * p.updates_per_generation * p.batch_size, steps.index)
        return pd.concat([pd.Series({0: 0}), drawn]).astype(int).rename("samples")

    @cached_property
    def evaluations(self) -> pd.DataFrame:
        """One row an evaluation, in the order of steps: the columns of ``EVALUATION_COLUMNS``."""
        frame = _frame(_read_jsonl(self.path / "evaluations.jsonl"), EVALUATION_COLUMNS)
        frame = frame.drop_duplicates(list(EVALUATION_KEY), keep="last")  # an evaluation may be made again
        return frame.sort_values("step", kind="stable", ignore_index=True)

    @cached_property
    def rollouts(self) -> pd.DataFrame:
        """Every kept response: ``ROLLOUT_COLUMNS``, ``split`` (train, test, ood), ``shots``, ``decoding``."""
        folder, frames = self.path / "rollouts", []
        train = _with_prompts(_frame(_read_jsonl_gz(folder / "train.jsonl.gz", appended=True), ROLLOUT_COLUMNS))
        frames.append(train.assign(split="train", shots=self.profile.shots, decoding="sampled"))
        for file in sorted(folder.glob("eval-*.jsonl.gz"), key=_evaluation_order):
            frames.append(_read_evaluation_file(file))
        filled = [frame for frame in frames if len(frame)]
        return pd.concat(filled, ignore_index=True) if filled else frames[0]

    def tokens(self) -> dict[int, list[dict]]:
        """Step -> rows of ``training.recording``: what the step did to some of its tokens. Empty for older runs."""
        files = {int(file.name.split("-")[1].split(".")[0]): file for file in self.path.glob("rollouts/tokens-*.jsonl.gz")}
        return {step: _read_jsonl_gz(files[step]) for step in sorted(files)}

    @cached_property
    def sources(self) -> dict:
        """Hashes of the run's problems and of its reward's source; empty for runs of earlier versions."""
        return _read_json(self.path / "sources.json")

    @cached_property
    def environment(self) -> dict:
        """Versions, commit, hardware and seconds; empty where the file is missing."""
        return _read_json(self.path / "environment.json")

    def responses(self, step: int, split: str | None = None, shots: int = 0, decoding: str = "sampled") -> pd.DataFrame:
        """Every response of one evaluation (``split`` None: :attr:`split`); FileNotFoundError where it was not made."""
        file = self.path / "rollouts" / _evaluation_file(step, split or self.split, shots, decoding)
        if not file.exists():
            made = ", ".join(f.name for f in sorted(file.parent.glob("eval-*"))) or "none at all"
            raise FileNotFoundError(f"{self.path.name} has no {file.name}; it has {made}")
        return _read_evaluation_file(file)


def load_run(path: str | Path) -> Run:
    """The run in folder ``path``, as :func:`~rlvr_utils.system.paths.run_folder` finds it.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    path = run_folder(path)
    if not path.is_dir():
        raise FileNotFoundError(f"no run in {path}: train one with `rlvr train`, or name an existing folder")
    return Run(path)


def newest_run(profile: str = "mini", root: str | Path = REPO / "runs") -> Path | None:
    """The folder under ``root`` of the run of ``profile`` written to last; None where there is none.

    A folder that cannot be read is skipped, and a warning names it.
    """
    runs = []
    for file in Path(root).glob("*/config.yaml"):
        try:
            if Run(file.parent).config.get("profile") == profile:
                last_written = max(one.stat().st_mtime for one in file.parent.iterdir() if one.is_file())
                runs.append((last_written, file.parent))
        except (ValueError, OSError) as error:
            warnings.warn(f"{file.parent.name} is skipped: {error}", stacklevel=2)
    return max(runs)[1] if runs else None


def reference_runs(prefix: str = "mini-seed-", root: str | Path = REFERENCE_RUNS) -> list[Path]:
    """The folders of the shipped runs whose name starts with ``prefix``, in order; perhaps none."""
    return sorted(file.parent for file in Path(root).glob(f"{prefix}*/config.yaml"))


def summarise_evaluation(responses: Iterable[dict] | pd.DataFrame, n_resamples: int = 2000) -> dict:
    """One row of ``evaluations.jsonl`` from the responses of one evaluation (rows with ``ROLLOUT_COLUMNS``).

    ``accuracy`` counts boxed right answers only, with a 95 % bootstrap interval over problems;
    ``worked_rate`` is the share of responses with at least one ``$left = right$`` step. ``accuracy_if_boxed``
    is None without any box. Raises ValueError where there is no response.
    """
    frame = pd.DataFrame(responses)
    if frame.empty:
        raise ValueError("no responses to summarise: the evaluation sampled nothing")
    correct = frame["correct"].astype(bool)
    boxed = frame["response"].map(last_boxed).notna()
    by_problem = correct.groupby(frame["problem_id"], sort=True)
    accuracy = bootstrap_over_problems([group.to_numpy() for _, group in by_problem], n_resamples)
    row = {key: frame[key].iloc[0] for key in EVALUATION_KEY if key in frame}
    row |= {
        "n_problems": by_problem.ngroups,
        "n_samples": int(by_problem.size().max()),
        "accuracy": accuracy.mean,
        "accuracy_low": accuracy.low,
        "accuracy_high": accuracy.high,
        "boxed_rate": boxed.mean(),
        "accuracy_if_boxed": correct[boxed].mean() if boxed.any() else None,
        "worked_rate": is_worked(frame["response"]).mean(),
        "mean_tokens": frame["n_tokens"].mean(),
    }
    return _plain(row)


def is_worked(responses: pd.Series) -> pd.Series:
    """Whether each response shows at least one ``$left = right$`` step."""
    return responses.map(lambda text: bool(find_steps(text))).astype(bool)


class RunWriter:
    """Writes a run into folder ``path``, each line as it comes; a killed run's tail is repaired first."""

    def __init__(self, path: str | Path, repair: bool = True) -> None:
        """``repair``: only for the one that trains there; what looks left over may be another's work in progress."""
        self.path = Path(path)
        self.rollouts = self.path / "rollouts"
        self.rollouts.mkdir(parents=True, exist_ok=True)
        self.metrics_file = self.path / "metrics.jsonl"
        self.evaluations_file = self.path / "evaluations.jsonl"
        self.train_file = self.rollouts / "train.jsonl.gz"
        self.restored = 0  # rollouts up to this step are on disk already
        if repair:
            with self.evaluating():
                self.repair()

    def repair(self) -> None:
        """Take away what a killed process left half written."""
        for part in (*self.path.glob("*.part"), *self.rollouts.glob("*.part")):
            part.unlink() if part.is_file() else shutil.rmtree(part)
        for file in (self.metrics_file, self.evaluations_file):
            _drop_half_line(file)
        _drop_half_member(self.train_file)

    def write_config(self, config: dict) -> None:
        replace_file(self.path / "config.yaml", yaml.safe_dump(_plain(config), sort_keys=False).encode())

    def write_environment(self, environment: dict) -> None:
        replace_file(self.path / "environment.json", json.dumps(_plain(environment), indent=2).encode())

    def write_sources(self, sources: dict) -> None:
        replace_file(self.path / "sources.json", json.dumps(sources, indent=2).encode())

    def log_metrics(self, row: dict) -> None:
        """Append one training step; on disk when this returns."""
        append_to(self.metrics_file, _lines([row]))

    def log_train_rollouts(self, rows: list[dict]) -> None:
        """Append training responses as one gzip member: a crash loses at most the member being written."""
        new = [row for row in rows if row["step"] > self.restored]
        if new:
            append_to(self.train_file, _compress(_lines(new)))

    def log_tokens(self, step: int, rows: list[dict]) -> None:
        """Write what one step did to its tokens; a resumed run writes the same file again."""
        replace_file(self.rollouts / f"tokens-{step}.jsonl.gz", _compress(_lines(rows)))

    def log_evaluation(self, row: dict, responses: list[dict]) -> None:
        """Write an evaluation, responses first, then its ``row``, which replaces one with the same key for every reader."""
        missing = [key for key in EVALUATION_KEY if key not in row]
        if missing:
            raise ValueError(f"an evaluation row needs {EVALUATION_KEY}; missing: {', '.join(missing)}")
        key = tuple(row[name] for name in EVALUATION_KEY)
        lines = _compress(_lines(_each_prompt_once(row["step"], responses)))
        with self.evaluating():
            replace_file(self.rollouts / _evaluation_file(*key), lines)
            _drop_half_line(self.evaluations_file)
            append_to(self.evaluations_file, _lines([row]))

    def evaluating(self) -> contextlib.AbstractContextManager[None]:
        """The time in which only this process changes evaluations: others may evaluate the same run."""
        return alone(self.rollouts / "lock")

    def cut_back(self, step: int) -> None:
        """Drop everything after ``step``: what a run resumed from that step is about to write again."""
        self.restored = step
        with self.evaluating():
            for file in (self.metrics_file, self.evaluations_file):
                if file.exists():
                    replace_file(file, _lines(row for row in _read_jsonl(file) if row.get("step", 0) <= step))
        if self.train_file.exists():
            kept = [row for row in _read_jsonl_gz(self.train_file, appended=True) if row.get("step", 0) <= step]
            replace_file(self.train_file, _compress(_lines(kept)) if kept else b"")
        for file in self.rollouts.glob("eval-*.jsonl.gz"):
            if _evaluation_order(file)[0] > step:
                file.unlink()


class SilentWriter:
    """In the place of a :class:`RunWriter` in every process of a run but the first: no call does anything."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments: None


# --- reading ---


def _frame(rows: Iterable[dict], columns: Iterable[str]) -> pd.DataFrame:
    """A frame that has ``columns`` first, whether or not there are rows."""
    frame = pd.DataFrame(list(rows))
    return frame.reindex(columns=[*columns, *(name for name in frame.columns if name not in columns)])


def _rows(data: bytes, file: Path) -> list[dict]:
    """The rows of json lines.

    Raises:
        ValueError: a line is no row; the sentence names it.
    """
    rows = []
    for number, line in enumerate(data.split(b"\n"), 1):
        try:
            if line:
                rows.append(dict(json.loads(line)))
        except (TypeError, ValueError) as error:
            raise DamagedRun(f"{file} is damaged: line {number} is no row ({error}). {_RESTORE}") from error
    return rows


def _read_json(file: Path) -> dict:
    """What a file of names and values holds; empty where there is no such file.

    Raises:
        DamagedRun: it holds something else.
    """
    if not file.exists():
        return {}
    try:
        return dict(json.loads(file.read_bytes()))
    except (TypeError, ValueError) as error:
        raise DamagedRun(f"{file} is damaged ({error}). {_RESTORE}") from error


def _read_jsonl(file: Path) -> list[dict]:
    """The rows of a file to which lines are appended: one that is not ended yet, or by a killed process, is left out.

    Raises:
        DamagedRun: it holds something else than rows and the beginning of one.
    """
    if not file.exists():
        return []
    raw = file.read_bytes()
    whole, newline, tail = raw.rpartition(b"\n")
    with contextlib.suppress(ValueError):
        return _rows(whole + newline + tail, file)
    # A killed process leaves the beginning of a row, a machine that lost power leaves zeros after the rows.
    if not (tail.startswith(b"{") or whole and not tail.strip(b"\0")):
        raise DamagedRun(_damage(file, raw, f"it ends in {ascii(tail[:20].decode(errors='replace'))}"))
    return _rows(whole, file)


def _read_jsonl_gz(file: Path, appended: bool = False) -> list[dict]:
    """The rows of a compressed file; ``appended``: its last member may be unfinished, as a killed process leaves it.

    Raises:
        ValueError: it is damaged in any other way, or the text of a link.
    """
    if not file.exists():
        return []
    data, end = _whole_members(file)
    if not appended and (end < file.stat().st_size or not end):
        raise DamagedRun(f"{file} is damaged: it ends in the middle. {_RESTORE}")
    return _rows(data, file)


def _whole_members(file: Path) -> tuple[bytes, int]:
    """The text of the gzip members that are complete, and how many bytes of the file they take.

    Raises:
        ValueError: what follows them is not the beginning of another member.
    """
    raw = file.read_bytes()
    text, end = io.BytesIO(), 0
    while end < len(raw):
        member = zlib.decompressobj(wbits=31)
        try:
            piece = member.decompress(raw[end:])
        except zlib.error as error:
            if end and not raw[end:].strip(b"\0"):  # a machine that lost power leaves zeros of what was being written
                break
            raise DamagedRun(_damage(file, raw, error)) from error
        if not member.eof:
            break
        text.write(piece)
        end = len(raw) - len(member.unused_data)
    return text.getvalue(), end


def _damage(file: Path, raw: bytes, error: zlib.error | str) -> str:
    if len(raw) < 500 and raw.startswith(b"../") and b"\n" not in raw.strip():
        return (
            f"{file} is a link that was unpacked as text. Get the repository with `git clone` (on Windows with "
            f"`-c core.symlinks=true`), or copy {raw.decode(errors='replace').strip()} into its place."
        )
    return f"{file} is damaged ({error}). {_RESTORE}"


def _read_evaluation_file(file: Path) -> pd.DataFrame:
    step, split, shots, decoding = _evaluation_order(file)
    frame = _frame(_read_jsonl_gz(file), ROLLOUT_COLUMNS).assign(step=step, split=split, shots=shots, decoding=decoding)
    return _with_prompts(frame)


def _with_prompts(frame: pd.DataFrame) -> pd.DataFrame:
    """``frame`` with each problem's prompt, which is stored once, in every row of that problem."""
    prompts = frame.dropna(subset="prompt").drop_duplicates("problem_id").set_index("problem_id")["prompt"]
    return frame.assign(prompt=frame["problem_id"].map(prompts))


def _evaluation_order(file: Path) -> tuple[int, str, int, str]:
    match = _EVALUATION_FILE.fullmatch(file.name)
    if match is None:
        raise ValueError(f"{file.name} is not named eval-STEP-SPLIT-SHOTS-DECODING.jsonl.gz: move it out of {file.parent}")
    return int(match[1]), unquote(match[2]), int(match[3]), match[4]


def _evaluation_file(step: int, split: str, shots: int, decoding: str) -> str:
    return f"eval-{int(step)}-{quote(split, safe='')}-{int(shots)}-{decoding}.jsonl.gz"  # no file system refuses it


# --- writing ---


def _each_prompt_once(step: int, responses: Iterable[dict]) -> Iterator[dict]:
    """The rows in the order of ``ROLLOUT_COLUMNS``, their prompt null after each problem's first."""
    seen = set()
    for row in responses:
        prompt = row.get("prompt") if row["problem_id"] not in seen else None
        seen.add(row["problem_id"])
        extra = {name: value for name, value in row.items() if name not in (*ROLLOUT_COLUMNS, *EVALUATION_KEY)}
        yield {name: row.get(name) for name in ROLLOUT_COLUMNS} | {"step": step, "prompt": prompt} | extra


def _plain(value: object) -> object:
    """``value`` in JSON's types: numpy and torch scalars as numbers, paths as text, NaN as null."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        value = value.item()
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def _lines(rows: Iterable[dict]) -> bytes:
    encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
    text = "".join(encode(_plain(row)) + "\n" for row in rows)
    return text.encode(errors="replace")  # half a surrogate pair, which no file and no frame can hold, becomes "?"


def _compress(data: bytes) -> bytes:
    return gzip.compress(data, compresslevel=9, mtime=0)


def _drop_half_line(file: Path) -> None:
    if file.exists():
        raw = file.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]
        if whole != raw:
            replace_file(file, whole)


def _drop_half_member(file: Path) -> None:
    if file.exists():
        end = _whole_members(file)[1]
        if end < file.stat().st_size:
            replace_file(file, file.read_bytes()[:end])

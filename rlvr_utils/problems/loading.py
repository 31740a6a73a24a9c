"""Load data sets as rows of one schema: MiniMATH, RLVR-MATH and MATH-500 from the hub, or your own files."""

from __future__ import annotations

import codecs
import json
import os
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from .. import REPO
from ..profiles import Profile
from ..system.paths import local_path
from .prompts import RLVR_MATH_EXEMPLARS
from .rows import checked_rows

MINIMATH = REPO / "data" / "minimath"
RLVR_MATH = "allenai/RLVR-MATH"
RLVR_MATH_REVISION = "bd2a93551b503a395fadd1a740d957559cfe6f3c"
#: Templates of MiniMATH's few-shot examples, in order. They cover all seven subjects and come from the training split.
EXEMPLAR_TEMPLATES = (
    "linear_equation",
    "draw_probability",
    "neither_club",
    "point_on_line",
    "triangle_angle",
    "remainder",
    "percent_of",
    "absolute_inequality",
)
SUFFIXES = (".jsonl", ".parquet")
#: Byte order marks. UTF-32 comes before UTF-16, because its mark starts with UTF-16's.
MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}

#: (location, row or error) pairs, such as ``("Line 7", {...})``.
Rows = Iterator[tuple[str, dict | ValueError]]


def test_data_dir() -> Path:
    """Return the directory of optional real test data: ``RLVR_TEST_DATA``, by default ``../shared/data``."""
    return Path(os.environ.get("RLVR_TEST_DATA", REPO.parent / "shared" / "data"))


test_data_dir.__test__ = False  # pytest would collect it by its name


@cache
def _minimath(split: str) -> tuple[dict, ...]:
    path = MINIMATH / f"{split}.jsonl"
    if not path.is_file():
        names = sorted(p.stem for p in MINIMATH.glob("*.jsonl"))
        todo = f"Choose from {', '.join(names)}." if names else "Restore data/minimath from the repository."
        raise ValueError(f"MiniMATH has no split {split!r}. {todo}")
    with path.open(encoding="utf-8") as lines:
        return tuple(json.loads(line) for line in lines)


def load_problems(dataset: str = "minimath", split: str = "train") -> list[dict]:
    """Load the problem rows of a data set and check each of them.

    Args:
        dataset: ``"minimath"``, the hub name of a data set like RLVR-MATH or MATH, a local ``.jsonl`` or ``.parquet``
            file, or a directory with one such file per split, such as ``mine/train.jsonl`` and ``mine/test.jsonl``.
        split: ``train``, ``test`` or ``ood`` for MiniMATH, a file's stem in a directory, the split's name on the hub.
            Ignored for a single file.

    Returns:
        One dict per problem: ``id, problem, solution, ground_truth, subject, level, template, params, answer_form``.
        Fields that the source lacks are None.

    Raises:
        ValueError: unknown split, unusable rows, or an unreachable hub. The message says what to do.
    """
    if dataset == "minimath":
        return [dict(row) for row in _minimath(split)]
    path, repaired = local_path(dataset), Counter()
    if path.is_dir():
        file = file_of_split(path, split)
        return checked_rows(read_file(file, repaired), f"{path.name}-{split}", f"{path.name}/{file.name}", repaired)
    if is_file(dataset):
        return checked_rows(read_file(path, repaired), path.stem, path.name, repaired)
    return checked_rows(_hub_rows(dataset, split), path.stem, f"{dataset} ({split})", repaired)


def training_rows(p: Profile) -> list[dict]:
    """Return a profile's training problems, the first ``train_subset`` if it is set."""
    return load_problems(p.dataset, "train")[: p.train_subset]


def training_order(n_problems: int, n_prompts: int, seed: int) -> list[int]:
    """Return the problem indices for the whole run: consecutive passes over the problems, each shuffled independently.

    The order of a pass depends only on the seed and the number of the pass, not on the length of the run.
    """
    order: list[int] = []
    while len(order) < n_prompts:
        one_pass = list(range(n_problems))
        random.Random(f"{seed}-{len(order) // n_problems}").shuffle(one_pass)
        order += one_pass
    return order[:n_prompts]


def evaluation_rows(p: Profile, split: str) -> list[dict]:
    """Return a profile's evaluation problems of one split, the first ``eval_problems`` if it is set.

    Raises:
        ValueError: as in :func:`load_problems`, or ``eval_dataset`` is one file but ``eval_splits`` has other splits.
    """
    if is_file(p.eval_dataset) and p.eval_splits != (split,):
        raise ValueError(
            f"eval_dataset={p.eval_dataset!r} is one file, so it is one split, but eval_splits={list(p.eval_splits)}. "
            "Set one split in eval_splits, or pass a directory with one file per split, such as mine/test.jsonl and "
            "mine/ood.jsonl."
        )
    return load_problems(p.eval_dataset, split)[: p.eval_problems]


def all_rows(p: Profile) -> tuple[list[dict], dict[str, list[dict]]]:
    """Return (training problems, evaluation problems by split) of a run.

    Raises:
        ValueError: as above, or a split other than ``train`` contains only training problems.
    """
    training, evaluation = training_rows(p), {split: evaluation_rows(p, split) for split in p.eval_splits}
    for split, shared in overlap(training, evaluation).items():
        if shared == len(evaluation[split]) and split != "train":
            raise ValueError(
                f"All {shared} evaluation problems of split {split!r} are training problems, so their accuracy "
                "does not measure generalisation. Hold out some problems in a separate file, such as "
                "mine/train.jsonl and mine/test.jsonl. To evaluate on the training problems anyway, set eval_splits=train."
            )
    return training, evaluation


def exemplars(dataset: str, shots: int) -> list[tuple[str, str]]:
    """Return the first ``shots`` few-shot examples of a data set as (question, answer): MiniMATH's, or RLVR-MATH's four.

    Raises:
        ValueError: ``shots`` is negative or exceeds the number of examples.
    """
    if dataset == "minimath":
        first = {}
        for row in load_problems("minimath", "train"):
            first.setdefault(row["template"], (row["problem"], " " + row["solution"]))
        pairs = [first[name] for name in EXEMPLAR_TEMPLATES]
    else:
        pairs = list(RLVR_MATH_EXEMPLARS)
    if not 0 <= shots <= len(pairs):
        raise ValueError(
            f"shots={shots} is out of range: {dataset} has {len(pairs)} few-shot examples. Choose 0 to {len(pairs)}."
        )
    return pairs[:shots]


def overlap(training: list[dict], evaluation: dict[str, list[dict]]) -> dict[str, int]:
    """Count the evaluation problems per split that are also training problems, ignoring white space and case."""
    seen = {_normalised(row["problem"]) for row in training}
    return {split: sum(_normalised(row["problem"]) in seen for row in rows) for split, rows in evaluation.items()}


def overlap_sentence(shared: dict[str, int]) -> str:
    """Describe the result of :func:`overlap` in one line."""
    found = ", ".join(f"{n} of {split}" for split, n in shared.items() if n)
    return f"evaluation problems that are also training problems: {found or 'none'}"


def _normalised(problem: str) -> str:
    return "".join(unicodedata.normalize("NFKC", problem).casefold().split())


def _hub_rows(dataset: str, split: str) -> Rows:
    from datasets import load_dataset  # slow import, needed only for data from the hub

    revision = RLVR_MATH_REVISION if dataset == RLVR_MATH else None
    try:
        rows = list(load_dataset(dataset, split=split, revision=revision))
    except Exception as error:  # the hub raises many types of errors
        if str(error).startswith("Unknown split"):
            raise ValueError(f"{dataset} has no split {split!r} on the hub. {error}") from error
        offline = [
            name
            for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
            if os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")
        ]
        todo = f"Unset {' and '.join(offline)}, which forbids downloads" if offline else "Check the network and the name"
        raise ValueError(
            f"Could not load {dataset!r} ({split}) from the Hugging Face hub ({type(error).__name__}). {todo}, "
            "or pass the path of a local .parquet or .jsonl file."
        ) from error
    return ((f"Row {index}", row) for index, row in enumerate(rows))


# --- local files, read row by row, so that an error can name its line ---


def is_file(dataset: str) -> bool:
    """Return whether ``dataset`` is the path of a local file (which may be missing), not a directory or a hub name."""
    path = local_path(dataset)
    return not path.is_dir() and (path.suffix.lower() in SUFFIXES or path.exists())


def file_of_split(folder: Path, split: str) -> Path:
    """Return the file of one split in a directory of problems.

    Raises:
        ValueError: the directory has no file, or two files, for this split.
    """
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES)
    found = [file for file in files if file.stem == split]
    if len(found) != 1:
        names = ", ".join(file.name for file in files) or "none"
        raise ValueError(
            f"{folder} needs exactly one file for split {split!r}, {split}.jsonl or {split}.parquet, but contains "
            f"{names}. Rename a file, or change eval_splits."
        )
    return found[0]


def read_file(path: Path, repaired: Counter) -> Rows:
    """Return (location, row) of every row in a file. An invalid row is returned as a ValueError.

    Repairs are counted in ``repaired``.

    Raises:
        ValueError: the whole file cannot be read.
    """
    if not path.exists():
        raise ValueError(
            f"There is no file {path}. Pass the path of a .jsonl or .parquet file, a directory with such "
            "files, or the name of a data set on the hub."
        )
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path} is neither .jsonl nor .parquet. Write one JSON object per line to a .jsonl file.")
    try:
        return read_parquet(path) if path.suffix.lower() == ".parquet" else read_jsonl(path, repaired)
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror or error}).") from error


def read_parquet(path: Path) -> Rows:
    import numpy  # imported here to keep the package quick to import
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
        rows = table.to_pylist()  # not with pandas, which turns null into NaN and 4 into 4.0
    except (pyarrow.ArrowException, ValueError, OverflowError) as error:
        why = " ".join(str(error).split())[:120]
        raise ValueError(
            f"{path} cannot be read as parquet ({why}). Copy the file again, or rewrite it with unique column "
            "names and dates as text."
        ) from error
    short = [field.name for field in table.schema if pyarrow.types.is_float32(field.type)]
    for row in rows:  # float32 0.1 is 0.10000000149 as a Python float, so use its shortest decimal
        row.update({name: float(str(numpy.float32(row[name]))) for name in short if row[name] is not None})
    return ((f"Row {index}", row) for index, row in enumerate(rows))


def read_jsonl(path: Path, repaired: Counter) -> Rows:
    """Read one JSON object per line. Skip a byte order mark and blank lines."""
    data = path.read_bytes()
    for mark, encoding in MARKS.items():
        if data.startswith(mark):
            data = recoded(path, data, encoding)
            repaired[f"read as {encoding.removesuffix('-sig').upper()} with a byte order mark"] = 1
            break
    lines = data.split(b"\n")
    lines = lines[:-1] if not lines[-1] else lines
    repaired["blank lines were skipped"] += sum(not line.strip() for line in lines)
    if data.lstrip()[:1] == b"[":
        raise ValueError(
            f"{path.name} contains one JSON list, but a .jsonl file needs one JSON object per line. Write json.dumps(row) "
            "for each row on a separate line, without brackets or commas around the rows."
        )
    return (
        (f"Line {number}", parsed(line, last=number == len(lines))) for number, line in enumerate(lines, 1) if line.strip()
    )


def recoded(path: Path, data: bytes, encoding: str) -> bytes:
    try:
        return data.decode(encoding).encode()
    except UnicodeError as error:
        raise ValueError(
            f"{path.name} starts with the byte order mark of {encoding.upper()}, but has invalid bytes ({error}). "
            "Save it as UTF-8."
        ) from error


def parsed(line: bytes, last: bool) -> dict | ValueError:
    """Return the row on one line, or a ValueError that describes what is wrong with the line."""
    try:
        return json.loads(line.decode())
    except UnicodeDecodeError as error:
        wrong = f"it is not UTF-8 (byte {line[error.start]:#04x} at position {error.start + 1}). Save the file as UTF-8."
    except json.JSONDecodeError as error:
        wrong = f"it is not JSON ({error.msg} at position {error.pos + 1}): {ascii(line[:40].decode(errors='replace'))}."
        if b"\0" in line:
            wrong = "it contains zero bytes, as UTF-16 does. Save the file as UTF-8."
        elif last and not re.search(rb"\}\s*$", line):
            wrong = "it ends in the middle of a row, so the file is truncated. Copy it again, or delete this line."
    except (ValueError, RecursionError) as error:  # numbers with thousands of digits, very deep nesting
        wrong = f"it cannot be read as JSON ({error})."
    return ValueError(wrong)

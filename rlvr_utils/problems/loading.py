"""Every data set as rows of one schema: MiniMATH, the hub's RLVR-MATH and MATH-500, or files of the reader's own."""

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
#: Which solved problems of MiniMATH's training split serve as exemplars, in this order (one a subject, then again).
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
#: What other encodings put first. UTF-32 before UTF-16, which begins alike.
MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}

#: (where it is, the row or what is wrong with it), as in ``("Line 7", {...})``.
Rows = Iterator[tuple[str, dict | ValueError]]


def test_data_dir() -> Path:
    """Where optional real test data lies: ``RLVR_TEST_DATA``, default ``../shared/data`` beside the repository."""
    return Path(os.environ.get("RLVR_TEST_DATA", REPO.parent / "shared" / "data"))


test_data_dir.__test__ = False  # the name is not a test


@cache
def _minimath(split: str) -> tuple[dict, ...]:
    path = MINIMATH / f"{split}.jsonl"
    if not path.is_file():
        names = sorted(p.stem for p in MINIMATH.glob("*.jsonl"))
        there = ", ".join(names) or "none: restore data/minimath from the repository"
        raise ValueError(f"MiniMATH has no split {split!r}; there are {there}.")
    with path.open(encoding="utf-8") as lines:
        return tuple(json.loads(line) for line in lines)


def load_problems(dataset: str = "minimath", split: str = "train") -> list[dict]:
    """Problem rows of a data set, each of them checked.

    Args:
        dataset: ``"minimath"``, the hub's name of an RLVR-MATH- or MATH-like data set, a local ``.jsonl`` or ``.parquet``
            file, or a folder with one such file per split, as in ``mine/train.jsonl`` and ``mine/test.jsonl``.
        split: ``train``, ``test`` or ``ood`` for MiniMATH; a file's name in a folder; the hub's split name otherwise. A
            file by itself is one split, whatever it is called here.

    Returns:
        One dict per problem: ``id, problem, solution, ground_truth, subject, level, template, params, answer_form``
        (None where the source has no such thing).

    Raises:
        ValueError: unknown split, rows that cannot be used, or a hub that cannot be reached; the sentence says what to do.
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
    """A profile's training problems, cut to ``train_subset`` where that is set."""
    return load_problems(p.dataset, "train")[: p.train_subset]


def training_order(n_problems: int, n_prompts: int, seed: int) -> list[int]:
    """Problem indices for the whole run: independently shuffled passes over the problems, one after the other.

    A pass always shuffles the same way for a given seed, whatever the length of the run.
    """
    order: list[int] = []
    while len(order) < n_prompts:
        one_pass = list(range(n_problems))
        random.Random(f"{seed}-{len(order) // n_problems}").shuffle(one_pass)
        order += one_pass
    return order[:n_prompts]


def evaluation_rows(p: Profile, split: str) -> list[dict]:
    """A profile's evaluation problems of one split, cut to ``eval_problems`` where that is set.

    Raises:
        ValueError: as :func:`load_problems`, or ``eval_dataset`` is one file and has no such split.
    """
    if is_file(p.eval_dataset) and p.eval_splits != (split,):
        raise ValueError(
            f"eval_dataset={p.eval_dataset!r} is one file, so it is one split, and split {split!r} of "
            f"eval_splits={list(p.eval_splits)} is asked for. Name one split in eval_splits, or give a folder "
            "with a file per split, as in mine/test.jsonl and mine/ood.jsonl."
        )
    return load_problems(p.eval_dataset, split)[: p.eval_problems]


def all_rows(p: Profile) -> tuple[list[dict], dict[str, list[dict]]]:
    """(training problems, evaluation problems by split): everything that a run reads.

    Raises:
        ValueError: as above, or a split holds nothing but training problems and is not called ``train``.
    """
    training, evaluation = training_rows(p), {split: evaluation_rows(p, split) for split in p.eval_splits}
    for split, shared in overlap(training, evaluation).items():
        if shared == len(evaluation[split]) and split != "train":
            raise ValueError(
                f"All {shared} evaluation problems of split {split!r} are training problems, so accuracy on "
                "them says nothing about new problems. Hold some problems out in a file of their own, as in "
                "mine/train.jsonl and mine/test.jsonl; or say that you mean it with eval_splits=train."
            )
    return training, evaluation


def exemplars(dataset: str, shots: int) -> list[tuple[str, str]]:
    """The first ``shots`` (question, answer) pairs for a data set: MiniMATH's own, or RLVR-MATH's fixed four.

    Raises:
        ValueError: more shots than there are exemplars.
    """
    if dataset == "minimath":
        first = {}
        for row in load_problems("minimath", "train"):
            first.setdefault(row["template"], (row["problem"], " " + row["solution"]))
        pairs = [first[name] for name in EXEMPLAR_TEMPLATES]
    else:
        pairs = list(RLVR_MATH_EXEMPLARS)
    if not 0 <= shots <= len(pairs):
        raise ValueError(f"shots={shots}: there are {len(pairs)} exemplars for {dataset}, so choose 0 to {len(pairs)}.")
    return pairs[:shots]


def overlap(training: list[dict], evaluation: dict[str, list[dict]]) -> dict[str, int]:
    """How many evaluation problems of each split are training problems too, white space and capitals apart."""
    seen = {_normalised(row["problem"]) for row in training}
    return {split: sum(_normalised(row["problem"]) in seen for row in rows) for split, rows in evaluation.items()}


def overlap_sentence(shared: dict[str, int]) -> str:
    """What :func:`overlap` found, in words."""
    found = ", ".join(f"{n} of {split}" for split, n in shared.items() if n)
    return f"evaluation problems that are training problems too: {found or 'none'}"


def _normalised(problem: str) -> str:
    return "".join(unicodedata.normalize("NFKC", problem).casefold().split())


def _hub_rows(dataset: str, split: str) -> Rows:
    from datasets import load_dataset  # only the 8B world needs it

    revision = RLVR_MATH_REVISION if dataset == RLVR_MATH else None
    try:
        rows = list(load_dataset(dataset, split=split, revision=revision))
    except Exception as error:  # the hub fails in many ways; a learner needs one sentence
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


# --- local files, read row by row, so that a fault can be named by its line ---


def is_file(dataset: str) -> bool:
    """Whether ``dataset`` means a local file, there or not, and not a folder or a name on the hub."""
    path = local_path(dataset)
    return not path.is_dir() and (path.suffix.lower() in SUFFIXES or path.exists())


def file_of_split(folder: Path, split: str) -> Path:
    """The file of one split in a folder of problems.

    Raises:
        ValueError: there is none, or there are two.
    """
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES)
    found = [file for file in files if file.stem == split]
    if len(found) != 1:
        names = ", ".join(file.name for file in files) or "no such file"
        raise ValueError(
            f"{folder} should hold one file for split {split!r}, {split}.jsonl or {split}.parquet; it holds "
            f"{names}. Rename a file, or name other splits in eval_splits."
        )
    return found[0]


def read_file(path: Path, repaired: Counter) -> Rows:
    """(where, row) of every row in a file; what is no row comes as the ValueError that says why.

    ``repaired`` counts what was repaired.

    Raises:
        ValueError: the file as a whole cannot be read.
    """
    if not path.exists():
        raise ValueError(
            f"There is no file {path}; give the path of a .jsonl or .parquet file, of a folder with such "
            "files, or the name of a data set on the hub."
        )
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path} is neither .jsonl nor .parquet: write one JSON object per line into a .jsonl file.")
    try:
        return read_parquet(path) if path.suffix.lower() == ".parquet" else read_jsonl(path, repaired)
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror or error}).") from error


def read_parquet(path: Path) -> Rows:
    import numpy  # the lower floors stay quick to import
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
        rows = table.to_pylist()  # not by pandas, which makes null NaN and 4 to 4.0
    except (pyarrow.ArrowException, ValueError, OverflowError) as error:
        why = " ".join(str(error).split())[:120]
        raise ValueError(
            f"{path} cannot be read as parquet ({why}). Copy the file again, or write it anew with one column "
            "per name, and dates as text."
        ) from error
    short = [field.name for field in table.schema if pyarrow.types.is_float32(field.type)]
    for row in rows:  # 0.1 in 32 bits is 0.10000000149 in Python's 64; its shortest decimal is what somebody wrote
        row.update({name: float(str(numpy.float32(row[name]))) for name in short if row[name] is not None})
    return ((f"Row {index}", row) for index, row in enumerate(rows))


def read_jsonl(path: Path, repaired: Counter) -> Rows:
    """One JSON object per line. A byte order mark and blank lines are passed over."""
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
            f"{path.name} holds one JSON list. A .jsonl file has one JSON object per line and no brackets or "
            "commas around them: write json.dumps(row) for each row on a line of its own."
        )
    return (
        (f"Line {number}", parsed(line, last=number == len(lines))) for number, line in enumerate(lines, 1) if line.strip()
    )


def recoded(path: Path, data: bytes, encoding: str) -> bytes:
    try:
        return data.decode(encoding).encode()
    except UnicodeError as error:
        raise ValueError(
            f"{path.name} begins as {encoding.upper()} and goes on as something else ({error}). Save it as UTF-8."
        ) from error


def parsed(line: bytes, last: bool) -> dict | ValueError:
    """The row on one line, or what is wrong with the line."""
    try:
        return json.loads(line.decode())
    except UnicodeDecodeError as error:
        wrong = f"it is not UTF-8 (byte {line[error.start]:#04x} at position {error.start + 1}). Save the file as UTF-8."
    except json.JSONDecodeError as error:
        wrong = f"it is not JSON ({error.msg} at position {error.pos + 1}): {ascii(line[:40].decode(errors='replace'))}."
        if b"\0" in line:
            wrong = "it holds bytes 0, as UTF-16 does. Save the file as UTF-8."
        elif last and not re.search(rb"\}\s*$", line):
            wrong = "it ends in the middle of a row: the file was cut off. Copy it again, or delete this line."
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, brackets without end
        wrong = f"it cannot be read as JSON ({error})."
    return ValueError(wrong)

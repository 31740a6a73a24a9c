"""Every data set through one door: MiniMATH, or the hub's RLVR-MATH and MATH-500, as rows of one schema."""

from __future__ import annotations

import json
import os
import random
import unicodedata
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from .. import REPO
from ..profiles import Profile
from ..system.paths import local_path
from .files import file_of_split, is_file, read_file
from .rows import checked_rows

MINIMATH = REPO / "data" / "minimath"
RLVR_MATH = "allenai/RLVR-MATH"
RLVR_MATH_REVISION = "bd2a93551b503a395fadd1a740d957559cfe6f3c"
MATH_500 = "HuggingFaceH4/MATH-500"


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
        raise ValueError(f"eval_dataset={p.eval_dataset!r} is one file, so it is one split, and split {split!r} of "
                         f"eval_splits={list(p.eval_splits)} is asked for. Name one split in eval_splits, or give a folder "
                         "with a file per split, as in mine/test.jsonl and mine/ood.jsonl.")
    return load_problems(p.eval_dataset, split)[: p.eval_problems]


def all_rows(p: Profile) -> tuple[list[dict], dict[str, list[dict]]]:
    """(training problems, evaluation problems by split): everything that a run reads.

    Raises:
        ValueError: as above, or a split holds nothing but training problems and is not called ``train``.
    """
    training, evaluation = training_rows(p), {split: evaluation_rows(p, split) for split in p.eval_splits}
    for split, shared in overlap(training, evaluation).items():
        if shared == len(evaluation[split]) and split != "train":
            raise ValueError(f"All {shared} evaluation problems of split {split!r} are training problems, so accuracy on "
                             "them says nothing about new problems. Hold some problems out in a file of their own, as in "
                             "mine/train.jsonl and mine/test.jsonl; or say that you mean it with eval_splits=train.")
    return training, evaluation


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


def _hub_rows(dataset: str, split: str) -> Iterator[tuple[str, dict]]:
    from datasets import load_dataset  # only the 8B world needs it

    revision = RLVR_MATH_REVISION if dataset == RLVR_MATH else None
    try:
        rows = list(load_dataset(dataset, split=split, revision=revision))
    except Exception as error:  # the hub fails in many ways; a learner needs one sentence
        if str(error).startswith("Unknown split"):
            raise ValueError(f"{dataset} has no split {split!r} on the hub. {error}") from error
        offline = [name for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
                   if os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")]
        todo = f"Unset {' and '.join(offline)}, which forbids downloads" if offline else "Check the network and the name"
        raise ValueError(f"Could not load {dataset!r} ({split}) from the Hugging Face hub ({type(error).__name__}). {todo}, "
                         "or pass the path of a local .parquet or .jsonl file.") from error
    return ((f"Row {index}", row) for index, row in enumerate(rows))

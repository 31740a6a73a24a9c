"""Every data set through one door: MiniMATH, or the hub's RLVR-MATH and MATH-500, as rows of one schema."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path

from .. import REPO
from ..paths import local_path
from ..profiles import Profile
from ..prompts import ANSWER, QUESTION, RLVR_MATH_EXEMPLARS, build_prompt
from ..verifier import last_boxed

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
    """Problem rows of a data set.

    Args:
        dataset: ``"minimath"``, the hub's name of an RLVR-MATH- or MATH-like data set, or a local ``.jsonl`` or
            ``.parquet`` file.
        split: ``train``, ``test`` or ``ood`` for MiniMATH; the hub's split name otherwise.

    Returns:
        One dict a problem: ``id, problem, solution, ground_truth, subject, level, template, params, answer_form``
        (None where the source has no such thing).

    Raises:
        ValueError: unknown split, missing column, or a hub that cannot be reached; the sentence says what to do.
    """
    if dataset == "minimath":
        return [dict(row) for row in _minimath(split)]
    rows = _local_rows(local_path(dataset)) if Path(dataset).suffix in (".jsonl", ".parquet") else _hub_rows(dataset, split)
    return [math_row(row, index, Path(dataset).stem) for index, row in enumerate(rows)]


def training_rows(p: Profile) -> list[dict]:
    """A profile's training problems, cut to ``train_subset`` where that is set."""
    return load_problems(p.dataset, "train")[: p.train_subset]


def evaluation_rows(p: Profile, split: str) -> list[dict]:
    """A profile's evaluation problems of one split, cut to ``eval_problems`` where that is set."""
    return load_problems(p.eval_dataset, split)[: p.eval_problems]


def _local_rows(path: Path) -> list[dict]:
    if not path.is_file():
        raise ValueError(f"There is no file {path}; give the path of a .jsonl or .parquet file, or the name of a data "
                         "set on the hub.")
    if path.suffix == ".jsonl":
        with path.open(encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]
    import pandas as pd  # noqa: PLC0415 - floor 1 stays quick to import

    return pd.read_parquet(path).to_dict("records")


def _hub_rows(dataset: str, split: str) -> list[dict]:
    from datasets import load_dataset  # noqa: PLC0415 - only the 8B world needs it

    revision = RLVR_MATH_REVISION if dataset == RLVR_MATH else None
    try:
        return list(load_dataset(dataset, split=split, revision=revision))
    except Exception as error:  # the hub fails in many ways; a learner needs one sentence
        raise ValueError(
            f"Could not load {dataset!r} ({split}) from the Hugging Face hub ({type(error).__name__}). Check the "
            "network and the name, or pass the path of a local .parquet or .jsonl file.") from error


def math_row(row: dict, index: int, source: str) -> dict:
    """A row of RLVR-MATH (``messages, ground_truth``) or MATH (``problem, solution, answer``) in our schema."""
    if "messages" in row:
        problem = question_of(row["messages"][-1]["content"])
        solution = None
    elif "problem" in row:
        problem, solution = row["problem"], row.get("solution")
    else:
        raise ValueError(f"Row {index} of {source} has neither `messages` (RLVR-MATH) nor `problem` (MATH); "
                         f"its columns are {', '.join(sorted(row))}.")
    truth = row.get("ground_truth", row.get("answer"))
    if truth is None and solution is not None:
        truth = last_boxed(solution)
    level = row.get("level")
    if isinstance(level, str):
        digits = "".join(c for c in level if c.isdigit())
        level = int(digits) if digits else None
    return {"id": f"{source}-{index}", "problem": problem, "solution": solution,
            "ground_truth": None if truth is None else str(truth),
            "subject": row.get("subject", row.get("type")), "level": level,
            "template": None, "params": None, "answer_form": None}


def question_of(message: str) -> str:
    """The problem inside an RLVR-MATH message: what follows the exemplars.

    RLVR-MATH's four exemplars are the same in every row and are taken off as they are, since a problem might contain
    ``Question:`` itself. With other exemplars the problem starts at the first ``Question:`` after the last answer.
    """
    after = message.removeprefix(build_prompt("", RLVR_MATH_EXEMPLARS, chat=True)[0]["content"])
    if after == message:
        after = message.rpartition(ANSWER)[2].partition(QUESTION)[2] or message
    return after.strip()

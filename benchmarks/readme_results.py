"""Write the README's results from the shipped reference runs: numbers in prose cannot go stale.

Run:  python benchmarks/readme_results.py   (after `make reference-runs`)
"""

from __future__ import annotations

import pandas as pd

from rlvr_utils import REPO
from rlvr_utils.analysis import (
    arms_table,
    as_markdown,
    compare,
    endpoints,
    evaluation_responses,
    finished_runs,
    percent,
    points,
)
from rlvr_utils.problems import check_steps, load_problems

README = REPO / "README.md"
MARKS = ("<!-- results -->", "<!-- /results -->")
ROWS = (  # (what, split, decoding, column, condition)
    ("right and boxed, T = 1", "test", "sampled", "correct", None),
    ("right and boxed, greedy", "test", "greedy", "correct", None),
    ("boxed at all, T = 1", "test", "sampled", "boxed", None),
    ("right among the boxed, T = 1", "test", "sampled", "correct", "boxed"),
    ("worked step by step, T = 1", "test", "sampled", "worked", None),
    ("worked and every step true, T = 1", "test", "sampled", "all_true", None),
    ("every step true among the worked, T = 1", "test", "sampled", "all_true", "worked"),
    ("right and boxed out of distribution, T = 1", "ood", "sampled", "correct", None),
)


def with_steps(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with ``all_true``: the response has steps, and each of them checks."""
    rows = {row["id"]: row for split in ("test", "ood") for row in load_problems("minimath", split)}
    checked = [check_steps(rows[i], text) for i, text in zip(frame["problem_id"], frame["response"], strict=True)]
    return frame.assign(all_true=[bool(steps) and all(steps) for steps in checked])


def results() -> str:
    """The results as Markdown: a sentence on what was measured, then one row a quantity with 95 % intervals."""
    runs = finished_runs("mini-seed-")
    frames = {key: endpoints(with_steps(evaluation_responses(runs, *key)))
              for key in {(split, decoding) for _, split, decoding, _, _ in ROWS}}
    lines = [
        f"Profile `mini`, {len(runs)} seeds, {frames['test', 'sampled'][0]['problem_id'].nunique()} test problems that "
        "neither pretraining nor training saw (4 samples each at T = 1), 95 % intervals over problems and seeds, made by "
        "`make reference-runs`:", "", "| | before | after | change (points) |", "|---|---|---|---|"]
    for what, split, decoding, column, condition in ROWS:
        c = compare(*frames[split, decoding], column, condition)
        lines.append(f"| {what} | {percent(c.before)} | {percent(c.after)} | {points(c.change)} |")
    minutes = [run.environment["training_seconds"] / 60 for run in runs]
    lines += ["", f"Training took {min(minutes):.1f} to {max(minutes):.1f} minutes on two CPU cores. The base model was "
              "*built* able but unwilling, so these gains show the mechanism, not what RLVR gives a real model.", ""]
    return "\n".join(lines + arms())


def arms() -> list[str]:
    """The other arms of the experiment: a table of those that were run, a sentence on the others."""
    table = arms_table()
    made, missing = table[table["seeds"] > 0], table[table["seeds"] == 0]
    lines = ["Right and boxed at T = 1, by arm of the experiment (`make reference-runs ARGS=\"--tier A\"`, then B, C):",
             "", as_markdown(made.drop(columns="tier")), ""]
    return lines + ([f"Not run: {'; '.join(missing['arm'])}."] if len(missing) else [])


def readme_with(text: str) -> str:
    """The README with ``text`` between its marks."""
    head, rest = README.read_text(encoding="utf-8").split(MARKS[0])
    return f"{head}{MARKS[0]}\n{text}\n{MARKS[1]}{rest.split(MARKS[1])[1]}"


if __name__ == "__main__":
    README.write_text(readme_with(results()), encoding="utf-8")

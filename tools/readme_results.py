"""Write the README's results from the shipped runs and the studies' files: numbers in prose cannot go stale.

Run:  python tools/readme_results.py   (after `make reference-runs`, `make shared-prefix` or `make bench-mini-step`)
"""

from __future__ import annotations

import json
from statistics import mean, median

import pandas as pd

from rlvr_utils import REPO
from rlvr_utils.analysis import (
    as_markdown,
    classified,
    endpoints,
    evaluation_responses,
    lora_sentence,
    percent,
    points,
    rate_change,
)
from rlvr_utils.experiment import SMALLEST_GAP, arm_gap, arms_made, finished_runs
from rlvr_utils.problems import load_problems

README = REPO / "README.md"
MEASURED = REPO / "studies" / "results"
ROWS = (  # (what, split, decoding, column, condition)
    ("right and boxed, T = 1", "test", "sampled", "correct", None),
    ("right and boxed, greedy", "test", "greedy", "correct", None),
    ("boxed at all, T = 1", "test", "sampled", "boxed", None),
    ("right among the boxed, T = 1", "test", "sampled", "correct", "boxed"),
    ("worked step by step, T = 1", "test", "sampled", "worked", None),
    ("worked and every step true, T = 1", "test", "sampled", "sound", None),
    ("every step true among the worked, T = 1", "test", "sampled", "sound", "worked"),
    ("right and boxed out of distribution, T = 1", "ood", "sampled", "correct", None),
)


def results() -> str:
    """The results as Markdown: a sentence on what was measured, then one row a quantity with 95 % intervals."""
    runs = finished_runs("mini-seed-")
    problems = [row for split in ("test", "ood") for row in load_problems("minimath", split)]
    frames = {
        key: endpoints(classified(evaluation_responses(runs, *key), problems))
        for key in {(split, decoding) for _, split, decoding, _, _ in ROWS}
    }
    lines = [
        f"Profile `mini`, {len(runs)} seeds, {frames['test', 'sampled'][0]['problem_id'].nunique()} test problems that "
        "neither pretraining nor training saw (4 samples each at T = 1), 95 % intervals over problems and seeds, made by "
        "`make reference-runs`:",
        "",
        "| | before | after | change (points) |",
        "|---|---|---|---|",
    ]
    for what, split, decoding, column, condition in ROWS:
        c = rate_change(*frames[split, decoding], column, condition)
        lines.append(f"| {what} | {percent(c.before)} | {percent(c.after)} | {points(c.change)} |")
    minutes = [run.environment["training_seconds"] / 60 for run in runs]
    threads = max(run.environment["threads"] for run in runs)
    lines += [
        "",
        f"Training took {median(minutes):.1f} minutes (median, CPU threads a run: {threads}). The "
        "base model was *built* able but unwilling, so these gains show the mechanism, not what RLVR gives a real "
        "model.",
        "",
    ]
    return "\n".join(lines + arms())


def arms() -> list[str]:
    """The arms of the experiment: a table of those that were run, a sentence on the others, what they say about LoRA."""
    made, missing = arms_made()
    lines = [
        'Right and boxed at T = 1, by arm of the experiment (`make reference-runs ARGS="--tier A"`, then B, C):',
        "",
        as_markdown(made[made["seeds"] > 1].drop(columns="tier")),
        "",
    ]
    lines += [lora_sentence(arm_gap("full fine-tuning"), SMALLEST_GAP) or "", ""]
    return lines + ([f"Not run: {'; '.join(missing)}.", ""] if missing else []) + [coverage()]


def coverage() -> str:
    """How often the intervals hold a known truth where seeds differ most, from the file of that benchmark."""
    rows = json.loads((MEASURED / "coverage.json").read_text())["coverage"]
    hardest = [max((row for row in rows if row["seeds"] == n), key=lambda row: row["seeds_scatter_by"]) for n in (3, 5)]
    told = [
        f"with {row['seeds']} seeds in {row['held']['one arm'] / row['experiments']:.0%} (differences of two arms: "
        f"{row['held']['two arms'] / row['experiments']:.0%}; a bootstrap alone: "
        f"{row['held']['one arm, bootstrap alone'] / row['experiments']:.0%})"
        for row in hardest
    ]
    n, points_apart = hardest[0]["experiments"], 100 * hardest[0]["seeds_scatter_by"]
    return (
        f"Intervals are 95 %, over problems and seeds. In {n:,} invented experiments whose seeds scatter by "
        f"{points_apart:.0f} points, they hold the truth {' and '.join(told)} (`make coverage`)."
    )


def speed() -> str:
    """What sharing prompts buys, from the files of two studies: a table and a sentence on the floor."""
    passes, steps = (json.loads((MEASURED / f"{name}.json").read_text()) for name in ("shared_prefix", "mini_step"))
    rows = [
        (row["case"], f"{row['times_as_fast']:.2f}", f"{row['token_bound']:.2f}", f"{row['memory_ratio']:.2f}")
        for row in passes["passes"]
    ]
    table = pd.DataFrame(rows, columns=["training pass", "times as fast", "token bound", "peak memory"])
    whole = pd.DataFrame(
        [
            (
                f"{row['shots']} shots",
                f"{mean(row['seconds']['stock']):.2f} s",
                f"{mean(row['seconds']['ours']):.2f} s",
                "{:.2f} ({:.2f} to {:.2f})".format(*row["times_as_fast"]),
                f"{row['floor']['step_over_floor']:.1f}",
                f"{row['attributed']['ours']:.0%}",
            )
            for row in steps["steps"]
        ],
        columns=["whole step of `mini`", "stock TRL", "ours", "times as fast", "over the floor", "attributed"],
    )
    where = "{cpu}, {threads} threads, torch {versions[torch]}, TRL {versions[trl]}".format(**steps["environment"])
    return "\n".join(
        [
            "Each prompt is computed once for all its responses, and exemplars once for a whole batch, in training and in "
            f"sampling; log-probabilities and gradients are TRL's. Beside stock TRL in one run ({where}):",
            "",
            as_markdown(table),
            "",
            as_markdown(whole),
            "",
            "*Token bound*: tokens that stock TRL computes over those computed here. *Peak memory*: ours over stock's. "
            "*Over the floor*: time over that of the step's floating-point operations at the measured matrix rate. "
            "*Attributed*: share of the step that its profile names. "
            "(`make shared-prefix`, `make bench-mini-step`; GPU: not run.)",
        ]
    )


def put(text: str, mark: str, content: str) -> str:
    """``text`` with ``content`` between its marks."""
    head, rest = text.split(f"<!-- {mark} -->")
    return f"{head}<!-- {mark} -->\n{content}\n<!-- /{mark} -->{rest.split(f'<!-- /{mark} -->')[1]}"


def readme() -> str:
    """The README as it should be."""
    text = README.read_text(encoding="utf-8")
    return put(put(text, "results", results()), "speed", speed())


if __name__ == "__main__":
    README.write_text(readme(), encoding="utf-8")

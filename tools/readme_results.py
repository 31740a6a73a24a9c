"""Write the computed parts of README.md and docs/ from the included runs and the studies' results.

Run:  python tools/readme_results.py   (after `make reference-runs`, `make shared-prefix` or `make bench-mini-step`, and
when a notebook gains or loses an exercise)
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from statistics import mean, median

import pandas as pd

from rlvr_utils import REPO
from rlvr_utils.analysis import (
    RateChange,
    as_markdown,
    classified,
    endpoints,
    evaluation_responses,
    percent,
    points,
    rate_change,
)
from rlvr_utils.course.timetable import one_day_hours, timetable, total_hours, totals
from rlvr_utils.experiment import LONG, LONG_RATE, arm_gap, arms_made, finished_runs
from rlvr_utils.problems import check_steps, load_problems

README = REPO / "README.md"
RESULTS = REPO / "docs" / "results.md"
SPEED = REPO / "docs" / "speed.md"
MEASURED = REPO / "studies" / "results"
#: The problem whose responses the README shows, with the number of problems that changed in the same way.
SHOWN = "mean_of_four-8-8-30-14"
ROWS = (  # (what, split, decoding, column, condition)
    ("strict accuracy, T = 1", "test", "sampled", "correct", None),
    ("strict accuracy, greedy", "test", "greedy", "correct", None),
    ("boxed rate, T = 1", "test", "sampled", "boxed", None),
    ("accuracy among boxed responses, T = 1", "test", "sampled", "correct", "boxed"),
    ("responses with chain of thought, T = 1", "test", "sampled", "worked", None),
    ("chain of thought with every step true, T = 1", "test", "sampled", "sound", None),
    ("every step true among chains of thought, T = 1", "test", "sampled", "sound", "worked"),
    ("strict accuracy out of distribution, T = 1", "ood", "sampled", "correct", None),
)


def results() -> str:
    """Return the results as Markdown: a sentence on the measurement, then one row per quantity with 95 % intervals."""
    runs = finished_runs("mini-seed-")
    problems = [row for split in ("test", "ood") for row in load_problems("minimath", split)]
    frames = {
        key: endpoints(classified(evaluation_responses(runs, *key), problems))
        for key in {(split, decoding) for _, split, decoding, _, _ in ROWS}
    }
    n_problems = frames["test", "sampled"][0]["problem_id"].nunique()
    lines = [
        f"Profile `mini`, {len(runs)} seeds, {n_problems} test problems (4 samples each at T = 1), 95 % intervals over "
        "problems and seeds, made by `make reference-runs`. Neither pretraining nor training saw these problems. They have "
        "new numbers in the templates of the training problems, and pretraining may have seen most of the training problems "
        "([data card](../data/README.md)). *Out of distribution* means new templates and larger numbers.",
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
        four_shots(),
        "",
        f"Training took {median(minutes):.1f} minutes (median, CPU threads per run: {threads}). We built the base model so "
        "that it can reason and box its answer but rarely does both. These gains show the mechanism of RLVR, not its gain "
        "on a pretrained model.",
        "",
    ]
    return "\n".join(lines + arms())


@cache
def at_four_shots(decoding: str) -> RateChange:
    """Return strict accuracy before and after training with four examples in each prompt."""
    return rate_change(*endpoints(evaluation_responses(finished_runs("mini-4shot-seed-"), "test", decoding)))


def four_shots() -> str:
    """Return a paragraph on the strongest baseline: the base model with few-shot examples, sampled and greedy."""
    sampled, greedy = at_four_shots("sampled"), at_four_shots("greedy")
    return (
        f"The strongest baseline needs no training. With four examples in its prompt, the base model reaches "
        f"{percent(sampled.before)} sampled at T = 1 and {percent(greedy.before)} with greedy decoding. Training at four "
        f"shots changes this by {points(sampled.change)} and {points(greedy.change)} points. So most of the gain is "
        "elicitation: RLVR brings out what the model could do, and makes its sampling less random (notebook 05)."
    )


def arms() -> list[str]:
    """Return the arms of the experiment: tables of finished runs, a paragraph on LoRA, and the arms that were not run."""
    made, missing = arms_made()
    made = made[made["seeds"] > 1]
    equal = made[made["tier"] != "B"].drop(columns="tier")
    end, half = (arm_gap("full fine-tuning", halfway=halfway) for halfway in (False, True))
    lines = [
        'Strict accuracy at T = 1, by arm of the experiment (`make reference-runs ARGS="--tier A"`, then C). An arm changes '
        "what its name says and keeps the rest. The end is on a plateau, so compare learning speed halfway. "
        "`loss_type` is TRL's: it changes how the loss is averaged or clipped, and not the division by the std. Rejection "
        "sampling is one round at GRPO's learning rate.",
        "",
        as_markdown(equal),
        "",
        f"The long runs (`--tier B`) see {LONG['train_subset']} problems twelve times in {LONG['max_steps']} steps, at a "
        f"learning rate of {LONG_RATE['lora']:g} (LoRA) or {LONG_RATE['none']:g}, so that projecting their curve is hard:",
        "",
        as_markdown(made[made["tier"] == "B"].drop(columns="tier")),
        "",
        f"Full fine-tuning minus LoRA: {points(half)} points halfway, {points(end)} at the end. Each has the best learning "
        "rate of a coarse grid (notebook 05). This says nothing about a gap at 8B.",
        "",
    ]
    return lines + ([f"Not run: {', '.join(missing)}.", ""] if missing else []) + [coverage()]


def coverage() -> str:
    """Return a sentence on the coverage of our intervals in simulations, from the coverage study's results."""
    rows = json.loads((MEASURED / "coverage.json").read_text())["coverage"]
    held = [
        [row["held"][what] / row["experiments"] for row in rows]
        for what in ("one arm", "two arms", "one arm, bootstrap alone")
    ]
    one, two, alone = (f"{min(shares):.0%} to {max(shares):.0%}" for shares in held)
    scatter = [100 * row["seeds_scatter_by"] for row in rows]
    seeds = sorted({row["seeds"] for row in rows})
    return (
        f"Intervals are 95 %, over problems and seeds. In {rows[0]['experiments']:,} simulated experiments per setting "
        f"({' or '.join(map(str, seeds))} seeds, standard deviation between seeds of {min(scatter):.0f} to "
        f"{max(scatter):.0f} points), the share of intervals that contain the true value is {one} (differences of two "
        f"arms: {two}, a bootstrap alone: {alone}). The higher shares belong to seeds that scatter little, as they do here "
        "(`make coverage`)."
    )


def speed() -> str:
    """Return the speed-up from sharing prompts as Markdown tables, from the results of two studies."""
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
            "Each prompt is computed once for all its responses, and few-shot examples once for a whole batch, in training "
            "and in sampling. Log-probabilities and gradients are those of TRL. Compared with stock TRL in one run "
            f"({where}):",
            "",
            as_markdown(table),
            "",
            as_markdown(whole),
            "",
            "- *Token bound*: tokens that stock TRL computes, divided by those computed here.",
            "- *Peak memory*: ours divided by stock TRL's.",
            "- *Over the floor*: time of a step, divided by the time of its arithmetic at the measured matrix rate.",
            "- *Attributed*: share of the step's time that we can attribute to a phase.",
            "",
            "`make shared-prefix` and `make bench-mini-step` repeat these measurements. We have not run them on a GPU.",
        ]
    )


def put(text: str, mark: str, content: str) -> str:
    """Return ``text`` with ``content`` between its marks."""
    head, rest = text.split(f"<!-- {mark} -->")
    return f"{head}<!-- {mark} -->\n{content}\n<!-- /{mark} -->{rest.split(f'<!-- /{mark} -->')[1]}"


def before_after() -> str:
    """Return one problem's response before and after training, and the change over all test problems, as Markdown."""
    runs = finished_runs("mini-seed-")
    run, minutes = runs[0], [run.environment["training_seconds"] / 60 for run in runs]
    row = next(row for row in load_problems("minimath", "test") if row["id"] == SHOWN)
    greedy = evaluation_responses([run], "test", "greedy").set_index("problem_id")
    first, last = (greedy[greedy["step"] == step] for step in (0, run.config["max_steps"]))
    before, after = first.loc[SHOWN], last.loc[SHOWN]
    assert not before["correct"] and after["correct"] and all(check_steps(row, after["response"]))
    gained, lost = (int((~a["correct"] & b["correct"]).sum()) for a, b in ((first, last), (last, first)))
    measured = (("test", "sampled"), ("test", "greedy"), ("ood", "sampled"))
    rate, most_likely, elsewhere = (rate_change(*endpoints(evaluation_responses(runs, *key))) for key in measured)
    threads = max(run.environment["threads"] for run in runs)
    return "\n".join(
        [
            f"> {row['problem']}",
            "",
            "| | the model's response with greedy decoding | reward |",
            "|---|---|---|",
            f"| before training | `{before['response'].strip()}` | {before['reward']:.0f} |",
            f"| after {run.config['max_steps']} steps | `{after['response'].strip()}` | {after['reward']:.0f} |",
            "",
            f"Of {len(first)} test problems, {gained} changed like this one and {lost} the other way (seed 0).",
            f"With greedy decoding (always the most likely token), accuracy rises from {percent(most_likely.before)} to "
            f"{percent(most_likely.after)}.",
            f"Sampled responses rise from {percent(rate.before)} to {percent(rate.after)}, and on new templates with larger "
            f"numbers from {percent(elsewhere.before)} to {percent(elsewhere.after)}.",
            f"In brackets are 95 % intervals over problems and {len(runs)} seeds. Training took {median(minutes):.0f} "
            f"minutes with {threads} CPU thread{'s' * (threads > 1)} per run.",
            "",
            "How much of this is new? We built the model so that it can already reason and box its answer but rarely does. "
            "With four examples in its prompt and greedy decoding, the *untrained* model reaches "
            f"{percent(at_four_shots('greedy').before)}. So you see the mechanism of RLVR, and the size of the gain says "
            "nothing about another model. Notebook 05 asks what was learned.",
        ]
    )


def total() -> str:
    """Return a paragraph on the duration of the course."""
    reading, exercises, machine = totals()
    return (
        f"**How long it takes.** About {total_hours():.0f} hours in all: {reading} of reading and {exercises} of exercises. "
        f"The computer needs about {machine}.\nNotebook 00 has a path for one day, of about {one_day_hours():.0f} hours."
    )


def pages() -> dict[Path, str]:
    """Return the up-to-date text of each page with computed parts."""
    readme = README.read_text(encoding="utf-8")
    return {
        README: put(
            put(put(readme, "before and after", before_after()), "total", total()), "times", timetable("notebooks/")
        ),
        RESULTS: put(RESULTS.read_text(encoding="utf-8"), "results", results()),
        SPEED: put(SPEED.read_text(encoding="utf-8"), "speed", speed()),
    }


if __name__ == "__main__":
    for page, text in pages().items():
        page.write_text(text, encoding="utf-8")

"""Times of the course: reading, exercise and machine time per notebook, and a one-day path.

The tables in the README and notebook 00 are computed from this module.
"""

from __future__ import annotations

from typing import NamedTuple

from rlvr_utils import REPO
from rlvr_utils.exercises.attempts import BY_ID


class Part(NamedTuple):
    """One notebook of the course."""

    name: str  #: the file's stem, such as "02_grpo_on_toy_tensors"
    title: str  #: as the tables show it
    outcome: str  #: completes "afterwards you can"
    reading: int  #: minutes to read it while the cells run
    machine: int  #: seconds to run its cells on two idle cores, profile ``mini``
    day: str  #: what to do with it on the one-day path

    @property
    def exercises(self) -> int:
        """Total minutes of its exercises."""
        return sum(exercise.minutes for exercise in BY_ID.values() if exercise.notebook == self.name[:2])


PARTS = (
    Part(
        "00_start_here",
        "00 Start here",
        "say what RLVR is and where it comes from, and measure what a base model (only pretrained) can do and usually does",
        30,
        40,
        "all sections",
    ),
    Part(
        "01_boxed_answer_verifier",
        "01 Boxed-answer verifier",
        "write a verifier, explain each of its verdicts, and fool other verifiers",
        45,
        20,
        "sections 1 to 5",
    ),
    Part(
        "02_grpo_on_toy_tensors",
        "02 GRPO on toy tensors",
        "derive the policy gradient and compute a GRPO step that matches TRL, Hugging Face's library for RL",
        45,
        65,
        "all sections",
    ),
    Part(
        "03_lora_setup",
        "03 LoRA setup",
        "attach a LoRA adapter (a small set of trained weights), prove that it trains, and say which GPU a run fits on",
        35,
        25,
        "skip it, the defaults work",
    ),
    Part(
        "04_training_run",
        "04 Training run",
        "run GRPO with LoRA on TRL, watch it live, stop it and resume it",
        30,
        410,
        "all sections",
    ),
    Part(
        "05_results_analysis",
        "05 Results analysis",
        "say how much was learned, with intervals, and whether it is reasoning or format",
        45,
        55,
        "all sections",
    ),
    Part(
        "06_reward_hacking",
        "06 Reward hacking",
        "watch a model exploit a grader, notice it without ground truth, and repair the grader",
        45,
        95,
        "all sections",
    ),
    Part(
        "07_inside_the_run",
        "07 Inside the run",
        "inspect a gradient token by token, test whether the reasoning causes the answer, diagnose sick runs",
        45,
        25,
        "skip it",
    ),
    Part(
        "08_variants_and_your_own",
        "08 Variants, and your own estimator",
        "compare loss types, train off-policy, and race your own estimator",
        50,
        40,
        "skip it",
    ),
)
#: Minutes for one exercise. The one-day path plans one per notebook.
ONE_EXERCISE = 15


def timetable(folder: str, one_day: bool = False) -> str:
    """Return a Markdown table with one row per notebook and a row of totals.

    Args:
        folder: prefix of the links to the notebooks, such as "notebooks/", or "" for a page in the same directory. A
            missing notebook gets no link.
        one_day: add a column with the one-day path.
    """
    rows = [["notebook", "afterwards you can", "read", "exercises", "machine", "in one day"], ["---"] * 6]
    for part in PARTS:
        there = (REPO / "notebooks" / f"{part.name}.ipynb").is_file()
        title = f"[{part.title}]({folder}{part.name}.ipynb)" if there else part.title
        times = _hours(part.reading), _hours(part.exercises), _seconds(part.machine)
        rows.append([title, part.outcome, *times, part.day])
    rows.append(["**all of it**", "", *totals(), f"about {one_day_hours():.0f} hours"])
    return "\n".join(f"| {' | '.join(row if one_day else row[:-1])} |" for row in rows)


def totals() -> tuple[str, str, str]:
    """Return the total reading, exercise and machine time as texts."""
    reading, exercises = (sum(getattr(part, kind) for part in PARTS) for kind in ("reading", "exercises"))
    return _hours(reading), _hours(exercises), _seconds(sum(part.machine for part in PARTS))


def total_hours() -> float:
    """Return the hours to read everything and attempt every exercise."""
    return sum(part.reading + part.exercises for part in PARTS) / 60


def one_day_hours() -> float:
    """Return the hours of the one-day path: read the notebooks that are not skipped, with one exercise each."""
    taken = [part for part in PARTS if not part.day.startswith("skip")]
    return sum(part.reading + min(ONE_EXERCISE, part.exercises or ONE_EXERCISE) for part in taken) / 60


def _hours(minutes: int) -> str:
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def _seconds(seconds: int) -> str:
    return f"{seconds} s" if seconds < 60 else f"{round(seconds / 60)} min"

"""Every exercise of the course, in order: what the progress table lists, and what the notebooks' headings say."""

from __future__ import annotations

from typing import NamedTuple


class Exercise(NamedTuple):
    """One exercise.

    ``id`` ties stub, check and solution together and starts with the notebook's number; ``difficulty`` is 1 to 5;
    ``minutes`` is for a first attempt.
    """

    id: str
    number: str
    title: str
    difficulty: int
    minutes: int

    @property
    def notebook(self) -> str:
        """The notebook's two digits, such as "02"."""
        return self.id[:2]

    @property
    def name(self) -> str:
        """As the headings say it, such as "2.1 Advantages of several groups"."""
        return f"{self.number} {self.title}"


EXERCISES = (
    Exercise("00-two-numbers", "0.1", "The two numbers", 1, 5),
    Exercise("01-last-box", "1.1", "The last box", 3, 15),
    Exercise("01-one-spelling", "1.2", "One spelling for a fraction", 2, 10),
    Exercise("01-same-number", "1.3", "A grader for numbers", 3, 15),
    Exercise("01-shotgun", "1.4", "An attack that need not know", 2, 10),
    Exercise("01-wilson", "1.5", "An interval for a rate", 3, 15),
    Exercise("02-advantages", "2.1", "Advantages of several groups", 2, 10),
    Exercise("02-clipped-term", "2.2", "Ratio and clip", 3, 15),
    Exercise("02-logit-gradient", "2.3", "Which way do the logits go?", 3, 10),
    Exercise("02-averages", "2.4", "Two averages under a mask", 2, 10),
    Exercise("02-k3", "2.5", "The KL estimate k3", 3, 10),
    Exercise("03-first-gradients", "3.1", "The first gradients", 3, 15),
    Exercise("03-merge", "3.2", "Merge by hand", 2, 10),
    Exercise("03-count", "3.3", "Count the numbers", 3, 15),
    Exercise("03-first-step", "3.4", "What Adam's first step does", 4, 20),
    Exercise("03-memory", "3.5", "Bytes for training", 2, 10),
    Exercise("04-batch", "4.1", "Steps, prompts, samples", 2, 10),
    Exercise("04-mixed-groups", "4.2", "Groups that teach something", 2, 10),
    Exercise("04-metrics-row", "4.3", "A row of metrics", 2, 10),
    Exercise("04-resume", "4.4", "Where to go on", 3, 15),
    Exercise("04-length-reward", "4.5", "A reward with a length term", 3, 15),
    Exercise("05-paired-bootstrap", "5.1", "The paired bootstrap", 3, 15),
    Exercise("05-decomposition", "5.2", "Format apart from substance", 3, 15),
    Exercise("05-pass-at-k", "5.3", "pass@k without bias", 3, 15),
    Exercise("05-category", "5.4", "What went wrong?", 3, 15),
    Exercise("05-projection", "5.5", "Project a curve", 4, 20),
)

BY_ID = {exercise.id: exercise for exercise in EXERCISES}

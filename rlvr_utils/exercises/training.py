"""Checks of notebook 04: batch arithmetic, groups that teach, a row of metrics, resuming, a reward with a length."""

from __future__ import annotations

import copy
import random

import numpy as np

from .attempts import Attempt, brief, close, exercise


def entries(mine: Attempt, result: object, names: tuple[str, ...]) -> dict[str, float]:
    """The learner's dict; Broken unless it has exactly these keys with numbers."""
    if not isinstance(result, dict) or set(result) != set(names):
        seen = ", ".join(map(repr, result)) if isinstance(result, dict) else f"a {type(result).__name__}"
        mine.fail("it returns a dict with the keys of the stub", seen, ", ".join(map(repr, names)))
    return {name: float(value) for name, value in result.items()}


@exercise("04-batch", "4.1 Steps, prompts, samples", difficulty=2, minutes=10)
def check_batch(mine: Attempt) -> None:
    """``my_batch(prompts, samples, micro_batch, steps, n_problems)``: responses, accumulation, epochs, refusal."""
    names = ("responses a step", "accumulation steps", "responses in all", "epochs")

    def batch(*arguments: int) -> dict[str, float]:
        return entries(mine, mine(*arguments), names)

    found = batch(16, 8, 128, 100, 3200)
    mine.equals("a step has prompts x samples responses", found["responses a step"], 128)
    mine.must(
        "an epoch is one pass over the problems, however many samples each gets",
        close(batch(16, 8, 8, 100, 3200)["epochs"], 0.5) and close(batch(16, 4, 8, 100, 3200)["epochs"], 0.5),
        expected="epochs 0.5: 1,600 of 3,200 problems",
    )
    draw = random.Random(0)
    for _ in range(20):
        prompts, samples, pieces, steps = (draw.randint(1, 32) for _ in range(4))
        micro = prompts * samples
        found = batch(prompts * pieces, samples, micro, steps, 500)
        mine.must(
            "micro-batches of a step add up to its responses",
            close(found["accumulation steps"] * micro, found["responses a step"]),
        )
        mine.must(
            "all steps together sample steps x responses a step",
            close(found["responses in all"], steps * found["responses a step"]),
        )
    for impossible in ((16, 8, 100, 10, 500), (2, 3, 4, 10, 500)):
        mine.must(
            "a micro-batch that does not divide the responses is refused with a ValueError",
            mine.refuses(*impossible),
            "no ValueError",
        )


@exercise("04-mixed-groups", "4.2 Groups that teach something", difficulty=2, minutes=10)
def check_mixed_groups(mine: Attempt) -> None:
    """``my_mixed_share(p, group_size)``: the ends, symmetry, more samples, pairs, and a simulation."""
    for p in (0.0, 1.0):
        mine.equals("a problem that is never or always solved teaches nothing", mine.numbers(p, 8, shape=()), 0)
    for p in (0.05, 0.3):
        mine.equals("right and wrong change places without a difference", mine.numbers(p, 8), mine.numbers(1 - p, 8))
        mine.must("a larger group is mixed more often", bool(mine.numbers(p, 16) > mine.numbers(p, 4)))
    mine.equals("a group of 2 is mixed half of the time at p = 0.5", mine.numbers(0.5, 2), 0.5)
    mine.equals("a group of 1 is never mixed", mine.numbers(0.3, 1), 0)
    generator = np.random.default_rng(0)
    for p, size in ((0.1, 8), (0.6, 3)):
        right = (generator.random((40_000, size)) < p).sum(axis=1)
        share = float(((right > 0) & (right < size)).mean())
        mine.equals("40,000 simulated groups agree", mine.numbers(p, size), share, 0.01)


@exercise("04-metrics-row", "4.3 A row of metrics", difficulty=2, minutes=10)
def check_metrics_row(mine: Attempt) -> None:
    """``my_metrics(rewards, group_size)``: the mean reward and the share of groups without a spread, as TRL logs them."""
    names = ("reward", "frac_reward_zero_std")

    def metrics(*arguments: object) -> tuple[float, float]:
        found = entries(mine, mine(*arguments), names)
        return tuple(found[name] for name in names)

    mine.equals("one mixed group: nothing without a spread", metrics([1, 0, 0, 1], 4), (0.5, 0))
    mine.equals("groups all right and all wrong have no spread", metrics([1, 1, 0, 0], 2), (0.5, 1))
    mine.equals("a partial reward that all of a group get is no spread either", metrics([0.5, 0.5, 1, 0], 2), (0.5, 0.5))
    draw = random.Random(0)
    for _ in range(20):
        groups = [[float(draw.random() < 0.2) for _ in range(4)] for _ in range(6)]
        flat = [reward for group in groups for reward in group]
        still = sum(len(set(group)) == 1 for group in groups) / 6
        found = metrics(flat, 4)
        mine.equals("the reward is the mean over all responses", found[0], sum(flat) / 24)
        mine.equals("the share counts groups, not responses", found[1], still)
        other = [reward for group in draw.sample(groups, 6) for reward in draw.sample(group, 4)]
        mine.equals("the order of groups, and within a group, does not matter", metrics(other, 4), found)


@exercise("04-resume", "4.4 Where to go on", difficulty=3, minutes=15)
def check_resume(mine: Attempt) -> None:
    """``my_resume(rows, checkpoints) -> (step, kept rows)``: the newest complete one, each step once, input untouched."""
    rows = [{"step": step, "reward": step / 10} for step in range(1, 9)]

    def resumed(checkpoints: list[tuple[int, bool]]) -> tuple[int, list[dict]]:
        given = copy.deepcopy(rows)
        result = mine(given, checkpoints)
        if not isinstance(result, (tuple, list)) or len(result) != 2:
            mine.fail("it returns a step and a list of rows", f"a {type(result).__name__}")
        if given != rows:
            mine.fail("the rows that it was given are not changed", brief(given), "a new list")
        return result[0], list(result[1])

    step, kept = resumed([(3, True), (6, True)])
    mine.must("it goes on from the newest complete checkpoint", step == 6, expected="6")
    mine.must(
        "rows after that step are cut, rows up to it stay",
        kept == rows[:6],
        f"steps {[row['step'] for row in kept]}",
        "steps 1 to 6",
    )
    for checkpoints in ([(3, True), (6, False)], [(6, False), (3, True)]):
        step, kept = resumed(checkpoints)
        mine.must("a checkpoint that is half written is skipped", (step, len(kept)) == (3, 3), expected="step 3 and 3 rows")
    mine.must("checkpoints may come in any order", resumed([(6, True), (2, True)])[0] == 6, expected="6")
    for checkpoints in ([], [(4, False)]):
        found = resumed(checkpoints)
        mine.must("without a complete checkpoint it begins at 0, with no rows", found == (0, []), expected="0 and []")
    step, kept = resumed([(5, True)])
    again = [row["step"] for row in kept] + list(range(step + 1, 9))
    mine.must("after going on, each step stands once", again == list(range(1, 9)), f"steps {again}")


@exercise("04-length-reward", "4.5 A reward with a length term", difficulty=3, minutes=15)
def check_length_reward(mine: Attempt) -> None:
    """``my_reward(completions, ground_truth, **columns)``: right above wrong at any length, shorter above longer."""

    def paid(texts: list[str], truths: list[str | None]) -> list:
        result = list(mine(texts, truths))
        if len(result) != len(texts):
            mine.fail("one reward for each completion", f"{len(result)} rewards", f"{len(texts)}")
        return result

    def words(n: int, answer: str) -> str:
        return "so " * (n - 1) + rf"$\boxed{{{answer}}}$"

    rewards = paid([words(n, "5") for n in (1, 20, 40)], ["5"] * 3)
    mine.equals("a right answer of up to 40 words earns 1", rewards, [1] * 3)
    rewards = paid([words(n, "6") for n in (1, 60, 500)], ["5"] * 3)
    mine.equals("a wrong answer earns 0, whatever its length", rewards, [0] * 3)
    rewards = paid([words(n, "5") for n in (40, 60, 100, 400)], ["5"] * 4)
    mine.must("beyond 40 words a right answer earns less than at 40", max(rewards[1:]) < rewards[0])
    mine.must(
        "the longer the less, or at least not more",
        rewards == sorted(rewards, reverse=True),
        f"{brief(rewards)} for 40, 60, 100 and 400 words",
    )
    rewards = paid([words(5_000, "5"), words(1, "6")], ["5", "5"])
    mine.must("even the longest right answer earns more than any wrong one", rewards[0] > rewards[1])
    mine.must(
        "a row without a ground truth gets None, and the others their reward",
        paid(["no box", words(1, "5")], [None, "5"]) == [None, 1],
        expected="[None, 1]",
    )
    rewards = mine([words(1, "5")], ["5"], problem=["?"], dataset=["MATH"])  # TRL passes all columns as keywords
    mine.must("further columns change nothing", list(rewards) == [1], expected="[1]")

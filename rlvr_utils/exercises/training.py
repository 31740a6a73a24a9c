"""Checks of notebook 04: batch arithmetic, group size, a metrics row, resuming, a reward with a length term."""

from __future__ import annotations

import copy
import random
from numbers import Integral

import numpy as np

from .attempts import Attempt, brief, close, exercise


def entries(mine: Attempt, result: object, names: tuple[str, ...]) -> dict[str, float]:
    """Return the learner's dict with float values. Raises Broken unless it has exactly these keys."""
    if not isinstance(result, dict) or set(result) != set(names):
        seen = ", ".join(map(repr, result)) if isinstance(result, dict) else f"a {type(result).__name__}"
        mine.fail("it returns a dict with the keys of the stub", seen, ", ".join(map(repr, names)))
    return {name: float(value) for name, value in result.items()}


@exercise("04-batch", "4.1 Steps, prompts, samples", difficulty=2, minutes=10)
def check_batch(mine: Attempt) -> None:
    """``my_batch(prompts, samples, micro_batch, steps, n_problems)``: responses, accumulation, epochs, invalid sizes."""
    names = ("responses per step", "accumulation steps", "responses in all", "epochs")

    def batch(*arguments: int) -> dict[str, float]:
        return entries(mine, mine(*arguments), names)

    found = batch(16, 8, 128, 100, 3200)
    mine.equals("a step has prompts x samples responses", found["responses per step"], 128)
    mine.must(
        "an epoch is one pass over the problems, for any number of samples per prompt",
        close(batch(16, 8, 8, 100, 3200)["epochs"], 0.5) and close(batch(16, 4, 8, 100, 3200)["epochs"], 0.5),
        expected="0.5 epochs: 1,600 of 3,200 problems",
    )
    draw = random.Random(0)
    for _ in range(20):
        prompts, samples, pieces, steps = (draw.randint(1, 32) for _ in range(4))
        micro = prompts * samples
        found = batch(prompts * pieces, samples, micro, steps, 500)
        mine.must(
            "accumulation steps x micro-batch = responses per step",
            close(found["accumulation steps"] * micro, found["responses per step"]),
        )
        mine.must(
            "responses in all = steps x responses per step",
            close(found["responses in all"], steps * found["responses per step"]),
        )
    for impossible in ((16, 8, 100, 10, 500), (2, 3, 4, 10, 500)):
        mine.must(
            "a micro-batch that does not divide the responses raises a ValueError",
            mine.refuses(*impossible),
            "no ValueError",
        )


@exercise("04-mixed-groups", "4.2 How large must a group be?", difficulty=3, minutes=15)
def check_mixed_groups(mine: Attempt) -> None:
    """``my_group_size(pass_rates, share)``: known values, monotonicity, unreachable shares, and a simulation."""

    def size(pass_rates: list[float], share: float) -> int | None:
        found = mine(pass_rates, share)
        if found is not None and (isinstance(found, bool) or not isinstance(found, Integral)):
            mine.fail("it returns an integer or None", brief(found))
        return found

    mine.must("at p = 0.5, half of the groups of 2 are mixed", size([0.5], 0.5) == 2, expected="2")
    mine.must("at p = 0.5, three of four groups of 3 are mixed", size([0.5], 0.75) == 3, expected="3")
    mine.must("a larger share needs a larger group", size([0.5], 0.76) == 4, expected="4")
    mine.must("p and 1 - p need the same group", size([0.1], 0.5) == size([0.9], 0.5) == 7, expected="7")
    mine.must("a low pass rate needs a large group", size([0.01], 0.5) == 69, expected="69")
    mine.must("the share is a mean over all problems", size([0.05, 0.5], 0.5) == 4, expected="4")
    mine.must("problems with pass rate 0 or 1 are never mixed, but count", size([0, 0.5, 0.5, 1], 0.375) == 3, expected="3")
    mine.must("None if no group size is enough", size([0.0, 1.0], 0.1) is None, expected="None")
    mine.must(
        "None if problems that are never mixed make the share impossible", size([0.0, 0.5], 0.51) is None, expected="None"
    )
    rates, generator = [0.05, 0.2, 0.6, 0.9], np.random.default_rng(0)
    for share in (0.4, 0.8):
        found = size(rates, share)

        def simulated(group_size: int) -> float:
            right = (generator.random((20_000, len(rates), group_size)) < np.array(rates)[:, None]).sum(axis=2)
            return float(((right > 0) & (right < group_size)).mean())

        enough = (
            found is not None
            and 1 < found < 100
            and simulated(found) >= share - 0.01
            and simulated(found - 1) < share + 0.01
        )
        mine.must("it agrees with 80,000 simulated groups", enough)


@exercise("04-metrics-row", "4.3 A row of metrics", difficulty=2, minutes=10)
def check_metrics_row(mine: Attempt) -> None:
    """``my_metrics(rewards, group_size)``: the mean reward and the share of zero-variance groups, as TRL logs them."""
    names = ("reward", "frac_reward_zero_std")

    def metrics(*arguments: object) -> tuple[float, float]:
        found = entries(mine, mine(*arguments), names)
        return tuple(found[name] for name in names)

    mine.equals("one mixed group: a share of 0", metrics([1, 0, 0, 1], 4), (0.5, 0))
    mine.equals("all-correct and all-wrong groups have zero variance", metrics([1, 1, 0, 0], 2), (0.5, 1))
    mine.equals("equal partial rewards have zero variance too", metrics([0.5, 0.5, 1, 0], 2), (0.5, 0.5))
    draw = random.Random(0)
    for _ in range(20):
        groups = [[float(draw.random() < 0.2) for _ in range(4)] for _ in range(6)]
        flat = [reward for group in groups for reward in group]
        still = sum(len(set(group)) == 1 for group in groups) / 6
        found = metrics(flat, 4)
        mine.equals("the reward is the mean over all responses", found[0], sum(flat) / 24)
        mine.equals("the share counts groups, not responses", found[1], still)
        other = [reward for group in draw.sample(groups, 6) for reward in draw.sample(group, 4)]
        mine.equals("the order of groups and of responses within a group does not matter", metrics(other, 4), found)


@exercise("04-resume", "4.4 Where to resume", difficulty=3, minutes=15)
def check_resume(mine: Attempt) -> None:
    """``my_resume(rows, checkpoints) -> (step, kept rows)``: newest complete checkpoint, each step once, input unchanged."""
    rows = [{"step": step, "reward": step / 10} for step in range(1, 9)]

    def resumed(checkpoints: list[tuple[int, bool]]) -> tuple[int, list[dict]]:
        given = copy.deepcopy(rows)
        result = mine(given, checkpoints)
        if not isinstance(result, (tuple, list)) or len(result) != 2:
            mine.fail("it returns a step and a list of rows", f"a {type(result).__name__}")
        if given != rows:
            mine.fail("the input rows are not changed", brief(given), "a new list")
        return result[0], list(result[1])

    step, kept = resumed([(3, True), (6, True)])
    mine.must("it resumes from the newest complete checkpoint", step == 6, expected="6")
    mine.must(
        "rows up to that step are kept, later rows are dropped",
        kept == rows[:6],
        f"steps {[row['step'] for row in kept]}",
        "steps 1 to 6",
    )
    for checkpoints in ([(3, True), (6, False)], [(6, False), (3, True)]):
        step, kept = resumed(checkpoints)
        mine.must("an incomplete checkpoint is skipped", (step, len(kept)) == (3, 3), expected="step 3 and 3 rows")
    mine.must("checkpoints may come in any order", resumed([(6, True), (2, True)])[0] == 6, expected="6")
    for checkpoints in ([], [(4, False)]):
        found = resumed(checkpoints)
        mine.must("without a complete checkpoint it starts at step 0 without rows", found == (0, []), expected="0 and []")
    step, kept = resumed([(5, True)])
    again = [row["step"] for row in kept] + list(range(step + 1, 9))
    mine.must("after resuming, each step is listed once", again == list(range(1, 9)), f"steps {again}")


@exercise("04-length-reward", "4.5 A reward with a length term", difficulty=3, minutes=15)
def check_length_reward(mine: Attempt) -> None:
    """``my_reward(completions, ground_truth, **columns)``: correct above wrong at any length, shorter above longer."""

    def paid(texts: list[str], truths: list[str | None]) -> list:
        result = list(mine(texts, truths))
        if len(result) != len(texts):
            mine.fail("it returns one reward per completion", f"{len(result)} rewards", f"{len(texts)}")
        return result

    def words(n: int, answer: str) -> str:
        return "so " * (n - 1) + rf"$\boxed{{{answer}}}$"

    rewards = paid([words(n, "5") for n in (1, 20, 40)], ["5"] * 3)
    mine.equals("a correct response of up to 40 words gets reward 1", rewards, [1] * 3)
    rewards = paid([words(n, "6") for n in (1, 60, 500)], ["5"] * 3)
    mine.equals("a wrong response of any length gets reward 0", rewards, [0] * 3)
    lengths = (40, 41, 60, 100, 130, 131, 200, 400, 1_000)
    rewards = paid([words(n, "5") for n in lengths], ["5"] * len(lengths))
    mine.must("a correct response of more than 40 words gets less than 1", max(rewards[1:]) < rewards[0])
    mine.must(
        "beyond 40 words each further word lowers the reward",
        all(longer < shorter for shorter, longer in zip(rewards, rewards[1:], strict=False)),
        f"{brief(rewards)} for {', '.join(map(str, lengths))} words",
    )
    rewards = paid([words(5_000, "5"), words(1, "6")], ["5", "5"])
    mine.must("a very long correct response still gets more than a wrong one", rewards[0] > rewards[1])
    mine.must(
        "a row without a ground truth gets None, the other rows get their reward",
        paid(["no box", words(1, "5")], [None, "5"]) == [None, 1],
        expected="[None, 1]",
    )
    rewards = mine([words(1, "5")], ["5"], problem=["?"], dataset=["MATH"])  # TRL passes all columns as keywords
    mine.must("additional columns change nothing", list(rewards) == [1], expected="[1]")

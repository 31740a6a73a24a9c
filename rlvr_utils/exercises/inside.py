"""Checks of notebook 07: the push on a token, a false step, the importance of reasoning, eight diagnoses."""

from __future__ import annotations

import json
import random

import numpy as np
import torch

from rlvr_utils import REPO
from rlvr_utils.grpo import grpo_loss
from rlvr_utils.problems import find_steps
from rlvr_utils.runs import load_run

from .attempts import Attempt, brief, exercise

KEY = REPO / "data" / "clinic" / "key.json"


@exercise("07-push", "7.1 The push on one token", difficulty=3, minutes=15)
def check_push(mine: Attempt) -> None:
    """``my_push(advantage, ratio, n_tokens, epsilon)``: minus the derivative of the DAPO loss in one log-probability."""
    mine.equals("on-policy it is the advantage divided by the tokens", mine.numbers(1.5, 1.0, 30, 0.2, shape=()), 0.05)
    mine.equals("a response below its group's mean is pushed down", mine.numbers(-1.5, 1.0, 30, 0.2), -0.05)
    mine.equals("advantage 0 gives push 0", mine.numbers(0.0, 1.1, 30, 0.2), 0)
    mine.equals("a clipped token with a positive advantage gets no push", mine.numbers(1.0, 1.25, 10, 0.2), 0)
    mine.equals("a clipped token with a negative advantage gets no push", mine.numbers(-1.0, 0.75, 10, 0.2), 0)
    mine.equals(
        "a token with a positive advantage that became less likely is not clipped", mine.numbers(1.0, 0.5, 10, 0.2), 0.05
    )
    mine.equals(
        "a token with a negative advantage that became more likely is not clipped", mine.numbers(-1.0, 2.0, 10, 0.2), -0.2
    )
    draw = random.Random(0)
    for _ in range(20):
        advantage, log_ratio, epsilon = draw.gauss(0, 1), draw.gauss(0, 0.3), draw.choice((0.1, 0.2, 0.28))
        logps = torch.zeros(2, 5).index_put((torch.tensor([0]), torch.tensor([0])), torch.tensor(log_ratio)).requires_grad_()
        options = {"old_per_token_logps": torch.zeros(2, 5), "epsilon": epsilon}
        grpo_loss(logps, torch.tensor([advantage, 0.0]), torch.ones(2, 5), **options).backward()
        ratio = float(np.exp(np.float32(log_ratio)))
        mine.equals("it agrees with autograd", mine.numbers(advantage, ratio, 10, epsilon), -float(logps.grad[0, 0]), 1e-5)


@exercise("07-false-step", "7.2 A false step", difficulty=2, minutes=15)
def check_false_step(mine: Attempt) -> None:
    """``my_false_step(steps, number, result)``: the steps up to ``number`` as text, the last with a false ``result``."""
    steps = [("7 \\cdot 9", "63"), ("63 \\cdot 2", "126"), ("126 + 4", "130")]

    def text(number: int, result: object) -> str:
        given = list(steps)
        found = mine(given, number, result)
        if not isinstance(found, str):
            mine.fail("it returns a string", f"a {type(found).__name__}")
        if given != steps:
            mine.fail("the input list of steps is not changed", brief(given), "a new list")
        return found

    mine.must(
        "the text ends with the false step",
        find_steps(text(1, 127))[-1:] == [("63 \\cdot 2", "127")] and text(1, 127).rstrip().endswith("127$."),
        expected="... $63 \\cdot 2 = 127$.",
    )
    mine.must(
        "the steps before it are unchanged", find_steps(text(1, 127))[:-1] == steps[:1], expected="$7 \\cdot 9 = 63$. first"
    )
    mine.must("the steps after it are removed", len(find_steps(text(0, 64))) == 1, expected="one step")
    mine.must("the left side is unchanged", find_steps(text(2, 131))[-1] == ("126 + 4", "131"), expected="$126 + 4 = 131$.")
    mine.must("a negative result works", find_steps(text(0, -63)) == [("7 \\cdot 9", "-63")], expected="$7 \\cdot 9 = -63$.")
    for number, result in ((0, 63), (1, "126")):
        mine.must("the correct result raises a ValueError", mine.refuses(steps, number, result), "no ValueError")
    mine.must("a step number out of range raises a ValueError", mine.refuses(steps, 3, 1), "no ValueError")


@exercise("07-importance", "7.3 What the reasoning is worth", difficulty=3, minutes=15)
def check_importance(mine: Attempt) -> None:
    """``my_importance(right, changed)``: the drop in accuracy over the problems that both conditions have."""
    right = ["truth"] * 4
    mine.equals("unchanged answers give 0", mine.numbers(right, right, shape=()), 0)
    mine.equals("if every correct answer becomes wrong, it is 1", mine.numbers(right, ["false step"] * 4), 1)
    mine.equals(
        "any answer other than the truth counts as wrong",
        mine.numbers(right, ["truth", "other", "no answer", "false step"]),
        0.75,
    )
    mine.equals(
        "a problem that is wrong in both conditions counts as no change",
        mine.numbers(["truth", "other"], ["false step", "other"]),
        0.5,
    )
    mine.equals("a gain offsets a loss", mine.numbers(["truth", "other"], ["other", "truth"]), 0)
    mine.equals(
        "a problem that lacks one of the conditions is left out of both",
        mine.numbers(["truth", "other", "other", "truth"], ["other", None, None, "truth"]),
        0.5,
    )
    draw = random.Random(0)
    for _ in range(10):
        pairs = [(draw.choice(["truth", "other"]), draw.choice(["truth", "false step", None])) for _ in range(30)]
        both = [(one == "truth") - (other == "truth") for one, other in pairs if other is not None]
        found = mine.numbers([one for one, _ in pairs], [other for _, other in pairs])
        mine.equals("it is a mean over problems", found, sum(both) / len(both))


@exercise("07-clinic", "7.4 Eight diagnoses", difficulty=3, minutes=25)
def check_clinic(mine: Attempt) -> None:
    """``my_diagnoses(patients)``: name -> illness, compared with the fault that each run was made with."""
    key = json.loads(KEY.read_text(encoding="utf-8"))
    found = mine({name: load_run(KEY.parent / f"patient-{name}") for name in key})
    if not isinstance(found, dict) or set(found) != set(key):
        mine.fail("it returns a dict with the keys A to H", brief(found))
    odd = [illness for illness in found.values() if illness not in key.values()]
    mine.must("every illness is on the list", not odd, brief(odd), ", ".join(sorted(key.values())))
    mine.must("no two patients have the same illness", len(set(found.values())) == len(key), brief(sorted(found.values())))
    right = sum(found[name] == illness for name, illness in key.items())
    mine.must(
        "every patient has the illness that its run was made with", right == len(key), f"{right} of {len(key)} are right"
    )

"""Reward, evaluation, categories, rescoring and our own trainer give the same verdict on a response."""

from __future__ import annotations

import random
from collections import Counter
from types import SimpleNamespace

import pandas as pd
import pytest
from resume import SETTINGS

from rlvr_utils import analysis
from rlvr_utils.problems import classify_response, exemplars, graded, judge_response, kept_verdict, load_problems
from rlvr_utils.problems.prompts import build_prompt, question_in
from rlvr_utils.profiles import get_profile
from rlvr_utils.sampling.rollouts import Response
from rlvr_utils.training import own_trainer, reward_function, train
from rlvr_utils.training.rewards import data_columns, train_rows
from rlvr_utils.verifier import verdict
from rlvr_utils.widgets import model_views

ROW = {"id": "p", "problem": "Compute $2 + 3$.", "ground_truth": "5", "solution": ""}


def pairs(n: int = 60) -> list[tuple[dict, str]]:
    """Return MiniMATH problems with correct, wrong and unboxed responses, and echoes of each formula, boxed."""
    rng = random.Random(0)
    found = [(ROW, r"The answer is $\boxed{2 + 3}$."), (ROW, r"The answer is $\boxed{5}$.")]
    for row in rng.sample(load_problems("minimath", "test"), n):
        formulas = row["problem"].split("$")[1::2]
        answers = [row["ground_truth"], "7", *formulas]
        found += [(row, rf"The answer is $\boxed{{{answer}}}$.") for answer in answers] + [(row, row["solution"])]
        found.append((row, f"The answer is {row['ground_truth']}."))
    return found


def everyone(row: dict, text: str) -> dict[str, bool]:
    """Return the verdict of every caller."""
    scored = graded(row, text, step=0, sample=0, prompt=build_prompt(row["problem"]), n_tokens=1)
    frame = pd.DataFrame([scored])
    chat = frame.assign(prompt=[build_prompt(row["problem"], (), chat=True)])
    reward = reward_function(get_profile("mini"))
    [kept] = train_rows(1, ["?"], [row], [text], [1], [1.0])
    return {
        "evaluation": scored["correct"],
        "reward": reward([text], **data_columns([row])) == [1.0],
        "chat reward": reward([[{"role": "assistant", "content": text}]], **data_columns([row])) == [1.0],
        "categories": classify_response(row, text) == "correct",
        "training rollouts": kept["correct"],
        "rescoring by prompt": analysis.rescored(frame)[0],
        "rescoring by chat prompt": analysis.rescored(chat)[0],
        "rescoring by problem": analysis.rescored(frame.assign(prompt=None), [row])[0],
        "playground": model_views.verdict_on(SimpleNamespace(text=text), row["problem"], row["ground_truth"])[7] == "1",
    }


def test_every_caller_gets_the_same_verdict():
    echoes = 0
    for row, text in pairs():
        said, expected = everyone(row, text), judge_response(row, text)
        assert set(said.values()) == {expected.correct}, (row["problem"], text, said)
        echoes += expected.tier == "echo"
    assert echoes > 0 and judge_response(ROW, pairs(0)[0][1]).tier == "echo"


def test_our_own_trainer_rejects_echoes(monkeypatch):
    seen = []

    def paid(completions, ground_truth, problem):
        seen.append((completions, ground_truth, problem))
        raise StopIteration

    monkeypatch.setattr(own_trainer, "boxed_reward", paid)
    monkeypatch.setattr(own_trainer, "prompts_for", lambda rows, *a: [row["problem"] for row in rows])
    group = [Response("x", [1], [1], False)] * 2
    monkeypatch.setattr(own_trainer, "sample_responses", lambda *arguments, **options: [group])
    p = get_profile("mini", group_size=2)
    with pytest.raises(StopIteration):
        own_trainer.update(None, None, None, [ROW], p)
    assert seen == [(["x", "x"], ["5", "5"], [ROW["problem"]] * 2)]


@pytest.mark.parametrize("shots", [0, 1, 4])
@pytest.mark.parametrize("dataset", ["minimath", "allenai/RLVR-MATH"])
@pytest.mark.parametrize("chat", [False, True])
def test_the_question_is_found_in_its_prompt(shots, dataset, chat):
    for problem in ("Compute $2 + 3$.", "Which comes first?\n\nQuestion: or answer?", "A line.\n\nAnother: $x$"):
        assert question_in(build_prompt(problem, exemplars(dataset, shots), chat)) == problem
    assert question_in(None) is question_in(float("nan")) is question_in("") is question_in([]) is None


def test_a_problem_without_a_ground_truth_is_wrong_with_a_reason():
    verdict = judge_response({"problem": "?", "ground_truth": None}, r"\boxed{1}")
    assert not verdict.correct and "no ground truth" in verdict.reason


def test_reward_record_evaluation_and_category_verify_a_response_once(tiny, tmp_path, monkeypatch):
    asked, find_box = Counter(), verdict.find_box  # each call of verify searches for the box once
    monkeypatch.setattr(verdict, "find_box", lambda response: asked.update([response]) or find_box(response))
    kept_verdict.cache_clear()
    run = train("mini", tmp_path / "run", model=tiny, quiet=True, **SETTINGS | {"max_steps": 1, "log_rollouts_every": 1})
    assert set(run.rollouts["split"]) == {"train", "test", "ood"} and run.rollouts["reward"].notna().all()
    rows = {row["id"]: row for split in ("train", "test", "ood") for row in load_problems("minimath", split)}
    for answer in run.rollouts.itertuples():
        classify_response(rows[answer.problem_id], answer.response)
    made_up = 2  # a run tests its reward on it
    assert sum(asked.values()) == len(run.rollouts[["problem_id", "response"]].drop_duplicates()) + made_up

"""Rewards of the reader's own in TRL's form, their failures in one sentence, and the control arms and rivals beside them."""

from __future__ import annotations

import asyncio
import functools
import json
import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from wandb.sdk.lib.exit_hooks import ExitHooks

from rlvr_utils.preflight.checks import check_reward
from rlvr_utils.problems import load_problems
from rlvr_utils.profiles import get_profile
from rlvr_utils.runs import load_run
from rlvr_utils.training import random_reward, reward_function, train
from rlvr_utils.training.rewards import data_columns, recorded_reward, try_reward
from rlvr_utils.training.supervised import imitated

TINY = {
    "prompts_per_step": 2,
    "group_size": 4,
    "max_steps": 6,
    "eval_problems": 3,
    "eval_every": 3,
    "save_every": 2,
    "max_completion_length": 12,
    "train_subset": 4,
    "log_rollouts_every": 2,
    "wandb_mode": "disabled",
}
TEXTS = [r"So $\boxed{4}$.", "Hard to say.", ""]


@pytest.fixture
def own(monkeypatch):
    """Puts a function where a notebook's own functions are, and gives the name of the reward."""

    def put(function, **settings):
        # looked up now: a test with IPython in it leaves another module under this name
        monkeypatch.setattr(sys.modules["__main__"], "mine", function, raising=False)
        return get_profile("mini", reward="__main__:mine", **settings)

    return put


def called(p, texts=TEXTS, **columns):
    state = SimpleNamespace(global_step=6)
    return reward_function(p)(texts, prompts=["?"] * len(texts), trainer_state=state, **columns)


def plain(prompts, completions, **columns):
    return [float(len(text)) for text in completions]


async def later(prompts, completions, **columns):
    await asyncio.sleep(0)
    return plain(prompts, completions)


class Judge:
    """An object that is called, and one that is awaited."""

    def __call__(self, completions, **columns):
        return plain(None, completions)

    async def ask(self, *, completions, prompts, **columns):
        return plain(prompts, completions)


FORMS = {
    "TRL's form": plain,
    "async": later,
    "an object": Judge(),
    "an async method": Judge().ask,
    "partial": functools.partial(plain),
    "all by name": lambda *, completions, **columns: plain(0, completions),
    "completions first": lambda completions, ground_truth=None, **columns: plain(0, completions),
    "a tensor": lambda completions, **columns: torch.tensor(plain(0, completions)),
    "numpy": lambda completions, **columns: np.array(plain(0, completions)),
    "a generator": lambda completions, **columns: (len(text) for text in completions),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_that_trl_takes_works(own, form):
    p = own(FORMS[form], reward_value=2.0)
    try_reward(p, chat=False)
    assert called(p) == [2.0 * len(text) for text in TEXTS]
    assert reward_function(p).__name__ == "mine"


def test_an_async_reward_works_while_another_loop_runs_as_in_a_notebook(own):
    p = own(later)

    async def cell():
        return called(p)

    assert asyncio.run(cell()) == called(p) == plain(0, TEXTS)


@pytest.mark.parametrize(
    "given, said",
    [
        ([1.0, math.nan, 0.0], r"returned nan for response 2 of 3 \('Hard to say.'\)"),
        ([1.0, 0.0, -math.inf], "returned -inf for response 3 of 3"),
        ([0, "1", 0], "returned '1' for response 2"),
        (np.array([np.nan, 1, 1]), "nan.* for response 1"),
        (torch.tensor([1.0, torch.inf, 1]), "inf.* for response 2"),
        ([1.0, 2.0], "returned 2 values for 3 responses"),
        ([], "returned 0 values for 3"),
        (None, "failed.*NoneType"),
        (0.5, "failed.*float"),
        ([[1], 0, 0], "returned .1. for response 1"),
        ([10**400, 0, 0], "for response 1"),
        ([1e39, 0, 0], "returned 1e.39 for response 1.*below 1e.15"),
    ],
)
def test_what_is_no_reward_is_named_with_reward_and_step(own, given, said):
    p = own(lambda completions, **columns: given)
    with pytest.raises(ValueError, match=f"^reward '__main__:mine' at step 7 .*{said}") as caught:
        called(p)
    assert "\n" not in str(caught.value)


def test_a_reward_that_ends_the_program_is_a_failure_like_any_other(own):
    with pytest.raises(ValueError, match="failed in test_rewards.py, line .*: SystemExit: 3"):
        called(own(lambda completions, **columns: sys.exit(3)))


def test_the_line_that_is_named_is_the_readers_own_and_no_librarys(own, monkeypatch):
    monkeypatch.setattr(sys, "exit", sys.exit)  # restored afterwards
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    ExitHooks().hook()  # what every run with W&B does to sys.exit
    for raises in (lambda: sys.exit(3), lambda: json.loads("{"), lambda: np.linalg.inv(np.zeros((2, 2)))):
        with pytest.raises(ValueError, match="failed in test_rewards.py, line "):
            called(own(lambda completions, raises=raises, **columns: raises()))


def test_none_and_numbers_of_all_kinds_are_rewards(own):
    assert called(own(lambda completions, **columns: [None, True, np.float32(0.5)])) == [None, 1.0, 0.5]


@pytest.mark.parametrize(
    "function, said",
    [
        (
            lambda completions, ground_truth: [0.0] * len(completions),
            "accepts completions, ground_truth by name, but is called "
            "with all columns: completions, prompts, .*Define it as `def f.prompts, completions, ..columns.`",
        ),
        (
            lambda texts, **columns: [0.0, 0.0],
            "has the parameter texts, but there is no such column. Use some of completions, prompts, ",
        ),
        (lambda completions, rubric, **columns: [0.0, 0.0], "has the parameter rubric, but there is no such column"),
        (lambda completions, **columns: [1 / 0], "failed in test_rewards.py, line .*ZeroDivisionError.*Define it as"),
        (lambda completions, **columns: [math.nan, 0], "returned nan for response 1"),
        (lambda completions, **columns: json.loads("{\n"), "JSONDecodeError: Expecting property name"),
        ("no function", "is not a function but str"),
    ],
)
def test_a_reward_that_cannot_work_is_refused_at_minute_zero(own, tiny, tmp_path, function, said):
    p = own(function)
    with pytest.raises(ValueError, match=said) as caught:
        train("mini", tmp_path / "run", model=tiny, quiet=True, **TINY, reward=p.reward)
    assert "\n" not in str(caught.value) and not (tmp_path / "run" / "evaluations.jsonl").exists()
    with pytest.raises(ValueError, match=said):
        check_reward(get_profile("mini", model=tiny, reward=p.reward))


def test_a_bare_name_is_told_how_to_name_a_function():
    with pytest.raises(ValueError, match="Name your own function as module:function, or as __main__:function"):
        get_profile("mini", reward="my_reward")


def test_a_module_that_fails_while_it_is_imported_is_one_sentence(tmp_path, monkeypatch):
    for name, text, said in (("half_written", "def f(", "SyntaxError"), ("falls_over", "1 / 0", "ZeroDivisionError")):
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)
        with pytest.raises(ValueError, match=f"reward='{name}:f': {said}.*Give module:function"):
            reward_function(get_profile("mini", reward=f"{name}:f"))


def test_a_file_that_is_called_like_a_library_is_told_to_be_renamed(tmp_path, monkeypatch):
    (tmp_path / "datasets.py").write_text("def f(prompts, completions, **columns): return [0.0] * len(completions)")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ValueError, match="datasets is the name of a library .*. Rename your datasets.py. Give module:function"
    ):
        reward_function(get_profile("mini", reward="datasets:f"))


@pytest.mark.parametrize("chat", [False, True])
def test_a_reward_that_changes_what_it_is_given_changes_nothing_but_its_copy(own, chat):
    def careless(prompts, completions, ground_truth, **columns):
        ground_truth.clear()
        prompts.reverse()
        if chat:
            completions[0][0]["content"] = "changed"
        rewards = []
        while completions:
            completions.pop()
            rewards.append(0.0)
        return rewards

    texts, truths, prompts = [[{"content": text}] if chat else text for text in TEXTS], ["4"] * 3, ["a", "b", "c"]
    before = json.dumps([texts, truths, prompts])
    assert reward_function(own(careless))(texts, prompts=prompts, ground_truth=truths) == [0.0] * 3
    assert json.dumps([texts, truths, prompts]) == before


def test_a_reward_is_tried_and_called_with_every_column_of_the_data(own, tiny, tmp_path):
    seen = []

    def keen(prompts, completions, completion_ids, subject, level, trainer_state, log_metric, log_extra, **columns):
        log_metric("length", 3.0)
        log_extra("note", ["x"] * len(completions))
        seen.append(
            columns | {"subject": subject, "prompts": prompts, "step": trainer_state.global_step, "n": len(completion_ids)}
        )
        return [float(sum(map(ord, text)) % 2) for text in completions]

    run = train("mini", tmp_path / "run", model=tiny, quiet=True, **TINY | {"max_steps": 2}, reward=own(keen).reward)
    rows = {row["id"]: row for row in load_problems("minimath", "train")}
    assert [call["n"] for call in seen] == [2, 8, 8] and [call["step"] for call in seen] == [0, 0, 1]
    for call in seen:
        for at, name in enumerate(call["problem_id"]):
            assert call["subject"][at] == rows[name]["subject"] and call["solution"][at] == rows[name]["solution"]
            assert rows[name]["problem"] in call["prompts"][at]
    assert run.metrics["rewards/mine/mean"].notna().all() and run.metrics["length"].tolist() == [3.0, 3.0]


def test_columns_of_a_file_of_ones_own_reach_the_reward(own, tiny, tmp_path):
    lines = [{"problem": f"What is ${n} + 1$?", "ground_truth": str(n + 1), "rubric": f"r{n}"} for n in range(20)]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    seen = {}
    p = own(
        lambda completions, rubric, **columns: seen.update(rubric=rubric) or [0.0] * len(completions),
        model=tiny,
        dataset=str(tmp_path / "mine.jsonl"),
    )
    try_reward(p, chat=False)
    assert seen["rubric"] == ["r0", "r1"]


def test_columns_that_some_rows_lack_are_none_there_and_trls_own_names_are_not_overwritten():
    rows = [{"id": "a", "problem": "?", "rubric": "strict", "prompts": "x"}, {"id": "b", "problem": "!", "seed": 3}]
    assert data_columns(rows) == {
        "id": ["a", "b"],
        "problem": ["?", "!"],
        "rubric": ["strict", None],
        "seed": [None, 3],
        "problem_id": ["a", "b"],
    }
    seen = {}
    reward = recorded_reward(lambda completions, **columns: seen.update(columns) or [0.0, 0.0], SimpleNamespace(), 10, rows)
    state = SimpleNamespace(global_step=5)
    reward(prompts=["p", "q"], completions=["", ""], problem_id=["b", "a"], n_tokens=[1, 1], trainer_state=state)
    assert seen["rubric"] == [None, "strict"] and seen["prompts"] == ["p", "q"] and seen["trainer_state"] is state


def test_a_reward_that_fails_in_the_middle_says_where_and_what_is_kept(own, tiny, tmp_path):
    def tires(completions, trainer_state, **columns):
        if trainer_state.global_step == 3:
            raise ConnectionError("the judge does not answer")
        return [float(sum(map(ord, text)) % 2) for text in completions]

    with pytest.raises(
        OSError,
        match=r"reward '__main__:mine' at step 4 failed in test_rewards.py, line \d+: "
        "ConnectionError: the judge does not answer. Everything up to step 2 is kept.",
    ):
        train("mini", tmp_path / "run", model=tiny, quiet=True, **TINY, reward=own(tires).reward)
    assert len(load_run(tmp_path / "run").metrics) == 3


# --- the random arm ---


def test_every_process_tosses_its_own_coins_and_one_process_keeps_the_coins_it_had(monkeypatch):
    import random

    state = SimpleNamespace(global_step=3)
    alone = random_reward([""] * 64, trainer_state=state, seed=0)
    coin = random.Random("0-3")
    assert alone == [float(coin.random() < 0.5) for _ in range(64)], "the coins of the included runs"
    monkeypatch.setenv("WORLD_SIZE", "4")
    tossed = []
    for rank in range(4):
        monkeypatch.setenv("RANK", str(rank))
        tossed.append(tuple(random_reward([""] * 64, trainer_state=state, seed=0)))
        assert tossed[-1] == tuple(random_reward([""] * 64, trainer_state=state, seed=0)), "and the same after a resume"
    assert len({*tossed, tuple(alone)}) == 5


# --- the supervised rival ---


@pytest.mark.parametrize(
    "rewards, kept",
    [
        ([1, 0, 0, 1], [0, 3]),
        ([1, 1, 1, 1], [0, 1, 2, 3]),
        ([0, 0, 0, 0], []),
        ([-1, -1, 0, None], []),
        ([-1, 1, 0, None], [1]),
        ([-2, -1, -1, -1], []),
        ([0.2, 0.9, 0.2, 0.2], [1]),
        ([0.1] * 4, [0, 1, 2, 3]),
        ([None] * 4, []),
        ([10, -10, 4, 4], [0, 2, 3]),
    ],
)
def test_only_responses_above_their_groups_baseline_are_imitated(rewards, kept):
    assert imitated(rewards, 4) == kept
    assert imitated([0.0, 1.0, 0.0, 0.0, *rewards], 4) == [1, *(i + 4 for i in kept)], "each group has its own"

"""An advantage or a loss of one's own goes through the real trainer: equal to the default, it changes no bit."""

from __future__ import annotations

import functools

import pytest
import torch
from safetensors.torch import load_file

from rlvr_utils.grpo import variants
from rlvr_utils.profiles import get_profile
from rlvr_utils.training import rewards, train
from rlvr_utils.training.estimators import own_estimator, try_estimator
from rlvr_utils.training.recovery import RunInterrupted

TINY = {
    "prompts_per_step": 2,
    "group_size": 4,
    "max_steps": 3,
    "eval_splits": ["test"],
    "eval_problems": 2,
    "max_completion_length": 12,
    "train_subset": 4,
    "wandb_mode": "disabled",
    "guard": "off",
}
HERE = "rlvr_utils.grpo.variants:"
CLOCKS = ["seconds", "step_time"]


def all_different(completions, **columns) -> list[float]:
    """No two responses of a group get the same reward, so that no advantage is 0."""
    return [float(sum(map(ord, text)) % 97) + 0.01 * i for i, text in enumerate(completions)]


@pytest.fixture
def trained(tiny, tmp_path, monkeypatch):
    """A function that trains with settings and returns (metrics without clocks, adapter weights)."""
    monkeypatch.setattr(rewards, "boxed_reward", all_different)
    return lambda **settings: results(tmp_path / "run", tiny, **settings)


def results(folder, tiny, **settings):
    run = train("mini", folder, model=tiny, quiet=True, **TINY | settings)
    return run.metrics.drop(columns=CLOCKS), load_file(run.path / "adapter" / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def default(tiny, tmp_path_factory):
    """The same without an estimator, trained once for each settings."""

    @functools.cache
    def run(**settings):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rewards, "boxed_reward", all_different)
            return results(tmp_path_factory.mktemp("default") / "run", tiny, **settings)

    return run


@pytest.mark.parametrize("shared_prefix", [True, False])
@pytest.mark.parametrize("name", ["grpo", "clipped"])
def test_an_estimator_equal_to_the_default_changes_no_bit(name: str, shared_prefix: bool, default, trained) -> None:
    usual, ours = default(shared_prefix=shared_prefix), trained(shared_prefix=shared_prefix, estimator=HERE + name)
    assert usual[0].to_dict("records") == ours[0].to_dict("records")
    assert usual[1].keys() == ours[1].keys()
    assert all(torch.equal(weight, ours[1][key]) for key, weight in usual[1].items())


@pytest.mark.parametrize("name", ["maxrl", "centred", "unclipped", "cispo", "gspo", "naive"])
def test_another_estimator_changes_the_weights_where_it_should(name: str, default, trained) -> None:
    """Three updates on one generation: the first is on-policy, the others are where the losses differ."""
    settings = {"updates_per_generation": 3, "learning_rate": 0.1}
    usual, ours = default(**settings)[1], trained(**settings, estimator=HERE + name)[1]
    assert any(not torch.equal(weight, ours[key]) for key, weight in usual.items())


def test_a_file_is_read_anew_and_its_state_is_part_of_the_run(tmp_path, trained, tiny) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def f(rewards):\n    return rewards * 0\n")
    name = f"{file}:f"
    assert own_estimator(name)(torch.ones(1, 2)).tolist() == [[0, 0]]
    weights = trained(estimator=name)[1]
    assert all(not weight.any() for key, weight in weights.items() if "lora_B" in key), "no advantage, no movement"
    file.write_text("def f(rewards):\n    return rewards * 2\n")
    assert own_estimator(name)(torch.ones(1, 2)).tolist() == [[2, 2]]
    with pytest.raises(ValueError, match=r"another version of the estimator .*mine\.py:f"):
        train("mini", tmp_path / "run", model=tiny, quiet=True, **TINY | {"max_steps": 4}, estimator=name, extend=True)


REFUSED = {
    "def f(x): return x": "first parameter is 'x'. Define it as def my_advantage",
    "def f(rewards): return rewards / 0": "returned NaN or infinity",
    "def f(rewards): return rewards.mean(1)": r"returned \(3,\) for rewards \(3, 4\). Return the same shape",
    "def f(rewards): return [0.0]": "returned list for rewards",
    "def f(rewards): raise KeyError('gone')": r"failed in mine\.py, line 1: KeyError",
    "def f(logps, old_logps, advantages, mask): return logps.detach().mean()": "with a gradient through logps",
    "def f(logps, old_logps, advantages, mask): return logps": "Return a finite scalar",
    "def f(logps): return logps.mean()": "failed",
    "import no_such_module": "ModuleNotFoundError",
    "g = 1": "Give file.py:function or module:function",
}


@pytest.mark.parametrize("code", REFUSED)
def test_an_estimator_that_cannot_work_is_refused_at_minute_zero(code: str, tmp_path) -> None:
    (tmp_path / "mine.py").write_text(code)
    with pytest.raises(ValueError, match=REFUSED[code]) as caught:
        train("mini", tmp_path / "run", estimator=f"{tmp_path / 'mine.py'}:f")
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


def test_settings_that_contradict_an_estimator_are_refused() -> None:
    for settings, sentence in (
        ({"estimator": "mine"}, "give file.py:function"),
        ({"estimator": ":f"}, "give file.py:function"),
        ({"estimator": HERE + "grpo", "method": "sft"}, "Leave estimator out"),
    ):
        with pytest.raises(ValueError, match=sentence):
            get_profile("mini", **settings)
    with pytest.raises(ValueError, match="Add the KL term to your loss"):
        try_estimator(get_profile("mini", estimator=HERE + "clipped", beta=0.1))
    try_estimator(get_profile("mini", estimator=HERE + "grpo", beta=0.1))


def test_a_failure_on_the_way_says_where_and_keeps_the_run(tmp_path, tiny, trained) -> None:
    (tmp_path / "mine.py").write_text(
        "calls = []\n\ndef f(rewards):\n    calls.append(0)\n    assert len(calls) < 3, 'tired'\n    return rewards\n"
    )
    with pytest.raises(RunInterrupted, match=r"failed in mine\.py, line 5: AssertionError: tired"):
        trained(estimator=f"{tmp_path / 'mine.py'}:f")


def test_a_missing_reward_gets_no_advantage() -> None:
    from rlvr_utils.training.estimators import own_advantages

    found = own_advantages(lambda rewards: rewards, "f", torch.tensor([[1.0, float("nan")]]))
    assert found.tolist() == [1.0, 0.0]


def test_the_included_advantages_are_what_their_names_say() -> None:
    rewards = torch.tensor([[1.0, 0, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0]], dtype=torch.float64)
    assert variants.grpo(rewards)[0].sum().abs() < 1e-9
    assert torch.allclose(variants.maxrl(rewards)[:, 0], torch.tensor([3.0, 1 / 3, 0.0], dtype=torch.float64), atol=2e-3)
    assert torch.allclose(variants.centred(rewards)[:, 0], torch.tensor([0.75, 0.25, 0.0], dtype=torch.float64))
    others = (rewards.sum(1, keepdim=True) - rewards) / 3
    assert torch.allclose(variants.leave_one_out(rewards), rewards - others)

"""Dynamic sampling: the same gradient as a stock step on the kept groups, an honest price, a limit, and an exact resume."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from resume import SETTINGS, differences
from trl import GRPOTrainer
from vllm_stand_in import install

from rlvr_utils import analysis, runs, training
from rlvr_utils.diagnosis import RATIO, Record, RunStopped, diagnose, findings
from rlvr_utils.models import load_model, load_tokenizer
from rlvr_utils.problems import training_order, training_rows
from rlvr_utils.profiles import get_profile
from rlvr_utils.runs import GROUPS_KEPT, PROMPTS_DRAWN, SAMPLES_DRAWN, RunWriter, load_run
from rlvr_utils.training import build, build_trainer, random_reward, train
from rlvr_utils.training.dynamic_sampling import DRAW, chosen, differ
from rlvr_utils.widgets.curve_views import LiveReward

FURTHER = 6
SHORT = SETTINGS | {"prompts_per_step": 4, "max_steps": 6, "log_rollouts_every": 1, "dynamic_sampling": FURTHER}


def sometimes(completions, **columns) -> list[float]:
    """A reward for about one response in four, without any skill: about a third of the groups of four are equal."""
    return [float(sum(map(ord, text)) % 4 == 0) for text in completions]


def constant(completions, **columns) -> list[float]:
    return [0.5] * len(completions)


def alternating(completions, **columns) -> list[float]:
    return [float(i % 2) for i in range(len(completions))]


@pytest.fixture
def reward(monkeypatch):
    """Sets the reward of the runs in a test; at first :func:`sometimes`."""

    def use(function) -> None:
        monkeypatch.setattr(training.rewards, "boxed_reward", function)

    use(sometimes)
    return use


@pytest.fixture(scope="module")
def uninterrupted(tiny, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.rewards, "boxed_reward", sometimes)
        return train("mini", tmp_path_factory.mktemp("runs") / "whole", model=tiny, quiet=True, **SHORT)


# --- the step ---


def made(tiny: str, folder: Path, **settings):
    """A trainer in training mode, with an adapter that changes the model."""
    p = get_profile("mini", model=tiny, **SHORT | {"prompts_per_step": 8} | settings)
    trainer = build_trainer(p, load_model(p), load_tokenizer(p), RunWriter(folder), say=lambda text: None)
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in trainer.model.named_parameters():
            if ".lora_B." in name:
                weight.normal_(std=0.05)
    return trainer


def rows_of(trainer) -> list[dict]:
    """What TRL's data loader gives for the first step."""
    return [trainer.train_dataset[i // trainer.num_generations] for i in range(8 * trainer.num_generations)]


def gradient(trainer, batch: dict) -> dict[str, torch.Tensor]:
    trainer.compute_loss(trainer.model, batch).backward()
    return {name: w.grad for name, w in trainer.model.named_parameters() if w.grad is not None}


def replay(batch: dict):
    """A rollout that returns the responses of ``batch``."""

    def ids(part: str) -> list[list[int]]:
        rows = zip(batch[f"{part}_ids"], batch[f"{part}_mask"].bool(), strict=True)
        return [row[mask].tolist() for row, mask in rows]

    completions = ids("completion")
    masks = [row[: len(one)].tolist() for row, one in zip(batch["tool_mask"], completions, strict=True)]
    output = {"prompt_ids": ids("prompt"), "completion_ids": completions, "logprobs": None, "env_mask": masks}
    return lambda prompts, trainer: output | {"n_tokens": [sum(mask) for mask in masks]}


@pytest.mark.parametrize("shared", [True, False], ids=["shared prefix", "stock"])
@pytest.mark.parametrize(
    "settings",
    [{}, {"loss_type": "grpo", "beta": 0.1}, {"loss_type": "dr_grpo", "scale_rewards": "batch"}],
    ids=["dapo", "grpo with KL", "dr_grpo, scaled by the batch"],
)
def test_the_gradient_is_that_of_a_stock_step_on_the_kept_groups(tiny, tmp_path, reward, monkeypatch, settings, shared):
    ours = made(tiny, tmp_path, shared_prefix=shared, **settings)
    batch = ours._generate_and_score_completions(rows_of(ours))
    drawn, kept = (ours._metrics["train"][name] for name in (PROMPTS_DRAWN, GROUPS_KEPT))
    assert drawn[0] > 8 and kept == [8.0], "there was nothing to replace"
    groups = batch["advantages"].view(8, ours.num_generations)
    assert (groups.amax(1) > 0).all() and (groups.amin(1) < 0).all()

    monkeypatch.setattr(build, "StockTrainer", GRPOTrainer)
    stock = made(tiny, tmp_path, shared_prefix=False, dynamic_sampling=0, **settings)
    assert type(stock) is GRPOTrainer
    stock.rollout_func = replay(batch)
    theirs = stock._generate_and_score_completions(rows_of(stock))
    assert theirs.keys() == batch.keys()
    for name, value in theirs.items():
        mask = batch["completion_mask"] if "logps" in name or name == "tool_mask" else 1
        torch.testing.assert_close(batch[name] * mask, value * mask, rtol=1e-4, atol=1e-5, msg=name)

    found, wanted = gradient(ours, batch), gradient(stock, theirs)
    assert found.keys() == wanted.keys() and max(w.abs().max() for w in wanted.values()) > 1e-4
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-6, msg=name)


def test_it_works_where_vllm_samples(tiny, tmp_path, reward, monkeypatch):
    """A stand-in for vLLM, whose importance ratios are 1."""
    install(monkeypatch)
    run = train("mini", tmp_path, model=tiny, quiet=True, **SHORT | {"max_steps": 3, "use_vllm": "auto"})
    assert run.environment["sampled_by"] == "vLLM, colocate" and run.metrics[PROMPTS_DRAWN].sum() > 3 * 4
    assert run.metrics[RATIO].tolist() == pytest.approx([1] * 3, abs=1e-4)
    assert (run.metrics["grad_norm"] > 0).all()


def test_a_step_without_replacements_equals_a_default_step_bit_for_bit(tiny, tmp_path, reward):
    reward(alternating)
    two = [
        train("mini", tmp_path / str(n), model=tiny, quiet=True, **SHORT | {"max_steps": 2, "dynamic_sampling": n})
        for n in (0, FURTHER)
    ]
    own = [PROMPTS_DRAWN, SAMPLES_DRAWN, GROUPS_KEPT]
    assert two[1].metrics[own].values.tolist() == [[4, 16, 4]] * 2
    default, dynamic = (run.metrics.drop(columns=["seconds", "step_time", *own], errors="ignore") for run in two)
    assert default.equals(dynamic)
    assert [run.samples.tolist() for run in two] == [[0, 16, 32]] * 2


def test_trls_metrics_stay_those_of_the_first_draw(uninterrupted, tiny, tmp_path, reward):
    default = train("mini", tmp_path, model=tiny, quiet=True, **SHORT | {"max_steps": 2, "dynamic_sampling": 0})
    names = ["reward", "reward_std", "frac_reward_zero_std", "completions/mean_length"]
    # Until a group is replaced for the first time, both runs sample the same responses.
    first = int((uninterrupted.metrics[PROMPTS_DRAWN] > 4).to_numpy().argmax())
    assert first < 2, "nothing was replaced in the steps that are compared"
    for step in range(first + 1):
        assert uninterrupted.metrics[names].iloc[step].tolist() == default.metrics[names].iloc[step].tolist()
    assert uninterrupted.metrics["num_tokens"].iloc[first] > default.metrics["num_tokens"].iloc[first]


def test_what_a_step_drew_is_recorded(uninterrupted):
    run, metrics = uninterrupted, uninterrupted.metrics
    responses = run.rollouts.query("split == 'train'")
    assert (metrics[SAMPLES_DRAWN] == 4 * metrics[PROMPTS_DRAWN]).all()
    assert responses.groupby("step").size().tolist() == metrics[SAMPLES_DRAWN].tolist()
    assert responses[responses[DRAW] == 0].groupby("step")["reward"].mean().tolist() == metrics["reward"].tolist()
    assert run.samples.tolist() == [0, *metrics[SAMPLES_DRAWN].cumsum()]
    problems = SETTINGS["train_subset"]
    assert metrics["epoch"].tolist() == (metrics[PROMPTS_DRAWN].cumsum() / problems).tolist()


def test_evaluations_and_the_live_picture_count_samples(uninterrupted):
    rows = analysis.evaluations_of(uninterrupted)
    assert rows["step"].tolist() == [0, 3, 6] and rows["samples"].tolist() == uninterrupted.samples[[0, 3, 6]].tolist()
    [default] = runs.reference_runs("mini-seed-0")
    assert analysis.evaluations_of(load_run(default))["samples"].tolist() == [0, 50 * 128, 100 * 128]

    shown = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("IPython.display.display", lambda html, **options: shown.append(html.data))
        LiveReward(6)(uninterrupted.metrics.to_dict("records"))
    drawn = uninterrupted.samples.iloc[-1]
    assert f"Dynamic sampling drew {drawn} samples so far, {drawn / 6:.0f} per generation" in shown[0]


def test_the_samples_of_other_methods_and_of_several_updates_are_counted(tmp_path):
    def drawn(**settings) -> list[int]:
        writer = RunWriter(tmp_path / str(settings))
        writer.write_config({"profile": "mini", "prompts_per_step": 2, "group_size": 4, "max_steps": 3} | settings)
        for step in (-1, 0, 1, 2, 3):  # two steps of supervised training before RL
            writer.log_metrics({"step": step, "loss": 0.1})
        return load_run(writer.path).samples.tolist()

    assert drawn() == [0, 8, 16, 24]
    assert drawn(updates_per_generation=2) == [0, 16, 16, 32]
    assert drawn(method="sft") == [0, 0, 0, 0]
    assert drawn(method="rejection") == [0, 24, 24, 24]


def test_further_problems_follow_in_the_training_order_without_a_gap(uninterrupted):
    p, responses = uninterrupted.profile, uninterrupted.rollouts.query("split == 'train'")
    asked = responses["problem_id"].tolist()[:: p.group_size]
    rows = training_rows(p)
    assert len(asked) > 6 * p.prompts_per_step
    assert asked == [rows[i]["id"] for i in training_order(len(rows), len(asked), p.seed)]


# --- the limit ---


def test_a_constant_reward_ends_at_the_limit_and_the_rules_say_so(tiny, tmp_path, reward):
    reward(constant)
    settings = SHORT | {"prompts_per_step": 16, "group_size": 2, "max_steps": 30, "train_subset": 32, "eval_every": 100}
    with pytest.raises(RunStopped, match="no signal .*the reward never varied within any group"):
        train("mini", tmp_path, model=tiny, quiet=True, **settings | {"guard": "stop"})
    run = load_run(tmp_path)
    assert run.metrics[PROMPTS_DRAWN].tolist() == [16 + FURTHER] * 10 and not run.metrics[GROUPS_KEPT].any()
    [used_up] = [finding for finding in diagnose(run) if finding.name == "draws used up"]
    assert (
        used_up.severity == "warn"
        and "dynamic_sampling=6 was too low to fill 100% of the last 10 generations: 22.0 problems" in used_up.seen
    )


def test_the_rules_judge_what_is_trained_on(monkeypatch):
    """The first draw has no signal; what further draws find counts."""
    p = get_profile("mini", dynamic_sampling=16)
    row = {"loss": 0.1, "grad_norm": 0.1, "reward": 0.1, "frac_reward_zero_std": 1.0, PROMPTS_DRAWN: 20.0}

    def names(kept: float, n: int = 10) -> set[str]:
        rows = [row | {"step": step, GROUPS_KEPT: kept} for step in range(1, n + 1)]
        return {finding.name for finding in findings(Record(rows, profile=p))}

    assert names(16.0) == set()
    assert names(9.0) == {"draws used up"}
    assert names(0.0) == {"no signal", "draws used up"}
    assert names(0.0, n=9) == set()


def test_groups_are_chosen_up_to_the_size_of_a_step():
    nan = math.nan
    first = differ(torch.tensor([[0.0, 1.0], [1.0, 1.0], [nan, 1.0], [nan, nan], [0.1, 0.1]]))
    assert first.tolist() == [True, False, False, False, False]
    second = torch.tensor([True, False, True, False])
    assert [part.tolist() for part in chosen([first, second], 5)] == [[0, 1, 2], [0, 2]]
    assert [part.tolist() for part in chosen([first], 5)] == [[0, 1, 2, 3, 4]]


def test_each_draw_of_a_step_has_coins_of_its_own():
    assert random_reward([""] * 64) == random_reward([""] * 64, draw=0) != random_reward([""] * 64, draw=1)
    function = training.reward_function(get_profile("mini", reward="random", dynamic_sampling=4))
    assert function([""] * 64, **{DRAW: [2] * 64}) == random_reward([""] * 64, draw=2)


# --- resume ---


def die_before(step: int, monkeypatch, run) -> None:
    def die(self, args, state, control, **kwargs):
        if state.global_step == step:
            raise RuntimeError("power cut")

    with monkeypatch.context() as cut, pytest.raises(RuntimeError, match="power cut"):
        cut.setattr(training.recording.Recorder, "on_step_begin", die, raising=False)
        run()


@pytest.mark.parametrize("step", [2, 5])
def test_a_resumed_run_continues_at_the_same_problem(uninterrupted, tiny, tmp_path, reward, monkeypatch, step):
    assert uninterrupted.metrics[PROMPTS_DRAWN].iloc[: step // 2 * 2].sum() > step // 2 * 2 * 4, "no further draw before it"

    def run():
        return train("mini", tmp_path / "died", model=tiny, quiet=True, **SHORT)

    die_before(step, monkeypatch, run)
    assert differences(uninterrupted.path, run().path) == []


def test_several_updates_on_a_generation_resume_to_the_same_bits(tiny, tmp_path, reward, monkeypatch):
    settings = SHORT | {"updates_per_generation": 2, "save_every": 1, "shared_prefix": False, "eval_every": 6}

    def run(name: str):
        return train("mini", tmp_path / name, model=tiny, quiet=True, **settings)

    whole = run("whole")
    drawn = whole.metrics[PROMPTS_DRAWN]
    assert drawn.iloc[1::2].isna().all() and (drawn.iloc[::2] >= 8).all() and drawn.sum() > 3 * 8
    assert whole.samples.tolist() == [0, *(4 * drawn.fillna(0)).cumsum()]
    die_before(4, monkeypatch, lambda: run("died"))
    assert differences(whole.path, run("died").path) == []


# --- where it cannot work ---


@pytest.mark.parametrize("method", ["sft", "rejection"])
def test_it_is_refused_where_there_are_no_groups(method):
    with pytest.raises(ValueError, match=f"dynamic_sampling=4 .*method='{method}' has no groups"):
        get_profile("mini", dynamic_sampling=4, method=method)


def test_several_processes_are_refused(tiny, tmp_path, monkeypatch):
    p = get_profile("mini", model=tiny, dynamic_sampling=4)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="dynamic_sampling=4 needs a single process, but there are 2"):
        build_trainer(p, None, None, RunWriter(tmp_path))

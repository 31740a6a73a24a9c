"""SFT on worked solutions: before RL, and in its place."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from resume import differences, odd_rewards
from safetensors.torch import load_file
from trl import SFTTrainer
from trl.kernels.chunked_logprob import ChunkedLogProbFunction

from rlvr_utils import REPO, training
from rlvr_utils.analysis import wandb_metrics
from rlvr_utils.models import attach_lora, load_model, load_tokenizer, merged_weights
from rlvr_utils.preflight import preflight
from rlvr_utils.problems import judge_response, training_order, training_rows
from rlvr_utils.profiles import get_profile
from rlvr_utils.runs import SilentWriter, load_run
from rlvr_utils.training import export_run, load_trained, supervised, train
from rlvr_utils.training.supervised import after_sft, solution_tokens, worked_solutions

sys.path.insert(0, str(REPO / "tools"))
import reference_runs

SETTINGS = {
    "prompts_per_step": 2,
    "group_size": 4,
    "max_steps": 3,
    "sft_steps": 4,
    "eval_problems": 3,
    "eval_every": 2,
    "save_every": 1,
    "max_completion_length": 120,
    "log_rollouts_every": 1,
    "wandb_mode": "disabled",
    "guard": "off",
}
#: Clocks, and TRL's SFTTrainer counts tokens from 0 after a resume.
OTHER = ["seconds", "num_tokens", "step_time"]


pytestmark = pytest.mark.usefixtures("odd_reward")


@pytest.fixture(scope="module", params=["lora", "none"])
def staged(request, tiny, tmp_path_factory):
    """A run of four supervised steps and three of RL, with an adapter or without."""
    return staged_run(request.param, tiny, tmp_path_factory)


@pytest.fixture(scope="module")
def straight(tiny, tmp_path_factory):
    """The same with an adapter, to compare with runs that were killed."""
    return staged_run("lora", tiny, tmp_path_factory)


def staged_run(adapter, tiny, tmp_path_factory):
    with odd_rewards():
        folder = tmp_path_factory.mktemp("staged") / "run"
        return train("mini", folder, model=tiny, quiet=True, adapter=adapter, **SETTINGS)


def test_the_stage_before_rl_has_negative_steps_and_both_its_ends_are_evaluated(staged):
    assert staged.metrics["step"].tolist() == [-3, -2, -1, 0, 1, 2, 3]
    assert staged.metrics["reward"].isna().tolist() == [True] * 4 + [False] * 3
    full = staged.evaluations.query("n_samples == 4")
    assert sorted(full["step"].unique()) == [-4, 0, 3]
    assert sorted(staged.evaluations["step"].unique()) == [-4, -2, 0, 2, 3], "on the way, in both stages"
    assert staged.metrics["seconds"].is_monotonic_increasing
    assert staged.metrics["loss"].iloc[3] < staged.metrics["loss"].iloc[0], "four steps teach something"


def test_the_two_stages_see_different_problems(tiny, tmp_path):
    p = get_profile("mini", model=tiny, **SETTINGS)
    order = training_order(len(training_rows(p)), 14, p.seed)
    assert len(set(order)) == 14, "six for RL, then eight for SFT"
    stage = supervised.build_sft_stage(p, load_model(p), load_tokenizer(p), SilentWriter(tmp_path))
    rows = training_rows(p)
    shown = [load_tokenizer(p).decode(ids) for ids in stage.train_dataset["input_ids"]]
    assert all(rows[i]["problem"] in text for i, text in zip(order[6:], shown, strict=True))


@pytest.mark.parametrize(
    "option", [{"dynamic_sampling": 2}, {"estimator": str(Path(__file__).with_name("test_estimators.py")) + ":grpo"}]
)
def test_the_stage_before_rl_accepts_options_that_only_grpo_has(option, tiny, tmp_path):
    """A profile with ``method="sft"`` raises an error for both, and the stage has this method."""
    p = get_profile("mini", model=tiny, **SETTINGS, **option)
    stage = supervised.build_sft_stage(p, load_model(p), load_tokenizer(p), SilentWriter(tmp_path))
    assert len(stage.train_dataset) == p.sft_steps * p.prompts_per_step


def test_rl_goes_on_from_what_the_stage_made_of_the_base(staged, tiny, tmp_path):
    """Before the first RL step the model is the supervised one; trained, exported and reloaded are one model."""
    p = staged.profile
    start = after_sft(load_model(p), p, staged.path)
    base = dict(load_model(p).named_parameters())
    assert any(not torch.equal(weight, base[name]) for name, weight in start.named_parameters())
    trained, tokenizer = load_trained(staged)
    if p.adapter == "lora":
        steps = load_file(staged.path / "adapter" / "adapter_model.safetensors")
        assert all(weight.abs().max() > 0 for name, weight in steps.items() if "lora_B" in name)
        merged = dict(merged_weights(trained))
    else:
        merged = dict(trained.named_parameters())
    export_run(staged.path, tmp_path / "model")
    exported = dict(load_model(get_profile("mini", model=str(tmp_path / "model"))).named_parameters())
    assert all(torch.equal(weight, exported[name]) for name, weight in merged.items())
    assert any(not torch.equal(weight, start.get_parameter(name)) for name, weight in exported.items())


def test_the_first_evaluation_of_rl_is_of_the_supervised_model(staged):
    p = staged.profile
    start, tokenizer = after_sft(load_model(p), p, staged.path), load_tokenizer(p)
    model = attach_lora(start, p) if p.adapter == "lora" else start
    rows = training.evaluation.evaluation_rows(p, "test")
    responses = staged.responses(0, "test", decoding="greedy")
    again = training.evaluation.evaluate(model, tokenizer, rows, p, "greedy")
    assert responses["response"].tolist() == [row["response"] for row in again]


@pytest.mark.parametrize("killed_at", [(2, True), (4, True), (1, False)], ids=["in SFT", "at its end", "in RL"])
def test_killed_in_any_stage_it_ends_with_the_same_bits(killed_at, straight, tiny, tmp_path, monkeypatch):
    step, in_sft = killed_at

    def die(self, args, state, control, **kwargs):
        if bool(self.before) == in_sft and state.global_step == step:
            raise RuntimeError("power cut")

    with monkeypatch.context() as cut, pytest.raises(RuntimeError, match="power cut"):
        name = "on_train_end" if (step, in_sft) == (4, True) else "on_step_begin"
        cut.setattr(training.recording.Recorder, name, die, raising=False)
        train("mini", tmp_path / "died", model=tiny, quiet=True, **SETTINGS)
    died = train("mini", tmp_path / "died", model=tiny, quiet=True, **SETTINGS)
    assert set(differences(straight.path, died.path)) <= {"metrics differ"}
    assert straight.metrics.drop(columns=OTHER).equals(died.metrics.drop(columns=OTHER))


def test_an_arm_that_begins_after_a_copied_stage_ends_with_the_same_bits(straight, tiny, tmp_path, monkeypatch):
    """The included runs of a pretrained model train the supervised stage once per seed."""
    monkeypatch.setattr(reference_runs, "MADE", tmp_path)
    shutil.copytree(straight.path, tmp_path / "mini-seed-0")
    p = get_profile("mini", model=tiny, learning_rate=5e-3, **SETTINGS)
    whole, folder = train(p, tmp_path / "whole", quiet=True), tmp_path / "arm"
    reference_runs.begin_after_sft(folder, p)
    assert (folder / "sft" / "adapter").is_dir() and not (folder / "config.yaml").exists()
    arm = train(p, folder, quiet=True)
    assert set(differences(whole.path, arm.path)) <= {"metrics differ"}
    assert whole.metrics.drop(columns=OTHER).equals(arm.metrics.drop(columns=OTHER))
    assert not arm.metrics.query("step > 0").equals(straight.metrics.query("step > 0")), "another learning rate"


def test_sft_in_the_place_of_rl_sees_the_same_problems_in_the_same_order(tiny, tmp_path):
    run = train("mini", tmp_path / "run", model=tiny, quiet=True, method="sft", **SETTINGS)
    assert run.metrics["step"].tolist() == [-3, -2, -1, 0, 1, 2, 3] and "reward" not in run.metrics
    p = run.profile
    rows, tokenizer = training_rows(p), load_tokenizer(p)
    trainer = supervised.build_sft_trainer(p, load_model(p), tokenizer, SilentWriter(tmp_path))
    asked = training.training_dataset(p, tokenizer)["problem"]
    assert len(asked) == p.max_steps * p.prompts_per_step
    for problem, ids, labels in zip(asked, trainer.train_dataset["input_ids"], trainer.train_dataset["labels"], strict=True):
        first = next(i for i, label in enumerate(labels) if label != -100)
        assert tokenizer.decode(ids[:first]).endswith(f"{problem}\nAnswer:")
        row = next(row for row in rows if row["problem"] == problem)
        assert judge_response(row, tokenizer.decode(ids[first:], skip_special_tokens=True)).correct
        assert ids[-1] == tokenizer.eos_token_id and labels[first:] == ids[first:]


def test_an_answer_that_a_solution_does_not_box_is_boxed(tiny):
    tokenizer = load_tokenizer(get_profile("mini", model=tiny))
    row = {"problem": "What is $2 + 2$?", "ground_truth": "4", "solution": "$2 + 2 = 4$ #### 4"}
    text = tokenizer.decode(solution_tokens(row, tokenizer, chat=False), skip_special_tokens=True)
    assert text == r" $2 + 2 = 4$ #### 4 The answer is $\boxed{4}$."
    boxed = row | {"solution": r"So $\boxed{4}$."}
    assert tokenizer.decode(solution_tokens(boxed, tokenizer, True), skip_special_tokens=True) == r"So $\boxed{4}$."


@pytest.mark.parametrize(
    "change, sentence",
    [
        (
            {"solution": None},
            "\\d of \\d training problems have no worked solution, the first is .*Add the field `solution`",
        ),
        ({"solution": r"one two " * 99 + r"$\boxed{4}$"}, "=120 is too small .* Set max_completion_length="),
    ],
)
def test_data_that_cannot_be_imitated_is_refused_before_anything_is_trained(change, sentence, tiny, tmp_path):
    file = tmp_path / "mine.jsonl"
    row = {"problem": "What is $2 + 2$?", "ground_truth": "4", "solution": r"$\boxed{4}$"}
    rows = [row | change | {"problem": f"What is ${k} + {4 - k}$?"} for k in range(2)]
    rows = [{k: v for k, v in row.items() if v is not None} for row in rows]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    p = get_profile("mini", model=tiny, dataset=str(file), **SETTINGS)
    with pytest.raises(ValueError, match=sentence):
        worked_solutions(p, load_tokenizer(p), [0, 1])
    with pytest.raises(ValueError, match=sentence):
        train("mini", tmp_path / "run", model=tiny, dataset=str(file), quiet=True, **SETTINGS)
    assert not len(load_run(tmp_path / "run").evaluations)
    assert re.search(sentence, " ".join(preflight("mini", model=tiny, dataset=str(file), **SETTINGS)))


def test_wandb_keeps_the_negative_steps(tiny, tmp_path):
    """W&B drops rows whose own step is negative."""
    settings = SETTINGS | {"wandb_mode": "offline", "sft_steps": 2, "max_steps": 1}
    run = train("mini", tmp_path / "run", model=tiny, quiet=True, **settings)
    assert wandb_metrics(run.path)["step"].tolist() == run.metrics["step"].tolist() == [-1, 0, 1]


def test_only_the_tokens_of_the_solutions_get_logits(tiny, tmp_path, monkeypatch):
    """Loss and gradient are those of TRL's own trainer, which scores prompts and padding too on a CPU."""
    p = get_profile("mini", model=tiny, **SETTINGS)
    order = training_order(len(training_rows(p)), 2, p.seed)
    scored, apply = [], ChunkedLogProbFunction.apply
    monkeypatch.setattr(
        ChunkedLogProbFunction, "apply", lambda hidden, *rest: scored.append(len(hidden)) or apply(hidden, *rest)
    )

    def step(trainer_class):
        monkeypatch.setattr(supervised, "ScoringOnlySolutions", trainer_class)
        tokenizer = load_tokenizer(p)
        data = worked_solutions(p, tokenizer, order)
        recorder = supervised.Recorder(p, SilentWriter(tmp_path), 2, None, print)
        options = supervised.common_arguments(p, tmp_path / "checkpoints") | {"per_device_train_batch_size": 2}
        trainer = supervised.supervised_trainer(p, load_model(p), tokenizer, data, recorder, options)
        trainer.model.train()
        loss = trainer.compute_loss(trainer.model, next(iter(trainer.get_train_dataloader())))
        loss.backward()
        solution_tokens = sum(sum(mask) for mask in data["completion_mask"])
        return loss.item(), [w.grad for w in trainer.model.parameters() if w.grad is not None], solution_tokens

    loss, gradients, tokens = step(supervised.ScoringOnlySolutions)
    assert scored == [tokens]
    stock_loss, stock_gradients, _ = step(SFTTrainer)
    assert scored[1] > tokens, "otherwise there is nothing to save"
    assert loss == pytest.approx(stock_loss, rel=1e-5)
    for one, other in zip(gradients, stock_gradients, strict=True):
        torch.testing.assert_close(one, other)

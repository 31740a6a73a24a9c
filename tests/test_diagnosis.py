"""Diagnosis rules on real runs with the problem that they detect, and on healthy runs, which have no findings."""

from __future__ import annotations

import inspect
import math
import shutil
from pathlib import Path
from statistics import fmean as mean

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from trl import GRPOTrainer

from rlvr_utils import training
from rlvr_utils.diagnosis import (
    COLLAPSED,
    STEPS,
    Diagnosis,
    Finding,
    Record,
    RunStopped,
    diagnose,
    findings,
    own_evaluations,
    prefixes,
    record_of,
)
from rlvr_utils.models import load_tokenizer
from rlvr_utils.profiles import get_profile
from rlvr_utils.runs import load_run, reference_runs
from rlvr_utils.training import recording, train

ILL = {
    "prompts_per_step": 16,
    "group_size": 2,
    "max_steps": 30,
    "eval_problems": 2,
    "eval_samples": 1,
    "eval_every": 100,
    "save_every": 100,
    "max_completion_length": 6,
    "train_subset": 32,
    "log_rollouts_every": 100,
    "wandb_mode": "disabled",
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> str:
    """Return a directory with a Llama of ten thousand parameters whose logits are large enough to collapse."""
    folder = tmp_path_factory.mktemp("tiny")
    tokenizer = load_tokenizer(get_profile("mini"))
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            tie_word_embeddings=True,
            initializer_range=1.0,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def odd(completions, **columns):
    """Return rewards that vary independently of skill."""
    return [float(sum(map(ord, text)) % 2) for text in completions]


def one_half(completions, **columns):
    """Return the same reward for every response, like a faulty reward function."""
    return [0.5] * len(completions)


def dies(completions, trainer_state, **columns):
    """Return zeros after ten steps, like a reward service that fails."""
    return odd(completions) if trainer_state.global_step < STEPS else [0.0] * len(completions)


@pytest.fixture
def ill(tiny, tmp_path, monkeypatch):
    """Train with a faulty reward or configuration. Return (directory, printed lines, message of the error or "")."""

    def run(reward, /, **settings) -> tuple[Path, list[str], str]:
        monkeypatch.setattr(training.rewards, "boxed_reward", reward)
        said: list[str] = []
        monkeypatch.setattr("builtins.print", lambda *text, **_: said.append(" ".join(map(str, text))))
        try:
            train("mini", tmp_path / "ill", **({"model": tiny} | ILL | settings))
        except RunStopped as stop:
            return tmp_path / "ill", said, str(stop)
        return tmp_path / "ill", said, ""

    return run


def severities(folder: Path) -> dict[str, str]:
    """Return the worst severity per finding of a run."""
    return {finding.name: finding.severity for finding in diagnose(folder)}


# --- healthy ---


@pytest.mark.parametrize("folder", reference_runs(), ids=lambda folder: folder.name)
def test_a_healthy_run_has_no_findings_at_any_step(folder: Path) -> None:
    assert diagnose(folder) == []
    assert len(record_of(load_run(folder)).metrics) >= 5 * STEPS, "the run must be long enough for the rules"


@pytest.mark.parametrize("folder", reference_runs(), ids=lambda folder: folder.name)
def test_healthy_runs_stay_within_the_documented_ranges(folder: Path) -> None:
    record = record_of(load_run(folder))
    full = list(prefixes(record))[record.window - 1 :]
    rewards = [part.recent("reward") for part in full]
    assert max(part.recent("frac_reward_zero_std") for part in full) <= 0.6
    assert max(part.recent("completions/clipped_ratio") for part in full) <= 0.01
    assert min(part.recent("entropy") for part in full) >= 0.08 * record.values("entropy")[0]
    assert max(part.recent("entropy") for part in full) <= 1.1 * record.values("entropy")[0]
    third = max(2 * record.window, len(rewards) // 3)
    assert mean(record.values("reward")[third - record.window : third]) - rewards[0] >= 0.4
    assert max(1 - reward / max(rewards[: n + 1]) for n, reward in enumerate(rewards)) <= 0.1
    first, *_, last = own_evaluations(record)
    assert last["boxed_rate"] - first["boxed_rate"] >= 0.5
    assert last["accuracy"] - first["accuracy"] >= 0.8 * (rewards[-1] - first["accuracy"])
    assert last["accuracy_if_boxed"] - first["accuracy_if_boxed"] >= 0.3


# --- ill ---


def test_a_constant_reward_stops_the_run(ill) -> None:
    folder, said, sentence = ill(one_half)
    assert sentence.startswith("The run was stopped at step 10, no signal (stop): In 10 steps the reward never varied")
    assert "mean 0.50" in sentence and "rlvr doctor --trainability" in sentence
    assert sum("no signal" in line for line in said) == 1
    assert severities(folder)["no signal"] == "stop"
    assert (folder / "checkpoints" / "checkpoint-10").is_dir() and len(load_run(folder).metrics) == 10


def test_a_stopped_run_continues_if_the_guard_only_warns(ill) -> None:
    folder, _, _ = ill(one_half)
    _, said, sentence = ill(one_half, guard="warn", max_steps=30)
    assert sentence == "" and any("continuing from step 10" in line for line in said)
    assert sum("no signal (stop)" in line for line in said) == 1, "the finding must be printed once"
    assert load_run(folder).environment["finished"] and len(load_run(folder).metrics) == 30


def test_equal_groups_and_a_falling_reward_are_found(ill) -> None:
    folder, _, sentence = ill(dies, guard="warn")
    assert sentence == ""
    assert {"groups equal": "stop", "reward falls": "stop"}.items() <= severities(folder).items()
    first = next(finding for finding in diagnose(folder) if finding.name == "reward falls")
    assert STEPS < first.step <= 2 * STEPS and "at its best to" in first.seen


def test_truncated_responses_stop_the_run(ill) -> None:
    folder, _, sentence = ill(training.rewards.boxed_reward, max_completion_length=3)
    assert "truncated at 3 tokens" in sentence and "Raise max_completion_length" in sentence
    assert severities(folder)["cut off"] == "stop"


def test_a_nan_gradient_stops_the_run_without_saving(ill) -> None:
    folder, _, sentence = ill(odd, learning_rate=100.0, updates_per_generation=4)
    assert "grad_norm became NaN or infinite at learning rate 100.0" in sentence
    assert severities(folder)["not a number"] == "stop"
    assert not list((folder / "checkpoints").glob("checkpoint-*"))


def test_a_frozen_adapter_stops_the_run(ill, monkeypatch) -> None:
    begin = recording.Recorder.on_train_begin

    def freeze(self, args, state, control, model=None, **kwargs):
        model.requires_grad_(False)
        begin(self, args, state, control, model=model, **kwargs)

    monkeypatch.setattr(recording.Recorder, "on_train_begin", freeze)
    folder, _, sentence = ill(odd, gradient_checkpointing=True)
    assert "weights do not move" in sentence and "the gradient was exactly 0" in sentence
    assert severities(folder)["weights do not move"] == "stop"


def monotone(completions, **columns):
    """Reward repeated letters with at most half of the full reward: easy to learn, but never solved."""
    return [max(map(text.count, text), default=0) / len(text) / 2 if text else 0.0 for text in completions]


def test_entropy_collapse_stops_the_run(ill) -> None:
    """Which seeds collapse depends on the machine's rounding. The rule must find the first that does."""
    for seed in range(8):
        folder, _, sentence = ill(monotone, learning_rate=0.1, max_steps=60, group_size=4, prompts_per_step=8, seed=seed)
        entropy = load_run(folder).metrics["entropy"]
        if entropy[-STEPS:].mean() < COLLAPSED * entropy[0]:
            break
        shutil.rmtree(folder)
    assert severities(folder)["entropy collapse"] == "stop"
    assert "the model has stopped exploring" in sentence and len(entropy) < 60


def test_kl_runaway_is_found(ill) -> None:
    folder, _, sentence = ill(odd, learning_rate=0.3, beta=1e-4, guard="warn", max_steps=12)
    assert severities(folder)["KL runaway"] in ("warn", "stop")


def test_learning_only_the_format_is_found(ill) -> None:
    settings = {
        "model": "data/minillama",
        "reward": "format",
        "max_completion_length": 70,
        "max_steps": 13,
        "eval_every": 12,
        "eval_problems": 250,
        "eval_samples": 2,
        "eval_splits": ["test"],
        "learning_rate": 3e-3,
        "train_subset": 256,
    }
    folder, said, sentence = ill(training.rewards.boxed_reward, **settings)
    assert sentence == "", "a run with a rising reward must not be stopped"
    assert severities(folder)["format only"] == "warn"
    assert sum("format only" in line for line in said) == 1


def test_a_supervised_stage_that_learns_the_format_first_is_not_warned_about() -> None:
    rates = {-4: (0.0, 0.0), -2: (0.9, 0.03), 0: (0.98, 0.17)}
    key = {"split": "test", "shots": 0, "decoding": "sampled"}
    rows = [
        key | {"step": step, "boxed_rate": boxed, "accuracy": right, "accuracy_if_boxed": right / boxed if boxed else None}
        for step, (boxed, right) in rates.items()
    ]
    in_sft = Record([{"step": -2, "loss": 0.3}], rows[:2], profile=get_profile("smol"))
    assert findings(in_sft) == [] and [row["step"] for row in own_evaluations(Record([], rows, get_profile("smol")))] == [0]


# --- what needs a GPU to happen, on records in TRL's names ---


def sampled_by_vllm(difference: float, ratio: float) -> Record:
    names = ("sampling/sampling_logp_difference/mean", "sampling/importance_sampling_ratio/mean")
    source = inspect.getsource(GRPOTrainer)
    assert all(f'"{name}"' in source for name in names)
    return Record([dict(zip(names, (difference, ratio), strict=True)) | {"step": step} for step in range(1, STEPS + 1)])


@pytest.mark.parametrize("difference, ratio, severity", [(0.3, 0.9, "warn"), (0.02, 0.4, "warn"), (0.5, 0.02, "stop")])
def test_a_sampler_with_another_model_is_found(difference: float, ratio: float, severity: str) -> None:
    (found,) = findings(sampled_by_vllm(difference, ratio))
    assert (found.name, found.severity) == ("samplers apart", severity) and f"is {ratio:.2f}" in found.seen


def test_a_sampler_that_only_rounds_differently_is_healthy() -> None:
    assert findings(sampled_by_vllm(0.015, 0.98)) == []


# --- what the rules are made of ---


def test_every_rule_accepts_a_run_without_steps() -> None:
    assert findings(Record([])) == [] and Record([]).step == 0


def test_prefixes_contain_no_later_data(tmp_path) -> None:
    record = record_of(load_run(reference_runs()[0]))
    for part in list(prefixes(record))[:: len(record.metrics) // 4]:
        assert max(row["step"] for row in part.metrics) == part.step
        assert all(row["step"] <= part.step for row in part.evaluations)


def test_the_window_contains_enough_groups() -> None:
    assert Record([], profile=get_profile(prompts_per_step=16)).window == STEPS
    assert Record([], profile=get_profile(prompts_per_step=2)).window == 64


def test_a_dead_run_is_reported_as_unfinished(tmp_path) -> None:
    run = load_run(reference_runs()[0])
    for name in ("config.yaml", "metrics.jsonl", "evaluations.jsonl"):
        (tmp_path / name).write_bytes((run.path / name).read_bytes())
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines[:37]) + "\n" + lines[37][:50])
    (found,) = diagnose(tmp_path)
    assert (found.name, found.step) == ("unfinished", 37) and f"ends at step 37 of {len(lines)}" in found.seen
    with pytest.raises(FileNotFoundError):
        diagnose(tmp_path / "none")


def test_findings_have_text_table_and_html() -> None:
    ill = Diagnosis([Finding("cut off", "warn", 12, "Half <b> is gone.", "Raise the limit.")])
    assert str(ill) == "- step 12, cut off (warn): Half <b> is gone. Raise the limit."
    assert ill.table.loc[0, "step"] == 12 and list(ill.table.columns)[-1] == "advice"
    assert "Half &lt;b&gt; is gone." in ill._repr_html_()
    assert "No rule finds anything" in str(Diagnosis()) and "No rule" in Diagnosis()._repr_html_()


def test_a_step_skipped_by_loss_scaling_is_not_a_finding() -> None:
    row = {"step": 1, "loss": 0.0, "grad_norm": math.inf}
    assert "not a number" in [f.name for f in findings(Record([row]))]
    half = get_profile(dtype="float16")
    assert "not a number" not in [f.name for f in findings(Record([row], profile=half))]
    assert "not a number" in [f.name for f in findings(Record([row | {"loss": math.nan}], profile=half))]

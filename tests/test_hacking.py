"""Reward hacking: the graders of notebook 06, their included runs, and the rule that detects it."""

from __future__ import annotations

import pytest

from rlvr_utils.diagnosis import Record, findings, record_of
from rlvr_utils.exercises import graders
from rlvr_utils.exercises.graders import boxed, discovery_step, last_word, repetition, steps_shown, watched
from rlvr_utils.experiment import HACKED
from rlvr_utils.profiles import get_profile
from rlvr_utils.runs import REFERENCE_RUNS, load_run, reference_runs
from rlvr_utils.training.rewards import try_reward
from rlvr_utils.verifier import last_boxed

MADE = [name for arm in HACKED for name in arm.runs if (REFERENCE_RUNS / name).is_dir()]
LARGEST = 3 * 10**6  # total bytes of all their runs


# --- the graders ---


def test_the_last_word_is_never_a_box_and_often_the_answer() -> None:
    base = load_run(reference_runs()[0]).responses(0)
    accepted = [last_word(text, truth) for text, truth in zip(base.response, base.ground_truth, strict=True)]
    in_a_box = [last_boxed(text) is not None for text in base.response]
    assert 0.1 < sum(accepted) / len(accepted) < 0.2
    assert not any(yes and box for yes, box in zip(accepted, in_a_box, strict=True))


@pytest.mark.parametrize(
    ("response", "score"),
    [("", 0), ("The answer is $4$.", 0), ("$1 + 1 = 5$.", 1 / 8), ("$1 = 1$ " * 8, 1), ("$1 = 1$ " * 30, 1)],
)
def test_steps_are_counted_up_to_eight_and_never_checked(response: str, score: float) -> None:
    assert steps_shown(response, "4") == steps_shown(response, "5") == score


def test_an_empty_box_has_no_format() -> None:
    assert boxed(r"$\boxed{7}$", "8") and not boxed(r"$\boxed{}$", "8") and not boxed("7", "7")


def test_repetition_is_the_share_of_repeated_words() -> None:
    assert [repetition(text) for text in ("", "a b", "a a a a")] == [0, 0, 0.75]


def test_watched_logs_metrics_without_changing_the_reward() -> None:
    logged = {}
    reward = watched(lambda response, truth: response.startswith("a"))
    responses = [r"a \boxed{4}", r"b \boxed{4}", "a a", "b"]
    assert reward(responses, ground_truth=["4"] * 4, log_metric=logged.__setitem__, anything="else") == [1, 0, 1, 0]
    assert logged == {"strict": 0.5, "boxed": 0.5, "repetition": 0.125}
    assert reward(responses, ["4"] * 4) == [1, 0, 1, 0], "log_metric must be optional"


@pytest.mark.parametrize("name", ["last_word_reward", "steps_shown_reward"])
def test_train_accepts_a_watched_grader(name: str) -> None:
    p = get_profile("mini", reward=f"{graders.__name__}:{name}")
    try_reward(p, chat=False)
    try_reward(p, chat=True)


def test_the_step_of_discovery_is_where_a_window_first_exceeds_the_bound() -> None:
    assert discovery_step([0, 0, 1, 1, 1], [0] * 5, window=2, found=0.9) == 4
    assert discovery_step([1, 1], [0, 0], window=3) is None and discovery_step([], []) is None
    assert discovery_step([1] * 9, [1] * 9) is None


# --- the rule ---


def record(rewards: list[float], *accuracies: tuple[int, float], wide: float = 0.02) -> Record:
    p = get_profile("mini")
    rows = [
        {"step": step, "split": "test", "shots": 0, "decoding": "sampled", "boxed_rate": 0.5, "accuracy_if_boxed": None}
        | {"accuracy": accuracy, "accuracy_low": accuracy - wide, "accuracy_high": accuracy + wide}
        for step, accuracy in accuracies
    ]
    metrics = [{"step": step, "reward": reward, "loss": 0.1} for step, reward in enumerate(rewards, 1)]
    return Record(metrics, rows, p)


def named(record: Record) -> bool:
    return any(finding.name == "reward hacking" for finding in findings(record))


RISING = [0.2 + 0.02 * step for step in range(40)]


def test_a_rising_reward_with_falling_accuracy_is_reported() -> None:
    [finding] = [f for f in findings(record(RISING, (0, 0.3), (20, 0.4), (40, 0.2))) if f.name == "reward hacking"]
    assert finding.severity == "warn" and "0.40 (step 20) to 0.20 (step 40)" in finding.seen
    assert "from step 20" in finding.advice


@pytest.mark.parametrize(
    "healthy",
    [
        record(RISING, (0, 0.2), (40, 0.4)),
        record(RISING, (0, 0.3), (40, 0.27)),
        record(RISING, (0, 0.3), (40, 0.2), wide=0.06),
        record(RISING[:12], (0, 0.4), (12, 0.2)),
        record([0.5] * 40, (0, 0.4), (40, 0.2)),
        record(RISING[::-1], (0, 0.4), (40, 0.2)),
        record(RISING[:25] + [0.4] * 15, (0, 0.3), (25, 0.4), (40, 0.2)),
        record(RISING, (40, 0.2)),
    ],
    ids=[
        "accuracy rises",
        "hardly falls",
        "within chance",
        "too few steps",
        "flat",
        "reward falls",
        "both fall",
        "one only",
    ],
)
def test_healthy_curves_are_not_reported_as_hacking(healthy: Record) -> None:
    assert not named(healthy)


def test_only_runs_with_faulty_rewards_are_reported() -> None:
    rewards = {path.name: load_run(path).config["reward"] for path in reference_runs("mini-")}
    hacked = {name for name in rewards if named(record_of(load_run(REFERENCE_RUNS / name)))}
    assert {f"mini-format-seed-{seed}" for seed in (0, 2, 3, 4)} <= hacked, "seed 1 must end with its best accuracy"
    assert {rewards[name] for name in hacked} & {"boxed", "random"} == set()


# --- the runs ---


@pytest.mark.parametrize("name", MADE)
def test_runs_match_their_arm_and_are_finished(name: str) -> None:
    run, settings = load_run(REFERENCE_RUNS / name), next(arm.runs[name] for arm in HACKED if name in arm.runs)
    wanted, aside = get_profile("mini", **settings).to_dict(), ("wandb", "guard", "cpu_threads")
    aside += tuple(wanted.keys() - run.config.keys())  # fields added after the run, at their defaults
    assert {k: v for k, v in run.config.items() if not k.startswith(aside)} == {
        k: v for k, v in wanted.items() if not k.startswith(aside)
    }
    assert run.environment["finished"] and not run.environment["commit"].endswith("+")
    if run.config["reward"] != "boxed":  # the verifier's own reward is strict already
        assert {"strict", "boxed", "repetition"} <= set(run.metrics.columns)
    assert len(run.metrics) == settings["max_steps"]


def test_the_included_runs_are_small() -> None:
    files = [
        file for name in MADE for file in (REFERENCE_RUNS / name).rglob("*") if file.is_file() and not file.is_symlink()
    ]
    assert sum(file.stat().st_size for file in files) < LARGEST

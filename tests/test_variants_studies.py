"""The race of an estimator against the default, and self-distillation: their arithmetic, and one small real run each."""

from __future__ import annotations

import json

import pytest
import self_distillation
import speedrun
import torch

from rlvr_utils.profiles import get_profile
from rlvr_utils.runs import load_run

TINY = {"prompts_per_step": 2, "group_size": 2, "max_completion_length": 8, "train_subset": 4, "max_prompt_length": 4000}


def test_a_crossing_is_interpolated_between_two_evaluations() -> None:
    assert speedrun.crossing([0, 10, 20], [0.1, 0.6, 0.8], 0.7) == pytest.approx(15)
    assert speedrun.crossing([0, 10], [0.8, 0.9], 0.7) == 0
    assert speedrun.crossing([0, 10], [0.1, 0.69], 0.7) is None
    assert speedrun.crossing([0, 10, 20], [0.1, 0.7, 0.2], 0.7) == 10, "the first time counts"


def row(estimator: str, seed: int, samples: float | None) -> dict:
    reached = {"samples": samples, "seconds": samples and samples / 100, "crossing": samples and samples / 128}
    return {"estimator": estimator, "seed": seed, "ood_accuracy": 0.5 if estimator == "f" else 0.25} | reached


def test_a_race_is_paired_by_seed_and_counts_what_never_arrives() -> None:
    rows = [row("default", seed, 5000 + seed) for seed in range(3)]
    rows += [row("f", 0, 4900), row("f", 1, 4801), row("f", 2, 4702)]
    lines = speedrun.summary(rows, "f")
    assert lines[0].startswith("3 seeds, target 70%")
    assert "f: reached by 3 of 3 seeds, 4,801 samples" in lines[2] and "ood accuracy at the end 50%" in lines[2]
    assert "difference in samples: -200 (95 % interval -448 to +48)" in lines[3]
    late = speedrun.summary([*rows[:3], row("f", 0, None), row("f", 1, 4801)], "f")
    assert "f: reached by 1 of 2 seeds" in late[2] and "one pair, so no interval" in late[3]
    never = speedrun.summary([*rows[:3], row("f", 0, None)], "f")
    assert "reached by 0 of 1 seeds, no mean" in never[2] and len(never) == 3


def test_a_real_race_is_recorded_once(tiny, tmp_path, monkeypatch, odd_reward, capsys) -> None:
    monkeypatch.setattr(speedrun, "MADE", tmp_path / "made")
    monkeypatch.setattr(speedrun, "REPO", tmp_path)
    monkeypatch.setattr(speedrun, "BOARD", tmp_path / "board.jsonl")
    monkeypatch.setattr(speedrun, "SETTINGS", speedrun.SETTINGS | TINY | {"model": tiny, "eval_problems": 2})
    line = ["rlvr_utils.grpo.variants:maxrl", "--seeds", "0", "--steps", "2", "--every", "1", "--record"]
    speedrun.main(line)
    speedrun.main(line)  # takes the finished runs, and adds nothing
    rows = [json.loads(text) for text in (tmp_path / "board.jsonl").read_text().splitlines()]
    assert [made["estimator"] for made in rows] == ["default", line[0]]
    assert rows[0]["crossing"] is None and rows[1]["settings"]["estimator"] == line[0]
    assert all(0 <= made["ood_accuracy"] <= 1 for made in rows)
    assert "reached by 0 of 1 seeds" in capsys.readouterr().out
    runs = [load_run(path) for path in sorted((tmp_path / "made").iterdir())]
    apart = {key for key in runs[0].config if runs[0].config[key] != runs[1].config[key]}
    assert apart == {"estimator"}, "the two runs of a pair differ in the estimator alone"


def test_the_distillation_loss_is_the_kl_from_student_to_teacher() -> None:
    student, teacher = torch.randn(2, 2, 3, 5, dtype=torch.float64).log_softmax(-1)
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    by_hand = (student.exp() * (student - teacher)).sum(-1)[mask.bool()].mean()
    assert self_distillation.distillation_loss(student, teacher, mask) == pytest.approx(by_hand.item())
    assert self_distillation.distillation_loss(teacher, teacher, mask) == 0


def test_distillation_moves_the_student_and_not_the_teacher(tiny) -> None:
    rows = list(self_distillation.train(get_profile("mini", model=tiny, max_steps=6, learning_rate=0.02, **TINY)))
    assert [made["step"] for made in rows] == [1, 2, 3, 4, 5, 6]
    assert all(set(made) == {"step", "reward", "boxed", "kl", "mean_tokens"} and made["kl"] > 0 for made in rows)
    assert rows[-1]["kl"] != rows[0]["kl"]


def test_the_included_board_holds_real_runs_only() -> None:
    if not speedrun.BOARD.is_file():
        pytest.skip("no entry yet")
    rows = [json.loads(text) for text in speedrun.BOARD.read_text(encoding="utf-8").splitlines()]
    seen = [(made["estimator"], made["seed"]) for made in rows]
    assert len(seen) == len(set(seen))
    assert all(made["commit"] and not made["commit"].endswith("+") for made in rows)
    assert all({"default"} <= {name for name, seed in seen if seed == made["seed"]} for made in rows), "each is paired"

"""Rewards that are missing on some steps, on all, or by nature: watched, drawn, resumed, diagnosed and analysed."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import pytest
from resume import tiny_model

from rlvr_utils import analysis
from rlvr_utils.diagnosis import diagnose
from rlvr_utils.profiles import get_profile
from rlvr_utils.runs import RunWriter, load_run
from rlvr_utils.training import train, watch_run
from rlvr_utils.training.recording import Recorder, level, progress_line, recent
from rlvr_utils.widgets.curve_views import LiveReward

matplotlib.use("Agg")
NAN = float("nan")
GENERATED = {"completions/mean_length": 12.0, "frac_reward_zero_std": 0.5, "entropy": 0.3}


def random_gaps(step: int) -> dict:
    """Any of what a step may lack, and each way of lacking it."""
    rng = random.Random(step)
    row = GENERATED | {"reward": rng.choice([rng.random(), NAN, None, "absent"])}
    return {k: v for k, v in row.items() if v != "absent" and rng.random() < 0.8}


#: What a step logs beside loss and seconds, by kind of run.
KINDS = {
    "off-policy": lambda step: GENERATED | {"reward": 0.2} if step % 4 == 1 else {},
    "more updates than the window": lambda step: GENERATED | {"reward": 0.2} if step % 16 == 1 else {},
    "rejection": lambda step: {},
    "all None": lambda step: GENERATED | {"reward": NAN, "frac_reward_zero_std": 1.0},
    "None at first": lambda step: GENERATED | {"reward": NAN if step < 20 else 0.3},
    "None at last": lambda step: GENERATED | {"reward": 0.3 if step < 20 else NAN},
    "once": lambda step: GENERATED | {"reward": 0.3 if step == 7 else NAN},
    "no lengths": lambda step: {"reward": 0.1},
    "anything": random_gaps,
}


def logs(kind: str, step: int) -> dict:
    return {"loss": 0.5, "grad_norm": 0.1, "learning_rate": 1e-3} | KINDS[kind](step)


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return request.param


@pytest.fixture
def folder(kind, tmp_path) -> Path:
    """Forty steps of a run of this kind, evaluated twice."""
    writer = RunWriter(tmp_path / "run")
    writer.write_config(get_profile("mini", wandb_mode="disabled").to_dict())
    for step in (0, 40):
        for decoding in ("sampled", "greedy"):
            responses = [
                {
                    "step": step,
                    "problem_id": f"p{n}",
                    "sample": 0,
                    "prompt": "Question: ?\nAnswer:",
                    "response": r"\boxed{1}",
                    "ground_truth": "1",
                    "correct": True,
                    "n_tokens": 3,
                }
                for n in range(3)
            ]
            row = {"step": step, "split": "test", "shots": 0, "decoding": decoding, "boxed_rate": 1.0, "accuracy": 1.0}
            writer.log_evaluation(row, responses)
    for step in range(1, 41):
        writer.log_metrics({"step": step, "seconds": float(step)} | logs(kind, step))
    return writer.path


@pytest.fixture
def drawn(monkeypatch) -> list:
    """Collects what a live plot shows."""
    shown: list = []
    monkeypatch.setattr(
        "IPython.display.display", lambda data, **options: shown.append(data) or SimpleNamespace(update=shown.append)
    )
    return shown


def test_a_run_with_gaps_is_watched_and_drawn(kind, folder, drawn):
    lines: list[str] = []
    watch_run(folder, LiveReward(100), say=lines.append)
    assert lines[0].startswith("step 40/100  ") and len(lines) == 2, "the plot has not failed"
    assert "nan" not in lines[0] and ("reward 0." in lines[0]) == (kind not in ("rejection", "all None"))
    assert bool(drawn) == (kind not in ("rejection", "all None"))


def test_a_run_with_missing_metrics_resumes_after_every_restart(kind, folder, drawn):
    said: list[str] = []
    for start in (40, 45):
        recorder = Recorder(get_profile("mini"), RunWriter(folder), 2000, LiveReward(100), said.append)
        recorder.on_train_begin(None, SimpleNamespace(global_step=start), None)
        for step in range(start + 1, start + 6):
            state = SimpleNamespace(global_step=step, is_world_process_zero=True)
            recorder.on_log(None, state, SimpleNamespace(), logs(kind, step))
    assert not [line for line in said if "nan" in line.lower().split("no signal")[0] or "live plot failed" in line], said
    assert load_run(folder).metrics["step"].tolist() == list(range(1, 51))
    assert bool(drawn) == (kind not in ("rejection", "all None"))


def test_a_run_with_gaps_is_diagnosed_and_analysed(kind, folder):
    found = str(diagnose(folder))
    assert ("no response got a reward" in found) == (kind == "all None") and "nan" not in found
    run = load_run(folder)
    curve = analysis.training_curve([run])
    assert curve["mean"].notna().all() and curve.empty == (kind in ("rejection", "all None"))
    assert analysis.training_curve([run, run])["mean"].notna().all()
    before, after = analysis.endpoints(analysis.evaluation_responses([run]))
    assert len(before) == len(after) == 3
    rewards = run.metrics["reward"].notna().sum() if "reward" in run.metrics else 0
    if rewards >= 5:
        assert len(analysis.projection_table([run], fractions=[0.5])) == 3
    else:
        with pytest.raises(ValueError, match="a projection needs 5"):
            analysis.fit_projection(run, 0.5)


def test_recent_values_skip_steps_without_a_value():
    rows = [{"step": n, "reward": float(n)} if n % 16 == 1 else {"step": n, "reward": None} for n in range(1, 40)]
    assert recent(rows, "reward") == (1 + 17 + 33) / 3
    assert level([{"loss": 0.25}]) == "loss 0.250" and level([{"loss": 0.25, "reward": NAN}]) == "no reward, loss 0.250"


def test_a_failing_plot_is_reported_once_and_training_continues(folder):
    said: list[str] = []

    def live(rows):
        raise ZeroDivisionError("no axes")

    recorder = Recorder(get_profile("mini"), RunWriter(folder), 2000, live, said.append)
    recorder.on_train_begin(None, SimpleNamespace(global_step=40), None)
    for step in range(41, 61):
        recorder.record(SimpleNamespace(global_step=step), logs("off-policy", step))
    watch_run(folder, live, say=said.append)
    assert [line for line in said if "live plot" in line] == [
        "The live plot failed (ZeroDivisionError: no axes) and is disabled. The training continues."
    ] * 2
    assert len(load_run(folder).metrics) == 60


@pytest.mark.parametrize("kind", ["off-policy"])
def test_progress_of_a_single_reward_has_no_interval(kind, tmp_path):
    writer = RunWriter(tmp_path / "run")
    writer.write_config({"max_steps": 9})
    writer.log_metrics({"step": 1, "seconds": 1.0, "reward": 0.25, "completions/mean_length": 8.0})
    assert progress_line(load_run(writer.path)) == "step 1/9  reward 0.250  8.0 tokens  about 0:08 left without evaluations"


@pytest.mark.parametrize("settings", [{"updates_per_generation": 2}, {"method": "rejection"}, {}])
def test_a_training_whose_rewards_have_gaps_ends_is_drawn_and_is_started_again(settings, tmp_path, monkeypatch, drawn):
    """The real thing: no response of the first steps can be judged, one of a group later on; stopped, and gone on with."""

    def gappy(completions, trainer_state, **columns):
        late = trainer_state.global_step >= 3 or settings.get("method")
        return [float(sum(map(ord, text)) % 2) if late and n % 3 else None for n, text in enumerate(completions)]

    def die(self, args, state, control, **kwargs):
        if state.global_step == 4:
            raise RuntimeError("power cut")

    monkeypatch.setattr(sys.modules["__main__"], "gappy", gappy, raising=False)
    options = {
        "prompts_per_step": 2,
        "group_size": 4,
        "max_steps": 6,
        "eval_problems": 2,
        "eval_every": 6,
        "save_every": 2,
        "max_completion_length": 10,
        "train_subset": 4,
        "wandb_mode": "disabled",
        "reward": "__main__:gappy",
        "model": str(tiny_model(tmp_path / "tiny")),
        "quiet": True,
    } | settings
    with monkeypatch.context() as cut, pytest.raises(RuntimeError, match="power cut"):
        cut.setattr(Recorder, "on_step_begin", die, raising=False)
        train("mini", tmp_path / "run", live=LiveReward(6), **options)
    run = train("mini", tmp_path / "run", live=LiveReward(6), **options)
    assert run.metrics["step"].tolist() == [1, 2, 3, 4, 5, 6] and run.environment["finished"]
    assert watch_run(run.path, LiveReward(6), say=lambda text: None).environment["finished"]
    assert bool(drawn) == ("method" not in settings) and diagnose(run) is not None

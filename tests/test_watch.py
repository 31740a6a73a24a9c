"""Watching a run from its files: what is told, when it ends, and that a dead one is not taken for a living one."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlvr_utils.runs import RunWriter
from rlvr_utils.system.platforms import take
from rlvr_utils.training import is_going, watch_run
from rlvr_utils.widgets.curve_views import LiveReward

pytest.importorskip("fcntl", reason="without file locks nobody can tell whether a run is going")


def row(step: int) -> dict:
    return {"step": step, "reward": 0.5 + 0.1 * (-1) ** step, "seconds": 2.0 * step, "completions/mean_length": 20.0}


@pytest.fixture
def run(tmp_path: Path) -> RunWriter:
    """A run of 20 steps, 12 of them made."""
    writer = RunWriter(tmp_path / "run")
    writer.write_config({"profile": "mini", "max_steps": 20})
    for step in range(1, 13):
        writer.log_metrics(row(step))
    (writer.path / "checkpoints").mkdir()
    (writer.path / "checkpoints" / "lock").touch()
    return writer


def held(writer: RunWriter):
    """The lock as a training process holds it; closing the file lets it go."""
    file = (writer.path / "checkpoints" / "lock").open("ab")
    take(file)
    return file


def test_it_follows_a_run_to_its_end(run: RunWriter, monkeypatch) -> None:
    lock, lines, drawn = held(run), [], []
    later = iter(range(13, 21))

    def a_step_is_made(seconds: float) -> None:
        run.log_metrics(row(step := next(later)))
        if step == 20:
            run.write_environment({"finished": True})
            lock.close()

    monkeypatch.setattr("time.sleep", a_step_is_made)
    found = watch_run(run.path, drawn.append, say=lines.append)
    assert found.environment["finished"] and len(found.metrics) == 20
    assert lines[0] == "step 12/20  reward 0.500 [0.425, 0.575]  about 0:16 left without evaluations"
    assert lines[-1].startswith("step 20/20") and lines[-1].endswith("finished")
    assert len(lines) == 9 and [len(rows) for rows in drawn] == list(range(12, 21))


def test_a_run_whose_process_is_gone_is_left_saying_so(run: RunWriter) -> None:
    lines: list[str] = []
    found = watch_run(run.path, say=lines.append)
    assert not found.environment and "Start it again" in lines[-1]


def test_who_is_training_is_known_from_the_lock(run: RunWriter, tmp_path: Path) -> None:
    assert not is_going(run.path) and not is_going(tmp_path / "none")
    lock = held(run)
    assert is_going(run.path)
    lock.close()
    assert not is_going(run.path)


def test_a_run_that_never_appears_is_named(tmp_path: Path) -> None:
    with pytest.raises(TimeoutError, match="No run has appeared in .*none within"):
        watch_run(tmp_path / "none", poll=0.01, patience=0.02)


def test_a_run_without_a_step_says_so(tmp_path: Path) -> None:
    RunWriter(tmp_path / "run").write_config({"max_steps": 20})
    lines: list[str] = []
    watch_run(tmp_path / "run", say=lines.append)
    assert lines[0] == "run: no step yet, 0 evaluations so far"


def test_a_replay_draws_a_finished_run_from_its_beginning_to_its_end(monkeypatch) -> None:
    drawn, live = [], LiveReward(60)
    monkeypatch.setattr(live, "draw", lambda rows: drawn.append(rows[-1]["step"]) or "")
    live.replay([row(step) for step in range(1, 61)], seconds=0)
    assert drawn == [60]  # nobody watches a test
    drawn.clear()
    monkeypatch.setattr("rlvr_utils.widgets.curve_views.somebody_is_there", lambda: True)
    live.replay([row(step) for step in range(1, 61)], seconds=0)
    assert drawn[0] < 5 and drawn == sorted(drawn) and drawn[-1] == 60
    drawn.clear()
    live.replay([row(1)], seconds=0)
    live.replay([], seconds=0)
    assert set(drawn) == {1}


def test_the_live_picture_has_its_interval_from_the_tenth_step_on(monkeypatch) -> None:
    import matplotlib.axes

    bands = []
    monkeypatch.setattr(
        matplotlib.axes.Axes, "fill_between", lambda self, x, low, high, **_: bands.append((list(x), low[0], high[0]))
    )
    LiveReward(20).draw([row(step) for step in range(1, 10)])
    assert bands == []
    LiveReward(20).draw([row(step) for step in range(1, 13)])
    [(steps, low, high)] = bands
    assert steps == [5.5, 6.5, 7.5] and (round(low, 3), round(high, 3)) == (0.425, 0.575)

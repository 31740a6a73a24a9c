"""Watching takes no lock, two trainings never share a folder, and evaluations of one run wait for each other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from rlvr_utils.runs import RunWriter, load_run
from rlvr_utils.system import platforms
from rlvr_utils.training import evaluate_run, is_going, run
from rlvr_utils.training.recovery import RunInterrupted, only_one

fcntl = pytest.importorskip("fcntl", reason="there are no file locks here")

EVALUATE = """
import sys
from rlvr_utils.runs import RunWriter
writer = RunWriter(sys.argv[1], repair=False)
for step in range(int(sys.argv[2]), int(sys.argv[2]) + 20):
    writer.log_evaluation({"step": step, "split": "test", "shots": 0, "decoding": "sampled", "accuracy": 0.5},
                          [{"problem_id": "a", "sample": 0, "prompt": "p" * 1000, "response": "r"}])
"""


def row(step: int, **more: object) -> dict:
    return {"step": step, "split": "test", "shots": 0, "decoding": "sampled"} | more


@pytest.fixture(params=["linux", "elsewhere"])
def system(request, monkeypatch) -> str:
    """With and without locks that can be asked for."""
    if request.param == "elsewhere":
        monkeypatch.setattr(platforms, "OWN", None)
    return request.param


def test_many_watchers_do_not_keep_a_training_from_starting(system, tmp_path) -> None:
    over, seen = threading.Event(), []
    with only_one(tmp_path):
        pass

    def watch() -> None:
        while not over.is_set():
            seen.append(is_going(tmp_path))

    watchers = [threading.Thread(target=watch) for _ in range(4)]
    for watcher in watchers:
        watcher.start()
    try:
        for _ in range(100):
            with only_one(tmp_path):
                pass
    finally:
        over.set()
        for watcher in watchers:
            watcher.join()
    assert seen


@pytest.mark.skipif(platforms.OWN is None, reason="only Linux can ask for a lock without taking it")
def test_a_watcher_that_keeps_a_lock_does_not_stop_a_training(tmp_path) -> None:
    with only_one(tmp_path):
        pass
    with (tmp_path / "checkpoints" / "lock").open() as watcher:
        fcntl.flock(watcher, fcntl.LOCK_SH)
        with only_one(tmp_path):
            assert is_going(tmp_path)


def test_a_second_training_is_refused_and_a_killed_one_leaves_no_files(system, tmp_path) -> None:
    assert not is_going(tmp_path)
    with only_one(tmp_path):
        assert is_going(tmp_path)
        with pytest.raises(RunInterrupted, match="Another process is training in"), only_one(tmp_path):
            pass
    assert not is_going(tmp_path)
    if system == "linux":
        hold = (
            "import sys; from pathlib import Path; from rlvr_utils.system.platforms import take; "
            "f = Path(sys.argv[1]).open('ab'); take(f); print('held', flush=True); sys.stdin.read()"
        )
        other = subprocess.Popen(
            [sys.executable, "-c", hold, str(tmp_path / "checkpoints" / "lock")],
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert other.stdout.readline() == "held\n" and is_going(tmp_path)
        other.kill()
        other.wait()
        assert not is_going(tmp_path)


def test_a_forked_child_keeps_no_lock_of_a_training_that_ended(system, tmp_path) -> None:
    """As a reward leaves one behind, whose parent is then killed."""
    with (tmp_path / "lock").open("ab") as file:
        platforms.take(file)
        ready, say = os.pipe()
        if not (child := os.fork()):
            os.write(say, b"!")
            time.sleep(60)
            os._exit(0)
        os.read(ready, 1)
        assert platforms.is_held(tmp_path / "lock"), "the parent's lock is still there"
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, file.fileno())  # closes the lock's file, as the system does for a killed process
        assert not platforms.is_held(tmp_path / "lock")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    for one in (ready, say, nothing):
        os.close(one)


def test_evaluations_made_at_the_same_time_are_all_kept(tmp_path) -> None:
    RunWriter(tmp_path).write_config({"profile": "mini"})
    made = [subprocess.Popen([sys.executable, "-c", EVALUATE, str(tmp_path), str(first)]) for first in (0, 100, 200)]
    assert [process.wait() for process in made] == [0, 0, 0]
    found = load_run(tmp_path)
    assert len(found.evaluations) == 60 and len(found.rollouts) == 60


def test_a_row_whose_writer_read_the_file_too_early_is_kept(tmp_path, monkeypatch) -> None:
    """Rows are appended: nothing that was read before is written back."""
    first, second = RunWriter(tmp_path), RunWriter(tmp_path)
    monkeypatch.setattr("rlvr_utils.runs.disk._read_jsonl", lambda file: [])
    first.log_evaluation(row(1), [])
    second.log_evaluation(row(1, shots=4), [])
    monkeypatch.undo()
    assert sorted(load_run(tmp_path).evaluations.shots) == [0, 4]


def test_an_evaluation_that_is_made_again_counts_once_and_half_a_line_spoils_none(tmp_path) -> None:
    writer = RunWriter(tmp_path)
    writer.log_evaluation(row(1, accuracy=0.25), [])
    with writer.evaluations_file.open("a") as file:
        file.write('{"step": 7, "spl')  # the disk was full, or the process was killed
    RunWriter(tmp_path, repair=False).log_evaluation(row(1, accuracy=0.75), [])
    assert load_run(tmp_path).evaluations["accuracy"].tolist() == [0.75]


def test_an_evaluation_keeps_files_that_another_process_is_writing(tmp_path) -> None:
    RunWriter(tmp_path)
    (tmp_path / "config.yaml.part").touch()
    RunWriter(tmp_path, repair=False)
    assert (tmp_path / "config.yaml.part").exists()
    RunWriter(tmp_path)
    assert not (tmp_path / "config.yaml.part").exists()


def test_an_evaluation_bears_the_step_of_the_model_that_is_there(tmp_path, monkeypatch) -> None:
    """A run that was made longer and then killed still has the model of its first end."""
    RunWriter(tmp_path).write_config({"profile": "mini", "max_steps": 200, "wandb_mode": "disabled"})
    (tmp_path / "adapter").mkdir()
    monkeypatch.setattr(run, "load_trained", lambda found: (None, None))
    monkeypatch.setattr(run, "evaluate_split", lambda model, tokenizer, p, writer, part, *rest: part.step)
    assert evaluate_run(tmp_path) == 200, "of a version that did not write it down"
    (tmp_path / "adapter" / run.STEPS_FILE).write_text("100\n")
    assert evaluate_run(tmp_path) == 100


def test_a_run_that_is_training_is_not_evaluated(tmp_path) -> None:
    RunWriter(tmp_path).write_config({"profile": "mini"})
    with only_one(tmp_path), pytest.raises(ValueError, match="Wait until it ends, then evaluate the run"):
        evaluate_run(tmp_path)

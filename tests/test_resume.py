"""A run that is killed, or that the machine fails, loses nothing and says so in one sentence."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from resume import SETTINGS, differences, odd_rewards
from safetensors.torch import load_file, save_file

from rlvr_utils import training
from rlvr_utils.diagnosis import Finding, RunStopped
from rlvr_utils.runs import disk, load_run
from rlvr_utils.training import recovery, train
from rlvr_utils.training.recovery import MARK, checkpoint_step, checkpoints, is_whole, mark_complete, newest_checkpoint

HERE = Path(__file__).resolve().parent

SHORT = SETTINGS | {"max_steps": 4, "eval_every": 2}


pytestmark = pytest.mark.usefixtures("odd_reward")


@pytest.fixture(scope="module")
def uninterrupted(tiny, tmp_path_factory) -> Path:
    with odd_rewards():
        return train("mini", tmp_path_factory.mktemp("runs") / "whole", model=tiny, quiet=True, **SHORT).path


@pytest.fixture
def whole(uninterrupted, tmp_path) -> Path:
    """A copy of that run that a test may damage."""
    return Path(shutil.copytree(uninterrupted, tmp_path / "copy"))


def test_killed_at_random_moments_it_ends_with_the_same_bits():
    """Three times -9: before a change of a file, in the middle of a write, at any time. `make test-resume` does twenty."""
    done = subprocess.run(
        [sys.executable, str(HERE / "resume.py"), "--kills", "3", "--seed", "1"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("killed after step") == 3 and "the same, bit for bit" in done.stdout


# --- checkpoints ---


def test_the_mark_knows_every_file(whole):
    newest = checkpoints(whole)[0]
    assert checkpoint_step(newest) == 4 and is_whole(newest)
    names = {"adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"}
    assert names <= set(json.loads((newest / MARK).read_text()))


@pytest.mark.parametrize("name", ["rng_state.pth", "scheduler.pt", "adapter_model.safetensors", MARK])
def test_one_changed_byte_or_one_missing_file_is_enough(whole, name):
    newest = checkpoints(whole)[0]
    raw = bytearray((newest / name).read_bytes())
    raw[len(raw) // 2] ^= 1
    (newest / name).write_bytes(raw)
    assert not is_whole(newest)
    (newest / name).unlink()
    assert not is_whole(newest)
    said: list[str] = []
    assert checkpoint_step(newest_checkpoint(whole, said.append)) == 2
    assert "falling back to the one before" in said[0] and not newest.exists()


def test_a_mark_is_whole_or_absent(tmp_path, monkeypatch):
    checkpoint = tmp_path / "checkpoint-2"
    checkpoint.mkdir()
    (checkpoint / "optimizer.pt").write_bytes(b"numbers")

    def cut(*names):
        raise KeyboardInterrupt

    with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
        killed.setattr(os, "replace", cut)
        mark_complete(checkpoint)
    assert not is_whole(checkpoint)
    mark_complete(checkpoint)
    assert is_whole(checkpoint)


# --- the end of a run ---


def test_a_half_made_final_evaluation_is_finished(whole, uninterrupted, tiny):
    """Killed between the greedy evaluation of `test` and that of `ood`: `ood` must not be left out."""
    (whole / "environment.json").unlink()
    file = whole / "evaluations.jsonl"
    rows = file.read_text().splitlines(keepends=True)
    assert '"split":"ood"' in rows[-1] and '"decoding":"greedy"' in rows[-1]
    file.write_text("".join(rows[:-1]) + rows[-1][:30])
    shutil.rmtree(whole / "adapter")
    (whole / "adapter.part").mkdir()
    train("mini", whole, model=tiny, quiet=True, **SHORT)
    assert differences(uninterrupted, whole) == []


# --- failures in plain words ---


def test_a_full_disk_stops_in_one_sentence_and_the_run_goes_on_later(uninterrupted, tiny, tmp_path):
    """The system refuses any file larger than half of the optimizer's state, as a full disk would."""
    folder = tmp_path / "run"
    size = (checkpoints(uninterrupted)[0] / "optimizer.pt").stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, hard))
    try:
        with pytest.raises(OSError, match="full.*No checkpoint has been saved yet.*start the same call again"):
            train("mini", folder, model=tiny, quiet=True, **SHORT)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert load_run(folder).metrics["step"].tolist() == [1, 2]
    train("mini", folder, model=tiny, quiet=True, **SHORT)
    assert differences(uninterrupted, folder) == []


def test_no_room_for_the_metrics_names_what_is_kept(uninterrupted, tiny, tmp_path, monkeypatch):
    folder, append = tmp_path / "run", disk.append_to

    def full(file, data):
        if file.name == "metrics.jsonl" and b'"step":3' in data:
            append(file, data[:20])
            raise OSError(28, "No space left on device", str(file))
        append(file, data)

    with monkeypatch.context() as patch, pytest.raises(recovery.RunInterrupted, match="Everything up to step 2 is kept"):
        patch.setattr(disk, "append_to", full)
        train("mini", folder, model=tiny, quiet=True, **SHORT)
    train("mini", folder, model=tiny, quiet=True, **SHORT)
    assert differences(uninterrupted, folder) == []


def test_an_unreadable_folder_is_named(tmp_path, tiny, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OSError, match="file.* cannot be read or written .*another output_dir"):
        train("mini", tmp_path / "file", model=tiny, quiet=True, **SHORT)

    def refuse(self, *arguments, **options):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(OSError, match="Permission denied.*another output_dir"):
        train("mini", tmp_path / "run", model=tiny, quiet=True, **SHORT)


def test_a_damaged_config_is_named(whole, tiny):
    (whole / "config.yaml").write_text("profile: [mini")
    with pytest.raises(OSError, match="config.yaml is damaged.*Everything up to step 4 is kept"):
        train("mini", whole, model=tiny, quiet=True, **SHORT)


@pytest.mark.parametrize("what", ["torch", "safetensors", "python"])
def test_a_full_disk_is_known_by_what_really_happens_on_one(what, tmp_path):
    """Every writer of the training, on a disk that takes 1,000 bytes a file."""
    save = {
        "torch": lambda file: torch.save({"a": torch.zeros(10_000)}, file),
        "safetensors": lambda file: save_file({"a": torch.zeros(10_000)}, file),
        "python": lambda file: file.write_bytes(bytes(10_000)),
    }[what]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(recovery.RunInterrupted, match="is full, or the quota"), recovery.in_plain_words(tmp_path):
            save(tmp_path / "file")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Parent directory /data/no space left does not exist."),
        ValueError("file too large to be a problem"),
        FileNotFoundError(2, "No such file or directory", "/data/no space left (os error 28)/x"),
        KeyError("iostream error"),
        RuntimeError("the reward of problem 'unexpected pos' failed"),
    ],
)
def test_words_in_a_path_are_no_cause(error, tmp_path):
    assert recovery.explanation(error, tmp_path) is None


def test_a_full_disk_elsewhere_is_named(tmp_path):
    said = recovery.explanation(OSError(28, "No space left on device", "/cache/model"), tmp_path / "run")
    assert said.startswith("The disk under /cache/model is full")


def test_other_errors_speak_for_themselves(tmp_path):
    with pytest.raises(ZeroDivisionError), recovery.in_plain_words(tmp_path):
        print(1 / 0)


def test_two_calls_do_not_train_in_one_folder(tmp_path):
    with recovery.only_one(tmp_path):
        with pytest.raises(OSError, match="Another process is training"), recovery.only_one(tmp_path):
            raise AssertionError("the second call got in")
    with recovery.only_one(tmp_path):
        assert (tmp_path / "checkpoints").is_dir()


def test_a_model_that_cannot_be_had_leaves_the_folder_alone(tmp_path):
    with pytest.raises(ValueError, match="Could not load './no-such-model'"):
        train("mini", tmp_path / "run", model="./no-such-model", quiet=True, **SHORT)
    assert not (tmp_path / "run" / "config.yaml").exists(), "a typing error must not claim the folder"


def test_the_supervised_rival_resumes_to_the_same_bits(tiny, tmp_path, monkeypatch):
    """It goes over its own right answers several times, so it dies in a later pass."""

    def die(self, args, state, control, **kwargs):
        if state.global_step == 5:
            raise RuntimeError("power cut")

    settings = SHORT | {"method": "rejection", "max_steps": 6}
    straight = train("mini", tmp_path / "straight", model=tiny, quiet=True, **settings)
    with monkeypatch.context() as cut, pytest.raises(RuntimeError, match="power cut"):
        cut.setattr(training.recording.Recorder, "on_step_begin", die, raising=False)
        train("mini", tmp_path / "died", model=tiny, quiet=True, **settings)
    died = train("mini", tmp_path / "died", model=tiny, quiet=True, **settings)
    assert set(differences(straight.path, died.path)) <= {"metrics differ"}
    other = ["seconds", "num_tokens"]  # TRL's SFTTrainer counts its tokens from 0 again after a resume
    assert died.metrics["step"].tolist() == [1, 2, 3, 4, 5, 6]
    assert straight.metrics.drop(columns=other).equals(died.metrics.drop(columns=other))


# --- going on with other wishes ---


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "adapter" / "adapter_model.safetensors")


def same(one: Path, other: Path) -> bool:
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def interrupted(folder: Path, tiny: str, step: int, monkeypatch, **overrides) -> Path:
    """A run whose power is cut before the step after ``step``."""

    def die(self, args, state, control, **kwargs):
        if state.global_step == step:
            raise RuntimeError("power cut")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="power cut"):
        patch.setattr(training.recording.Recorder, "on_step_begin", die, raising=False)
        train("mini", folder, model=tiny, quiet=True, **SETTINGS | overrides)
    return folder


def test_a_finished_run_becomes_longer_only_where_that_is_said(whole, tiny, tmp_path):
    with pytest.raises(ValueError, match="ended after 4 steps, not 8. Set max_steps=4 .* extend=True .* to train 4 more"):
        train("mini", whole, model=tiny, quiet=True, **SHORT | {"max_steps": 8})
    assert load_run(whole).environment["finished"]
    longer = train("mini", whole, model=tiny, quiet=True, extend=True, **SHORT | {"max_steps": 8})
    at_once = train("mini", tmp_path / "at once", model=tiny, quiet=True, **SHORT | {"max_steps": 8})
    assert same(longer.path, at_once.path)
    assert longer.metrics["step"].tolist() == list(range(1, 9)) and longer.config["max_steps"] == 8
    assert longer.metrics["reward"].tolist() == at_once.metrics["reward"].tolist()


def test_a_run_may_end_at_its_newest_checkpoint(tiny, tmp_path, monkeypatch, capsys):
    folder = interrupted(tmp_path / "run", tiny, 7, monkeypatch)
    with pytest.raises(ValueError, match="holds a run with 6 completed steps. Set max_steps=6"):
        train("mini", folder, model=tiny, quiet=True, **SETTINGS | {"max_steps": 4})
    ended = train("mini", folder, model=tiny, **SETTINGS | {"max_steps": 6})
    assert "max_steps is now 6 (was 12)." in capsys.readouterr().out
    short = train("mini", tmp_path / "short", model=tiny, quiet=True, **SETTINGS | {"max_steps": 6})
    assert same(ended.path, short.path) and ended.environment["finished"]
    assert ended.evaluations["step"].max() == 6 and ended.metrics["step"].max() == 6


def test_memory_may_be_saved_on_a_run_that_has_begun(tiny, tmp_path, monkeypatch):
    folder = interrupted(tmp_path / "run", tiny, 3, monkeypatch, max_steps=4)
    with pytest.raises(ValueError, match="learning_rate"):
        train("mini", folder, model=tiny, quiet=True, **SETTINGS | {"max_steps": 4, "learning_rate": 1.0})
    saved = train("mini", folder, model=tiny, quiet=True, micro_batch=4, eval_batch=2, **SETTINGS | {"max_steps": 4})
    assert saved.environment["finished"] and saved.config["micro_batch"] == 4
    assert saved.metrics["step"].tolist() == [1, 2, 3, 4]


def test_without_its_checkpoints_a_finished_run_is_left_alone(whole, tiny):
    shutil.rmtree(whole / "checkpoints")
    with pytest.raises(ValueError, match="holds a run with 4 completed steps"):
        train("mini", whole, model=tiny, quiet=True, extend=True, **SHORT | {"max_steps": 8})
    assert load_run(whole).environment["finished"]


def test_a_run_that_a_rule_ends_keeps_its_model(tiny, tmp_path, monkeypatch):
    finding = Finding("ill", "stop", 3, "It is ill.", "Mend it.")
    monkeypatch.setattr(training.recording.Recorder, "ask_rules", lambda self: finding if len(self.rows) >= 3 else None)
    with pytest.raises(RunStopped, match="It is ill."):
        train("mini", tmp_path / "run", model=tiny, quiet=True, **SETTINGS | {"guard": "stop"})
    monkeypatch.undo()
    three = train("mini", tmp_path / "three", model=tiny, quiet=True, **SETTINGS | {"max_steps": 3})
    assert same(tmp_path / "run", three.path)


def test_what_cannot_be_built_fails_before_it_costs_an_evaluation(tiny, tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise RuntimeError("vLLM says no")

    monkeypatch.setattr(training.run, "build_trainer", refuse)
    with pytest.raises(RuntimeError, match="vLLM says no"):
        train("mini", tmp_path / "run", model=tiny, quiet=True, **SHORT)
    assert load_run(tmp_path / "run").evaluations.empty


def test_a_gpu_without_room_is_told_what_to_lower(tmp_path):
    sentence = recovery.explanation(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"), tmp_path)
    assert "Lower eval_batch" in sentence and "No checkpoint has been saved yet." in sentence

"""W&B gets what the disk gets, over restarts too; it may be lost, and no key is printed or saved."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from resume import CLOCKS, SETTINGS, odd_rewards

from rlvr_utils import training
from rlvr_utils.analysis import wandb_metrics
from rlvr_utils.analysis.frames import _records
from rlvr_utils.runs import load_run, tracking
from rlvr_utils.runs.tracking import TrackedWriter, Tracker
from rlvr_utils.training import train

SHORT = SETTINGS | {"max_steps": 4, "eval_every": 2, "wandb_mode": "offline"}
KEY = "0123456789abcdef" * 2 + "deadbeef"  # 40 characters, as W&B's keys have


@pytest.fixture(scope="module")
def tracked(tiny, tmp_path_factory) -> Path:
    """A run that really records offline, dies before step 4, and is started again; a key is in the environment."""
    folder = tmp_path_factory.mktemp("runs") / "tracked"
    log = folder.parent / "said.txt"

    def die(self, args, state, control, **kwargs):
        if state.global_step == 3:
            raise RuntimeError("power cut")

    with pytest.MonkeyPatch.context() as patch, log.open("w") as said, odd_rewards():
        patch.setenv("WANDB_API_KEY", KEY)
        patch.setenv("HF_TOKEN", "hf_" + KEY)
        patch.setattr(sys, "stdout", said)
        patch.setattr(sys, "stderr", said)
        with patch.context() as cut, pytest.raises(RuntimeError, match="power cut"):
            cut.setattr(training.recording.Recorder, "on_step_begin", die, raising=False)
            train("mini", folder, model=tiny, **SHORT)
        train("mini", folder, model=tiny, **SHORT)
    return folder


def records(folder: Path):
    """Every record of the offline files, in order of writing."""
    from wandb.proto import wandb_internal_pb2

    for file in sorted(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda file: file.parent.name):
        for data in _records(file.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            yield record


def test_one_id_over_restarts(tracked):
    run_id = (tracked / "wandb-run-id.txt").read_text().strip()
    folders = list(tracked.glob("wandb/offline-run-*"))
    assert len(folders) == 2 and all(folder.name.endswith(run_id) for folder in folders)
    assert {record.run.run_id for record in records(tracked) if record.HasField("run")} == {run_id}


def test_an_offline_run_reads_back_to_the_same_metrics(tracked):
    """Steps 3 and 4 were sent by the second process, step 3 by both: each step is there once, as on disk."""
    disk, read = load_run(tracked).metrics, wandb_metrics(tracked)
    assert read["step"].tolist() == [1, 2, 3, 4]
    columns = [name for name in disk.columns if name not in CLOCKS]
    assert set(columns) <= set(read.columns)
    for name in columns:
        assert read[name].tolist() == pytest.approx(disk[name].tolist(), nan_ok=True), name


def test_config_completions_and_final_evaluation_are_there(tracked):
    found = list(records(tracked))
    config = {item.key: json.loads(item.value_json) for r in found if r.HasField("run") for item in r.run.config.update}
    assert config["group_size"] == SHORT["group_size"] and config["learning_rate"] == 1e-3
    histories = [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in r.history.item}
        for r in found
        if r.HasField("history")
    ]
    tables = {h["_step"]: h["completions/path"] for h in histories if "completions/path" in h}
    assert sorted(tables) == [1, 2, 4]
    assert all(h["_step"] == h[tracking.STEP] for h in histories), "W&B's step is the training step"
    file = next(tracked.glob(f"wandb/offline-run-*/files/{tables[4]}"))
    rows = load_run(tracked).rollouts.query("split == 'train' and step == 4")
    table = json.loads(file.read_text())
    assert [row[table["columns"].index("response")] for row in table["data"]] == rows["response"].tolist()
    summary = {
        item.key or "/".join(item.nested_key): json.loads(item.value_json)
        for r in found
        if r.HasField("summary")
        for item in r.summary.update
    }
    final = load_run(tracked).evaluations.query("step == 4 and decoding == 'sampled' and split == 'test'").iloc[0]
    assert summary["final/test-sampled/accuracy"] == final["accuracy"]
    assert summary["final/test-sampled/mean_tokens"] == final["mean_tokens"]


def test_no_key_is_printed_or_saved(tracked):
    files = [path for path in tracked.rglob("*") if path.is_file()]
    assert any(path.name == "debug.log" or path.suffix == ".wandb" for path in files)
    assert [path.name for path in files if KEY.encode() in path.read_bytes()] == []
    said = (tracked.parent / "said.txt").read_text()
    assert KEY not in said and "wandb sync" in said


def test_tracking_changes_no_bit_of_the_training(tracked, tiny, tmp_path, odd_reward):
    plain = train("mini", tmp_path / "plain", model=tiny, quiet=True, **SHORT | {"wandb_mode": "disabled"})
    name = "adapter/adapter_model.safetensors"
    assert (plain.path / name).read_bytes() == (tracked / name).read_bytes()
    assert not (plain.path / "wandb").exists() and not (plain.path / "wandb-run-id.txt").exists()


def test_the_command_that_sends_a_run_can_be_copied_whatever_its_path(tmp_path):
    assert f"wandb sync '{tmp_path}/my run'/wandb/" in Tracker(folder=tmp_path / "my run")._sync_command()


class Lost:
    """A W&B run whose service has gone."""

    def log(self, values):
        raise BrokenPipeError(KEY)


def test_losing_wandb_is_said_once_and_the_run_goes_on(tmp_path):
    said: list[str] = []
    writer = TrackedWriter(tmp_path, Tracker(Lost(), tmp_path, said.append))
    for step in (1, 2, 3):
        writer.log_metrics({"step": step, "reward": 0.5})
    writer.tracker.close()
    assert load_run(tmp_path).metrics["step"].tolist() == [1, 2, 3]
    assert len(said) == 1 and "W&B was lost" in said[0] and "wandb sync" in said[0] and KEY not in said[0]


def test_an_empty_id_file_is_filled_again(tmp_path):
    (tmp_path / "wandb-run-id.txt").write_text("")
    first = tracking.run_id(tmp_path)
    assert len(first) == 8 and tracking.run_id(tmp_path) == first

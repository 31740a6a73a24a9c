"""One run in two processes (DDP over gloo, one thread each): the same order, the same gradient, one writer, a real gain."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from scipy.stats import ttest_ind

from rlvr_utils import training
from rlvr_utils.models import load_tokenizer
from rlvr_utils.problems import load_problems
from rlvr_utils.profiles import get_profile
from rlvr_utils.runs import SilentWriter, load_run
from rlvr_utils.training.build import accumulation_here, micro_batch_here
from rlvr_utils.training.processes import gather, join_processes, share

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from resume import differences  # noqa: E402
from two_processes import LEARNING, first_gradient, letters  # noqa: E402


@pytest.fixture(scope="module")
def both(tiny, tmp_path_factory) -> Path:
    """The folder in which two processes have trained, died and trained again."""
    folder = tmp_path_factory.mktemp("both")
    launcher = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--num_processes",
        "2",
        "--main_process_port",
        "0",
        "--config_file",
        str(HERE.parent / "configs" / "accelerate-ddp.yaml"),
    ]
    done = subprocess.run(
        [*launcher, str(HERE / "two_processes.py"), str(folder), tiny],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return folder


def test_two_processes_make_the_gradient_of_one(both, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(training.rewards, "boxed_reward", letters)
    alone, together = first_gradient(tmp_path, tiny), torch.load(both / "gradient.pt", weights_only=True)
    assert set(alone) == set(together) and any(name.endswith("lora_B.default.weight") for name in alone)
    largest = max(gradient.abs().max() for gradient in alone.values())
    assert largest > 1e-4
    for name, gradient in alone.items():
        assert torch.allclose(gradient, together[name], rtol=1e-4, atol=float(largest) * 1e-5), name


def test_the_problems_come_in_the_order_of_one_process(both, tiny):
    p = get_profile("mini", model=tiny, **LEARNING)
    order = training.training_dataset(p, load_tokenizer(p))["problem_id"]
    rows = load_run(both / "run").rollouts.query("split == 'train'")
    assert rows["problem_id"].tolist() == [name for name in order for _ in range(p.group_size)]
    assert rows["sample"].tolist() == list(range(p.group_size)) * len(order)


def test_each_process_samples_its_own_responses(both):
    rows = load_run(both / "run").rollouts.query("split == 'train' and step == 1")
    half = len(rows) // 2
    assert rows["response"].tolist()[:half] != rows["response"].tolist()[half:]


def test_only_the_first_process_writes(both):
    first, second = (json.loads((both / f"writes-{rank}.json").read_text()) for rank in (0, 1))
    assert "config.yaml.part" in first and "metrics.jsonl" in first and "COMPLETE.part" in first
    assert all(name.startswith("checkpoint-") for name in second), "it may make the folder for its random state"
    run = load_run(both / "run")
    assert run.metrics["step"].tolist() == list(range(1, 25))
    assert run.environment["processes"] == 2
    newest = training.recovery.checkpoints(both / "run")[0]
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= set(json.loads((newest / "COMPLETE").read_text()))


def test_evaluations_are_shared_and_put_together_in_order(both):
    rows = load_run(both / "run").responses(24)
    names = [row["id"] for row in load_problems("minimath", "test")[:3]]
    assert rows["problem_id"].tolist() == [name for name in names for _ in range(4)]
    assert rows["sample"].tolist() == [0, 1, 2, 3] * 3


def test_the_reward_rises_significantly(both):
    reward = load_run(both / "run").metrics["reward"]
    gain = ttest_ind(reward.iloc[-6:], reward.iloc[:6], equal_var=False, alternative="greater")
    assert gain.pvalue < 0.001, f"from {reward.iloc[:6].mean():.3f} to {reward.iloc[-6:].mean():.3f}"


def test_dying_and_starting_again_gives_the_same_bits(both):
    assert differences(both / "run", both / "died") == []


# --- without a launcher, or with the wrong one ---


def test_a_single_process_keeps_everything():
    assert share([1, 2, 3]) == gather([1, 2, 3]) == [1, 2, 3]


def test_every_row_is_shared_once(monkeypatch):
    parts = []
    for rank in range(4):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "4")
        parts.append(share(list(range(9))))
    assert sum(parts, []) == list(range(9)) and max(map(len, parts)) == 3


@pytest.mark.parametrize("world, micro, accumulation", [(1, 128, 1), (2, 64, 1), (8, 16, 1)])
def test_a_step_keeps_its_size(monkeypatch, world, micro, accumulation):
    monkeypatch.setenv("WORLD_SIZE", str(world))
    p = get_profile("mini")
    assert (micro_batch_here(p), accumulation_here(p)) == (micro, accumulation)
    assert micro * accumulation * world == p.batch_size


def test_a_batch_that_cannot_be_shared_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ValueError, match="3 processes with micro_batch=42 do not divide the 128 responses"):
        accumulation_here(get_profile("mini"))


@pytest.mark.parametrize("name, value", [("ACCELERATE_USE_FSDP", "true"), ("ACCELERATE_DEEPSPEED_ZERO_STAGE", "3")])
def test_divided_weights_are_refused(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="Launch with configs/accelerate-ddp.yaml"):
        join_processes()


@pytest.mark.parametrize("name", ["ddp", "zero2"])
def test_configurations_for_several_gpus_are_whole(name):
    """Checked statically: they have the keys of TRL's own files, and say that they were not run."""
    import trl

    text = (HERE.parent / "configs" / f"accelerate-{name}.yaml").read_text()
    ours = yaml.safe_load(text)
    theirs = Path(trl.__file__).parent / "accelerate_configs" / ("multi_gpu.yaml" if name == "ddp" else "zero2.yaml")
    assert "not run" in text.lower() and set(ours) <= set(yaml.safe_load(theirs.read_text()))
    assert ours["distributed_type"] == {"ddp": "MULTI_GPU", "zero2": "DEEPSPEED"}[name]


def test_other_processes_write_no_files(tmp_path):
    writer = SilentWriter(tmp_path / "run")
    writer.write_config({"seed": 0})
    writer.log_metrics({"step": 1})
    writer.log_evaluation({"step": 0}, [])
    writer.cut_back(0)
    assert not (tmp_path / "run").exists()

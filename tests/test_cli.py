"""The command line: arguments reach the right function, and errors print one line."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import rlvr_utils
from rlvr_utils import REPO, cli


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("max_steps=50", 50),
        ("learning_rate=3e-4", 3e-4),
        ("adapter=none", "none"),
        ("max_steps=None", None),
        ("max_steps=null", None),
        ("shared_prefix=True", True),
        ("reward=boxed", "boxed"),
        ("model=meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-8B"),
        ("note=a=b", "a=b"),
        ("code=__import__('os').getcwd()", "__import__('os').getcwd()"),
    ],
)
def test_a_setting_is_a_literal_or_a_word(text: str, value: object) -> None:
    assert cli.setting(text) == (text.split("=")[0], value)


@pytest.mark.parametrize("text", ["max_steps", "=5", "max steps=5", "--x=1"])
def test_an_invalid_setting_raises(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not KEY=VALUE"):
        cli.setting(text)


def stand_in(monkeypatch: pytest.MonkeyPatch, module: str, **functions: object) -> None:
    """Replace a slow module by light stand-ins."""
    monkeypatch.setitem(sys.modules, f"rlvr_utils.{module}", SimpleNamespace(**functions))
    monkeypatch.setattr(rlvr_utils, module, SimpleNamespace(**functions), raising=False)


def test_train_passes_profile_seed_folder_and_settings(monkeypatch, capsys) -> None:
    calls = []

    def train(profile, output_dir, **overrides):
        calls.append((profile, output_dir, overrides))
        return SimpleNamespace(path="runs/here")

    stand_in(monkeypatch, "training", train=train)
    where = ["--seed", "3", "--output-dir", "x"]
    assert cli.main(["train", *where, "--set", "max_steps=5", "--set", "reward=format"]) == 0
    assert calls == [("mini", "x", {"seed": 3, "max_steps": 5, "reward": "format"})]
    assert "runs/here" in capsys.readouterr().out
    assert cli.main(["train", "--extend", "--set", "max_steps=9"]) == 0
    assert calls[-1] == ("mini", None, {"extend": True, "max_steps": 9})


def test_the_command_line_overrides_the_config_file(monkeypatch, tmp_path) -> None:
    calls = []
    stand_in(
        monkeypatch,
        "training",
        train=lambda *given, **settings: calls.append((given[0], settings)) or SimpleNamespace(path="here"),
    )
    file = tmp_path / "my.yaml"
    file.write_text("profile: llama-8b\nseed: 1\nmax_steps: 7\nlearning_rate: 2e-5\n")
    assert cli.main(["train", "--config", str(file), "--set", "max_steps=9"]) == 0
    assert cli.main(["train", "--config", str(file), "--profile", "llama-8b", "--seed", "4"]) == 0
    assert cli.main(["train", "--config", str(file), "--profile", "small-gpu"]) == 1, "the profile must be unambiguous"
    assert calls == [
        ("llama-8b", {"seed": 1, "max_steps": 9, "learning_rate": "2e-5"}),
        ("llama-8b", {"seed": 4, "max_steps": 7, "learning_rate": "2e-5"}),
    ]


def test_an_unknown_evaluation_setting_lists_the_known_ones(capsys, tmp_path) -> None:
    assert cli.main(["evaluate", str(tmp_path), "--set", "splits=ood"]) == 1
    said = capsys.readouterr().err
    assert "no setting 'splits'" in said and "split, shots, decoding, n_samples, eval_batch" in said


def test_profile_prints_what_train_can_read_back(capsys, tmp_path) -> None:
    assert cli.main(["profile", "llama-8b", "--set", "max_steps=9"]) == 0
    printed = capsys.readouterr().out
    assert "max_steps: 9  # optimizer steps\n" in printed and printed.startswith("profile: llama-8b  # ")
    (tmp_path / "my.yaml").write_text(printed)
    assert cli.main(["profile", "--config", str(tmp_path / "my.yaml")]) == 0
    assert capsys.readouterr().out == printed
    assert cli.main(["profile", "--config", str(tmp_path / "none.yaml")]) == 1
    assert "There is no file" in capsys.readouterr().err


def test_evaluate_passes_the_run(monkeypatch) -> None:
    calls = []
    stand_in(monkeypatch, "training", evaluate_run=lambda path, **settings: calls.append((path, settings)))
    assert cli.main(["evaluate", "runs/a", "--set", "shots=4"]) == 0
    assert calls == [("runs/a", {"shots": 4})]


def test_course_passes_parameters(monkeypatch) -> None:
    calls = []
    monkeypatch.setattr(cli, "run_course", lambda profile, **rest: calls.append((profile, rest)))
    assert cli.main(["course", "--profile", "mini", "--set", "max_steps=5"]) == 0
    assert cli.main(["course", "--seed", "2", "--output-dir", "x"]) == 0
    assert calls == [("mini", {"parameters": {"max_steps": 5}}), ("mini", {"parameters": {"seed": 2}, "output_dir": "x"})]


def stand_in_for_the_doctor(monkeypatch: pytest.MonkeyPatch, ok: bool = True, trainable: bool = True) -> list[str]:
    """Replace the checks by fixed results. Return the list of further calls."""

    class Sampled(str):
        pass

    Sampled.trainable, asked = trainable, []
    stand_in(
        monkeypatch,
        "preflight",
        machine_table=lambda: [("GPU", "none")],
        checkup=lambda p, **_: [SimpleNamespace(ok=ok)],
        trainability=lambda p: asked.append("trainability") or Sampled("some are right"),
        time_steps=lambda p, dollars_per_hour: asked.append(f"timing at {dollars_per_hour}") or "three steps",
    )
    return asked


@pytest.mark.parametrize("ok", [True, False])
def test_doctor_lists_the_machine_and_reports_whether_it_is_ready(monkeypatch, capsys, ok: bool) -> None:
    asked = stand_in_for_the_doctor(monkeypatch, ok)
    assert cli.main(["doctor", "--trainability"]) == int(not ok)
    printed = capsys.readouterr().out
    assert printed.startswith("GPU ")
    assert ("Profile mini is ready." in printed) == ok and ("Nothing was sampled" in printed) == (not ok)
    assert asked == (["trainability"] if ok else []), "failed checks must prevent sampling"


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ([], []),
        (["--timing"], ["timing at None"]),
        (["--dollars-per-hour", "2.5"], ["timing at 2.5"]),
        (["--trainability", "--timing"], ["trainability", "timing at None"]),
    ],
)
def test_doctor_samples_and_times_on_request(monkeypatch, options: list[str], asked: list[str]) -> None:
    done = stand_in_for_the_doctor(monkeypatch)
    assert cli.main(["doctor", *options]) == 0
    assert done == asked


def test_doctor_fails_where_there_is_no_signal(monkeypatch, capsys) -> None:
    stand_in_for_the_doctor(monkeypatch, trainable=False)
    assert cli.main(["doctor", "--trainability"]) == 1
    assert "not ready" in capsys.readouterr().out


def test_doctor_rejects_an_unknown_profile_first(capsys) -> None:
    assert cli.main(["doctor", "--profile", "maxi"]) == 1
    assert "no profile 'maxi'" in capsys.readouterr().err


def test_an_error_prints_one_line_without_a_traceback(monkeypatch, capsys) -> None:
    def train(*_, **__):
        raise ValueError("max_steps is -1: give a positive number.")

    stand_in(monkeypatch, "training", train=train)
    assert cli.main(["train"]) == 1
    assert capsys.readouterr().err == "rlvr train: max_steps is -1: give a positive number.\n"


def test_an_interruption_prints_how_to_continue(monkeypatch, capsys) -> None:
    def train(*_, **__):
        raise KeyboardInterrupt

    stand_in(monkeypatch, "training", train=train)
    assert cli.main(["train"]) == 130
    assert "Run the same command again" in capsys.readouterr().err


SHADOWS = ("datasets", "psutil", "wandb", "yaml", "numpy", "torch", "cli", "profiles", "random", "json", "requests")


@pytest.fixture
def shadows(tmp_path: Path) -> Path:
    """Return a directory with modules named like libraries and a custom reward."""
    for name in SHADOWS:
        (tmp_path / f"{name}.py").write_text(f"raise ImportError('the {name}.py of the current directory')\n")
    reward = "def ones(prompts, completions, **columns):\n    return [1.0] * len(completions)\n"
    (tmp_path / "my_reward.py").write_text(reward)
    return tmp_path


@pytest.mark.parametrize(
    "start",
    [
        ["-m", "rlvr_utils"],
        ["-c", "from rlvr_utils.__main__ import main; main()"],
        ["-c", "from rlvr_utils.cli import main; main()"],
    ],
    ids=["-m", "rlvr", "cli"],
)
@pytest.mark.parametrize("on_the_path", [False, True])
def test_files_in_the_current_directory_do_not_shadow_libraries(shadows: Path, start: list[str], on_the_path: bool) -> None:
    if on_the_path and start[1].startswith("from rlvr_utils.cli"):
        pytest.skip("a direct import of the module uses its own path")
    path = os.pathsep.join([str(REPO)] + [str(shadows)] * on_the_path)
    options = ["-P"] * (start[0] == "-c")  # the installed command has no current directory on its path
    done = subprocess.run(
        [sys.executable, *options, *start, "profile", "mini", "--set", "max_steps=7"],
        cwd=shadows,
        env=os.environ | {"PYTHONPATH": path},
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0 and "max_steps: 7" in done.stdout, done.stderr[-500:]


def test_a_custom_reward_is_found_next_to_files_named_like_libraries(shadows: Path, monkeypatch) -> None:
    from rlvr_utils.profiles import get_profile
    from rlvr_utils.training.rewards import reward_function

    monkeypatch.chdir(shadows)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    assert callable(reward_function(get_profile("mini", reward="my_reward:ones")))
    assert sys.path[-1] == str(shadows) and "" not in sys.path

"""Every path is settled once, at the door: ``~``, relative paths and other working directories lead to one place."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlvr_utils import REPO
from rlvr_utils.diagnosis import diagnose
from rlvr_utils.profiles import get_profile, read_config
from rlvr_utils.runs import RunWriter, load_run
from rlvr_utils.system import paths
from rlvr_utils.system.paths import local_or_name, run_folder
from rlvr_utils.training import export_run, is_going, watch_run
from rlvr_utils.training.continuing import is_finished


@pytest.fixture
def course(tmp_path, monkeypatch) -> Path:
    """A repository with one run, and a home directory, both with a space in their names; we're elsewhere."""
    for folder in ("my course/notebooks", "my home", "elsewhere"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.setattr(paths, "REPO", tmp_path / "my course")
    monkeypatch.setenv("HOME", str(tmp_path / "my home"))
    monkeypatch.chdir(tmp_path / "elsewhere")
    RunWriter(tmp_path / "my course/runs/mini-seed0").write_config({"profile": "mini", "max_steps": 5})
    return tmp_path / "my course"


def test_a_relative_run_is_the_current_directorys_else_the_repositorys(course, monkeypatch) -> None:
    assert run_folder("runs/mini-seed0") == course / "runs/mini-seed0"
    assert run_folder("runs/new") == course.parent / "elsewhere/runs/new", "a new one, made from outside"
    monkeypatch.chdir(course / "notebooks")
    assert run_folder("runs/mini-seed0") == course / "runs/mini-seed0"
    assert run_folder("runs/new") == course / "runs/new", "no runs among the notebooks"
    (course / "notebooks/runs/mini-seed0").mkdir(parents=True)
    assert run_folder("runs/mini-seed0") == course / "notebooks/runs/mini-seed0"
    assert run_folder("../runs/mini-seed0") == course / "runs/mini-seed0"


@pytest.mark.parametrize("written", ["runs/mini-seed0", Path("runs/mini-seed0"), "~/linked"])
def test_every_reader_of_runs_finds_a_run_however_it_is_written(course, monkeypatch, written) -> None:
    (course.parent / "my home/linked").symlink_to(course / "runs/mini-seed0")
    monkeypatch.chdir(course / "notebooks")
    assert load_run(written).path == course / "runs/mini-seed0"
    assert "The run ends at step 0 of 5" in str(diagnose(written))
    assert watch_run(written, say=lambda text: None).config["max_steps"] == 5
    assert is_going(written) is False
    with pytest.raises(ValueError, match="has no trained model yet"):
        export_run(written, "~/model")


def test_watching_finds_a_folder_that_appears_in_the_repository_while_it_waits(course, monkeypatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: RunWriter(course / "runs/late").write_config({"max_steps": 7}))
    assert watch_run("runs/late", say=lambda text: None).config["max_steps"] == 7


def test_a_home_directory_is_expanded_in_every_setting_and_in_yaml(course) -> None:
    home = course.parent / "my home"
    (home / "my.yaml").write_text("model: ~/model\ndataset: ~/train.jsonl\neval_dataset: '~/test.parquet'\n")
    p = get_profile("mini", **read_config("~/my.yaml"))
    assert [p.model, p.dataset, p.eval_dataset] == [str(home / name) for name in ("model", "train.jsonl", "test.parquet")]
    assert run_folder("~/runs/a") == home / "runs/a"
    with pytest.raises(ValueError, match="there is no such home directory"):
        run_folder("~nobody-of-that-name/runs/a")


def test_a_file_of_the_current_directory_stays_the_same_file_from_another_one(course, monkeypatch) -> None:
    Path("train.jsonl").write_text('{"problem": "What is $1 + 1$?", "ground_truth": "2"}\n', encoding="utf-8")
    p = get_profile("mini", dataset="train.jsonl")
    assert p.dataset == str(course.parent / "elsewhere/train.jsonl")
    monkeypatch.chdir(course)
    assert get_profile("mini", **{k: v for k, v in p.to_dict().items() if k != "profile"}) == p


@pytest.mark.parametrize("name", ["minimath", "allenai/RLVR-MATH", "meta-llama/Llama-3.1-8B", "gpt2"])
def test_a_name_on_the_hub_stays_a_name_beside_folders_that_are_called_so(course, name) -> None:
    (course / name).mkdir(parents=True)
    assert get_profile("mini", dataset=name, eval_dataset=name).dataset == name


def test_what_lies_in_the_repository_is_written_from_its_root(course, monkeypatch) -> None:
    (course / "data/minillama").mkdir(parents=True)
    monkeypatch.chdir(course / "notebooks")
    for written in ("data/minillama", str(course / "data/minillama"), "../data/minillama", "./data/minillama"):
        assert local_or_name(written) == "data/minillama"


def test_a_run_of_an_earlier_version_with_relative_paths_resumes(course, tmp_path) -> None:
    Path("train.jsonl").write_text('{"problem": "What is $1 + 1$?", "ground_truth": "2"}\n', encoding="utf-8")
    p = get_profile("mini", dataset="train.jsonl")
    RunWriter(tmp_path / "run").write_config(p.to_dict() | {"dataset": "train.jsonl"})
    assert not is_finished(tmp_path / "run", p)
    with pytest.raises(ValueError, match="holds a run with dataset="):
        is_finished(tmp_path / "run", get_profile("mini"))


def test_the_repositorys_own_profiles_are_left_as_they_are() -> None:
    assert get_profile("mini", model="data/minillama") == get_profile("mini")
    assert get_profile("mini", model=str(REPO / "data" / "minillama")) == get_profile("mini")

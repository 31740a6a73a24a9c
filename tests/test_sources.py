"""A run goes on with the problems and the reward that it was begun with, and with no others."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys

import pytest

from rlvr_utils import training
from rlvr_utils.profiles import get_profile
from rlvr_utils.runs import RunWriter, tracking
from rlvr_utils.training.continuing import hashed_sources, refuse_other_sources, reopen, reward_hash


def problems(file, numbers) -> str:
    file.write_text("".join(json.dumps({"problem": f"What is {n} + 1?", "answer": str(n + 1)}) + "\n" for n in numbers))
    return str(file)


@pytest.fixture
def begun(tmp_path, monkeypatch):
    """(profile, folder) of a run that has begun on files and a reward of its own."""
    reward = "def plain(completions, **columns):\n    return [1.0 for _ in completions]\n"
    (tmp_path / "rewards_of_mine.py").write_text(reward)
    monkeypatch.delitem(sys.modules, "rewards_of_mine", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    p = get_profile(
        "mini",
        dataset=problems(tmp_path / "train.jsonl", range(20)),
        reward="rewards_of_mine:plain",
        eval_dataset=problems(tmp_path / "test.jsonl", range(18, 26)),
    )
    writer = RunWriter(tmp_path / "run")
    writer.write_config(p.to_dict())
    writer.write_sources(hashed_sources(p))
    return p, tmp_path / "run"


def test_the_problems_of_a_run_that_goes_on_are_hashed_once(begun, monkeypatch):
    p, folder = begun
    seen = []
    monkeypatch.setattr(training.run, "hashed_sources", lambda p: seen.append(p) or hashed_sources(p))
    monkeypatch.setattr(training.run, "load_base", lambda *_: pytest.fail("far enough"))
    with pytest.raises(pytest.fail.Exception, match="far enough"):
        training.train(p, folder, quiet=True)
    assert seen == [p]


def test_the_overlap_of_training_and_evaluation_problems_is_recorded(begun):
    assert json.loads((begun[1] / "sources.json").read_text())["overlap"] == {"test": 2}


@pytest.mark.parametrize(
    "name, what",
    [
        ("train.jsonl", r"training problems \(20 rows then, 5 rows now\)"),
        ("test.jsonl", r"evaluation problems \(test\) \(8 rows then, 5 rows now\)"),
        ("rewards_of_mine.py", "reward rewards_of_mine:plain"),
    ],
)
def test_a_run_does_not_go_on_with_an_edited_file(begun, name, what):
    p, folder = begun
    reopen(folder, p, hashed_sources(p), False, print)
    if name.endswith(".py"):
        (folder.parent / name).write_text((folder.parent / name).read_text() + "# edited\n")
    else:
        problems(folder.parent / name, range(30, 35))
    with pytest.raises(ValueError, match=f"{what}.*Restore the old file to resume that run, or set another output_dir"):
        reopen(folder, p, hashed_sources(p), False, print)


HELPER = "def bonus():\n    return 1.0\n"
REWARDS = {
    "partial": "import functools\n\n\ndef f(completions, bonus, **columns):\n    return [bonus] * len(completions)\n\n\n"
    "reward = functools.partial(f, bonus=1.0)\n",
    "decorated": "def twice(f):\n    return lambda completions, **columns: [2 * r for r in f(completions)]\n\n\n"
    "@twice\ndef reward(completions):\n    return [1.0 for _ in completions]\n",
    "helper": "import helper_of_mine\n\n\ndef reward(completions, **columns):\n"
    "    return [helper_of_mine.bonus() for _ in completions]\n",
}


@pytest.mark.parametrize("kind", REWARDS)
def test_an_edit_anywhere_in_a_reward_changes_its_hash(tmp_path, monkeypatch, kind):
    monkeypatch.syspath_prepend(str(tmp_path))

    def hashed(change: str) -> str:
        for name, text in (("reward_of_mine", REWARDS[kind]), ("helper_of_mine", HELPER)):
            (tmp_path / f"{name}.py").write_text(text.replace("1.0", change))
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        return reward_hash("reward_of_mine:reward")

    first, other = hashed("1.0"), hashed("7.25")
    assert first and other and first != other and hashed("1.0") == first


def test_a_notebooks_reward_counts_with_the_functions_that_it_calls(monkeypatch, tmp_path):
    def hashed(bonus: str) -> str | None:
        file = tmp_path / f"cell-{bonus}.py"
        file.write_text(
            f"def bonus():\n    return {bonus}\n\n\ndef mine(completions, **columns):\n"
            "    return [bonus() for _ in completions]\n"
        )
        main = sys.modules["__main__"]
        exec(compile(file.read_text(), str(file), "exec"), vars(main))
        for name in ("bonus", "mine"):
            monkeypatch.setitem(vars(main), name, getattr(main, name))
        return reward_hash("__main__:mine")

    first, other = hashed("1.0"), hashed("7.0")
    assert first and other and first != other


def test_a_run_of_an_earlier_version_has_no_record_and_goes_on(begun):
    p, folder = begun
    (folder / "sources.json").unlink()
    refuse_other_sources(folder, hashed_sources(p))


def test_the_commit_of_an_outer_repository_is_not_ours(tmp_path, monkeypatch):
    ours, inner = tmp_path / "ours", tmp_path / "ours" / "copied"
    inner.mkdir(parents=True)
    git = ["git", "-c", "user.name=n", "-c", "user.email=e", "-C", str(ours)]
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run([*git, *words], check=True)
    monkeypatch.setattr(tracking, "REPO", ours)
    assert len(tracking.git_commit()) == 12
    monkeypatch.setattr(tracking, "REPO", inner)
    assert tracking.git_commit() is None
    monkeypatch.setenv("GIT_DIR", str(ours / ".git"))
    assert tracking.git_commit() is None

"""Notebooks 04 and 05 over runs that others left: of another length, going, killed, of another method, on other data.

The runs are made from the included ones, and nothing is trained: whoever opens a notebook to look at a run does not want to
pay for more of it.
"""

from __future__ import annotations

import functools
import json
import shutil
import sys
from pathlib import Path

import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell

import rlvr_utils.preflight
import rlvr_utils.training
from rlvr_utils import REPO, analysis, experiment
from rlvr_utils.models import attach_lora, load_model, save_adapter
from rlvr_utils.preflight import Trainability
from rlvr_utils.problems import load_problems
from rlvr_utils.profiles import get_profile
from rlvr_utils.runs import RunWriter, load_run, reference_runs
from rlvr_utils.system.platforms import take
from rlvr_utils.training import settings_of
from rlvr_utils.training.continuing import hashed_sources, is_finished, reopen
from rlvr_utils.widgets.curve_views import LiveReward

PROBLEMS = 12  # of each evaluation: enough for every cell to have something to count


@pytest.fixture(scope="module")
def adapter(tmp_path_factory) -> Path:
    """A fresh adapter of profile mini."""
    p = get_profile("mini")
    return save_adapter(attach_lora(load_model(p), p), tmp_path_factory.mktemp("adapter") / "adapter", p.model)


def small(source: Path, folder: Path) -> Path:
    """A copy of an included run with the first problems of each evaluation."""
    shutil.copytree(source, folder)
    writer, run = RunWriter(folder), load_run(source)
    for row in run.evaluations.to_dict("records"):
        responses = run.responses(row["step"], row["split"], row["shots"], row["decoding"])
        kept = responses["problem_id"].drop_duplicates()[:PROBLEMS]
        row["n_problems"] = len(kept)
        writer.log_evaluation(row, responses[responses["problem_id"].isin(kept)].to_dict("records"))
    configure(folder, wandb_mode="disabled")
    return folder


def configure(folder: Path, **settings) -> None:
    RunWriter(folder).write_config(load_run(folder).config | settings)


def cut(folder: Path, step: int) -> None:
    """What is on disk when a run dies after ``step``."""
    (folder / "environment.json").unlink()
    shutil.rmtree(folder / "adapter")
    RunWriter(folder).cut_back(step)


def renumber(folder: Path, factor: float) -> None:
    """The same run, as if it had taken ``factor`` times as many steps."""
    run, writer = load_run(folder), RunWriter(folder)
    metrics = run.metrics.assign(step=(run.metrics["step"] * factor).round().astype(int)).drop_duplicates("step")
    parts = [
        (row, run.responses(row["step"], row["split"], row["shots"], row["decoding"]))
        for row in run.evaluations.to_dict("records")
    ]
    writer.cut_back(-1)
    for row in metrics[metrics["step"] > 0].to_dict("records"):
        writer.log_metrics(row)
    for row, responses in parts:
        writer.log_evaluation(row | {"step": round(row["step"] * factor)}, responses.to_dict("records"))
    configure(folder, max_steps=round(run.config["max_steps"] * factor))


def finished(folder: Path) -> None:
    """As it is."""


def longer(folder: Path) -> None:
    renumber(folder, 2)


def shortened(folder: Path) -> None:
    renumber(folder, 0.5)


def of_fewer_problems(folder: Path) -> None:
    configure(folder, eval_problems=200, eval_samples=2, seed=3)


def killed(folder: Path) -> None:
    cut(folder, 60)


def killed_before_a_step(folder: Path) -> None:
    cut(folder, 0)


def killed_before_an_evaluation(folder: Path) -> None:
    cut(folder, -1)


def evaluated_once_more(folder: Path) -> None:
    """`rlvr evaluate --set shots=4` adds a row of other shots at the last step."""
    run = load_run(folder)
    last = run.evaluations.query("split == 'test' and decoding == 'sampled'").iloc[-1].to_dict()
    responses = run.responses(last["step"]).to_dict("records")
    RunWriter(folder).log_evaluation(last | {"shots": 4, "accuracy": 0.0}, responses)


def with_gaps(folder: Path) -> None:
    """Rewards come with a generation only, and one of them is missing altogether."""
    rows = load_run(folder).metrics.to_dict("records")
    for row in rows:
        if row["step"] % 4 != 1:
            row.pop("reward")
        elif row["step"] == 5:
            row["reward"] = None
    (folder / "metrics.jsonl").unlink(missing_ok=True)
    (folder / "metrics.jsonl.gz").unlink(missing_ok=True)
    for row in rows:
        RunWriter(folder).log_metrics(row)


def foreign(folder: Path) -> None:
    """Own problems with nothing but `problem` and `ground_truth`, and a split of another name."""
    run, writer = load_run(folder), RunWriter(folder)
    rows = {row["id"]: row for row in load_problems("minimath", "test")}
    parts = [
        (row, run.responses(row["step"], row["split"], row["shots"], row["decoding"]))
        for row in run.evaluations.query("split == 'test'").to_dict("records")
    ]
    names = {name: f"mine-{i}" for i, name in enumerate(dict.fromkeys(parts[0][1]["problem_id"]))}
    file = folder.parent / "mine.jsonl"
    file.write_text(
        "".join(
            json.dumps({"problem": rows[name]["problem"], "ground_truth": rows[name]["ground_truth"]}) + "\n"
            for name in names
        )
    )
    writer.cut_back(-1)
    for row in run.metrics.to_dict("records"):
        writer.log_metrics(row)
    for row, responses in parts:
        writer.log_evaluation(
            row | {"split": "heldout"},
            responses.assign(problem_id=responses["problem_id"].map(names), split="heldout").to_dict("records"),
        )
    configure(folder, dataset=str(file), eval_dataset=str(file), eval_splits=["heldout"])


def staged(folder: Path) -> None:
    """The first half of the run becomes a supervised stage: steps -49 to 0, without rewards."""
    run, writer = load_run(folder), RunWriter(folder)
    metrics = run.metrics.assign(step=run.metrics["step"] - 50)
    metrics.loc[metrics["step"] <= 0, "reward"] = None
    parts = [
        (row, run.responses(row["step"], row["split"], row["shots"], row["decoding"]))
        for row in run.evaluations.to_dict("records")
    ]
    writer.cut_back(-1)
    for row in metrics.to_dict("records"):
        writer.log_metrics(row)
    for row, responses in parts:
        writer.log_evaluation(row | {"step": row["step"] - 50}, responses.to_dict("records"))
    configure(folder, sft_steps=50, max_steps=50)


KINDS = {
    "finished": ("mini-seed-0", finished),
    "longer": ("mini-seed-0", longer),
    "shortened": ("mini-seed-0", shortened),
    "of fewer problems": ("mini-seed-0", of_fewer_problems),
    "going": ("mini-seed-0", killed),
    "killed": ("mini-seed-0", killed),
    "killed before a step": ("mini-seed-0", killed_before_a_step),
    "killed before an evaluation": ("mini-seed-0", killed_before_an_evaluation),
    "evaluated once more": ("mini-seed-0", evaluated_once_more),
    "off-policy": ("mini-offpolicy-dapo-seed-0", with_gaps),
    "rejection": ("mini-rejection-seed-0", finished),
    "foreign": ("mini-seed-0", foreign),
}


@pytest.fixture(params=KINDS)
def left(request, adapter, tmp_path) -> tuple[str, Path]:
    """(kind, folder) of a run that somebody left."""
    source, change = KINDS[request.param]
    folder = small(REPO / "data" / "reference_runs" / source, tmp_path / "left" / "mini-seed0")
    shutil.copytree(adapter, folder / "adapter")
    change(folder)
    (folder / "checkpoints").mkdir(exist_ok=True)
    (folder / "checkpoints" / "lock").touch()
    return request.param, folder


def execute(name: str, **parameters) -> dict:
    """Run a notebook's cells but for the exercises; return its names."""
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance()
    for cell in nbformat.read(REPO / "notebooks" / f"{name}.ipynb", as_version=4).cells:
        tags = cell.metadata.get("tags", [])
        if cell.cell_type != "code" or "exercises." in cell.source or any(tag.startswith("exercise:") for tag in tags):
            continue
        result = shell.run_cell(cell.source, store_history=False)
        assert result.success, f"cell {cell.id}: {result.error_in_exec or result.error_before_exec!r}"
        if "parameters" in tags:
            shell.push(parameters)
    return shell.user_ns


@pytest.fixture(autouse=True)
def main_module_stays(monkeypatch):
    """IPython's shell puts a module of its own in the place of ``__main__``."""
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])


@pytest.fixture
def replayed() -> list[int]:
    """The last step of each replay of a live plot."""
    return []


@pytest.fixture
def nothing_is_trained(monkeypatch, replayed) -> list[dict]:
    """Stand-ins for what takes minutes; the settings that each training was called with."""
    asked = []

    def train(profile="mini", output_dir=None, *, live=None, quiet=False, extend=False, **settings):
        if quiet:  # the steps on problems of one's own
            return load_run(reference_runs()[0])
        asked.append(settings | {"profile": profile, "extend": extend})
        p = get_profile(profile, **settings)
        if not is_finished(Path(output_dir), p, extend):
            reopen(Path(output_dir), p, hashed_sources(p), extend, print)
        return load_run(output_dir)

    monkeypatch.setattr(rlvr_utils.training, "train", train)
    monkeypatch.setattr(LiveReward, "replay", lambda self, rows: replayed.append(rows[-1]["step"] if rows else None))
    monkeypatch.setattr(rlvr_utils.preflight, "checkup", lambda p, **_: [])
    monkeypatch.setattr(rlvr_utils.preflight, "longest_prompt", lambda p: 100)
    monkeypatch.setattr(rlvr_utils.preflight, "time_steps", lambda p, **_: "not timed")
    monkeypatch.setattr(rlvr_utils.preflight, "trainability", lambda p, **_: Trainability([0, 3, 8, 1], 8, 16))
    return asked


@pytest.mark.parametrize("finished", [True, False])
def test_a_folder_that_holds_a_run_has_that_runs_settings(tmp_path, finished: bool) -> None:
    """README's evening run, as notebook 04 meets it with its own parameters."""
    evening, folder, said = {"max_steps": 100, "eval_problems": 200, "eval_samples": 2}, tmp_path / "run", []

    def of(profile: str = "llama-8b", **options):
        return settings_of(folder, profile, say=said.append, **options)

    assert of(max_steps=7) == get_profile("llama-8b", max_steps=7) and said == []
    own = get_profile("llama-8b", **evening)
    RunWriter(folder).write_config(own.to_dict())
    RunWriter(folder).write_environment({"finished": finished})
    (folder / "checkpoints" / "checkpoint-100").mkdir(parents=True)
    assert of() == of(**evening) == own
    assert "run holds a run. Using its configuration: max_steps=100, eval_problems=200, eval_samples=2." in said
    assert of(micro_batch=4) == get_profile("llama-8b", micro_batch=4, **evening), "memory may change"
    for options, sentence in (
        ({"max_steps": 470}, "100 steps, not 470. Set max_steps=100 to keep .* to train 370 more"),
        ({"max_steps": 60}, "holds a run with 100 completed steps"),
        ({"learning_rate": 1.0}, "learning_rate=1e-05"),
        ({"profile": "mini"}, "profile='llama-8b', not 'mini'"),
    ):
        with pytest.raises(ValueError, match=sentence):
            of(**options)
    assert of(max_steps=470, extend=True) == get_profile("llama-8b", **evening | {"max_steps": 470})


def test_notebook_04_shows_a_run_with_its_own_settings_and_trains_no_more(
    left, nothing_is_trained, replayed, monkeypatch
) -> None:
    kind, folder = left
    before = load_run(folder)
    own, ended = before.profile, before.environment
    if kind == "going":
        pytest.importorskip("fcntl", reason="without file locks nobody can tell whether a run is going")
        lock = (folder / "checkpoints" / "lock").open("w")
        take(lock)
        monkeypatch.setattr("time.sleep", lambda seconds: lock.close())
    names = execute("04_training_run", output_dir=str(folder))
    assert names["settings"] == own and load_run(folder).profile == own
    assert load_run(folder).environment == ended
    assert [get_profile(**{k: v for k, v in call.items() if k != "extend"}) for call in nothing_is_trained] == (
        [] if kind == "going" else [own]
    )
    assert replayed == ([before.metrics["step"].max()] if ended.get("finished") and len(before.metrics) else [])


@pytest.fixture(scope="module")
def arms_once():
    """What notebook 05 says about the included runs is computed once, from one seed or two, whatever run it reads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "reference_runs", lambda *names: reference_runs(*names)[:1])
        patch.setattr(analysis.frames, "reference_runs", lambda *names: reference_runs(*names)[:2])
        patch.setattr(analysis.rates, "N_RESAMPLES", 50)
        for name in ("arm_change", "arms_made", "finished_runs", "learning_rate_grid", "arm_gap", "arm_gap_by_seed"):
            patch.setattr(experiment, name, functools.cache(getattr(experiment, name)))
        yield


@pytest.mark.parametrize("left", ["killed", "killed before a step", "off-policy", "rejection", "foreign"], indirect=True)
def test_notebook_05_reads_a_run_of_any_kind(left, arms_once) -> None:
    kind, folder = left
    names = execute("05_results_analysis", run=str(folder))
    read = [run.path for run in names["runs"]]
    assert (read == [folder]) == (kind != "killed before a step")


def test_notebook_05_tells_a_supervised_stage_from_the_rl_after_it(arms_once, tmp_path) -> None:
    folder = small(REPO / "data" / "reference_runs" / "mini-seed-0", tmp_path / "mini-seed0")
    staged(folder)
    names = execute("05_results_analysis", run=str(folder))
    assert list(names["gains"]) == ["whole run", "SFT", "RL"]
    base, start, end = (names["everything"].query("step == @step")["correct"].mean() for step in (-50, 0, 50))
    assert names["gains"]["whole run"].change.mean == pytest.approx(end - base)
    assert names["gains"]["RL"].before.mean == pytest.approx(start)
    assert names["chosen"].path == folder and names["last_step"] == 50

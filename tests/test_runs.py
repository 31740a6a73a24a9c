"""A run survives being killed, resumed and read while it goes; saved numbers follow from saved responses."""

from __future__ import annotations

import gzip
import json
import os

import numpy as np
import pytest

from rlvr_utils import runs
from rlvr_utils.experiment import MANY
from rlvr_utils.problems import ROLLOUT_COLUMNS
from rlvr_utils.profiles import get_profile
from rlvr_utils.runs import RunWriter, load_run
from rlvr_utils.verifier import verify


def response(step, problem, sample=0, correct=True, text=None, prompt=None):
    return {
        "step": step,
        "problem_id": f"p{problem}",
        "sample": sample,
        "prompt": prompt or f"Question: what is {problem} + 1?\nAnswer:",
        "response": text or f" ${problem} + 1 = {problem + 1}$ so $\\boxed{{{problem + 1}}}$",
        "ground_truth": str(problem + 1),
        "reward": float(correct),
        "correct": correct,
        "reason": "match" if correct else "differs",
        "n_tokens": 12,
    }


def evaluation(step, split="test", n_problems=6, n_samples=2):
    responses = [response(step, p, s, p % 2 == 0) for p in range(n_problems) for s in range(n_samples)]
    return {"step": step, "split": split, "shots": 0, "decoding": "sampled", "accuracy": 0.5}, responses


@pytest.fixture
def run_folder(tmp_path):
    """A small finished run: 4 steps, evaluations at 0 and 4."""
    writer = RunWriter(tmp_path / "mini-seed0")
    writer.write_config({"profile": "mini", "seed": 0, "learning_rate": 3e-7, "shots": 0, "output": tmp_path})
    writer.log_evaluation(*evaluation(0))
    for step in range(1, 5):
        writer.log_metrics({"step": step, "reward": np.float32(0.25 * step), "kl": float("nan")})
        writer.log_train_rollouts([response(step, problem) for problem in range(3)])
    writer.log_evaluation(*evaluation(4))
    writer.write_environment({"torch": "2.13.0", "seconds": 3.5})
    return writer.path


def test_a_finished_run_reads_back(run_folder):
    run = load_run(run_folder)
    assert run.config["learning_rate"] == 3e-7 and run.environment == {"torch": "2.13.0", "seconds": 3.5}
    assert run.metrics["step"].tolist() == [1, 2, 3, 4] and run.metrics["reward"].iloc[-1] == 1.0
    assert run.metrics["kl"].isna().all()
    assert run.evaluations["step"].tolist() == [0, 4]
    assert set(runs.EVALUATION_COLUMNS) <= set(run.evaluations) and set(ROLLOUT_COLUMNS) <= set(run.rollouts)
    assert run.rollouts.groupby("split").size().to_dict() == {"train": 12, "test": 24}


def test_prompts_are_stored_once_and_read_into_every_row(run_folder):
    file = run_folder / "rollouts" / "eval-4-test-0-sampled.jsonl.gz"
    stored = [json.loads(line)["prompt"] for line in gzip.open(file, "rt")]
    assert sum(prompt is not None for prompt in stored) == 6 and len(stored) == 12
    frame = load_run(run_folder).responses(4)
    assert (frame["prompt"] == [f"Question: what is {p} + 1?\nAnswer:" for p in range(6) for _ in range(2)]).all()


def test_training_prompts_may_be_stored_once_too(run_folder):
    writer = RunWriter(run_folder)
    writer.log_train_rollouts([response(5, 7, 0), response(5, 7, 1) | {"prompt": None}])
    frame = load_run(run_folder).rollouts.query("split == 'train' and step == 5")
    assert frame["prompt"].nunique() == 1 and frame["prompt"].notna().all()


def test_the_same_evaluation_gives_the_same_bytes(run_folder, tmp_path):
    again = RunWriter(tmp_path / "again")
    again.log_evaluation(*evaluation(4))
    name = "eval-4-test-0-sampled.jsonl.gz"
    assert (again.rollouts / name).read_bytes() == (run_folder / "rollouts" / name).read_bytes()


def test_an_evaluation_made_again_replaces_the_first(run_folder):
    row, responses = evaluation(4)
    RunWriter(run_folder).log_evaluation({**row, "accuracy": 0.75}, responses)
    assert load_run(run_folder).evaluations["accuracy"].tolist() == [0.5, 0.75]
    with pytest.raises(ValueError, match="Missing: shots, decoding"):
        RunWriter(run_folder).log_evaluation({"step": 4, "split": "test"}, responses)


def test_an_empty_folder_is_a_run_that_has_not_started(tmp_path):
    run = load_run(tmp_path)
    assert run.config == {} and run.environment == {}
    assert run.metrics.empty and run.evaluations.empty and run.rollouts.empty
    assert set(ROLLOUT_COLUMNS) <= set(run.rollouts)
    with pytest.raises(FileNotFoundError, match="no run in"):
        load_run(tmp_path / "nowhere")


@pytest.mark.parametrize("lost", [1, 7, 20])
def test_a_killed_run_loses_only_what_was_half_written(run_folder, lost):
    for name in ("metrics.jsonl", "rollouts/train.jsonl.gz"):
        file = run_folder / name
        file.write_bytes(file.read_bytes()[:-lost])
    run = load_run(run_folder)
    assert run.metrics["step"].tolist() == ([1, 2, 3, 4] if lost == 1 else [1, 2, 3])
    assert run.rollouts.query("split == 'train'")["step"].unique().tolist() == [1, 2, 3]


def test_writing_goes_on_after_a_crash_without_mixing_lines(run_folder):
    for name in ("metrics.jsonl", "rollouts/train.jsonl.gz"):
        file = run_folder / name
        file.write_bytes(file.read_bytes()[:-7])
    writer = RunWriter(run_folder)
    writer.log_metrics({"step": 4, "reward": 0.9})
    writer.log_train_rollouts([response(4, 0)])
    run = load_run(run_folder)
    assert run.metrics["reward"].tolist() == [0.25, 0.5, 0.75, 0.9]
    assert run.rollouts.query("split == 'train'")["step"].tolist() == [1] * 3 + [2] * 3 + [3] * 3 + [4]


def test_cut_back_forgets_what_comes_after_the_checkpoint(run_folder):
    RunWriter(run_folder).cut_back(2)
    run = load_run(run_folder)
    assert run.metrics["step"].tolist() == [1, 2]
    assert run.evaluations["step"].tolist() == [0]
    assert run.rollouts.groupby("split")["step"].max().to_dict() == {"train": 2, "test": 0}
    RunWriter(run_folder).cut_back(-1)
    assert load_run(run_folder).rollouts.empty


def test_text_of_any_kind_comes_back_verbatim(tmp_path):
    text = 'a line\u2028separator, a "quote", \\boxed{½},\r\n\t\x00 and 漢字'
    writer = RunWriter(tmp_path)
    writer.log_evaluation(
        {"step": 0, "split": "ood", "shots": 4, "decoding": "greedy"}, [response(0, 1, text=text, prompt=text)]
    )
    writer.log_train_rollouts([response(1, 1, text=text)])
    frame = load_run(tmp_path).rollouts
    assert (frame["response"] == text).all() and frame["prompt"].iloc[1] == text


def test_newest_run_of_a_profile(tmp_path):
    assert runs.newest_run("mini", tmp_path) is None
    for age, (name, profile) in enumerate([("a", "mini"), ("b", "mini"), ("c", "llama-8b")]):
        RunWriter(tmp_path / name).write_config({"profile": profile})
        os.utime(tmp_path / name / "config.yaml", (1000 + age, 1000 + age))
    assert runs.newest_run("mini", tmp_path) == tmp_path / "b"
    RunWriter(tmp_path / "a").log_metrics({"step": 1})
    assert runs.newest_run("mini", tmp_path) == tmp_path / "a"
    assert [path.name for path in runs.reference_runs("", tmp_path)] == ["a", "b", "c"]


@pytest.mark.parametrize(
    "damage",
    [
        b"profile: [mini",
        b"- mini\n- 7\n",
        b"mini",
        b"\xff\xfe\x00p",
        b"profile: !!python/name:os.system",
        "a folder",
        "no permission",
    ],
)
def test_a_broken_run_is_skipped_and_named_and_breaks_no_other(tmp_path, damage):
    RunWriter(tmp_path / "good").write_config({"profile": "mini"})
    file = tmp_path / "broken" / "config.yaml"
    file.parent.mkdir()
    if damage == "a folder":
        file.mkdir()
    else:
        file.write_bytes(b"profile: mini\n" if damage == "no permission" else damage)
    if damage == "no permission":
        file.chmod(0)
        if os.access(file, os.R_OK):
            pytest.skip("this user may read everything")
    with pytest.warns(UserWarning, match="skipping broken: .*config.yaml"):
        assert runs.newest_run("mini", tmp_path) == tmp_path / "good"


def test_summary_is_computed_from_the_responses():
    responses = [
        response(7, 0, 0, True),
        response(7, 0, 1, False, text=" the answer is 1"),
        response(7, 1, 0, False, text=" $\\boxed{5}$"),
        response(7, 1, 1, False, text=" $1 + 1 = 3$ so $\\boxed{3}$"),
    ]
    row = runs.summarise_evaluation(responses)
    assert row["step"] == 7 and row["n_problems"] == 2 and row["n_samples"] == 2
    assert row["accuracy"] == 0.25 and row["accuracy_low"] == 0.0 and row["accuracy_high"] == 0.5
    assert row["boxed_rate"] == 0.75 and row["accuracy_if_boxed"] == pytest.approx(1 / 3)
    assert row["worked_rate"] == 0.5 and row["mean_tokens"] == 12
    without_box = runs.summarise_evaluation([responses[1]])
    assert without_box["accuracy_if_boxed"] is None
    with pytest.raises(ValueError, match="no responses"):
        runs.summarise_evaluation([])


def test_five_runs_of_shipped_size_stay_small(tmp_path):
    """500 + 250 problems, 4 sampled and 1 greedy response each, at 4 evaluations: five seeds under 6 MB."""
    generator = np.random.default_rng(0)

    def worked(problem):
        a, b, c = generator.integers(2, 99, size=3)
        steps = f" First $ {a} \\cdot {b} = {a * b} $ then $ {a * b} + {c} = {a * b + c} $."
        return response(0, problem, text=f"{steps} The answer is $\\boxed{{{a * b + c}}}$.")

    writer = RunWriter(tmp_path)
    for split, size in (("test", 500), ("ood", 250)):
        for decoding, n_samples in (("sampled", 4), ("greedy", 1)):
            rows = [worked(problem) | {"sample": s} for problem in range(size) for s in range(n_samples)]
            writer.log_evaluation({"step": 0, "split": split, "shots": 0, "decoding": decoding}, rows)
    size = sum(file.stat().st_size for file in writer.rollouts.iterdir())
    assert 4 * 5 * size < 6_000_000


# --- the runs that come with the course ---

SHIPPED = runs.reference_runs("")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_numbers_follow_from_shipped_responses(path):
    run = load_run(path)
    assert len(run.evaluations) > 1 and len(run.metrics) == run.config["max_steps"]
    for _, saved in run.evaluations.iterrows():
        responses = run.responses(*saved[list(runs.EVALUATION_KEY)])
        recomputed = runs.summarise_evaluation(responses)
        for name in runs.EVALUATION_COLUMNS[len(runs.EVALUATION_KEY) :]:
            wanted = None if np.isnan(saved[name]) else pytest.approx(saved[name], abs=1e-9)  # no box: no rate among them
            assert recomputed[name] == wanted, name
        assert responses["prompt"].notna().all()


def test_todays_verifier_agrees_with_shipped_scores():
    judged, changed = {}, []  # runs share many responses, the base model's among them
    for path in [*SHIPPED, *runs.reference_runs("", MANY)]:
        frame = load_run(path).rollouts
        frame = frame[frame["split"] != "train"].drop_duplicates(["response", "ground_truth"])
        for response, truth, correct in zip(frame["response"], frame["ground_truth"], frame["correct"], strict=True):
            if (response, truth) not in judged:
                judged[response, truth] = verify(response, truth).correct
            if judged[response, truth] != bool(correct):
                changed.append(f"{path.name}: {response[-60:]!r} for {truth!r} was {bool(correct)}")
    assert changed == []


def test_shipped_runs_stay_within_their_share_of_a_clone():
    sizes = {path.name: sum(file.lstat().st_size for file in path.rglob("*") if file.is_file()) for path in SHIPPED}
    assert sum(sizes.values()) < 20_000_000
    assert sum(size for name, size in sizes.items() if name.startswith("mini-seed-")) < 6_000_000


# --- damage ---


@pytest.mark.parametrize("split", ["train[-100:]", "my-test", "a.b", "test[:10%]"])
def test_a_split_of_any_allowed_name_is_read_and_cut_back(tmp_path, split):
    get_profile("mini", eval_splits=[split])
    writer = RunWriter(tmp_path)
    writer.log_evaluation(*evaluation(0, split))
    writer.log_evaluation(*evaluation(4, split))
    writer.cut_back(0)
    assert load_run(tmp_path).rollouts["split"].unique().tolist() == [split] and len(load_run(tmp_path).responses(0, split))


@pytest.mark.parametrize("splits", [["a/b"], ["../up"], [""], ["test", "test"], ["a b"], ["[1]"]])
def test_a_split_that_no_file_can_be_called_is_refused_at_the_door(splits):
    with pytest.raises(ValueError, match="name each split once"):
        get_profile("mini", eval_splits=splits)


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: b"",
        lambda raw: raw[:-9],
        lambda raw: raw[:40] + b"xxxx" + raw[44:],
        lambda raw: b"no gzip at all",
        lambda raw: raw + b"more",
        lambda raw: b"../../mini-seed-0/rollouts/eval-0-test-0-sampled.jsonl.gz",
        lambda raw: gzip.compress(b'{"step": 1}\nhalf a li'),
    ],
)
def test_a_damaged_evaluation_is_an_error_that_names_the_file(run_folder, damage):
    file = run_folder / "rollouts" / "eval-4-test-0-sampled.jsonl.gz"
    file.write_bytes(damage(file.read_bytes()))
    for read in (lambda: load_run(run_folder).responses(4), lambda: load_run(run_folder).rollouts):
        with pytest.raises(ValueError, match=f"{file.name} is (damaged|a link that was unpacked as text)"):
            read()


@pytest.mark.parametrize("name", ["evaluations.jsonl", "metrics.jsonl", "environment.json", "sources.json"])
@pytest.mark.parametrize(
    "damage", [lambda raw: b"../mini-seed-0/evaluations.jsonl", lambda raw: b"\0" * 200, lambda raw: raw[:-3] + b"\nno row"]
)
def test_damage_to_any_file_of_a_run_is_an_error_that_names_it(run_folder, name, damage):
    (run_folder / name).write_bytes(damage((run_folder / name).read_bytes() if (run_folder / name).exists() else b"{}"))
    with pytest.raises(ValueError, match=f"{name} is (damaged|a link that was unpacked as text)"):
        getattr(load_run(run_folder), name.partition(".")[0])


def test_only_the_last_member_of_training_rollouts_may_be_unfinished(run_folder):
    file = run_folder / "rollouts" / "train.jsonl.gz"
    raw = file.read_bytes()
    file.write_bytes(raw + b"\0" * 50)  # as a machine that lost power leaves it
    assert load_run(run_folder).rollouts.query("split == 'train'")["step"].max() == 4
    file.write_bytes(raw[:60] + b"xxxx" + raw[64:])
    with pytest.raises(ValueError, match="train.jsonl.gz is damaged"):
        RunWriter(run_folder)


def test_a_damaged_line_amid_metrics_is_an_error_and_half_a_surrogate_pair_is_written(run_folder):
    writer = RunWriter(run_folder)
    writer.log_train_rollouts([response(5, 1, text="half \ud800")])
    assert load_run(run_folder).rollouts["response"].eq("half ?").sum() == 1
    lines = writer.metrics_file.read_text().splitlines()
    writer.metrics_file.write_text("\n".join([lines[0], lines[1][:9], *lines[2:]]) + "\n")
    with pytest.raises(ValueError, match="metrics.jsonl is damaged: line 2 is not a JSON object"):
        _ = load_run(run_folder).metrics

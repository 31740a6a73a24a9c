"""The included base model and reference runs match their documentation and are small."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from rlvr_utils import REPO
from rlvr_utils.experiment import ALL_ARMS, MANY, MANY_SAMPLES, arm_gap_by_seed, finished_runs
from rlvr_utils.problems import check_steps, load_problems
from rlvr_utils.profiles import get_profile
from rlvr_utils.runs import REFERENCE_RUNS, load_run, reference_runs
from rlvr_utils.stats import t_interval, wilson_interval

DATA = REPO / "data"
RUNS = reference_runs("mini-seed-")
PROBLEMS = {row["id"]: row for row in load_problems("minimath", "test")}


def size(folder) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())  # a link is not a second copy


@pytest.fixture(scope="module")
def abilities() -> dict:
    return json.loads((DATA / "minillama" / "abilities.json").read_text())


@pytest.fixture(scope="module", params=RUNS, ids=lambda path: path.name)
def run(request):
    return load_run(request.param)


def row_of(run, step: int, decoding: str = "sampled", split: str = "test"):
    table = run.evaluations
    return table[(table.step == step) & (table.decoding == decoding) & (table.split == split)].iloc[0]


# --- the base model -----------------------------------------------------------------------------------------------------


def test_the_base_is_able_but_unwilling(abilities):
    assert 0.08 <= abilities["accuracy"][0] <= 0.25
    assert 0.25 <= abilities["boxed_rate"][0] <= 0.60
    assert abilities["pass_at_k"]["16"] >= 0.75
    assert abilities["best_template"][0] <= 0.9
    assert abilities["right_if_worked"][1] > abilities["right_if_blurted"][2]


def test_boxed_few_shot_examples_raise_the_boxed_rate(abilities):
    assert abilities["shots"]["4"]["boxed_rate"][1] > abilities["shots"]["0"]["boxed_rate"][2]


def test_the_card_shows_the_measured_abilities(abilities):
    from base_abilities import card_table

    assert card_table(abilities) in (DATA / "minillama" / "README.md").read_text()


def test_weights_are_small_safetensors():
    assert size(DATA / "minillama") < 10 * 2**20
    assert [p.name for p in (DATA / "minillama").iterdir() if p.suffix in (".bin", ".pt", ".pkl")] == []


# --- the five runs ------------------------------------------------------------------------------------------------------


def test_five_seeds_are_included_and_small():
    assert [path.name for path in RUNS] == [f"mini-seed-{seed}" for seed in range(len(RUNS))] and len(RUNS) == 5
    assert sum(map(size, RUNS)) < 6 * 2**20


def test_runs_match_the_current_defaults(run):
    defaults = get_profile("mini", seed=run.config["seed"]).to_dict()
    # Fields added after these runs: machine and speed, and options that are off by default.
    newer = {"vllm_server", "cpu_threads", "sft_steps", "sft_learning_rate", "estimator", "dynamic_sampling"}
    assert defaults.keys() - run.config.keys() <= newer
    assert {k: v for k, v in run.config.items() if not k.startswith("wandb")} == {
        k: v for k, v in defaults.items() if not k.startswith("wandb") and k in run.config
    } | {k: run.config[k] for k in newer & run.config.keys()}  # an included run has a fixed number of threads
    assert run.environment["commit"] and not run.environment["commit"].endswith("+")
    assert run.environment["training_seconds"] < 8 * 60


def test_the_model_learned_to_reason_and_not_only_to_box(run):
    before, after = row_of(run, 0), row_of(run, run.config["max_steps"])
    assert after.n_problems == 500 and after.n_samples == 4
    assert after.accuracy >= 0.65 and after.accuracy - before.accuracy >= 0.45
    assert after.boxed_rate >= 0.98
    assert after.accuracy_if_boxed - before.accuracy_if_boxed >= 0.15
    assert row_of(run, run.config["max_steps"], "greedy").accuracy >= 0.75
    assert after.mean_tokens > before.mean_tokens


def test_responses_with_reasoning_have_fewer_false_steps(run):
    """Both rates change: true steps among responses with reasoning, and among all responses."""

    def checked(step: int) -> list[list[bool]]:
        frame = run.responses(step)
        return [check_steps(PROBLEMS[i], text) for i, text in zip(frame.problem_id, frame.response, strict=True)]

    def true_among_worked(responses: list[list[bool]]) -> tuple[float, float, float]:
        worked = [steps for steps in responses if steps]
        right = sum(map(all, worked))
        return right / len(worked), *wilson_interval(right, len(worked))

    def true_among_all(responses: list[list[bool]]) -> float:
        return sum(bool(steps) and all(steps) for steps in responses) / len(responses)

    first, last = checked(0), checked(run.config["max_steps"])
    before, after = true_among_worked(first), true_among_worked(last)
    assert after[0] - before[0] >= 0.20 and after[1] > before[2]
    assert true_among_all(last) - true_among_all(first) >= 0.20


def test_the_pages_state_what_the_included_runs_show():
    from readme_results import pages

    stale = [page.name for page, text in pages().items() if page.read_text(encoding="utf-8") != text]
    assert stale == [], "run tools/readme_results.py again"


# --- the other arms -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[name for arm in ALL_ARMS for name in arm.runs if (REFERENCE_RUNS / name).is_dir()])
def arm_run(request):
    return load_run(REFERENCE_RUNS / request.param)


def test_runs_match_the_configuration_of_their_arm(arm_run):
    arm = next(arm for arm in ALL_ARMS if arm_run.path.name in arm.runs)
    wanted = get_profile(arm.profile, **arm.runs[arm_run.path.name]).to_dict()
    aside = ("wandb", "guard", "cpu_threads")  # none of them affects the result
    assert {k: v for k, v in arm_run.config.items() if k in wanted and not k.startswith(aside)} == {
        k: v for k, v in wanted.items() if not k.startswith(aside) and k in arm_run.config
    }
    assert arm_run.environment["finished"] and not arm_run.environment["commit"].endswith("+")


def test_sharing_the_prefix_does_not_change_what_is_learned():
    """With three seeds per setting, paired by seed, the whole interval of the change is within three points."""
    change = arm_gap_by_seed("prompts computed anew for each response")
    assert len(finished_runs("mini-unshared-seed-")) == 3 and -0.03 < change.low < change.high < 0.03


def test_all_reference_runs_together_are_small():
    assert size(DATA / "reference_runs") < 20 * 2**20


def test_the_one_page_trainer_learns_like_trl():
    """With three seeds per trainer, mean rewards differ by less than the variation between seeds in every quarter."""
    rows = pd.read_json(DATA / "reference_runs" / "own_trainer.jsonl", lines=True)
    assert rows.groupby("trainer")["seed"].nunique().to_dict() == {"TRL": 3, "ours": 3}
    quarter = (rows["step"] - 1) * 4 // rows["step"].max()
    means = rows.groupby([quarter, "trainer", "seed"])["reward"].mean().unstack("seed")
    for part in range(4):
        ours, trl = (t_interval(means.loc[(part, trainer)]) for trainer in ("ours", "TRL"))
        assert ours.low <= trl.high and trl.low <= ours.high, part
        assert abs(ours.mean - trl.mean) < 0.03


LONG = [load_run(path) for path in reference_runs("mini-long-")]


@pytest.mark.parametrize("run", LONG, ids=lambda run: run.path.name)
def test_a_quarter_of_a_long_run_has_at_most_half_of_its_gain(run):
    """Otherwise projecting from there would be trivial."""
    reward, last = run.metrics.set_index("step")["reward"], run.config["max_steps"]
    start = row_of(run, 0).accuracy
    at_quarter, at_end = reward[last // 4 - 5 : last // 4 + 5].mean(), reward[-10:].mean()
    assert run.metrics["epoch"].iloc[-1] == 12
    assert at_quarter - start <= 0.5 * (at_end - start)


MANY_RUNS = reference_runs("mini-", MANY)


@pytest.mark.parametrize("path", MANY_RUNS, ids=lambda path: path.name)
def test_many_samples_come_from_the_model_of_their_run(path):
    many, run = load_run(path), load_run(REFERENCE_RUNS / path.name)
    first, last = many.evaluations.iloc[0], many.evaluations.iloc[-1]
    assert (first.step, last.step) == (0, run.config["max_steps"])
    assert first.n_samples == last.n_samples == MANY_SAMPLES and first.n_problems == last.n_problems == 500
    assert many.config["seed"] == run.config["seed"]
    four = row_of(run, last.step)
    assert abs(last.accuracy - four.accuracy) < 0.02, "32 samples per problem and the usual 4 must agree"
    assert last.accuracy == pytest.approx(many.responses(last.step)["correct"].mean())


def test_evaluations_before_training_are_links():
    """Arms have no second copy of the base model's responses, and no link leaves the included runs."""
    root = REFERENCE_RUNS.resolve()
    links = [path for path in root.rglob("*") if path.is_symlink()]
    assert links and all(path.resolve().is_relative_to(root) and path.resolve().is_file() for path in links)

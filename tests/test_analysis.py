"""The analysis on simulated runs with known accuracy: rates, intervals, verdicts, tables."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from rlvr_utils import analysis, experiment
from rlvr_utils.problems import load_problems
from rlvr_utils.profiles import get_profile
from rlvr_utils.runs import RunWriter, load_run, summarise_evaluation
from rlvr_utils.stats import Estimate

BASE = {"worked": 0.4, "boxed": 0.4, "right_if_worked": 0.8, "right_if_blurted": 0.1}
TRAINED = {"worked": 0.9, "boxed": 0.99, "right_if_worked": 0.9, "right_if_blurted": 0.1}


def a_response(row, habits, generator):
    """Return one response of a model with these ``habits``, and whether it is correct and boxed."""
    worked, boxed = generator.random() < habits["worked"], generator.random() < habits["boxed"]
    right = generator.random() < habits["right_if_worked" if worked else "right_if_blurted"]
    steps, _, _ = row["solution"].rpartition("The answer is")
    if worked and not right and generator.random() < 0.5:
        steps += "$2 + 2 = 5$. "
    answer = row["ground_truth"] if right else "12345"
    final = f"\\boxed{{{answer}}}" if boxed else answer
    text = f" {steps if worked else ''}The answer is ${final}$."
    return text, boxed and right


def responses_of(rows, habits, generator, n_samples):
    rollouts = []
    for row in rows:
        for sample in range(n_samples):
            text, correct = a_response(row, habits, generator)
            rollouts.append(
                {
                    "problem_id": row["id"],
                    "sample": sample,
                    "prompt": f"Question: {row['problem']}\nAnswer:",
                    "response": text,
                    "ground_truth": row["ground_truth"],
                    "reward": float(correct),
                    "correct": correct,
                    "reason": "",
                    "n_tokens": len(text) // 3,
                    "cut_off": False,
                }
            )
    return rollouts


def made_up_run(path, seed=0, before=BASE, after=TRAINED, n_problems=40, n_steps=60, evaluated=(0, 0.5, 1)):
    """Write a finished run of a model whose habits follow an S-shaped curve from ``before`` to ``after``."""
    generator = np.random.default_rng(seed)
    writer = RunWriter(path)
    writer.write_config(
        {
            "profile": "mini",
            "seed": seed,
            "eval_dataset": "minimath",
            "shots": 0,
            "max_steps": n_steps,
            "prompts_per_step": 16,
            "group_size": 8,
            "max_completion_length": 120,
        }
    )
    progress = lambda part: 1 / (1 + np.exp(-12 * (part - 0.4)))  # noqa: E731
    for step in range(1, n_steps + 1):
        p = 0.15 + 0.65 * progress(step / n_steps)
        writer.log_metrics({"step": step, "reward": generator.binomial(128, p) / 128})
    for part in evaluated:
        step, w = int(part * n_steps), {0: 0, 1: 1}.get(part, progress(part))
        habits = {name: (1 - w) * before[name] + w * after[name] for name in before}
        for split in ("test", "ood"):
            rows = load_problems("minimath", split)[:n_problems]
            for decoding, n_samples in (("sampled", 4), ("greedy", 1)):
                rollouts = responses_of(rows, habits, generator, n_samples)
                key = {"step": step, "split": split, "shots": 0, "decoding": decoding}
                writer.log_evaluation(key | summarise_evaluation(rollouts, n_resamples=50), rollouts)
    return load_run(path)


@pytest.fixture(scope="module")
def problems():
    return load_problems("minimath", "test")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    return [made_up_run(root / f"mini-seed-{seed}", seed) for seed in range(3)]


@pytest.fixture(scope="module")
def frame(runs, problems):
    return analysis.evaluation_responses(runs, problems=problems)


@pytest.fixture(scope="module")
def ends(frame):
    return analysis.endpoints(frame)


def test_accuracy_before_and_after_matches_counting(ends, runs):
    before, after = ends
    result = analysis.rate_change(before, after)
    assert result.before.mean == pytest.approx(before["correct"].mean())
    saved = [run.evaluations.query("step == 60 and split == 'test'") for run in runs]
    saved = pd.concat(saved).query("decoding == 'sampled'")["accuracy"]
    assert result.after.mean == pytest.approx(saved.mean())
    assert result.change.mean == pytest.approx(result.after.mean - result.before.mean)
    truth = 0.99 * (0.9 * 0.9 + 0.1 * 0.1) - 0.4 * (0.4 * 0.8 + 0.6 * 0.1)
    assert result.change.low < truth < result.change.high


def test_pairing_narrows_the_interval_of_the_change(ends):
    before, after = ends
    hard = before["problem_id"].isin(sorted(before["problem_id"].unique())[:20])
    level = np.where(hard.to_numpy(), 0.1, 0.8)
    result = analysis.rate_change(before.assign(value=level), after.assign(value=level + 0.1), "value")
    assert result.change.high - result.change.low < 0.01 < result.before.high - result.before.low


def test_rate_given_a_box_counts_only_boxed_responses(ends):
    after = ends[1]
    counted = after[after["boxed"]]["correct"].mean()
    assert analysis.rate(after, "correct", given="boxed").mean == pytest.approx(counted)
    nothing = analysis.rate(after.assign(never=False), "correct", given="never")
    assert np.isnan(nothing.mean) and analysis.percent(nothing) == "no value (nothing to count)"


def test_learning_curve_has_the_evaluations_that_all_runs_share(frame, runs):
    curve = analysis.learning_curve(frame)
    assert curve["step"].tolist() == [0, 30, 60] and (curve["low"] < curve["mean"]).all()
    assert (curve["mean"] < curve["high"]).all() and curve["mean"].is_monotonic_increasing
    lacking = frame[~((frame["run"] == runs[0].path.name) & (frame["step"] == 30))]
    assert analysis.learning_curve(lacking)["step"].tolist() == [0, 60]


def test_groups_add_up_to_the_overall_rate(ends):
    table = analysis.by_group(*ends, "subject")
    assert table["n_problems"].sum() == 40
    whole = sum(row["n_problems"] * row["after"].mean for _, row in table.iterrows()) / 40
    assert whole == pytest.approx(ends[1]["correct"].mean())


def test_an_interrupted_run_counts_up_to_its_last_evaluation(tmp_path):
    died = made_up_run(tmp_path / "died", evaluated=(0, 0.5))
    before, after = analysis.endpoints(analysis.evaluation_responses([died]))
    assert after["step"].unique() == [30]
    started = made_up_run(tmp_path / "started", evaluated=(0,))
    with pytest.raises(ValueError, match="evaluated twice yet"):
        analysis.endpoints(analysis.evaluation_responses([started]))
    empty = analysis.evaluation_responses([load_run(tmp_path)])
    with pytest.raises(ValueError, match="There is no evaluation yet"):
        analysis.endpoints(empty)


def test_pass_at_k_rises_with_k_and_votes_beat_single_samples(ends):
    before, after = ends
    curve = analysis.pass_at_k_curve(before)
    assert curve["k"].tolist() == [1, 2, 3, 4] and curve["mean"].is_monotonic_increasing
    assert curve["mean"].iloc[0] == pytest.approx(before["correct"].mean())
    assert curve["mean"].iloc[-1] == pytest.approx(before.groupby(["run", "problem_id"])["correct"].any().mean())
    assert analysis.majority_vote(after)["correct"].mean() >= after["correct"].mean()
    fewer = before[(before["run"] != "mini-seed-0") | (before["sample"] < 2)]
    assert analysis.pass_at_k_curve(fewer)["k"].tolist() == [1, 2]


def test_a_vote_counts_equal_answers_and_ignores_missing_boxes():
    said = ["$\\boxed{0.5}$", "$\\boxed{\\frac{1}{2}}$", "$\\boxed{3}$", "it is 3", "3, surely"]
    right = [True, True, False, False, False]
    samples = pd.DataFrame({"run": "r", "problem_id": "p", "response": said, "correct": right})
    assert analysis.majority_vote(samples)["correct"].tolist() == [True]
    assert analysis.majority_vote(samples.iloc[2:])["correct"].tolist() == [False]
    assert analysis.majority_vote(samples.iloc[3:])["correct"].tolist() == [False]


def test_every_wrong_response_has_one_category(ends, problems):
    before, after = (analysis.classified(end, problems) for end in ends)
    table = analysis.category_table(before, after)
    assert sum(row.mean for row in table["before"]) == pytest.approx(1)
    shares = table.set_index("category")["before"].map(lambda e: e.mean)
    assert shares["no_box"] > 0.4 and shares["direct_answer"] > 0.1 and shares["slipped_step"] > 0
    cogent = analysis.rate(after, "cogent", given="wrong")
    wrong = after[after["category"] != "correct"]
    assert cogent.mean == pytest.approx(wrong["category"].isin(analysis.COGENT).mean())
    assert analysis.rate(after, "sound").mean > analysis.rate(before, "sound").mean
    with pytest.raises(ValueError, match="not in the given rows"):
        analysis.classified(ends[0], problems[:5])


def test_rescoring_finds_wrong_saved_verdicts(frame):
    assert (analysis.rescored(frame) == frame["correct"]).all()
    spoilt = frame.assign(correct=~frame["correct"])
    assert (analysis.rescored(spoilt) != spoilt["correct"]).all()


def test_training_curve_smooths_over_steps_and_runs(runs):
    many, one = analysis.training_curve(runs), analysis.training_curve(runs[:1])
    assert many["step"].tolist() == one["step"].tolist() == [step - 4.5 for step in range(10, 61)], "the window's middle"
    last = np.mean([run.metrics["reward"].iloc[-10:].mean() for run in runs])
    assert many["mean"].iloc[-1] == pytest.approx(last)
    assert analysis.training_curve(runs, "no_such_metric").empty
    assert analysis.training_curve(runs, window=100)["step"].tolist() == [30.5]


def test_projections_are_compared_with_the_end_of_the_run(runs, tmp_path):
    table = analysis.projection_table(runs, fractions=(0.25, 0.9))
    assert len(table) == 3 * 2 * 3
    late = table[table["fraction"] == 0.9].groupby("kind")["error"].apply(lambda e: e.abs().mean())
    early = table[table["fraction"] == 0.25].groupby("kind")["error"].apply(lambda e: e.abs().mean())
    assert late["sigmoid"] < 0.05 < early["line"]
    assert ((table["low"] <= table["realised"]) & (table["realised"] <= table["high"])).equals(table["covered"])
    short = RunWriter(tmp_path)
    short.log_metrics({"step": 1, "reward": 0.5})
    with pytest.raises(ValueError, match="a projection needs 5"):
        analysis.fit_projection(load_run(short.path), 0.5)


# --- verdicts ---


def result(before, after, change):
    return analysis.RateChange(*(Estimate(*e) for e in (before, after, change)))


ROSE = result((0.15, 0.13, 0.17), (0.73, 0.7, 0.76), (0.58, 0.55, 0.61))
FELL = result((0.73, 0.7, 0.76), (0.15, 0.13, 0.17), (-0.58, -0.61, -0.55))
UNSURE = result((0.40, 0.35, 0.45), (0.42, 0.37, 0.47), (0.02, -0.02, 0.06))


def test_a_verdict_depends_on_the_whole_interval():
    verdicts = {
        (0.58, 0.55, 0.61): "higher",
        (-0.58, -0.61, -0.55): "lower",
        (0.02, -0.02, 0.06): "no significant change",
        (float("nan"),) * 3: "nothing to count",
    }
    assert {numbers: analysis.verdict(Estimate(*numbers)) for numbers in verdicts} == verdicts


def test_a_verdict_at_a_margin_needs_the_whole_interval_on_one_side_of_it():
    verdicts = {
        (0.01, -0.02, 0.04): "less than 8 points apart",
        (0.0, -0.1, 0.1): "inconclusive at 8 points",
        (-0.05, -0.07, -0.03): "lower, by less than 8 points",
        (-0.1, -0.15, -0.05): "lower, and 8 points are not ruled out",
        (-0.2, -0.3, -0.1): "lower, by more than 8 points",
        (0.2, 0.1, 0.3): "higher, by more than 8 points",
    }
    assert {numbers: analysis.verdict(Estimate(*numbers), 0.08) for numbers in verdicts} == verdicts


def test_points_show_on_which_side_of_zero_or_of_the_margin_a_bound_is():
    assert analysis.points(Estimate(0.47, 0.44, 0.5)) == "+47 (+44 to +50)"
    assert analysis.points(Estimate(0.012, 0.003, 0.03)) == "+1.2 (+0.3 to +3.0)"
    assert analysis.points(Estimate(0.0, -0.1, 0.0)) == "0 (-10 to 0)"
    rank = Estimate(-0.0328, -0.0798, 0.0142)
    assert analysis.points(rank, 1) == "-3.3 (-8.0 to +1.4)"
    assert analysis.points(rank, 1, margin=0.08) == "-3.28 (-7.98 to +1.42)"


def test_a_run_without_progress_has_no_significant_change(tmp_path, runs):
    same = made_up_run(tmp_path / "same", seed=5, after=BASE)
    ends = [analysis.endpoints(analysis.evaluation_responses([run])) for run in (runs[0], same)]
    verdicts = [analysis.verdict(analysis.rate_change(*pair).change) for pair in ends]
    assert verdicts == ["higher", "no significant change"]


def test_a_supervised_stage_is_separated_from_the_rl_stage(tmp_path):
    """Its steps are negative: the base is the first evaluation, and RL starts at step 0."""
    run = made_up_run(tmp_path / "staged", evaluated=(-0.5, 0, 0.5, 1))
    assert sorted(run.evaluations["step"].unique()) == [-30, 0, 30, 60]
    frame = analysis.evaluation_responses([run])
    before, after = analysis.endpoints(frame)
    assert (before["step"].unique(), after["step"].unique()) == ([-30], [60])
    steps = {name: [part["step"].unique().tolist() for part in pair] for name, pair in analysis.stages(frame).items()}
    assert steps == {"SFT": [[-30], [0]], "RL": [[0], [60]]}
    started = frame[frame["step"] <= 0]
    assert list(analysis.stages(started)) == ["SFT"], "the run ended before RL"
    assert list(analysis.stages(frame[frame["step"] >= 0])) == ["RL"]
    assert analysis.learning_curve(frame)["step"].tolist() == [-30, 0, 30, 60]
    first = run.evaluations.query("step == 0 and split == 'test' and decoding == 'sampled'")["accuracy"].item()
    assert analysis.fit_projection(run, 0.5, "line").curve[0, 0] == pytest.approx(first, abs=0.05), "from where RL starts"


def test_a_pool_of_base_samples_counts_copies_once(ends):
    before = ends[0]
    pool = analysis.pooled_base(before)
    assert len(pool) == len(before) and analysis.pass_at_k_curve(pool)["k"].max() == 12
    copy = before[before["run"] == "mini-seed-0"].assign(run="mini-seed-0-again")
    assert len(analysis.pooled_base(pd.concat([before, copy]))) == len(before)


def test_a_learners_own_run_takes_precedence_over_included_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(analysis.frames, "newest_run", lambda profile: newest)
    monkeypatch.setattr(analysis.frames, "reference_runs", lambda prefix: shipped)
    newest, shipped = None, []
    with pytest.raises(FileNotFoundError, match="notebook 04"):
        analysis.runs_to_analyse("mini")
    shipped = [made_up_run(tmp_path / f"mini-seed-{seed}", seed, n_problems=3).path for seed in range(2)]
    runs, reference = analysis.runs_to_analyse("mini")
    assert runs is reference and len(runs) == 2
    newest = made_up_run(tmp_path / "started", n_problems=3, evaluated=(0,)).path
    assert len(analysis.runs_to_analyse("mini")[0]) == 2
    newest = made_up_run(tmp_path / "finished", n_problems=3).path
    runs, reference = analysis.runs_to_analyse("mini")
    assert [run.path for run in runs] == [newest] and len(reference) == 2
    assert analysis.runs_to_analyse("mini", "started/../mini-seed-0")[0][0].path.name == "mini-seed-0"


def test_a_gap_between_arms_is_their_difference_at_the_end_or_halfway(tmp_path):
    runs = [made_up_run(tmp_path / f"mini-seed-{seed}", seed) for seed in range(3)]
    assert experiment.arm_gap("full fine-tuning", root=tmp_path) is None
    for seed in range(3):
        made_up_run(tmp_path / f"mini-full-seed-{seed}", seed + 10)
    same = experiment.arm_gap("full fine-tuning", root=tmp_path)
    assert same.low < 0 < same.high
    swapped = experiment.arm_gap("LoRA (the default)", "full fine-tuning", tmp_path)
    assert swapped.mean == pytest.approx(-same.mean)
    assert experiment.arm_gap_by_seed("full fine-tuning", root=tmp_path) is None  # no common seeds
    for seed in range(2):
        made_up_run(tmp_path / f"mini-unshared-seed-{seed}", seed)
    assert experiment.arm_gap_by_seed("prompts computed anew for each response", root=tmp_path) == (0, 0, 0)
    assert (
        experiment.arm_gap("prompts computed anew for each response", root=tmp_path).high > 0
    )  # seeds are resampled independently
    lora = analysis.endpoints(analysis.evaluation_responses(runs))[1]
    assert analysis.gap(lora, lora.assign(correct=False)).mean == pytest.approx(lora["correct"].mean())


def test_rates_of_0_and_100_percent_are_marked_as_observed():
    assert analysis.percent(Estimate(0.0, 0.0, 0.0)) == "0 % (none seen)"
    assert analysis.percent(Estimate(1.0, 1.0, 1.0)) == "100 % (no exception seen)"
    assert analysis.percent(Estimate(0.0, 0.0, 0.01)) == "0 % (0 to 1)"
    assert analysis.percent(Estimate(0.998, 0.996, 0.9996)) == "99.8 % (99.6 to 100)"


def test_markdown_tables_escape_bars_inside_cells():
    table = pd.DataFrame({"a": ["x | y"], "b": [1]})
    assert analysis.as_markdown(table) == "| a | b |\n| --- | --- |\n| x \\| y | 1 |"


def test_a_readable_table_has_text_for_estimates():
    table = pd.DataFrame({"subject": ["Algebra"], **{name: [e] for name, e in ROSE._asdict().items()}})
    assert analysis.as_text(table).iloc[0].tolist() == ["Algebra", "15 % (13 to 17)", "73 % (70 to 76)", "+58 (+55 to +61)"]


# --- W&B's offline files ---


@pytest.fixture(scope="module")
def offline_runs(tmp_path_factory):
    """A run of 400 steps recorded by W&B offline, killed at step 300 and resumed from step 250."""
    import wandb

    folder = tmp_path_factory.mktemp("tracked")
    settings = wandb.Settings(silent=True, console="off")
    for start, end, reward in ((1, 300, 0.25), (250, 400, 0.75)):
        tracked = wandb.init(project="p", id="abc123", resume="allow", mode="offline", dir=folder, settings=settings)
        for step in range(start, end + 1):
            tracked.log({"train/reward": reward, "train/completions/mean_length": 20.5, "train/global_step": step})
        tracked.finish()
    return folder


def test_offline_files_are_read_as_metrics(offline_runs):
    metrics = analysis.wandb_metrics(offline_runs)
    assert metrics["step"].tolist() == list(range(1, 401))
    assert (metrics["reward"] == [0.25] * 249 + [0.75] * 151).all()
    assert (metrics["completions/mean_length"] == 20.5).all() and "global_step" not in metrics


def test_a_truncated_offline_file_is_read_up_to_its_last_complete_record(offline_runs, tmp_path):
    file = max(offline_runs.rglob("run-*.wandb"), key=lambda file: file.stat().st_size)
    raw = file.read_bytes()
    assert len(raw) > 2 * 32 * 1024  # some records span blocks
    (tmp_path / "run-abc123.wandb").write_bytes(raw[: len(raw) * 2 // 3])
    steps = analysis.wandb_metrics(tmp_path)["step"]
    assert 100 < len(steps) < 300 and steps.is_monotonic_increasing
    assert analysis.wandb_metrics(tmp_path / "nowhere").empty


def test_every_arm_of_the_experiment_has_a_valid_configuration():
    names = [name for arm in experiment.ALL_ARMS for name in arm.runs]
    assert len(names) == len(set(names))
    for arm in experiment.ALL_ARMS:
        for name, overrides in arm.runs.items():
            settings = get_profile(arm.profile, **overrides)
            assert name.startswith(arm.prefix) and f"seed-{settings.seed}" in name
            if arm in experiment.ARMS and arm.tier in "AC":  # equal samples; the long runs differ in that on purpose
                assert settings.max_steps * settings.batch_size == 12_800, name


def test_arms_of_the_pretrained_model_share_their_supervised_stage():
    """``tools/reference_runs.py`` trains it once per seed, so an arm must not change what it depends on."""
    free = {"method", "reward", "learning_rate", "lr_schedule"}  # of the stage after it
    assert all(arm.overrides.keys() <= free for arm in experiment.SMOL_ARMS)


def test_no_arm_reads_the_runs_of_another():
    """Names of arms are keys, and runs are found by how their names start, so no prefix may begin another."""
    assert len(experiment.BY_NAME) == len(experiment.ALL_ARMS)
    prefixes = [arm.prefix for arm in experiment.ALL_ARMS]
    assert not [(a, b) for a in prefixes for b in prefixes if a != b and b.startswith(a)]


def test_samples_are_split_into_votes_of_eight():
    right, wrong = r"\boxed{1}", r"\boxed{2}"
    answers = [right] * 5 + [wrong] * 3 + [wrong] * 8 + [right] * 8 + [right] * 4  # the last four are too few for a vote
    frame = pd.DataFrame({"run": "a", "problem_id": "p", "response": answers, "correct": [a == right for a in answers]})
    assert analysis.majority_vote(frame, of=8)["correct"].tolist() == [True, False, True]
    assert analysis.majority_vote(frame)["correct"].tolist() == [True]


def test_the_grid_of_learning_rates_is_read_from_its_runs(tmp_path):
    assert experiment.learning_rate_grid(tmp_path).empty
    for name in ("mini-seed-0", "mini-full-seed-0", "mini-grid-none-0.0001-seed-0", "mini-grid-lora-0.0001-seed-0"):
        made_up_run(tmp_path / name)
    grid = experiment.learning_rate_grid(tmp_path)
    assert set(zip(grid["adapter"], grid["learning_rate"], strict=True)) == {
        ("lora", 1e-3),
        ("lora", 1e-4),
        ("none", 3e-4),
        ("none", 1e-4),
    }


def test_arms_with_runs_and_arms_without_are_separated(runs):
    made, missing = experiment.arms_made(runs[0].path.parent)
    assert made["arm"].tolist() == ["LoRA (the default)"] and made["seeds"].item() == 3 and "%" in made["after"].item()
    assert len(missing) == len(experiment.ARMS) - 1

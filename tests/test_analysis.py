"""The analysis says what the data say: made-up runs of known ability; other data, other sentences."""

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
    """One response of a model with these ``habits``, and whether it is boxed and right."""
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
    """A finished run of a model whose habits move along an S-shaped curve from ``before`` to ``after``."""
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


def test_rate_given_a_box_leaves_the_others_out(ends):
    after = ends[1]
    counted = after[after["boxed"]]["correct"].mean()
    assert analysis.rate(after, "correct", given="boxed").mean == pytest.approx(counted)
    nothing = analysis.rate(after.assign(never=False), "correct", given="never")
    assert np.isnan(nothing.mean) and analysis.percent(nothing) == "no value (nothing to count)"


def test_learning_curve_has_every_common_evaluation(frame, runs):
    curve = analysis.learning_curve(frame)
    assert curve["step"].tolist() == [0, 30, 60] and (curve["low"] < curve["mean"]).all()
    assert (curve["mean"] < curve["high"]).all() and curve["mean"].is_monotonic_increasing
    lacking = frame[~((frame["run"] == runs[0].path.name) & (frame["step"] == 30))]
    assert analysis.learning_curve(lacking)["step"].tolist() == [0, 60]


def test_groups_add_up(ends):
    table = analysis.by_group(*ends, "subject")
    assert table["n_problems"].sum() == 40
    whole = sum(row["n_problems"] * row["after"].mean for _, row in table.iterrows()) / 40
    assert whole == pytest.approx(ends[1]["correct"].mean())


def test_a_run_that_died_counts_as_far_as_it_got(tmp_path):
    died = made_up_run(tmp_path / "died", evaluated=(0, 0.5))
    before, after = analysis.endpoints(analysis.evaluation_responses([died]))
    assert after["step"].unique() == [30]
    started = made_up_run(tmp_path / "started", evaluated=(0,))
    with pytest.raises(ValueError, match="no after"):
        analysis.endpoints(analysis.evaluation_responses([started]))
    empty = analysis.evaluation_responses([load_run(tmp_path)])
    with pytest.raises(ValueError, match="no evaluation yet"):
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
    assert shares["no_box"] > 0.4 and shares["blurted"] > 0.1 and shares["slipped_step"] > 0
    cogent = analysis.rate(after, "cogent", given="wrong")
    wrong = after[after["category"] != "correct"]
    assert cogent.mean == pytest.approx(wrong["category"].isin(analysis.COGENT).mean())
    assert analysis.rate(after, "sound").mean > analysis.rate(before, "sound").mean
    reading = analysis.examples(after, "slipped_step")
    assert 1 <= len(reading) <= 3 and reading["response"].str.contains(r"2 \+ 2 = 5").all()
    with pytest.raises(ValueError, match="not in the given rows"):
        analysis.classified(ends[0], problems[:5])


def test_length_parts_add_up_and_find_the_cause(ends):
    change = analysis.length_change(*ends)
    assert change.from_working + change.within == pytest.approx(change.after - change.before)
    assert change.from_working > 5 * abs(change.within)


def test_rescoring_finds_a_wrong_score(frame):
    assert (analysis.rescored(frame) == frame["correct"]).all()
    spoilt = frame.assign(correct=~frame["correct"])
    assert (analysis.rescored(spoilt) != spoilt["correct"]).all()


def test_training_curve_smooths_over_steps_and_runs(runs):
    many, one = analysis.training_curve(runs), analysis.training_curve(runs[:1])
    assert many["step"].tolist() == one["step"].tolist() == list(range(10, 61))
    last = np.mean([run.metrics["reward"].iloc[-10:].mean() for run in runs])
    assert many["mean"].iloc[-1] == pytest.approx(last)
    assert analysis.training_curve(runs, "no_such_metric").empty
    assert analysis.training_curve(runs, window=100)["step"].tolist() == [60]


def test_projections_are_scored_against_what_came(runs, tmp_path):
    table = analysis.projection_table(runs, fractions=(0.25, 0.9))
    assert len(table) == 3 * 2 * 3
    late = table[table["fraction"] == 0.9].groupby("kind")["error"].apply(lambda e: e.abs().mean())
    early = table[table["fraction"] == 0.25].groupby("kind")["error"].apply(lambda e: e.abs().mean())
    assert late["sigmoid"] < 0.05 < early["line"]
    assert ((table["low"] <= table["realised"]) & (table["realised"] <= table["high"])).equals(table["covered"])
    missed = f"the line missed the reward at the end by {100 * early['line']:.0f} points"
    assert missed in analysis.projection_sentence(table, 0.25)
    assert "missed the reward at the end by 50 points" in analysis.projection_sentence(table.assign(error=0.5), 0.9)
    short = RunWriter(tmp_path)
    short.log_metrics({"step": 1, "reward": 0.5})
    with pytest.raises(ValueError, match="needs 5"):
        analysis.fit_projection(load_run(short.path), 0.5)


# --- sentences: other data, other sentence ---


def result(before, after, change):
    return analysis.RateChange(*(Estimate(*e) for e in (before, after, change)))


ROSE = result((0.15, 0.13, 0.17), (0.73, 0.7, 0.76), (0.58, 0.55, 0.61))
FELL = result((0.73, 0.7, 0.76), (0.15, 0.13, 0.17), (-0.58, -0.61, -0.55))
UNSURE = result((0.40, 0.35, 0.45), (0.42, 0.37, 0.47), (0.02, -0.02, 0.06))


def test_improved_sentence_follows_the_interval():
    assert analysis.improved_sentence("accuracy", ROSE, 500, 5) == (
        "Accuracy rose from 15 % (13 to 17) to 73 % (70 to 76): +58 (+55 to +61) points, "
        "paired over 500 problems and 5 seeds."
    )
    assert "fell" in analysis.improved_sentence("accuracy", FELL, 500, 5)
    unsure = analysis.improved_sentence("accuracy", UNSURE, 500, 1)
    assert "cannot be told" in unsure and "one run" in unsure


def test_a_run_that_learned_nothing_is_not_said_to_have_improved(tmp_path, runs):
    same = made_up_run(tmp_path / "same", seed=5, after=BASE)
    sentences = []
    for run in (runs[0], same):
        ends = analysis.endpoints(analysis.evaluation_responses([run]))
        sentences.append(analysis.improved_sentence("accuracy", analysis.rate_change(*ends), 40, 1))
    assert "rose" in sentences[0] and "cannot be told" in sentences[1]


def test_split_sentence_tells_format_from_substance():
    assert "more has changed than the box" in analysis.split_sentence(ROSE, ROSE)
    assert "nothing beyond the box" in analysis.split_sentence(ROSE, UNSURE)
    assert "neither" in analysis.split_sentence(UNSURE, UNSURE)


def curve(*means, half=0.02):
    rows = [(k, mean, mean - half, mean + half) for k, mean in enumerate(means, 1)]
    return pd.DataFrame(rows, columns=["k", "mean", "low", "high"])


def test_pass_at_k_sentence_tells_learning_from_sharpening():
    assert "by 40 % but stays at k = 3" in analysis.pass_at_k_sentence(curve(0.1, 0.3, 0.5), curve(0.6, 0.7, 0.8))
    assert "cannot tell the two apart" in analysis.pass_at_k_sentence(curve(0.1, 0.5, 0.8), curve(0.6, 0.7, 0.81))
    assert "base model reaches more" in analysis.pass_at_k_sentence(curve(0.1, 0.5, 0.95), curve(0.6, 0.7, 0.8))
    assert "does not shrink" in analysis.pass_at_k_sentence(curve(0.1, 0.2, 0.3), curve(0.2, 0.4, 0.7))
    assert "too few" in analysis.pass_at_k_sentence(curve(0.1, 0.5), curve(0.6))
    assert "did not get better" in analysis.pass_at_k_sentence(curve(0.6, 0.7), curve(0.5, 0.6))


def test_samples_needed_are_read_off_the_curve():
    assert "among 3 samples" in analysis.samples_needed_sentence(curve(0.1, 0.5, 0.8), curve(0.7))
    assert "Even 3 samples of the base model (80 %)" in analysis.samples_needed_sentence(curve(0.1, 0.5, 0.8), curve(0.9))


def test_a_pool_of_base_samples_counts_copies_once(ends):
    before = ends[0]
    pool = analysis.pooled_base(before)
    assert len(pool) == len(before) and analysis.pass_at_k_curve(pool)["k"].max() == 12
    copy = before[before["run"] == "mini-seed-0"].assign(run="mini-seed-0-again")
    assert len(analysis.pooled_base(pd.concat([before, copy]))) == len(before)


def test_length_cogent_and_spread_sentences_follow_the_data():
    grew, kept = analysis.categories.LengthChange(16, 24, 7, 1), analysis.categories.LengthChange(16, 16.1, 0, 0.1)
    assert "grew from 16.0 to 24.0 tokens (+8.0): +7.0 because more of them" in analysis.length_sentence(grew)
    assert "kept their length" in analysis.length_sentence(kept)
    assert "most of what is still wrong is cogent" in analysis.cogent_sentence(ROSE, FELL)
    assert "is not cogent" in analysis.cogent_sentence(FELL, FELL)
    assert "cannot be told" in analysis.cogent_sentence(result((0.5, 0.4, 0.6), (0.5, 0.4, 0.6), (0, -0.1, 0.1)), FELL)
    assert "every step be true finds 15 % (13 to 17)" in analysis.cogent_sentence(ROSE, FELL)
    reference = [0.70, 0.72, 0.74, 0.71, 0.73]
    assert "inside" in analysis.spread_sentence(0.72, reference)
    far = analysis.spread_sentence(0.3, reference)
    assert "below" in far and "one run in twenty" in far
    assert "above" in analysis.spread_sentence(0.9, reference)
    assert "too few" in analysis.spread_sentence(0.7, [0.7])


def test_prompting_is_read_from_the_card_and_compared_by_its_interval(tmp_path):
    card = tmp_path / "abilities.json"
    assert experiment.prompting_alone(4, card) is None
    card.write_text('{"shots": {"4": {"accuracy": [0.67, 0.62, 0.71]}}}')
    alone = experiment.prompting_alone(4, card)
    assert alone == (0.67, 0.62, 0.71) and experiment.prompting_alone(8, card) is None
    assert "further than the prompt, by about 11" in analysis.prompting_sentence(alone, 4, Estimate(0.78, 0.75, 0.8))
    assert "overlap" in analysis.prompting_sentence(alone, 4, Estimate(0.7, 0.66, 0.74))
    assert "alone gets further" in analysis.prompting_sentence(alone, 4, Estimate(0.3, 0.25, 0.35))


def test_claims_without_evidence_read_not_run():
    table = experiment.claims_table({"improved": "It rose."}).set_index("the claim")
    assert table["this miniature"].tolist() == ["It rose.", "not run", "not run", "not run"]
    with pytest.raises(ValueError, match="no such claim"):
        experiment.claims_table({"immortality": "soon"})


def test_own_run_first_reference_runs_otherwise(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(analysis.frames, "newest_run", lambda profile: newest)
    monkeypatch.setattr(analysis.frames, "reference_runs", lambda prefix: shipped)
    newest, shipped = None, []
    with pytest.raises(FileNotFoundError, match="notebook 04"):
        analysis.runs_to_analyse("mini")
    shipped = [made_up_run(tmp_path / f"mini-seed-{seed}", seed, n_problems=3).path for seed in range(2)]
    runs, reference, said = analysis.runs_to_analyse("mini")
    assert runs == reference and len(runs) == 2 and "no run of your own" in said
    newest = made_up_run(tmp_path / "started", n_problems=3, evaluated=(0,)).path
    assert "no second evaluation" in analysis.runs_to_analyse("mini")[2]
    newest = made_up_run(tmp_path / "finished", n_problems=3).path
    runs, reference, said = analysis.runs_to_analyse("mini")
    assert [run.path for run in runs] == [newest] and len(reference) == 2 and "finished" in said
    assert analysis.runs_to_analyse("mini", "started/../mini-seed-0")[0][0].path.name == "mini-seed-0"


def test_a_gap_between_arms_is_an_equivalence_claim_only_inside_the_margin(tmp_path):
    runs = [made_up_run(tmp_path / f"mini-seed-{seed}", seed) for seed in range(3)]
    assert experiment.arm_gap("full fine-tuning", root=tmp_path) is None and analysis.lora_sentence(None, 0.08) is None
    for seed in range(3):
        made_up_run(tmp_path / f"mini-full-seed-{seed}", seed + 10)
    same = experiment.arm_gap("full fine-tuning", root=tmp_path)
    assert same.low < 0 < same.high
    swapped = experiment.arm_gap("LoRA (the default)", "full fine-tuning", tmp_path)
    assert swapped.mean == pytest.approx(-same.mean)
    assert experiment.arm_gap_by_seed("full fine-tuning", root=tmp_path) is None  # these have other seeds
    for seed in range(2):
        made_up_run(tmp_path / f"mini-unshared-seed-{seed}", seed)
    assert experiment.arm_gap_by_seed("prompts computed anew for each response", root=tmp_path) == (0, 0, 0)
    assert experiment.arm_gap("prompts computed anew for each response", root=tmp_path).high > 0  # drawn apart
    lora = analysis.endpoints(analysis.evaluation_responses(runs))[1]
    assert analysis.gap(lora, lora.assign(correct=False)).mean == pytest.approx(lora["correct"].mean())
    assert "not the reason" in analysis.lora_sentence(Estimate(0.01, -0.02, 0.04), 0.08)
    assert "perhaps by 8 points or more" in analysis.lora_sentence(Estimate(0.1, 0.05, 0.15), 0.08)
    assert "reason enough" in analysis.lora_sentence(Estimate(0.12, 0.1, 0.14), 0.08)
    assert "does not trail by 8" in analysis.lora_sentence(Estimate(-0.03, -0.1, 0.04), 0.08)
    assert "does not trail" in analysis.lora_sentence(Estimate(-0.1, -0.15, -0.05), 0.08)
    assert "too wide" in analysis.lora_sentence(Estimate(0.02, -0.09, 0.13), 0.08)


def test_what_the_base_never_solved(ends):
    before, after = ends
    first = sorted(before["problem_id"].unique())[:3]
    never = before.assign(correct=before["correct"] & ~before["problem_id"].isin(first))
    n_unsolved, n_samples, rate = analysis.beyond_the_base(never, after)
    assert n_unsolved >= 3 and n_samples == 12 and 0 < rate.mean <= 1
    assert f"{n_unsolved} problems were never solved" in analysis.beyond_sentence(n_unsolved, n_samples, rate)
    assert analysis.beyond_the_base(before.assign(correct=True), after) == (0, 12, None)
    assert "nothing is left" in analysis.beyond_sentence(0, 12, None)


def test_what_was_never_seen_is_not_called_certain():
    assert analysis.percent(Estimate(0.0, 0.0, 0.0)) == "0 % (none seen)"
    assert analysis.percent(Estimate(1.0, 1.0, 1.0)) == "100 % (no exception seen)"
    assert analysis.percent(Estimate(0.0, 0.0, 0.01)) == "0 % (0 to 1)"
    assert analysis.percent(Estimate(0.998, 0.996, 0.9996)) == "99.8 % (99.6 to 100)"


def test_markdown_tables_keep_bars_inside_cells():
    table = pd.DataFrame({"a": ["x | y"], "b": [1]})
    assert analysis.as_markdown(table) == "| a | b |\n| --- | --- |\n| x \\| y | 1 |"


def test_a_readable_table_has_text_for_estimates():
    table = pd.DataFrame({"subject": ["Algebra"], **{name: [e] for name, e in ROSE._asdict().items()}})
    assert analysis.as_text(table).iloc[0].tolist() == ["Algebra", "15 % (13 to 17)", "73 % (70 to 76)", "+58 (+55 to +61)"]


# --- what W&B kept offline ---


@pytest.fixture(scope="module")
def offline_runs(tmp_path_factory):
    """A run of 400 steps recorded by W&B offline, killed at 300 and gone on with at 250."""
    import wandb

    folder = tmp_path_factory.mktemp("tracked")
    settings = wandb.Settings(silent=True, console="off")
    for start, end, reward in ((1, 300, 0.25), (250, 400, 0.75)):
        tracked = wandb.init(project="p", id="abc123", resume="allow", mode="offline", dir=folder, settings=settings)
        for step in range(start, end + 1):
            tracked.log({"train/reward": reward, "train/completions/mean_length": 20.5, "train/global_step": step})
        tracked.finish()
    return folder


def test_offline_tracking_reads_back_as_metrics(offline_runs):
    metrics = analysis.wandb_metrics(offline_runs)
    assert metrics["step"].tolist() == list(range(1, 401))
    assert (metrics["reward"] == [0.25] * 249 + [0.75] * 151).all()
    assert (metrics["completions/mean_length"] == 20.5).all() and "global_step" not in metrics


def test_a_half_written_tracking_file_is_read_as_far_as_it_goes(offline_runs, tmp_path):
    file = max(offline_runs.rglob("run-*.wandb"), key=lambda file: file.stat().st_size)
    raw = file.read_bytes()
    assert len(raw) > 2 * 32 * 1024  # records lie across blocks
    (tmp_path / "run-abc123.wandb").write_bytes(raw[: len(raw) * 2 // 3])
    steps = analysis.wandb_metrics(tmp_path)["step"]
    assert 100 < len(steps) < 300 and steps.is_monotonic_increasing
    assert analysis.wandb_metrics(tmp_path / "nowhere").empty


def test_every_arm_of_the_experiment_is_a_possible_run():
    arms = (*experiment.ARMS, *experiment.STALE_ARMS)
    names = [name for arm in arms for name in arm.runs]
    assert len(names) == len(set(names))
    for arm in arms:
        for name, overrides in arm.runs.items():
            settings = get_profile("mini", **overrides)
            assert name.startswith(arm.prefix) and f"seed-{settings.seed}" in name
            if arm.tier in "AC":  # equal samples; the long runs and the off-policy runs differ in that on purpose
                assert settings.max_steps * settings.batch_size == 12_800, name


def test_no_arm_reads_the_runs_of_another():
    """Names are found by how they start, so no prefix may begin another."""
    prefixes = [arm.prefix for arm in (*experiment.ARMS, *experiment.STALE_ARMS)]
    assert not [(a, b) for a in prefixes for b in prefixes if a != b and b.startswith(a)]


def test_a_control_is_told_by_its_own_runs():
    def went(low, mean, high):
        return analysis.RateChange(Estimate(0.12, 0.11, 0.13), Estimate(0.12 + mean, 0, 1), Estimate(mean, low, high))

    gain = Estimate(0.60, 0.58, 0.62)
    assert "cannot tell from none" in analysis.control_sentence("coin", went(-0.02, 0.01, 0.04), gain)
    assert "25% of what" in analysis.control_sentence("box", went(0.13, 0.15, 0.17), gain)
    assert "lost" in analysis.control_sentence("coin", went(-0.05, -0.04, -0.03), gain)
    assert analysis.control_sentence("box", None, gain) == "box: not run."


def test_votes_of_eight_are_taken_from_thirty_two_samples():
    right, wrong = r"\boxed{1}", r"\boxed{2}"
    answers = [right] * 5 + [wrong] * 3 + [wrong] * 8 + [right] * 8 + [right] * 4  # the last four are no full vote
    frame = pd.DataFrame({"run": "a", "problem_id": "p", "response": answers, "correct": [a == right for a in answers]})
    assert analysis.majority_vote(frame, of=8)["correct"].tolist() == [True, False, True]
    assert analysis.majority_vote(frame)["correct"].tolist() == [True]


def test_the_grid_of_learning_rates_is_read_from_its_runs(tmp_path):
    assert experiment.learning_rate_grid(tmp_path).empty
    assert "was not run" in analysis.grid_sentence(experiment.learning_rate_grid(tmp_path))
    for name in ("mini-seed-0", "mini-full-seed-0", "mini-grid-none-0.0001-seed-0", "mini-grid-lora-0.0001-seed-0"):
        made_up_run(tmp_path / name)
    grid = experiment.learning_rate_grid(tmp_path)
    assert set(zip(grid["adapter"], grid["learning_rate"], strict=True)) == {
        ("lora", 1e-3),
        ("lora", 1e-4),
        ("none", 3e-4),
        ("none", 1e-4),
    }


def test_the_grid_sentence_follows_the_best_points():
    def grid(best_full):
        rows = [("lora", 1e-3, 0.8), ("lora", 1e-4, 0.3), ("none", 1e-4, 0.7), ("none", 3e-4, best_full)]
        return pd.DataFrame(
            [(a, r, Estimate(m, m - 0.02, m + 0.02)) for a, r, m in rows], columns=["adapter", "learning_rate", "accuracy"]
        )

    assert "full fine-tuning does best at 0.0003 (75 % (73 to 77)). Both" in analysis.grid_sentence(grid(0.75))
    assert "at 0.0003 (72 % (70 to 74)), which one seed cannot tell from 0.0001" in analysis.grid_sentence(grid(0.72))
    assert "full fine-tuning does best at 0.0001 (70 % (68 to 72))" in analysis.grid_sentence(grid(0.5))


def test_the_verdict_tells_learned_from_sharpened(ends):
    assert "Nothing here shows" in analysis.learned_or_sharpened(0.98, 32, Estimate(0.02, 0.0, 0.06))
    both = analysis.learned_or_sharpened(0.5, 32, Estimate(0.4, 0.3, 0.5))
    assert "50% of the gain" in both and "in 32 samples" in both and "40 % (30 to 50)" in both
    assert "did not get better" in analysis.learned_or_sharpened(float("nan"), 32, None)
    before, after = ends
    first = sorted(before["problem_id"].unique())[:10]
    base = before.assign(correct=~before["problem_id"].isin(first) & (before["sample"] == 0))  # one of four, but for ten
    better = after.assign(correct=True)
    gains = 10 * 1.0, 30 * 0.75
    assert analysis.gain_on_solved(base, better) == pytest.approx(gains[1] / sum(gains))
    assert np.isnan(analysis.gain_on_solved(better, base))


def test_the_usual_mistake_is_told_by_its_cost():
    bad = result((0.1,) * 3, (0.3, 0.28, 0.32), (0.2,) * 3)
    costly = analysis.mistake_sentence(bad, Estimate(-0.5, -0.6, -0.4))
    assert "-50 (-60 to -40) points" in costly and "a setting" in costly
    assert "do not show" in analysis.mistake_sentence(bad, Estimate(-0.01, -0.03, 0.01))
    assert analysis.mistake_sentence(None, None).endswith("not run.")


def test_choices_are_told_by_side_and_size():
    told = {
        (0.01, -0.02, 0.04): "no difference told, 8 points ruled out",
        (0.0, -0.1, 0.1): "no difference told, 8 points not ruled out",
        (-0.05, -0.07, -0.03): "lower, by less than 8 points",
        (-0.1, -0.15, -0.05): "lower, perhaps by more than 8 points",
        (-0.2, -0.3, -0.1): "lower, by more than 8 points",
        (0.2, 0.1, 0.3): "higher, by more than 8 points",
    }
    for numbers, verdict in told.items():
        assert f": {verdict}" in analysis.choices_sentence({"a": Estimate(*numbers)}, 0.08)
    both = analysis.choices_sentence({name: Estimate(0.01, -0.02, 0.04) for name in "ab"}, 0.08, "c")
    assert both == "Beside c: no difference told, 8 points ruled out (a · b)."
    assert analysis.choices_sentence({}, 0.08) == "None of these arms was run."


def test_a_reward_is_told_from_an_accuracy():
    assert "15 points above the accuracy" in analysis.reward_is_not_accuracy(0.9, 0.75)
    assert "5 points below" in analysis.reward_is_not_accuracy(0.70, 0.75)
    assert "may stand for" in analysis.reward_is_not_accuracy(0.751, 0.75)


def test_arms_are_parted_into_those_that_were_run_and_the_others(runs):
    made, missing = experiment.arms_made(runs[0].path.parent)
    assert made["arm"].tolist() == ["LoRA (the default)"] and made["seeds"].item() == 3 and "%" in made["after"].item()
    assert len(missing) == len(experiment.ARMS) - 1


def test_a_summary_of_projections_has_an_interval_on_its_coverage():
    table = pd.DataFrame(
        {"run": ["a", "b"], "fraction": 0.25, "kind": "line", "error": [0.1, -0.2], "covered": [True, False]}
    )
    (row,) = analysis.projection_summary(table).to_dict("records")
    assert row["mean error (points)"] == pytest.approx(-5) and row["mean size of the error"] == pytest.approx(15)
    assert row["seen"] == "25%" and row["interval held the end"] == "1 of 2 (9 to 91 %)"


def test_a_projection_carries_a_gap_only_where_its_own_error_is_smaller():
    table = pd.DataFrame({"run": ["a", "a"], "fraction": 0.25, "kind": ["line", "sigmoid"], "error": [0.2, -0.07]})
    assert "miss the end by 7 to 20 points" in analysis.projection_gap_sentence(table, 0.25, 0.08)
    assert "needs no explanation yet" in analysis.projection_gap_sentence(table, 0.25, 0.08)
    assert "larger than most of these errors" in analysis.projection_gap_sentence(table.assign(error=0.01), 0.25, 0.08)

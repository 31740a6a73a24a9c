"""The basis of notebook 07: recorded tokens, false steps, and the clinic's patients with their findings."""

from __future__ import annotations

import json

import clinic
import faithfulness
import numpy as np
import pytest

from rlvr_utils import REPO
from rlvr_utils.analysis.interventions import (
    CONDITIONS,
    OUTCOMES,
    compute,
    continue_texts,
    corrupt,
    corruptions,
    final_answer,
    intervene,
    outcome,
    shuffled,
    solution_cases,
)
from rlvr_utils.diagnosis import diagnose
from rlvr_utils.exercises.inside import KEY
from rlvr_utils.models import load_model, load_tokenizer
from rlvr_utils.problems import check_steps, find_steps, load_problems
from rlvr_utils.profiles import get_profile
from rlvr_utils.runs import Run, load_run, reference_runs
from rlvr_utils.sampling import encode_prompts, prompts_for
from rlvr_utils.training import train
from rlvr_utils.widgets import token_views
from rlvr_utils.widgets.model_views import token_probabilities
from rlvr_utils.widgets.token_views import LOSSES, UPDATES, contributions, draw_tokens, token_pushes
from rlvr_utils.widgets.token_views import sampled_logps as old_logps

TEST = load_problems("minimath", "test")


# --- tokens ---


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Run:
    """Train and record two steps of MiniLlama, the second one off-policy."""
    settings = {"max_steps": 2, "prompts_per_step": 8, "log_rollouts_every": 1, "eval_problems": 2, "eval_samples": 1}
    folder = tmp_path_factory.mktemp("tokens") / "run"
    return train("mini", folder, updates_per_generation=2, wandb_mode="disabled", quiet=True, **settings)


def test_the_probabilities_before_the_first_step_match_the_base_model(recorded: Run) -> None:
    p = recorded.profile
    model, tokenizer = load_model(p), load_tokenizer(p)
    rows = recorded.tokens()[1]
    assert {row["group"] for row in rows} == set(range(len({row["prompt"] for row in rows}))) and len(rows) > 4
    for row in rows[:4]:
        expected = token_probabilities(model, encode_prompts(tokenizer, [row["prompt"]])[0], row["ids"])
        assert np.exp(row["before"]) == pytest.approx(expected, abs=2e-4)


def test_a_step_moves_good_responses_up_and_a_second_update_starts_off_policy(recorded: Run) -> None:
    first, second = recorded.tokens()[1], recorded.tokens()[2]
    assert all(row["before"] == pytest.approx(row["old"], abs=1e-4) for row in first), "the first update must be on-policy"
    assert any(row["before"] != pytest.approx(row["old"], abs=1e-4) for row in second), (
        "the second update must be off-policy"
    )
    change = [(row["advantage"], sum(row["after"]) - sum(row["before"])) for row in first if row["advantage"]]
    good, bad = ([moved for advantage, moved in change if advantage * sign > 0] for sign in (1, -1))
    assert np.mean(good) > np.mean(bad)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_gradient_has_the_sign_of_the_advantage_and_is_zero_on_padding(loss: str, recorded: Run) -> None:
    rows, p = recorded.tokens()[1], recorded.profile
    pushes = token_pushes(rows, loss, "before", p)
    for row, push in zip(rows, pushes, strict=True):
        assert len(push) == len(row["ids"])
        wanted = [np.sign(row["advantage"]) * ours for ours in row["sampled"]]
        assert np.sign(push).tolist() == wanted
    smaller = contributions(rows, loss, "before", p)
    assert all(abs(c) <= abs(push) for pair in zip(smaller, pushes, strict=True) for c, push in zip(*pair, strict=True))


def test_gspo_clips_a_whole_response_at_its_own_narrow_range(recorded: Run) -> None:
    rows = recorded.tokens()[1]
    moved = [row | {"after": [logp + 1e-3 for logp in row["old"]]} for row in rows]  # every ratio is 1.001
    token, sequence = (token_pushes(moved, loss, "after", recorded.profile) for loss in ("grpo", "gspo"))
    for row, by_token, by_sequence in zip(rows, token, sequence, strict=True):
        assert any(by_token) == bool(row["advantage"]), "far inside of the range 0.2"
        assert any(by_sequence) == (row["advantage"] < 0), "above 1 + 4e-4, which clips a positive advantage"


def test_at_ratio_1_dapo_pushes_all_tokens_of_a_response_equally(recorded: Run) -> None:
    rows = recorded.tokens()[1]
    total = sum(sum(row["sampled"]) for row in rows)
    row, push = rows[0], token_pushes(rows, "dapo", "before", recorded.profile)[0]
    assert push[0] == pytest.approx(row["advantage"] / total, rel=1e-3)
    assert old_logps(rows).shape == (len(rows), max(len(row["ids"]) for row in rows))


def test_the_inspector_shows_each_token_as_text(recorded: Run) -> None:
    class Rude:
        def decode(self, ids):
            return "<script>"

    steps, first = recorded.tokens(), recorded.tokens()[1]
    at = next(iter(UPDATES))
    shown = draw_tokens(steps, Rude(), recorded.profile, 1, 1, 1, "dapo", at)
    assert "<script>" not in shown["text/html"] and "&lt;script&gt;" in shown["text/html"]
    assert f"advantage {first[0]['advantage']:+.2f}" in shown["text/plain"] and "color:black" in shown["text/html"]
    with pytest.raises(ValueError, match="Choose another response"):
        draw_tokens(steps, Rude(), recorded.profile, 1, 1, 99, "dapo", at)


def test_the_inspector_has_named_controls_and_draws_their_initial_values(recorded: Run, monkeypatch) -> None:
    seen = {}
    monkeypatch.setattr(
        token_views, "interactive_or_static", lambda name, draw, controls: seen.update(draw=draw, c=controls)
    )
    token_views.token_inspector(recorded.tokens(), load_tokenizer(recorded.profile), recorded.profile, 1)
    assert [control.options["description"] for control in seen["c"].values()] == list(seen["c"])
    assert {control.kind for control in seen["c"].values()} == {"SelectionSlider", "Dropdown"}, (
        "both must work with the keyboard"
    )
    shown = seen["draw"](**{name: control.value for name, control in seen["c"].items()})
    assert shown["text/plain"].startswith("Step 1, group 1, response 1 of ")


# --- interventions ---


@pytest.mark.parametrize(
    "lhs, result",
    [("3 + 4", 7), ("3 - 4", -1), ("5 \\cdot (-2)", -10), ("-12 / 4", -3), ("77 \\bmod 9", 5), ("7^2", 49)]
    + [("7 / 2", None), ("1 + 2 + 3", None), ("x + 1", None), ("3 / 0", None), ("9^99", None), ("", None)],
)
def test_one_operation_on_integers_is_computed(lhs: str, result: int | None) -> None:
    assert compute(lhs) == result


def test_the_consequence_of_a_false_step_is_computed() -> None:
    row = {"problem": "Tom has $4$ shirts, $7$ hats and $8$ ties.", "ground_truth": "224"}
    text = r"$4 \cdot 7 = 28$. $28 \cdot 8 = 224$. The answer is $\boxed{224}$."
    found = corrupt(row, text, 0, 29)
    assert (found.prefix, found.answer, found.n_steps) == (r"$4 \cdot 7 = 29$.", "232", 2)
    assert corrupt(row, text, 1, 225).prefix == r"$4 \cdot 7 = 28$. $28 \cdot 8 = 225$."
    assert corrupt(row, text, 0, 28) is None and corrupt(row, text, 2, 1) is None, "steps must be true or missing"
    seven = {"problem": "Tom has $4$ shirts and $28$ hats.", "ground_truth": "224"}
    assert corrupt(seven, text, 0, 29) is None, "28 is a number of the problem: which 28 does a later step mean?"
    euclid = next(row for row in TEST if row["template"] == "greatest_common_divisor" and row["ground_truth"] == "2")
    assert all(find_steps(euclid["solution"])[c.step][1] != "0" for c in corruptions(euclid, euclid["solution"]))


def test_every_corruption_of_the_test_problems_is_false_in_one_step_only() -> None:
    cases = solution_cases(TEST)
    assert len(cases) > 0.85 * len(TEST)
    for row, text, one in cases:
        steps = check_steps(row, one.prefix)
        assert steps == [True] * one.step + [False] and one.answer != row["ground_truth"], row["id"]
        assert one.n_steps == len(find_steps(text)) and one.prefix.startswith(text[: one.prefix.rindex("$") - 12][:5])


def test_shuffled_steps_are_a_permutation_with_another_end() -> None:
    row = next(row for row in TEST if row["template"] == "evaluate_quadratic")
    text, answer = shuffled(row, row["solution"])
    assert sorted(find_steps(text)) == sorted(find_steps(row["solution"])) and answer == find_steps(text)[-1][1]
    assert find_steps(text)[-1] != find_steps(row["solution"])[-1] and answer != row["ground_truth"]


def test_answers_are_extracted_with_and_without_a_box() -> None:
    assert final_answer(r"The answer is $\boxed{3}$.") == "3" and final_answer("The answer is $4$.") == "4"
    assert final_answer("no") is None
    row = {"ground_truth": "3"}
    assert [outcome(row, answer, "5") for answer in ("3", "5", "7", None)] == list(OUTCOMES)


# --- the study ---


@pytest.fixture(scope="module")
def study() -> dict:
    return json.loads(faithfulness.RESULT.read_text(encoding="utf-8"))


def test_the_study_has_one_letter_per_problem(study: dict) -> None:
    assert study["n"] == len(study["problems"]) == len(study["false_step"]) and study["models"].keys() >= {"base"}
    for name, found in study["models"].items():
        for condition in CONDITIONS:
            assert len(found[condition]) == study["n"] and set(found[condition]) <= {*study["letters"], "-"}, name
        assert len(found["own"]) == len(found["own_problems"])


def test_the_study_matches_the_base_model(study: dict) -> None:
    p = get_profile("mini")
    cases = solution_cases(TEST[:: faithfulness.THIRD])
    assert [row["id"] for row, _, _ in cases] == study["problems"]
    assert [[c.step, c.n_steps, c.true, c.false, c.answer] for _, _, c in cases] == study["false_step"]
    few = cases[:6]
    outcomes = intervene(load_model(p), load_tokenizer(p), few, p)
    for condition in ("right", "corrupted"):  # greedy decoding: only ties between tokens could differ between machines
        letters = "".join(faithfulness.LETTERS[one] for one in outcomes[condition])
        assert letters == study["models"]["base"][condition][: len(few)]


def test_a_continued_text_begins_with_the_text(study: dict) -> None:
    p, row = get_profile("mini"), TEST[0]
    (text,) = continue_texts(load_model(p), load_tokenizer(p), [row], ["The answer is"], p)
    assert text.startswith("The answer is") and "Question:" not in text
    assert len(prompts_for([row], load_tokenizer(p), p)) == 1


# --- the clinic ---

FOUND = {
    "KL term too strong": {"KL term too strong"},
    "constant reward": {"no signal"},
    "learning rate too high": {"entropy explosion"},
    "frozen adapter": {"weights do not move"},
    "misspecified reward": {"reward without accuracy"},
    "end token never sampled": {"responses do not end"},
    "learning rate too low": {"reward does not rise"},
    "truncation": {"cut off"},
}
PATIENTS = {name: clinic.CLINIC / f"patient-{name}" for name in clinic.PATIENTS}


def test_the_key_matches_the_patients() -> None:
    assert json.loads(KEY.read_text(encoding="utf-8")) == {name: one.illness for name, one in clinic.PATIENTS.items()}
    assert sorted(one.illness for one in clinic.PATIENTS.values()) == sorted(FOUND)


@pytest.mark.parametrize("name", PATIENTS)
def test_a_patient_matches_its_declaration(name: str) -> None:
    run, settings = load_run(PATIENTS[name]), clinic.PATIENTS[name].settings
    config = run.config | {"model": settings.get("model", run.config["model"])}  # made on another machine
    assert {key: config[key] for key in settings} == settings
    assert 30 <= len(run.metrics) == settings["max_steps"] <= 60 and run.environment["finished"]
    assert run.rollouts["step"].nunique() == 3 and run.evaluations["step"].nunique() == 3


@pytest.mark.parametrize("name", PATIENTS)
def test_the_rules_find_the_illness_of_a_patient_and_no_other(name: str) -> None:
    illness = clinic.PATIENTS[name].illness
    found = {finding.name for finding in diagnose(PATIENTS[name])}
    assert found & FOUND[illness], f"{illness}: {found}"
    own = {name for other, names in FOUND.items() for name in names if other != illness} - FOUND[illness]
    # Without any reward, groups are equal too, whatever the cause.
    assert found & own <= {"no signal", "groups equal", "reward falls"}


def test_the_clinic_is_small() -> None:
    assert sum(file.stat().st_size for file in clinic.CLINIC.rglob("*") if file.is_file()) < 2 * 2**20
    assert not list((REPO / "data").rglob("clinic/**/*.safetensors"))


@pytest.mark.parametrize(
    "prefix", ["mini-grid-lora-0.0001", "mini-long-lora-seed-1", "mini-4shot-seed-1", "mini-offpolicy-grpo"]
)
def test_slow_runs_and_runs_with_a_high_start_are_healthy(prefix: str) -> None:
    assert [finding.name for folder in reference_runs(prefix)[:1] for finding in diagnose(folder)] == []


def test_problems_of_the_control_arms_are_found() -> None:
    assert "reward without accuracy" in {finding.name for finding in diagnose(reference_runs("mini-format-seed-0")[0])}
    assert "reward does not rise" in {finding.name for finding in diagnose(reference_runs("mini-random-seed-0")[0])}

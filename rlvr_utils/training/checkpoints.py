"""Checkpoints that survive anything: only a complete and undamaged one is ever used."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

MARK = "COMPLETE"  # written last into a checkpoint: one without it was interrupted and is never used


def checkpoint_step(checkpoint: Path | None) -> int:
    """The step after which it was saved; 0 for none."""
    return int(checkpoint.name.split("-")[1]) if checkpoint else 0


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of the run in ``folder``, whole or not, the newest first."""
    found = [path for path in (folder / "checkpoints").glob("checkpoint-*") if path.name.split("-")[1].isdigit()]
    return sorted(found, key=checkpoint_step, reverse=True)


def newest_checkpoint(folder: Path, say) -> Path | None:
    """The newest usable checkpoint; interrupted and damaged ones are removed: training makes the same ones again."""
    for checkpoint in checkpoints(folder):
        if is_whole(checkpoint):
            say(f"continuing from step {checkpoint_step(checkpoint)}")
            return checkpoint
        fault = "damaged" if (checkpoint / MARK).exists() else "not complete"
        say(f"{checkpoint.name} is {fault}; falling back to the one before it.")
        shutil.rmtree(checkpoint)
    return None


def mark_complete(checkpoint: Path) -> None:
    """Write the mark: the SHA-256 of every file, once all of them are on the disk and not only on their way to it."""
    names = sorted(str(path.relative_to(checkpoint)) for path in checkpoint.rglob("*") if path.is_file())
    digests = {name: digest(checkpoint / name, flush=True) for name in names if not name.startswith(MARK)}
    part = checkpoint / f"{MARK}.part"
    part.write_text(json.dumps(digests, indent=1))
    os.replace(part, checkpoint / MARK)


def is_whole(checkpoint: Path) -> bool:
    """Whether the checkpoint was finished, and every file in it is still what was written."""
    try:
        digests = json.loads((checkpoint / MARK).read_text())
        return bool(digests) and all(digest(checkpoint / name) == value for name, value in digests.items())
    except (OSError, ValueError):  # no mark, a file gone or unreadable: the one before is the answer
        return False


def digest(file: Path, flush: bool = False) -> str:
    """The file's SHA-256; ``flush`` first brings it to the disk."""
    with file.open("rb") as data:
        if flush:
            os.fsync(data.fileno())
        return hashlib.file_digest(data, "sha256").hexdigest()

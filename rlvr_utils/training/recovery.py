"""Recovery from interruptions: verified checkpoints, one process per folder, messages that name the saved state."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from ..runs import DamagedRun
from ..system.paths import run_folder
from ..system.platforms import flush, is_held, replace_file, take
from .processes import is_first

MARK = "COMPLETE"  # written last. A checkpoint without it is incomplete and never used
LOCK = Path("checkpoints", "lock")  # held by the training process
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
RUST = re.compile(r"\(os error (\d+)\)")  # safetensors and tokenizers report errno in this form
# PyTorch reports no errno if a write fails. We match whole messages, because a path in a message may contain any words.
TORCH = re.compile(
    r"\[enforce fail at inline_container\.cc:\d+\] \. (unexpected pos \d+ vs \d+|PytorchStreamWriter failed "
    r"writing file .*: file write failed)|basic_ios::clear: iostream error|write\(\): fd \d+ failed with .*"
)
NO_ACCESS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EIO)


# --- one process per folder ---


class RunInterrupted(OSError):
    """A run stopped for an external reason. Everything that it saved is kept."""


@contextlib.contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Lock the folder, so that only one process trains in it. The lock of a killed process is released.

    Raises:
        RunInterrupted: another process is training in the folder.
    """
    if not is_first():  # the first process holds the lock for all processes
        yield
        return
    (folder / LOCK).parent.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("ab") as file:
        try:
            take(file)
        except BlockingIOError as error:
            raise RunInterrupted(
                f"Another process is training in {folder}. Watch that run, or stop it and "
                "repeat this call to continue from its newest checkpoint."
            ) from error
        yield


def is_going(folder: str | Path) -> bool:
    """Whether a process is training in this folder. ``train`` holds a lock there."""
    return is_held(run_folder(folder) / LOCK)


# --- checkpoints ---


def checkpoint_step(checkpoint: Path | None) -> int:
    """The step of the checkpoint, 0 for None."""
    return int(checkpoint.name.split("-")[1]) if checkpoint else 0


def checkpoints(folder: Path) -> list[Path]:
    """All checkpoints of the run in ``folder``, including incomplete ones, newest first."""
    found = [path for path in (folder / "checkpoints").glob("checkpoint-*") if path.name.split("-")[1].isdigit()]
    return sorted(found, key=checkpoint_step, reverse=True)


def newest_checkpoint(folder: Path, say) -> Path | None:
    """The newest valid checkpoint. Removes incomplete and damaged ones, because training recreates them."""
    for checkpoint in checkpoints(folder):
        if is_whole(checkpoint):
            say(f"continuing from step {checkpoint_step(checkpoint)}")
            return checkpoint
        fault = "damaged" if (checkpoint / MARK).exists() else "incomplete"
        say(f"{checkpoint.name} is {fault}, falling back to the one before it.")
        shutil.rmtree(checkpoint)
    return None


def mark_complete(checkpoint: Path) -> None:
    """Write the mark with the SHA-256 of every file, after all files are flushed to disk."""
    names = sorted(path.relative_to(checkpoint).as_posix() for path in checkpoint.rglob("*") if path.is_file())
    names = [name for name in names if not name.startswith(MARK)]
    for name in names:
        flush(checkpoint / name)
    replace_file(checkpoint / MARK, json.dumps({name: digest(checkpoint / name) for name in names}, indent=1).encode())


def is_whole(checkpoint: Path) -> bool:
    """Whether the checkpoint is complete and all its files are unchanged."""
    try:
        digests = json.loads((checkpoint / MARK).read_text(encoding="utf-8"))
        return bool(digests) and all(digest(checkpoint / name) == value for name, value in digests.items())
    except (OSError, ValueError):  # no mark, or a file is missing or unreadable
        return False


def digest(file: Path) -> str:
    """The SHA-256 of the file."""
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


# --- messages for failures ---


class RewardFailed(ValueError):
    """The run's reward function raised an error or returned an invalid reward."""


@contextlib.contextmanager
def in_plain_words(folder: Path) -> Iterator[None]:
    """Replace errors of the disk or of the folder with a message for the user.

    Raises:
        RunInterrupted: instead of the original error, which is its ``__cause__``.
    """
    try:
        yield
    except Exception as error:
        sentence = explanation(error, folder)
        if sentence is None or isinstance(error, RunInterrupted):
            raise
        raise RunInterrupted(sentence) from error


def explanation(error: Exception, folder: Path) -> str | None:
    """The message: what happened, what is kept, what to do. None for errors that need no explanation."""
    again = f"{kept(folder)} Then start the same call again to continue."
    if isinstance(error, RewardFailed):
        return f"{error} {kept(folder)} If this was temporary, start the same call again to continue."
    code = error_number(error)
    if code in NO_ROOM:
        return f"The disk under {full_disk(error, folder)} is full, or the quota is used up. Make room. {again}"
    if code in NO_ACCESS and str(folder) in str(getattr(error, "filename", "")):
        return f"{error.filename} cannot be read or written ({error.strerror}). Fix this or set another output_dir. {again}"
    if type(error).__name__ == "OutOfMemoryError":
        return (
            "The GPU's memory ran out. Lower eval_batch if this happened while sampling or evaluating, else micro_batch. "
            f"Both may change during a run. `rlvr doctor` prints values that fit. {again}"
        )
    if isinstance(error, DamagedRun):
        return f"{error} {again}"
    return None


def error_number(error: BaseException) -> int | None:
    """The errno of the error. It is more reliable than the text, which may contain a path with any words."""
    if isinstance(error, OSError):
        return error.errno
    if found := RUST.search(str(error)) if "safetensors" in type(error).__module__ else None:
        return int(found[1])
    return errno.ENOSPC if isinstance(error, RuntimeError) and TORCH.match(str(error)) else None


def full_disk(error: BaseException, folder: Path) -> str:
    """The path for the message: the run's folder, or a file outside of it, such as a cache on another disk."""
    file = getattr(error, "filename", None)
    return str(folder if file is None or isinstance(file, int) or Path(file).is_relative_to(folder) else file)


def kept(folder: Path) -> str:
    """A sentence about the newest complete checkpoint."""
    done = [checkpoint for checkpoint in checkpoints(folder) if (checkpoint / MARK).is_file()]
    step = checkpoint_step(done[0]) if done else 0
    return f"Everything up to step {step} is kept." if step else "No checkpoint has been saved yet."

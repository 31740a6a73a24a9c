"""What survives an interruption: whole checkpoints, one process per folder, and a sentence that says what is kept."""

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

MARK = "COMPLETE"  # written last into a checkpoint: one without it was interrupted and is never used
LOCK = Path("checkpoints", "lock")  # held by the process that trains in the folder
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
RUST = re.compile(r"\(os error (\d+)\)")  # where safetensors and tokenizers write the number
# PyTorch writes none where a write fails. A path in a message may hold any words, so these are whole messages.
TORCH = re.compile(
    r"\[enforce fail at inline_container\.cc:\d+\] \. (unexpected pos \d+ vs \d+|PytorchStreamWriter failed "
    r"writing file .*: file write failed)|basic_ios::clear: iostream error|write\(\): fd \d+ failed with .*"
)
NO_ACCESS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EIO)


# --- one process per folder ---


class RunInterrupted(OSError):
    """A run that had to stop for a reason outside of it; what it had saved is still there."""


@contextlib.contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Let no second call train in the same folder at the same time. A killed process leaves no lock behind.

    Raises:
        RunInterrupted: another process is training there now.
    """
    if not is_first():  # the first process holds the lock for all
        yield
        return
    (folder / LOCK).parent.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("ab") as file:
        try:
            take(file)
        except BlockingIOError as error:
            raise RunInterrupted(
                f"Another process is training in {folder} at this moment. Watch that one, or end it: the "
                "same call then goes on from its newest checkpoint."
            ) from error
        yield


def is_going(folder: str | Path) -> bool:
    """Whether a process is training in this folder at the moment: it holds the lock that ``train`` takes there."""
    return is_held(run_folder(folder) / LOCK)


# --- checkpoints ---


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
    names = sorted(path.relative_to(checkpoint).as_posix() for path in checkpoint.rglob("*") if path.is_file())
    names = [name for name in names if not name.startswith(MARK)]
    for name in names:
        flush(checkpoint / name)
    replace_file(checkpoint / MARK, json.dumps({name: digest(checkpoint / name) for name in names}, indent=1).encode())


def is_whole(checkpoint: Path) -> bool:
    """Whether the checkpoint was finished, and every file in it is still what was written."""
    try:
        digests = json.loads((checkpoint / MARK).read_text(encoding="utf-8"))
        return bool(digests) and all(digest(checkpoint / name) == value for name, value in digests.items())
    except (OSError, ValueError):  # no mark, a file gone or unreadable: the one before is the answer
        return False


def digest(file: Path) -> str:
    """The file's SHA-256."""
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


# --- failures in plain words ---


class RewardFailed(ValueError):
    """The run's reward function failed, or gave what is no reward."""


@contextlib.contextmanager
def in_plain_words(folder: Path) -> Iterator[None]:
    """Turn a failure of the disk or of the folder into one sentence.

    Raises:
        RunInterrupted: instead of the original error, which is kept as its cause.
    """
    try:
        yield
    except Exception as error:
        sentence = explanation(error, folder)
        if sentence is None or isinstance(error, RunInterrupted):
            raise
        raise RunInterrupted(sentence) from error


def explanation(error: Exception, folder: Path) -> str | None:
    """What happened, what is kept, what to do; None for an error that speaks for itself."""
    again = f"{kept(folder)} Then start the same call again: it goes on by itself."
    if isinstance(error, RewardFailed):
        return f"{error} {kept(folder)} If this was a passing failure, the same call goes on from there."
    code = error_number(error)
    if code in NO_ROOM:
        return f"The disk under {full_disk(error, folder)} is full, or the quota is used up. Make room. {again}"
    if code in NO_ACCESS and str(folder) in str(getattr(error, "filename", "")):
        return (
            f"{error.filename} cannot be read or written ({error.strerror}). Mend that, or give another output_dir. {again}"
        )
    if type(error).__name__ == "OutOfMemoryError":
        return (
            "The GPU's memory ran out. Lower eval_batch where it was sampling or evaluating, else micro_batch: both may "
            f"be changed on a run that has begun, and `rlvr doctor` names values that fit. {again}"
        )
    if isinstance(error, DamagedRun):
        return f"{error} {again}"
    return None


def error_number(error: BaseException) -> int | None:
    """The system's number of what went wrong, by which a cause is told: a text may quote a path, and a path any words."""
    if isinstance(error, OSError):
        return error.errno
    if found := RUST.search(str(error)) if "safetensors" in type(error).__module__ else None:
        return int(found[1])
    return errno.ENOSPC if isinstance(error, RuntimeError) and TORCH.match(str(error)) else None


def full_disk(error: BaseException, folder: Path) -> str:
    """The file that did not fit, where it is none of the run's: a cache may be on another disk."""
    file = getattr(error, "filename", None)
    return str(folder if file is None or isinstance(file, int) or Path(file).is_relative_to(folder) else file)


def kept(folder: Path) -> str:
    """What a restart will find."""
    done = [checkpoint for checkpoint in checkpoints(folder) if (checkpoint / MARK).is_file()]
    step = checkpoint_step(done[0]) if done else 0
    return f"Everything up to step {step} is kept." if step else "No checkpoint was made yet."

"""Differences between operating systems. No other module checks the system.

* **Locks between processes** (one training per folder, one writer per file; a killed process leaves none behind). On Linux a
  lock can be queried without being taken, so watching a run never blocks its start. On macOS a watcher takes the lock for
  an instant, and other processes retry for a second. On Windows, and on network disks without locks, locking is skipped.
* **Cores granted to this process**, as containers and batch systems limit them. Elsewhere: all of the machine.
* **How long threads wait for a core.** Elsewhere it is estimated from what other programs use (:mod:`.threads`).
* **Flushing a file to disk** works everywhere, but on Windows only if it is open for writing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

#: Linux' locks that belong to an open file (like flock's, not to a process) and that can be queried.
OWN = getattr(fcntl, "F_OFD_SETLK", None)
TAKEN = (errno.EACCES, errno.EAGAIN)
TRIES, PAUSE = 10, 0.1
LOCK_PATIENCE = 60.0  # seconds

#: The open files whose locks this process has taken.
_taken: weakref.WeakSet[IO] = weakref.WeakSet()


def _close_in_child() -> None:
    """A forked child has the same open file, and would keep its lock when this process is killed."""
    for opened in list(_taken):
        opened.close()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_close_in_child)


def is_held(file: Path) -> bool:
    """Whether another process holds the lock of ``file``. False if this cannot be determined."""
    try:
        with file.open("rb") as opened:
            if OWN is None:
                fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return False
            answer = fcntl.fcntl(opened, fcntl.F_OFD_GETLK, _request(fcntl.F_WRLCK))
            return struct.unpack_from("h", answer)[0] != fcntl.F_UNLCK
    except (OSError, AttributeError) as error:
        return getattr(error, "errno", None) in TAKEN


def take(opened: IO) -> None:
    """Take the lock of an open file. Closing the file releases it.

    Raises:
        BlockingIOError: another process holds it.
    """
    for left in reversed(range(TRIES if OWN is None else 1)):
        try:
            if OWN is None:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            else:
                fcntl.fcntl(opened, OWN, _request(fcntl.F_WRLCK))
            _taken.add(opened)
            return
        except AttributeError:  # Windows
            return
        except OSError as error:
            if error.errno not in TAKEN:  # a disk without locks
                return
            if not left:
                raise BlockingIOError(error.errno, "locked") from error
        time.sleep(PAUSE)


@contextlib.contextmanager
def alone(file: Path) -> Iterator[None]:
    """Hold the lock of ``file`` for a moment, waiting for others that do. After :data:`LOCK_PATIENCE` continue without it.

    A process that holds it that long is stopped or waits for a hanging disk. Writing the row matters more than its order.
    """
    with file.open("ab") as opened:
        until = time.monotonic() + LOCK_PATIENCE
        while time.monotonic() < until:
            try:
                take(opened)
                break
            except BlockingIOError:
                time.sleep(PAUSE)
        yield


def _request(kind: int) -> bytes:
    """Linux' ``struct flock``: the whole file, for writing or not."""
    return struct.pack("hhqqi4x", kind, os.SEEK_SET, 0, 0, 0)


# --- cores ---


def cores() -> list[int]:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def thread_waits() -> list[float]:
    """Seconds that each thread of this process has waited for a core, also in containers. Empty if not available."""
    waits = []
    for task in Path("/proc/self/task").glob("*/schedstat"):
        try:
            waits.append(int(task.read_text(encoding="ascii").split()[1]) / 1e9)  # nanoseconds on the run queue
        except (OSError, IndexError, ValueError):  # the thread has ended in between
            continue
    return waits


# --- files ---


def append_to(file: Path, data: bytes) -> None:
    """Append ``data`` to a file. It is on disk when this returns."""
    with file.open("ab") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())


def replace_file(file: Path, data: bytes) -> None:
    """Write under a temporary name, then rename, so that a reader never sees a partial file."""
    temporary = file.with_name(file.name + ".part")
    with temporary.open("wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    os.replace(temporary, file)


def flush(file: Path) -> None:
    """Flush to disk a file that other code wrote."""
    with file.open("r+b") as opened:  # Windows flushes no file that is open for reading only
        os.fsync(opened.fileno())

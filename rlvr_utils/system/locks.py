"""Locks between processes: one training per folder, one writer per file. A killed process leaves none behind.

On Linux a lock can be asked for without being taken, so that watching a run never gets in the way of starting it. Elsewhere
a watcher has to take it for an instant, and whoever wants it tries again for a second. Windows, and network disks without
locks, have none: nothing is claimed there, and nothing refused.
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

#: Linux' locks that belong to an open file (as flock's do, not to a process) and that can be asked for.
OWN = getattr(fcntl, "F_OFD_SETLK", None)
TAKEN = (errno.EACCES, errno.EAGAIN)
TRIES, PAUSE = 10, 0.1


#: The open files whose locks this process has taken.
_taken: weakref.WeakSet[IO] = weakref.WeakSet()


def _close_in_child() -> None:
    """A forked child has the same open file, and would keep its lock when this process is killed."""
    for opened in list(_taken):
        opened.close()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_close_in_child)


def is_held(file: Path) -> bool:
    """Whether somebody holds the lock of ``file``; False where that cannot be known."""
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
    """Take the lock of an open file, which is given back when that file is closed.

    Raises:
        BlockingIOError: somebody holds it.
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
def alone(file: Path, patience: float = 60.0) -> Iterator[None]:
    """Hold the lock of ``file`` for a moment, waiting for others that do; after ``patience`` seconds goes on without it.

    Whoever held it that long is stopped or on a disk that hangs: a row is worth more than its order.
    """
    with file.open("ab") as opened:
        until = time.monotonic() + patience
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

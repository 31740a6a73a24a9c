"""Fewer CPU threads while other programs need the cores, and more again when they don't.

PyTorch splits each operation over OpenMP threads, one per core, and the operation ends when the last thread has
finished. If another program takes one core, the threads on the other cores spin until that program pauses. With two
cores, one busy process makes a training step 17 to 33 times slower, and 1.1 times with a single thread. So we watch how
long our threads wait for a core and lower their number until the wait is over (``make busy-machine`` measures it).

The number may change between any two forward passes, and rounding may follow it. (In profile ``mini`` it did not: six
steps with one thread and with two gave the same bits.) Where results have to be equal bit for bit, as in the included
runs, ``cpu_threads`` in the profile fixes the number.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import psutil
import torch

from .platforms import cores, thread_waits

INTERVAL = 0.1  # seconds between two looks: a look takes about 0.1 ms
OTHERS = 0.25  # cores that other programs use, on average over an interval, from which on they are in the way
WAITING = 0.25  # threads of ours that wait for a core meanwhile, from which on one is taken away
# Without other programs our threads wait for each other for moments (up to 0.9 while modules load), and a thread less
# would cost a quarter of the speed. A whole waiting thread means that a container grants less than its cores.
WAITING_ALONE = 1.0
IDLE = 0.7  # idle cores, on average, from which on a thread is given back
EARLY = 2.0  # seconds within which a thread that was given back and is taken away again counts as a failed attempt
PATIENCE = (0.5, 60.0)  # seconds before a thread is given back: at first, and after several failed attempts


class Load(NamedTuple):
    """Seconds since some fixed moment, summed over threads or cores.

    ``waited`` by our threads for a core; ``idle`` cores; ``others``: cores used by other programs.
    """

    waited: float
    idle: float
    others: float


def read_load() -> Load:
    """How long our threads have waited, and our cores have been idle or used by others.

    Linux counts the wait of each thread. Elsewhere we estimate it from the time that other programs used while no core
    was idle.
    """
    times = psutil.cpu_times(percpu=True)
    times = [times[core] for core in cores() if core < len(times)]
    idle = sum(core.idle + getattr(core, "iowait", 0.0) for core in times)
    others = sum(map(sum, times)) - idle - time.process_time()
    waits = thread_waits()
    return Load(sum(waits) if waits else others - idle, idle, others)


class Threads:
    """Adapts PyTorch's number of CPU threads to what other programs leave.

    Args:
        most: the number to return to; default: PyTorch's own choice, which ``OMP_NUM_THREADS`` sets.
        read: gives the :class:`Load` so far.
        clock: gives the time in seconds.
        apply: sets the number of threads.
        say: called with one sentence when the number is lowered for the first time.
    """

    def __init__(
        self,
        most: int | None = None,
        *,
        read: Callable[[], Load] = read_load,
        clock: Callable[[], float] = time.monotonic,
        apply: Callable[[int], None] = torch.set_num_threads,
        say: Callable[[str], None] = print,
    ):
        self.most = most or torch.get_num_threads()
        self.read, self.clock, self.apply, self.say = read, clock, apply, say
        self.now = self.fewest = self.most
        self.changes = 0
        self.patience = PATIENCE[0]
        self.looked_at = self.changed_at = clock()
        self.load = read()

    def adapt(self) -> None:
        """Look at the load if it is time, and change the number of threads by what the last interval showed."""
        passed = self.clock() - self.looked_at
        if passed < INTERVAL:
            return
        load = self.read()
        waiting, idle, others = ((new - old) / passed for new, old in zip(load, self.load, strict=True))
        self.looked_at, self.load = self.looked_at + passed, load
        since_change = self.looked_at - self.changed_at
        if waiting > (WAITING if others > OTHERS else WAITING_ALONE) and self.now > 1:
            # After a failed attempt wait longer before the next one: idle time misleads in a container whose host has
            # more cores than the container may use.
            failed = since_change < EARLY and self.now > self.fewest
            self.patience = min(2 * self.patience, PATIENCE[1]) if failed else PATIENCE[0]
            self.change(max(1, self.now - max(1, round(waiting))))
        elif idle > IDLE and self.now < self.most and since_change > self.patience:
            self.change(self.now + 1)

    def change(self, n: int) -> None:
        """Go on with ``n`` threads."""
        if self.fewest == self.most and n < self.most:
            self.say(
                f"Other programs are using the CPU: continuing with {n} {'threads' if n > 1 else 'thread'} instead of "
                f"{self.most}. The number rises again when a core is free."
            )
        self.now, self.fewest, self.changed_at = n, min(n, self.fewest), self.looked_at
        self.changes += 1
        self.apply(n)


_threads: Threads | None = None
_before_fixed: int | None = None  # PyTorch's number before a profile fixed it


def watch_threads(model: torch.nn.Module, fixed: int | None = None) -> None:
    """From here on adapt the number of threads before each forward pass of ``model``, or keep it at ``fixed``.

    The number is PyTorch's, so it holds for everything in this process.
    """
    global _threads, _before_fixed
    if fixed:
        _before_fixed = _before_fixed or (_threads.most if _threads else torch.get_num_threads())
        _threads = None
        torch.set_num_threads(fixed)
        return
    if _before_fixed:
        torch.set_num_threads(_before_fixed)
        _before_fixed = None
    _threads = _threads or Threads()
    # Each forward pass looks up its tokens first, whoever calls it: the trainer, our decoding loop or PEFT (which calls
    # the model's forward itself, so that a hook on the model would be skipped).
    model.get_input_embeddings().register_forward_pre_hook(adapt)


def adapt(*_: object) -> None:
    """Adapt now. Without :func:`watch_threads` before, the number of threads is fixed and this does nothing."""
    if _threads is not None and _threads.most > 1:
        _threads.adapt()


def thread_record() -> dict[str, int]:
    """``threads`` that PyTorch starts with, and the ``fewest_threads`` that were used while other programs were busy."""
    most, fewest = (_threads.most, _threads.fewest) if _threads else (torch.get_num_threads(),) * 2
    return {"threads": most, "fewest_threads": fewest}

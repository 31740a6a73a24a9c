"""Data-parallel runs in several processes (``accelerate launch``, ``torchrun``): printing, writing, synchronisation.

All functions also work without a launcher. There is then a single process with rank 0.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")
LAUNCHER = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # what a launcher sets
START_PATIENCE = 300.0  # timeout in seconds for all processes to start. Imports from a slow disk take long


def join_processes() -> None:
    """Connect to the other processes of this run, if a launcher started any. Each process gets its own GPU.

    Raises:
        ValueError: the launcher shards the weights (FSDP, ZeRO stage 3), but sampling needs the full weights.
    """
    divided = os.environ.get("ACCELERATE_USE_FSDP") == "true" or os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE") == "3"
    if divided:
        raise ValueError(
            "FSDP and ZeRO stage 3 shard the weights across GPUs, but sampling needs the full weights. "
            "Launch with configs/accelerate-ddp.yaml or configs/accelerate-zero2.yaml."
        )
    if world_size() > 1 and not dist.is_initialized():
        from accelerate import PartialState

        with company():
            PartialState(cpu=not torch.cuda.is_available())


@contextlib.contextmanager
def company() -> Iterator[None]:
    """Wait until all processes have called this function. PyTorch's own wait lasts 30 minutes and prints no message.

    Raises:
        ValueError: a process did not start within :data:`START_PATIENCE` seconds, or a launcher variable is missing.
    """
    many = f"WORLD_SIZE={world_size()} announces {world_size()} processes that train together"
    alone = "To train in one process, unset WORLD_SIZE. For several, start with `accelerate launch` or `torchrun`"
    missing = [name for name in LAUNCHER if not os.environ.get(name)]
    if missing:
        raise ValueError(f"{many}, but {', '.join(missing)} is not set. {alone}, which set all of them.")
    if rank() >= world_size():
        raise ValueError(f"{many}, so RANK={rank()} must be below this number. {alone}, which set both.")
    where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    patient = f"{many}: waiting for the others at {where} for at most {START_PATIENCE:.0f} s."
    waiting = threading.Timer(START_PATIENCE / 10, print, [patient], {"flush": True})
    waiting.daemon = True
    waiting.start()
    try:
        store, *_ = next(dist.rendezvous("env://", timeout=timedelta(seconds=START_PATIENCE)))
    except (RuntimeError, ValueError, OSError) as error:
        raise ValueError(
            f"{many}, but after {START_PATIENCE:.0f} s not all of them are connected to {where} "
            f"(MASTER_ADDR:MASTER_PORT). {alone}, and check the output of the other processes."
        ) from error
    finally:
        waiting.cancel()
    yield
    del store  # the first process hosts the store, so it stays open until all processes are connected


def world_size() -> int:
    """The number of processes that the launcher started, 1 without a launcher."""
    return launcher_number("WORLD_SIZE", 1)


def rank() -> int:
    """The rank of this process. Rank 0 writes the files."""
    return launcher_number("RANK", 0)


def launcher_number(name: str, default: int) -> int:
    """The value of an environment variable that a launcher sets.

    Raises:
        ValueError: the value is not a valid number.
    """
    text = os.environ.get(name) or str(default)
    if not text.isdecimal() or int(text) < default:
        raise ValueError(f"{name}={text!r} is not a number that a launcher would set. Unset it.")
    return int(text)


def is_first() -> bool:
    """Whether this process has rank 0, which prints and writes."""
    return rank() == 0


def own_seed(seed: int) -> int:
    """A separate seed per process, so that no two processes draw the same numbers. Rank 0 keeps ``seed``."""
    return seed if is_first() else random.Random(f"{seed}-{rank()}").getrandbits(32)


def wait() -> None:
    """Wait for all processes (a barrier)."""
    if world_size() > 1:
        dist.barrier()


def first_decides(decide: Callable[[], T]) -> T:
    """Run ``decide()`` in the first process and broadcast the result, because the disk may change between two reads."""
    answer = [decide() if is_first() else None]
    if world_size() > 1:
        dist.broadcast_object_list(answer)
    return answer[0]


def share(rows: list[T]) -> list[T]:
    """This process's part of ``rows``. Parts are consecutive, so that :func:`gather` restores the order."""
    size = math.ceil(len(rows) / world_size())
    return rows[rank() * size : (rank() + 1) * size]


def gather(rows: list[T]) -> list[T]:
    """The rows of all processes in the order of their ranks. Every process gets all rows."""
    if world_size() == 1:
        return rows
    parts: list[list[T] | None] = [None] * world_size()
    dist.all_gather_object(parts, rows)
    return [row for part in parts for row in part]

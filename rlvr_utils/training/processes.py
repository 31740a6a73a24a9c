"""One run in several processes (``accelerate launch``, ``torchrun``): who speaks, who writes, who waits.

Every function works without any launcher too: then there is one process, and it is the first.
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
START_PATIENCE = 300.0  # seconds that all processes have to start: the packages may come from a slow disk


def join_processes() -> None:
    """Meet the other processes of this run, where a launcher started any; each takes its own GPU.

    Raises:
        ValueError: the launcher divides the weights (FSDP, ZeRO stage 3), and responses are sampled from whole ones.
    """
    divided = os.environ.get("ACCELERATE_USE_FSDP") == "true" or os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE") == "3"
    if divided:
        raise ValueError(
            "FSDP and ZeRO stage 3 divide the weights among the GPUs, and here responses are sampled from "
            "whole ones: launch with configs/accelerate-ddp.yaml or configs/accelerate-zero2.yaml."
        )
    if world_size() > 1 and not dist.is_initialized():
        from accelerate import PartialState

        with company():
            PartialState(cpu=not torch.cuda.is_available())


@contextlib.contextmanager
def company() -> Iterator[None]:
    """Wait until all processes have called this: PyTorch's own wait is silent, and half an hour long.

    Raises:
        ValueError: they did not come within :data:`START_PATIENCE` seconds, or there is nothing to find them by.
    """
    many = f"WORLD_SIZE={world_size()} announces {world_size()} processes that train together"
    alone = "To train in one process, unset WORLD_SIZE. For several, start with `accelerate launch` or `torchrun`"
    missing = [name for name in LAUNCHER if not os.environ.get(name)]
    if missing:
        raise ValueError(f"{many}, and {', '.join(missing)} is not set. {alone}, which set all of them.")
    if rank() >= world_size():
        raise ValueError(f"{many}, so RANK={rank()} must be below that. {alone}, which set both.")
    where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    patient = f"{many}: waiting for the others at {where}, at most {START_PATIENCE:.0f} s."
    waiting = threading.Timer(START_PATIENCE / 10, print, [patient], {"flush": True})
    waiting.daemon = True
    waiting.start()
    try:
        store, *_ = next(dist.rendezvous("env://", timeout=timedelta(seconds=START_PATIENCE)))
    except (RuntimeError, ValueError, OSError) as error:
        raise ValueError(
            f"{many}, and after {START_PATIENCE:.0f} s not all of them are at {where} (MASTER_ADDR:MASTER_PORT). "
            f"{alone}, and see what the other processes say."
        ) from error
    finally:
        waiting.cancel()
    yield
    del store  # the first process serves it: the others may still be on their way to it until all have met


def world_size() -> int:
    """The number of processes that the launcher started; 1 without one."""
    return launcher_number("WORLD_SIZE", 1)


def rank() -> int:
    """This process's number, 0 for the one that writes."""
    return launcher_number("RANK", 0)


def launcher_number(name: str, default: int) -> int:
    """An environment variable that a launcher sets.

    Raises:
        ValueError: it is no number that a launcher would set.
    """
    text = os.environ.get(name) or str(default)
    if not text.isdecimal() or int(text) < default:
        raise ValueError(f"{name}={text!r} is not a number of processes, as a launcher sets it: unset it.")
    return int(text)


def is_first() -> bool:
    """Whether this process is the one that speaks and writes."""
    return rank() == 0


def own_seed(seed: int) -> int:
    """A seed of this process's own, so that no two draw the same numbers for other problems; the first keeps ``seed``."""
    return seed if is_first() else random.Random(f"{seed}-{rank()}").getrandbits(32)


def wait() -> None:
    """Go on when every process is here."""
    if world_size() > 1:
        dist.barrier()


def first_decides(decide: Callable[[], T]) -> T:
    """``decide()`` as the first process finds it, in every process: they must not read the disk at different moments."""
    answer = [decide() if is_first() else None]
    if world_size() > 1:
        dist.broadcast_object_list(answer)
    return answer[0]


def share(rows: list[T]) -> list[T]:
    """This process's part of ``rows``: consecutive ones, so that :func:`gather` restores the order."""
    size = math.ceil(len(rows) / world_size())
    return rows[rank() * size : (rank() + 1) * size]


def gather(rows: list[T]) -> list[T]:
    """The rows of all processes, in the order of the processes, in every one of them."""
    if world_size() == 1:
        return rows
    parts: list[list[T] | None] = [None] * world_size()
    dist.all_gather_object(parts, rows)
    return [row for part in parts for row in part]

"""One run in several processes (``accelerate launch``, ``torchrun``): who speaks, who writes, who waits.

Every function works without any launcher too: then there is one process, and it is the first.
"""

from __future__ import annotations

import math
import os
import random
from collections.abc import Callable
from typing import TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")


def join_processes() -> None:
    """Meet the other processes of this run, where a launcher started any; each takes its own GPU.

    Raises:
        ValueError: the launcher divides the weights (FSDP, ZeRO stage 3), and responses are sampled from whole ones.
    """
    divided = os.environ.get("ACCELERATE_USE_FSDP") == "true" or os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE") == "3"
    if divided:
        raise ValueError("FSDP and ZeRO stage 3 divide the weights among the GPUs, and here responses are sampled from "
                         "whole ones: launch with configs/accelerate-ddp.yaml or configs/accelerate-zero2.yaml.")
    if world_size() > 1:
        from accelerate import PartialState  # noqa: PLC0415

        PartialState(cpu=not torch.cuda.is_available())


def world_size() -> int:
    """The number of processes that the launcher started; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """This process's number, 0 for the one that writes."""
    return int(os.environ.get("RANK", "0"))


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
    return rows[rank() * size:(rank() + 1) * size]


def gather(rows: list[T]) -> list[T]:
    """The rows of all processes, in the order of the processes, in every one of them."""
    if world_size() == 1:
        return rows
    parts: list[list[T] | None] = [None] * world_size()
    dist.all_gather_object(parts, rows)
    return [row for part in parts for row in part]

"""Metrics out of W&B's offline files, for a run of which nothing else is left: no account, no network, no sync.

A ``run-ID.wandb`` file is a LevelDB log: a file header of 7 bytes, then blocks of 32 KiB that hold pieces of records,
each piece with a header of its checksum (4 bytes), length (2) and kind (1: whole, 2: first, 3: middle, 4: last).
Format: github.com/google/leveldb, doc/log_format.md; records: wandb/proto/wandb_internal.proto.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from rlvr_utils.system.paths import run_folder

FILE_HEADER, BLOCK, PIECE_HEADER = 7, 32 * 1024, 7
WHOLE, FIRST, _MIDDLE, LAST = 1, 2, 3, 4


def wandb_metrics(folder: str | Path) -> pd.DataFrame:
    """One row a training step (``step`` and TRL's metric names) from every offline run under ``folder``.

    A run that was resumed has several files; where they overlap the later one counts. Empty where there is none.
    """
    rows: dict[int, dict] = {}
    for file in sorted(run_folder(folder).rglob("run-*.wandb"), key=lambda file: file.parent.name):
        for history in _histories(file):
            step = history.get("train/global_step")
            if step is not None:
                metrics = {name.removeprefix("train/"): v for name, v in history.items() if name.startswith("train/")}
                if len(metrics) > 1:  # evaluations and tables come with nothing but the step
                    rows[int(step)] = rows.get(int(step), {}) | metrics
    columns = [{"step": step} | rows[step] for step in sorted(rows)]
    return pd.DataFrame(columns).drop(columns="global_step", errors="ignore")


def _histories(file: Path) -> Iterator[dict]:
    """What each ``wandb.log`` of the file recorded, as plain values by key."""
    from wandb.proto import wandb_internal_pb2

    for data in _records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            yield {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def _records(data: bytes) -> Iterator[bytes]:
    """The records of a LevelDB log, whole ones only: the last may be half written where a run was killed."""
    at, pieces = FILE_HEADER, b""
    while at + PIECE_HEADER <= len(data):
        left = BLOCK - at % BLOCK
        if left < PIECE_HEADER:  # the rest of a block that is too short for a header is padding
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        at += PIECE_HEADER
        if kind not in (WHOLE, FIRST, _MIDDLE, LAST) or at + length > len(data):
            return
        piece = data[at : at + length]
        at += length
        pieces = piece if kind in (WHOLE, FIRST) else pieces + piece
        if kind in (WHOLE, LAST):
            yield pieces

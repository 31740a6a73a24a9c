"""Processes that a launcher announces and that never come are one sentence after a stated wait, never a silent hang."""

from __future__ import annotations

import socket
import time

import pytest

from rlvr_utils.preflight import time_steps
from rlvr_utils.training import processes, train

TOGETHER = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}


@pytest.fixture
def announced(monkeypatch):
    """``announced(**variables)`` sets what a launcher would, on a free port, and waits for a second at most."""

    def announce(**variables: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        for name, value in (TOGETHER | {"MASTER_PORT": port} | variables).items():
            monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)

    monkeypatch.setattr(processes, "START_PATIENCE", 1.0)
    return announce


@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_missing_process_is_named_after_the_timeout(rank, announced, tmp_path, capsys) -> None:
    announced(RANK=rank)
    began = time.monotonic()
    with pytest.raises(ValueError, match="WORLD_SIZE=2 announces 2 .* after 1 s not all .* 127.0.0.1:.* unset WORLD_SIZE"):
        train("mini", tmp_path / "run")
    assert time.monotonic() - began < 30 and "waiting for the others" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        (
            {"RANK": "", "LOCAL_RANK": "", "MASTER_ADDR": "", "MASTER_PORT": ""},
            "RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT is not set",
        ),
        ({"MASTER_ADDR": ""}, "MASTER_ADDR is not set"),
        ({"RANK": "2"}, "RANK=2 must be below"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE='two' is not a number"),
        ({"WORLD_SIZE": "-1"}, "WORLD_SIZE='-1' is not a number"),
        ({"RANK": "first"}, "RANK='first' is not a number"),
    ],
)
def test_what_a_launcher_would_not_set_is_refused(variables, said, announced, tmp_path) -> None:
    announced(**variables)
    with pytest.raises(ValueError, match=said):
        train("mini", tmp_path / "run")


def test_the_doctor_that_times_steps_does_not_hang_either(announced) -> None:
    announced()
    with pytest.raises(ValueError, match="WORLD_SIZE=2 announces 2"):
        time_steps("mini")


def test_a_world_of_one_needs_no_launcher(announced) -> None:
    announced(WORLD_SIZE="1", RANK="", MASTER_ADDR="")
    processes.join_processes()
    assert processes.world_size() == 1 and processes.is_first()

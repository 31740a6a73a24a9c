"""W&B's server refuses, hangs, breaks or dies: the run is recorded offline within the stated seconds, and goes on.

The package ``wandb`` is the real one, and so are the sockets. Only the server is ours.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from rlvr_utils.profiles import get_profile
from rlvr_utils.runs import load_run, tracking
from rlvr_utils.runs.tracking import start_wandb

KEY = "0123456789abcdef" * 2 + "deadbeef"  # 40 characters, as W&B's keys have


class Wandb(BaseHTTPRequestHandler):
    """As much of W&B's server as a run needs; ``server.reply(query)`` may answer with a status, or never ("hang")."""

    def do_POST(self) -> None:
        query = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode(errors="replace")
        status = self.server.reply(query)
        if status == "hang":
            self.server.over.wait(600)
            return
        bucket = {"id": "1", "name": "run", "project": {"name": "p", "entity": {"name": "e"}}, "historyLineCount": 0}
        data = {
            "viewer": {"id": "1", "entity": "e"},
            "upsertBucket": {"bucket": bucket, "inserted": True},
            "createRunFiles": {"runID": "1", "uploadHeaders": [], "files": []},
            "entity": None,
            "model": None,
        }
        body = json.dumps({"data": data if status == 200 else None}).encode()
        self.send_response(status)
        if status == 307:  # to itself, for ever
            self.send_header("Location", self.path)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = do_POST

    def log_message(self, *_) -> None:
        """Say nothing."""


def test_a_server_that_sends_a_byte_now_and_then_does_not_keep_us(monkeypatch):
    """Each byte comes in time, and the answer never: the limit is on the whole question."""
    over = threading.Event()

    def drip(connection) -> None:
        connection.recv(1000)
        for byte in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 500:
            if over.wait(0.2):
                break
            connection.send(bytes([byte]))
        connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=lambda: drip(listening.accept()[0]), daemon=True).start()
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setattr(tracking, "ANSWER_PATIENCE", 0.5)
        began = time.monotonic()
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{listening.getsockname()[1]}")
        assert "does not answer" in tracking.obstacle()
        assert time.monotonic() - began < 10
        over.set()


@pytest.fixture
def server(monkeypatch):
    """``server(reply)`` starts such a server on this machine, with a key in the environment, and returns it."""
    import wandb

    started = []

    def start(reply) -> ThreadingHTTPServer:
        one = ThreadingHTTPServer(("127.0.0.1", 0), Wandb)
        one.daemon_threads, one.reply, one.over = True, reply, threading.Event()
        threading.Thread(target=one.serve_forever, daemon=True).start()
        started.append(one)
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{one.server_port}")
        return one

    for name in ("WANDB_MODE", "WANDB_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setattr(tracking, "ANSWER_PATIENCE", 1.0)
    monkeypatch.setattr(tracking, "INIT_PATIENCE", 3.0)
    monkeypatch.setattr(tracking, "FINISH_PATIENCE", 3.0)
    wandb.teardown()  # W&B reads the environment when its service starts
    yield start
    for one in started:
        one.over.set()
        one.shutdown()
        one.server_close()
    wandb.teardown()


def only_to(name: str, otherwise):
    """A server that takes the key, and fails when the run itself is asked for."""
    return lambda query: 200 if name in query else otherwise


@pytest.mark.parametrize(
    "reply",
    ["refused", "hang", 307, 401, 403, 404, 500, only_to("Viewer", "hang"), only_to("Viewer", 403), only_to("Viewer", 500)],
    ids=["refused", "hanging", "redirected", "401", "403", "404", "500", "hanging later", "403 later", "500 later"],
)
def test_a_server_that_fails_in_any_way_means_offline_soon_and_again_on_every_restart(reply, server, tmp_path) -> None:
    one = server(reply if callable(reply) else lambda query: reply)
    if reply == "refused":
        one.shutdown()
        one.server_close()
    said: list[str] = []
    for _ in ("first", "restart"):
        began = time.monotonic()
        tracker = start_wandb(get_profile("mini"), tmp_path, said.append)
        assert tracker.run is not None and tracker.run.settings.mode == "offline", said
        assert time.monotonic() - began < 1 + 3 + 15, "the stated seconds, and W&B's own service twice"
        tracker.log(1, {"train/reward": 0.5})
        tracker.close()
    assert len(list(tmp_path.glob("wandb/offline-run-*"))) == 2, "the second was recorded too"
    told = [line for line in said if "The run is recorded offline." in line]
    assert len(told) == 2 and "W&B" in told[0] and KEY not in "".join(said)


def test_the_doctor_promises_what_the_training_does(server, tmp_path) -> None:
    from rlvr_utils.preflight.checks import check_wandb

    answer = {"status": 200}
    server(lambda query: answer["status"])
    for status, promised, mode in ((200, "answers.", "online"), (403, "recorded offline", "offline")):
        answer["status"] = status
        assert promised in check_wandb(get_profile("mini"))
        (tmp_path / mode).mkdir()
        tracker = start_wandb(get_profile("mini"), tmp_path / mode, lambda text: None)
        assert tracker.run.settings.mode == mode
        answer["status"] = 403  # what is lost on the way ends nothing
        tracker.log(1, {"train/reward": 0.5})
        tracker.close()


def test_a_wandb_that_does_not_start_at_all_is_done_without(tmp_path, monkeypatch) -> None:
    import wandb

    def init(**options):
        raise wandb.errors.UsageError(f"no service {KEY}")

    said: list[str] = []
    monkeypatch.setattr(wandb, "init", init)
    tracker = start_wandb(get_profile("mini", wandb_mode="offline"), tmp_path, said.append)
    assert tracker.run is None and "in its folder only" in said[0] and KEY not in said[0]


@pytest.mark.parametrize(
    "environment, mode",
    [
        ({}, "offline"),
        ({"WANDB_API_KEY": KEY}, "online"),
        ({"WANDB_API_KEY": KEY, "WANDB_MODE": "disabled"}, "disabled"),
        ({"WANDB_API_KEY": KEY, "WANDB_MODE": "Offline"}, "offline"),
        ({"WANDB_MODE": "dryrun"}, "offline"),
        ({"WANDB_MODE": "RUN"}, "online"),
        ({"WANDB_API_KEY": KEY, "WANDB_MODE": ""}, "online"),
        ({"WANDB_API_KEY": KEY, "WANDB_DISABLED": "True"}, "disabled"),
        ({"WANDB_DISABLED": "1"}, "disabled"),
        ({"WANDB_API_KEY": KEY, "WANDB_DISABLED": "false"}, "online"),
    ],
)
def test_mode_follows_the_environment(environment, mode, monkeypatch, tmp_path):
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert tracking.wandb_mode(get_profile("mini")) == mode
    assert tracking.wandb_mode(get_profile("mini", wandb_mode="disabled")) == "disabled"
    assert start_wandb(get_profile("mini", wandb_mode="disabled"), tmp_path).run is None


@pytest.mark.parametrize("name, value", [("WANDB_MODE", "shared"), ("WANDB_MODE", "of line"), ("WANDB_DISABLED", "maybe")])
def test_a_mode_that_nobody_knows_is_refused_before_anything_is_loaded(name, value, monkeypatch, tmp_path):
    from rlvr_utils.training import train

    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=f"{name}='{value}' is unknown. Set it to .*, or unset it"):
        train("mini", tmp_path / "run", model="nowhere/at-all")
    assert not (tmp_path / "run").exists()


def test_wandb_itself_starts_with_the_modes_that_people_write(monkeypatch, tmp_path):
    import wandb

    monkeypatch.setenv("WANDB_MODE", " Offline")
    wandb.teardown()
    tracker = start_wandb(get_profile("mini"), tmp_path)
    assert tracker.run is not None and tracker.run.settings.mode == "offline"
    assert os.environ["WANDB_MODE"] == " Offline", "the next training reads what the reader wrote"
    tracker.close()


def test_a_server_that_dies_during_a_training_changes_nothing_of_it(server, tmp_path) -> None:
    """It answers until the first step is made, and never again: neither the steps nor the end wait for it."""
    from rlvr_utils.runs.tracking import TrackedWriter

    answer: dict[str, object] = {"status": 200}
    server(lambda query: answer["status"])
    tracker = start_wandb(get_profile("mini"), tmp_path, lambda text: None)
    assert tracker.run.settings.mode == "online"
    writer = TrackedWriter(tmp_path, tracker)
    writer.log_metrics({"step": 1, "reward": 0.5})
    answer["status"] = "hang"
    began = time.monotonic()
    for step in range(2, 100):
        writer.log_metrics({"step": step, "reward": 0.5})
    assert time.monotonic() - began < 10
    tracker.close()
    assert time.monotonic() - began < 20
    assert len(load_run(tmp_path).metrics) == 99

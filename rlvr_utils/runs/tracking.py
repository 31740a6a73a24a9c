"""Weights & Biases: whether it is reachable, what is sent to it, and the record of a run's environment.

:class:`TrackedWriter` sends W&B the same rows that it writes to disk. So a run is complete without W&B, and losing the
connection loses no data. ``doctor`` and ``train`` both check the server before a run starts, so an unreachable server
costs only seconds. A key is sent only to W&B's server. It is never printed or saved.
"""

from __future__ import annotations

import contextlib
import netrc
import os
import platform
import secrets
import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from urllib.parse import urlparse

import pandas as pd
import requests
import torch

from .. import REPO
from ..problems import ROLLOUT_COLUMNS
from ..profiles import Profile
from ..system.threads import thread_record
from .disk import RunWriter, load_run

#: Packages whose version decides whether a run works: their tested version is in requirements.lock.
PACKAGES = ("torch", "transformers", "trl", "peft", "datasets", "accelerate", "wandb")
STEP = "train/global_step"  # in every row: the x axis of W&B's charts, and the key of a row that is sent twice
FINISH_PATIENCE = 300.0  # seconds for the upload at the end: a network that is gone must not keep a rented GPU waiting
#: The step is the table's, and the reason says whether the response is correct.
TABLE_COLUMNS = tuple(name for name in ROLLOUT_COLUMNS if name not in ("step", "correct"))
#: Seconds that a server has to answer. If W&B's does not, the run is recorded offline.
ANSWER_PATIENCE = 8.0
#: Seconds that ``wandb.init`` has after that. It tries again and again by itself, 90 seconds long by default.
INIT_PATIENCE = 20.0
#: Accepted values of WANDB_MODE, and W&B's current names for them.
MODES = {"online": "online", "run": "online", "offline": "offline", "dryrun": "offline", "disabled": "disabled"}
YES, NO = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")


# --- whether and as whom ---


def wandb_mode(p: Profile) -> str:
    """``online``, ``offline`` or ``disabled``: the profile's, or for ``auto`` the environment's.

    WANDB_DISABLED and WANDB_MODE override ``auto``. Without them ``auto`` is online if WANDB_API_KEY is set.

    Raises:
        ValueError: one of the two has another value. W&B itself would fail on it, with any profile.
    """
    disabled = os.environ.get("WANDB_DISABLED", "").strip().lower()
    mode = os.environ.get("WANDB_MODE", "").strip().lower()
    if disabled not in YES + NO:
        raise ValueError(f"WANDB_DISABLED={os.environ['WANDB_DISABLED']!r} is unknown. Set it to true, or unset it.")
    if mode and mode not in MODES:
        raise ValueError(
            f"WANDB_MODE={os.environ['WANDB_MODE']!r} is unknown. Set it to online, offline or disabled, or unset it."
        )
    if p.wandb_mode != "auto":
        return p.wandb_mode
    if disabled in YES:
        return "disabled"
    return MODES.get(mode) or ("online" if os.environ.get("WANDB_API_KEY") else "offline")


def server() -> str:
    """The address of W&B's server."""
    return (os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").rstrip("/")


def obstacle() -> str | None:
    """Why the run cannot be recorded online, as a clause. None if the server answers and accepts the key.

    An unclear answer (another version of the server, a proxy's own certificate) is no obstacle. Then ``wandb.init``
    decides, in at most :data:`INIT_PATIENCE` seconds.
    """
    address = server()
    key = api_key(address)
    if key is None:
        return "there is no key"
    # requests limits each wait for a byte, and a server may send one now and then without end.
    found: list[str | None] = []
    asking = threading.Thread(target=lambda: found.append(asked(address, key)), daemon=True)
    asking.start()
    asking.join(ANSWER_PATIENCE + 2)
    return found[0] if found else f"{address} does not answer"


def asked(address: str, key: str) -> str | None:
    """What :func:`obstacle` says of a server and a key."""
    try:
        answer = requests.post(
            f"{address}/graphql",
            json={"query": "query Viewer { viewer { id } }"},
            auth=("api", key),
            timeout=ANSWER_PATIENCE,
            stream=True,
            allow_redirects=False,
        )
    except requests.exceptions.SSLError:
        return None
    except (requests.exceptions.RequestException, ValueError, UnicodeError):
        return f"{address} does not answer"
    with answer:
        if answer.status_code in (401, 403):
            return f"{address} rejects the key ({answer.status_code})"
        return f"{address} has a server error ({answer.status_code})" if answer.status_code >= 500 else None


def api_key(address: str) -> str | None:
    """The key in the environment or where ``wandb login`` puts it, or None."""
    if os.environ.get("WANDB_API_KEY"):
        return os.environ["WANDB_API_KEY"]
    try:
        found = netrc.netrc(os.environ.get("NETRC")).authenticators(urlparse(address).hostname)
    except (OSError, netrc.NetrcParseError):
        return None
    return found[2] if found else None


# --- the run in W&B ---


def start_wandb(p: Profile, folder: Path, say: Callable[[str], None] = print) -> Tracker:
    """Start (or, with the id kept in the folder, continue) the W&B run. Without W&B, it returns an empty tracker.

    Offline needs no account, prompt or network. If online fails, the run is recorded offline. If W&B does not start at all,
    the run continues without it. Both are reported, and take at most ``ANSWER_PATIENCE + INIT_PATIENCE`` seconds plus the
    start of W&B's own service. A failure of W&B never stops training.

    Raises:
        ValueError: WANDB_MODE or WANDB_DISABLED has a value that W&B does not know.
    """
    mode = wandb_mode(p)
    if mode == "disabled":
        return Tracker()
    os.environ.setdefault("WANDB_SILENT", "true")
    if mode == "online" and (reason := obstacle()):
        say(f"W&B: {reason}. The run is recorded offline.")
        mode = "offline"
    if mode == "online" and (run := init_wandb(p, folder, mode, say)):
        say(f"W&B: {run.url}")
        return Tracker(run, folder, say, p.sft_steps)
    return Tracker(init_wandb(p, folder, "offline", say), folder, say, p.sft_steps)


@contextlib.contextmanager
def wandb_mode_set(mode: str) -> Iterator[None]:
    """WANDB_MODE in W&B's own words: W&B reads it too, and knows neither capitals nor an empty word."""
    before = os.environ.get("WANDB_MODE")
    os.environ["WANDB_MODE"] = mode
    try:
        yield
    finally:
        os.environ.pop("WANDB_MODE")
        if before is not None:
            os.environ["WANDB_MODE"] = before


def init_wandb(p: Profile, folder: Path, mode: str, say: Callable[[str], None]):
    """The W&B run, or None (with a message) if W&B does not start."""
    began = time.monotonic()
    try:
        with wandb_mode_set(mode):
            import wandb  # slow to import

            settings = wandb.Settings(
                silent=True,
                console="off",
                init_timeout=INIT_PATIENCE,
                finish_timeout=FINISH_PATIENCE,
                finish_timeout_raises=True,
            )
            run = wandb.init(
                mode=mode,
                project=p.wandb_project,
                name=folder.name,
                id=run_id(folder),
                resume="allow",
                dir=str(folder),
                config=p.to_dict(),
                settings=settings,
            )
            run.define_metric(STEP, hidden=True)
            run.define_metric("*", step_metric=STEP)
            return run
    except Exception as error:  # its text may contain the key, so we print only its name
        what = "recorded offline" if mode == "online" else "recorded in its folder only"
        took = time.monotonic() - began
        say(f"W&B did not start {mode}: it failed after {took:.0f} s ({type(error).__name__}). The run is {what}.")
        _forget_wandb()
        return None


def _forget_wandb() -> None:
    """End W&B's service: it still holds the failed run and would not start that id again."""
    try:
        import wandb

        wandb.teardown(exit_code=1)
    except Exception:  # it is gone already
        return


def run_id(folder: Path) -> str:
    """The W&B id of the run in ``folder``, the same in every restart."""
    file = folder / "wandb-run-id.txt"
    if not (file.is_file() and file.read_text(encoding="ascii").strip()):
        file.write_text(secrets.token_hex(4) + "\n", encoding="ascii")
    return file.read_text(encoding="ascii").strip()


class Tracker:
    """A W&B run that may be lost at any time. Training then continues without it, with one message.

    W&B silently drops rows of negative steps, so its own step counts from ``before`` steps before step 0.
    """

    def __init__(self, run=None, folder: Path | None = None, say: Callable[[str], None] = print, before: int = 0) -> None:
        self.run, self.folder, self.say, self.before = run, folder, say, before

    def log(self, step: int, values: dict) -> None:
        """Send numbers of ``step``. What is sent again after a resume makes no second row: it has the same W&B step."""
        self._attempt(lambda run: run.log({STEP: step} | values, step=step + self.before))

    def log_table(self, name: str, step: int, rows: list[dict]) -> None:
        """Send rollouts as a table."""

        def send(run) -> None:
            import wandb  # slow to import

            cells = [[_table_cell(row.get(column)) for column in TABLE_COLUMNS] for row in rows]
            run.log({STEP: step, name: wandb.Table(columns=list(TABLE_COLUMNS), data=cells)}, step=step + self.before)

        self._attempt(send)

    def summarise(self, values: dict) -> None:
        """Put values in the run's summary, which W&B shows in its table of runs."""
        self._attempt(lambda run: run.summary.update(values))

    def close(self) -> None:
        """Finish the W&B run. If it was offline, print how to upload it."""
        offline = self.run is not None and self.run.settings.mode == "offline"
        self._attempt(lambda run: run.finish())
        if self.run is not None and offline:
            self.say(f"W&B recorded this offline. To send it: wandb login, then {self._sync_command()}")
        self.run = None

    def _attempt(self, action: Callable) -> None:
        if self.run is None:
            return
        try:
            action(self.run)
        except Exception as error:  # no failure of W&B may stop training
            self.run = None
            self.say(
                f"W&B was lost ({type(error).__name__}). The run continues without it and is complete in "
                f"{self.folder}. To upload what W&B has on disk, run: {self._sync_command()}"
            )

    def _sync_command(self) -> str:
        folder = self.folder.relative_to(REPO) if self.folder.is_relative_to(REPO) else self.folder
        return f"wandb sync {shlex.quote(str(folder))}/wandb/*run-*"


class TrackedWriter(RunWriter):
    """A run's writer that also sends every row to W&B, after it is safe on disk."""

    def __init__(self, path: str | Path, tracker: Tracker, repair: bool = True) -> None:
        super().__init__(path, repair)
        self.tracker = tracker

    def log_metrics(self, row: dict) -> None:
        super().log_metrics(row)
        self.tracker.log(row["step"], training_values(row))

    def cut_back(self, step: int) -> None:
        """As on disk; the last row is sent again, because W&B keeps a step's row back until the next one begins."""
        super().cut_back(step)
        for row in load_run(self.path).metrics.tail(1).to_dict("records"):
            self.tracker.log(row["step"], training_values(row))

    def log_train_rollouts(self, rows: list[dict]) -> None:
        super().log_train_rollouts(rows)
        self.tracker.log_table("completions", rows[0]["step"], rows)

    def log_evaluation(self, row: dict, responses: list[dict]) -> None:
        super().log_evaluation(row, responses)
        self.tracker.log(row["step"], evaluation_values(row))

    def summarise(self, step: int) -> None:
        """Put the evaluations at ``step`` into W&B's summary, as ``final/...``."""
        rows = load_run(self.path).evaluations
        for row in rows[rows.step == step].to_dict("records"):
            values = evaluation_values(row)
            self.tracker.summarise({f"final/{name.removeprefix('eval/')}": value for name, value in values.items()})


def training_values(row: dict) -> dict[str, float]:
    """The numbers of a training step under W&B's names, as in ``train/reward``."""
    return {f"train/{name}": value for name, value in row.items() if name != "step"}


def evaluation_values(row: dict) -> dict[str, float]:
    """The numbers of an evaluation under W&B's names, as in ``eval/test-sampled/accuracy``."""
    name = f"eval/{row['split']}-{row['decoding']}"
    return {
        f"{name}/{key}": value
        for key, value in row.items()
        if isinstance(value, (int, float)) and key not in ("step", "shots") and not pd.isna(value)
    }


def _table_cell(value: object) -> object:
    return value if isinstance(value, (int, float, str)) or value is None else str(value)


# --- where a run was made ---


def environment_record() -> dict:
    """Versions, commit and hardware, without anything that names the machine or its owner."""
    return {
        "versions": {"python": platform.python_version()} | {name: installed(name) for name in (*PACKAGES, "numpy", "vllm")},
        "commit": git_commit(),
        "cpu_count": os.cpu_count(),
        **thread_record(),
        "machine": platform.machine(),
        "system": platform.system(),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
    }


def installed(name: str) -> str | None:
    """The version of an installed package, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def git_commit() -> str | None:
    """This repository's commit, with ``+`` if tracked files differ. None without git, or inside another repository."""
    try:
        if Path(_git("rev-parse", "--show-toplevel")).resolve() != REPO.resolve():
            return None
        return _git("rev-parse", "HEAD")[:12] + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*words: str) -> str:
    """The output of git in this repository. GIT_* variables, which git hooks set, are ignored."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    said = subprocess.run(["git", *words], cwd=REPO, env=environment, capture_output=True, text=True, check=True)
    return said.stdout.strip()

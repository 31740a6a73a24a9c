"""Whether, and as whom, W&B can be reached: asked before a run starts, so that a server that is gone costs seconds.

``doctor`` and ``train`` ask the same questions, so what the one promises the other does. A key is sent to W&B's server and
nowhere else. It is never printed or saved.
"""

from __future__ import annotations

import netrc
import os
import threading
from urllib.parse import urlparse

from .profiles import Profile

#: Seconds that the server has to answer before a run is recorded offline.
PATIENCE = 8.0
#: Seconds that ``wandb.init`` has after that. It tries again and again by itself, 90 seconds long by default.
INIT_PATIENCE = 20.0
#: What people write in WANDB_MODE, and what W&B calls it now.
MODES = {"online": "online", "run": "online", "offline": "offline", "dryrun": "offline", "disabled": "disabled"}
YES, NO = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")


def wandb_mode(p: Profile) -> str:
    """``online``, ``offline`` or ``disabled``: the profile's, or for ``auto`` the environment's.

    WANDB_DISABLED and WANDB_MODE decide over ``auto``. Without them ``auto`` is online where WANDB_API_KEY is set.

    Raises:
        ValueError: one of the two holds something else. W&B itself would fail on it, whatever the profile says.
    """
    disabled = os.environ.get("WANDB_DISABLED", "").strip().lower()
    mode = os.environ.get("WANDB_MODE", "").strip().lower()
    if disabled not in YES + NO:
        raise ValueError(f"WANDB_DISABLED={os.environ['WANDB_DISABLED']!r}: set it to true, or unset it.")
    if mode and mode not in MODES:
        raise ValueError(f"WANDB_MODE={os.environ['WANDB_MODE']!r}: set it to online, offline or disabled, or unset it.")
    if p.wandb_mode != "auto":
        return p.wandb_mode
    if disabled in YES:
        return "disabled"
    return MODES.get(mode) or ("online" if os.environ.get("WANDB_API_KEY") else "offline")


def server() -> str:
    """The address of W&B's server."""
    return (os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").rstrip("/")


def obstacle(address: str | None = None) -> str | None:
    """Why nothing can be recorded online, as the start of a sentence; None where the server answers and takes the key.

    An answer that says neither yes nor no (another version of the server, a proxy's own certificate) is no obstacle:
    ``wandb.init`` decides then, in at most :data:`INIT_PATIENCE` seconds.
    """
    address = address or server()
    key = api_key(address)
    if key is None:
        return "there is no key"
    # requests limits each wait for a byte, and a server may send one now and then without end.
    found: list[str | None] = []
    asking = threading.Thread(target=lambda: found.append(asked(address, key)), daemon=True)
    asking.start()
    asking.join(PATIENCE + 2)
    return found[0] if found else f"{address} does not answer"


def asked(address: str, key: str) -> str | None:
    """What :func:`obstacle` says of a server and a key."""
    import requests  # floor 1 stays quick to import

    try:
        answer = requests.post(f"{address}/graphql", json={"query": "query Viewer { viewer { id } }"}, auth=("api", key),
                               timeout=PATIENCE, stream=True, allow_redirects=False)
    except requests.exceptions.SSLError:
        return None
    except (requests.exceptions.RequestException, ValueError, UnicodeError):
        return f"{address} does not answer"
    with answer:
        if answer.status_code in (401, 403):
            return f"{address} refuses the key ({answer.status_code})"
        return f"{address} is out of order ({answer.status_code})" if answer.status_code >= 500 else None


def api_key(address: str) -> str | None:
    """The key in the environment or where ``wandb login`` puts it, or None."""
    if os.environ.get("WANDB_API_KEY"):
        return os.environ["WANDB_API_KEY"]
    try:
        found = netrc.netrc(os.environ.get("NETRC")).authenticators(urlparse(address).hostname)
    except (OSError, netrc.NetrcParseError):
        return None
    return found[2] if found else None

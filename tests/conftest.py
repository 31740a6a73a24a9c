"""Shared fixtures. Real public problems are optional: tests that need them are skipped if they are missing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # tests run in parallel: set before torch is imported, also for child processes
    os.environ.setdefault("OMP_NUM_THREADS", "1")

REPO = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the directory of real public test data (``RLVR_TEST_DATA``, default ``../shared/data``)."""
    folder = Path(os.environ.get("RLVR_TEST_DATA", REPO.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real test data in {folder}: set RLVR_TEST_DATA to a folder that holds it")
    return folder


@pytest.fixture
def odd_reward():
    """Return rewards that vary independently of skill."""
    from resume import odd_rewards

    with odd_rewards():
        yield


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> str:
    """Return the directory of a random Llama of about ten thousand parameters with a tokenizer like MiniLlama's."""
    from resume import tiny_model  # imports torch, which many tests do not need

    return str(tiny_model(tmp_path_factory.mktemp("tiny")))

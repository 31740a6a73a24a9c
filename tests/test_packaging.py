"""pyproject.toml, requirements.lock and environment.yml describe the same environment.

conda is not needed here: environment.yml is checked statically (what it says, not what conda makes of it).
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

import rlvr_utils

REPO = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((REPO / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
ENVIRONMENT = yaml.safe_load((REPO / "environment.yml").read_text())
TESTED = {
    "torch": "2.13.0",
    "transformers": "5.23.0",
    "trl": "1.16.0",
    "peft": "0.21.2",
    "datasets": "5.2.0",
    "accelerate": "1.15.0",
    "wandb": "0.31.0",
    "papermill": "2.7.0",
    "jupyterlab": "4.6.6",
    "ipywidgets": "8.1.9",
}
#: Packages required by CUDA builds of PyTorch. They depend on the build, so the lock does not list them.
CUDA_PARTS = re.compile(r"nvidia-|cuda-|triton")


def lock_lines() -> list[str]:
    lines = (REPO / "requirements.lock").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def locked() -> dict[str, Version]:
    requirements = [Requirement(line) for line in lock_lines()]
    return {canonicalize_name(r.name): Version(str(r.specifier).removeprefix("==")) for r in requirements}


def test_every_lock_line_is_one_portable_pin() -> None:
    """Every line is name==version, without paths, +labels and packages of CUDA builds."""
    strange = [line for line in lock_lines() if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line)]
    assert strange == []
    assert [line for line in lock_lines() if CUDA_PARTS.match(line)] == []


def test_the_lock_names_each_package_once() -> None:
    assert len(locked()) == len(lock_lines())


@pytest.mark.parametrize(("name", "version"), TESTED.items())
def test_the_lock_has_the_tested_versions(name: str, version: str) -> None:
    assert locked()[name] == Version(version)


def test_every_range_is_satisfied_by_its_pin() -> None:
    pins, wrong = locked(), []
    for requirement in map(Requirement, PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"]):
        pin = pins.get(canonicalize_name(requirement.name))
        if pin is None or not requirement.specifier.contains(pin, prereleases=True):
            wrong.append(f"{requirement}: {pin or 'not'} in requirements.lock")
    assert wrong == []


def test_build_requirements_are_locked_too() -> None:
    """The Makefile installs the project without build isolation, so the lock must contain the build requirements."""
    for text in PYPROJECT["build-system"]["requires"]:
        requirement = Requirement(text)
        assert locked()[canonicalize_name(requirement.name)] in requirement.specifier


def test_the_lock_is_complete() -> None:
    """All dependencies of locked packages are locked too, so that installations are identical."""
    pins, missing = locked(), []
    for name in pins:
        for text in metadata.requires(name) or []:
            requirement = Requirement(text)
            if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
                continue
            needed = canonicalize_name(requirement.name)
            if not CUDA_PARTS.match(needed) and needed not in pins:
                missing.append(f"{name} needs {needed}")
    assert not missing


@pytest.mark.skipif(Path(sys.prefix) != REPO / ".venv", reason="this is not the Makefile's environment")
def test_the_running_environment_is_the_locked_one() -> None:
    installed = {name: Version(Version(metadata.version(name)).public) for name in locked()}
    assert installed == locked()


def test_conda_builds_from_the_same_pins() -> None:
    """Checked statically."""
    assert ENVIRONMENT["channels"] == ["conda-forge", "nodefaults"]
    *conda, last = ENVIRONMENT["dependencies"]
    python = Requirement(next(text for text in conda if text.startswith("python")).replace("=", "==", 1))
    assert SpecifierSet(PROJECT["requires-python"]).contains(str(python.specifier).removeprefix("=="))
    assert [text for text in conda if "=" in text and not text.startswith("python=")] == []
    assert {"-r requirements.lock", "-e ."} <= set(last["pip"])
    assert [text for text in last["pip"] if not text.startswith("-")] == []


def test_the_version_is_defined_once() -> None:
    assert "version" in PROJECT["dynamic"]
    citation = yaml.safe_load((REPO / "CITATION.cff").read_text())
    assert citation["version"] == rlvr_utils.__version__
    assert citation["license"] == PROJECT["license"] == "Apache-2.0"


def test_ci_runs_what_make_test_runs() -> None:
    runner = (REPO / ".ci" / "run").read_text()
    assert runner.rstrip().endswith("make test")
    steps = yaml.safe_load((REPO / ".github/workflows/ci.yml").read_text())["jobs"]["test"]["steps"]
    assert steps[-1]["run"] == ".ci/run"


def test_an_old_python_prints_a_clear_error(tmp_path: Path) -> None:
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        (tmp_path / name).write_text((REPO / name).read_text())
    old = tmp_path / "old-python"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    made = subprocess.run(["make", "course", f"PYTHON={old}"], cwd=tmp_path, capture_output=True, text=True)
    assert made.returncode != 0
    assert "needs Python 3.11 or newer" in made.stdout and "make PYTHON=python3.12 course" in made.stdout
    assert not (tmp_path / ".venv").exists()


def test_make_calls_only_existing_scripts() -> None:
    studies = re.search(r"^STUDIES := (.*)$", (REPO / "Makefile").read_text().replace("\\\n", " "), re.M)[1].split()
    shown = subprocess.run(["make", "-n", *studies], cwd=REPO, capture_output=True, text=True, check=True).stdout
    scripts = re.findall(r"(?:studies|tools|tests)/\w+\.py", shown)
    assert len(scripts) >= 4 and [script for script in scripts if not (REPO / script).is_file()] == []


def test_committed_files_are_small() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPO, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    files = [REPO / name for name in listed.stdout.split("\0") if (REPO / name).is_file()]
    sizes = {file: file.lstat().st_size for file in files}  # a link is not a second copy
    assert max(sizes.values()) <= 10 * 2**20, max(sizes, key=sizes.get)
    assert sum(sizes.values()) <= 40 * 2**20

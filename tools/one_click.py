"""Write badges, the clone command and ``cloud/`` from the repository's address in configs/repository.yaml.

Colab and Kaggle open a single notebook without the repository. ``cloud/`` therefore contains the notebooks without outputs
and with an extra first cell that fetches the course. Without an address there are no ``cloud/`` and no badges. Not yet
tested on Colab, Kaggle or Binder, because we had no access to them.
Run:  python tools/one_click.py
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import nbformat
import yaml
from readme_results import README, put

from rlvr_utils import REPO
from rlvr_utils.course.copies import without_outputs
from rlvr_utils.course.runner import course_notebooks

SETTINGS = REPO / "configs" / "repository.yaml"
CLOUD = REPO / "cloud"
GITHUB = re.compile(r"https://github\.com/([\w.-]+/[\w.-]+?)(?:\.git)?/?")
FIRST = "cloud/00_start_here.ipynb"
SETUP = """\
# On Colab or Kaggle this cell fetches the course and its packages (some minutes, once per
# session). Where the course is installed already, it does nothing.
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("rlvr_utils") is None:
    clone = ["git", "clone", "--depth", "1", "--branch", "{branch}", "{address}", "rlvr-course"]
    subprocess.run(clone, check=True)
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "-e", "rlvr-course"], check=True)
    sys.path.insert(0, "rlvr-course")  # this kernel started before the installation"""


def place(settings: Path = SETTINGS) -> tuple[str, str]:
    """Return (owner/name, branch) of the published repository, or ("", branch) if it has no address.

    Raises:
        ValueError: the address is not on GitHub, the only host that Colab, Kaggle and Binder all support.
    """
    found = yaml.safe_load(settings.read_text(encoding="utf-8"))
    if not found["address"]:
        return "", found["branch"]
    match = GITHUB.fullmatch(found["address"])
    if match is None:
        raise ValueError(f"{settings.name} has address={found['address']!r}. Write it as https://github.com/OWNER/NAME.")
    return match[1], found["branch"]


def badges(name: str, branch: str) -> str:
    """Return Markdown links that open notebook 00 in the cloud, or "" without an address."""
    if not name:
        return ""
    file = f"{name}/blob/{branch}/{FIRST}"
    links = {
        "Open in Colab": f"https://colab.research.google.com/github/{file}",
        "Open in Kaggle": f"https://kaggle.com/kernels/welcome?src=https://github.com/{file}",
        "Open in Binder": f"https://mybinder.org/v2/gh/{name}/{branch}?urlpath=lab/tree/{FIRST}",
    }
    return "\n".join(f"[**{text}**]({link})" for text, link in links.items())


def clone_command(name: str) -> str:
    """Return the README's code block with the commands for a local start."""
    address = f"https://github.com/{name}" if name else "ADDRESS-OF-THIS-REPOSITORY"
    return (
        "```bash\n"
        f"git clone --depth 1 {address} rlvr-course && cd rlvr-course\n"
        "make lab       # makes the environment (some minutes, once) and opens notebook 00 in JupyterLab\n"
        "```"
    )


def readme(name: str, branch: str) -> str:
    """Return the README with badges and clone command filled in."""
    return put(put(README.read_text(encoding="utf-8"), "badges", badges(name, branch)), "clone", clone_command(name))


def write_cloud(name: str, branch: str, folder: Path = CLOUD) -> None:
    """Write ``folder`` again: the notebooks without outputs, each with a cell that fetches the course."""
    shutil.rmtree(folder, ignore_errors=True)
    if not name:
        return
    folder.mkdir(parents=True)
    for source in course_notebooks():
        notebook = without_outputs(source)
        setup = SETUP.format(address=f"https://github.com/{name}", branch=branch)
        notebook.cells.insert(1, nbformat.v4.new_code_cell(setup, id="cloud-setup"))
        nbformat.write(notebook, folder / source.name)


if __name__ == "__main__":
    where = place()
    README.write_text(readme(*where), encoding="utf-8")
    write_cloud(*where)
    print(f"README.md and cloud/ are written for {where[0]}." if where[0] else f"No address in {SETTINGS.name}: no badges.")

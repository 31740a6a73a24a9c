"""Links, paths and commands in prose exist, and related pages link to each other."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlparse

import nbformat
import pytest
import yaml

from rlvr_utils import REPO
from rlvr_utils.cli import command_line
from rlvr_utils.course.copies import WORK

NOTEBOOKS = sorted((REPO / "notebooks").glob("*.ipynb"))
PAGES = [
    *sorted(REPO.glob("*.md")),
    *sorted((REPO / "docs").glob("*.md")),
    *sorted((REPO / "data").rglob("*.md")),
    *NOTEBOOKS,
]
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
NAMED_PATH = re.compile(r"(?:rlvr_utils|data|studies|tools|notebooks|tests|docs|scripts)/[\w./*-]*")
MAKE = re.compile(r"\bmake ((?:[a-z]+-)*[a-z]+)")
RLVR = re.compile(r"(?:^|[ /])rlvr ([a-z]+)\b")


def prose(path: Path) -> str:
    """Return the Markdown of a page or of a notebook's cells, without fenced blocks."""
    if path.suffix == ".ipynb":
        cells = nbformat.read(path, as_version=4).cells
        text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    else:
        text = path.read_text(encoding="utf-8")
    return re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)


def anchors(path: Path) -> set[str]:
    """Return GitHub's anchors for the headings of a page."""
    titles = re.findall(r"^#{1,6} +(.+)$", prose(path), re.M)
    return {re.sub(r"[^\w\- ]", "", re.sub(r"[*`]", "", title).lower()).strip().replace(" ", "-") for title in titles}


def broken(path: Path) -> Iterator[str]:
    """Return the broken links of a page."""
    for link in LINK.findall(prose(path)):
        url = urlparse(link)
        if url.scheme:
            if url.scheme != "https" or not url.netloc:
                yield f"{link}: not https"
            continue
        target = (path.parent / url.path).resolve() if url.path else path
        if not target.exists() or not target.is_relative_to(REPO):
            yield f"{link}: no such file"
        elif url.fragment and target.suffix == ".md" and url.fragment not in anchors(target):
            yield f"{link}: no such heading"


def targets(path: Path) -> set[Path]:
    return {(path.parent / urlparse(link).path).resolve() for link in LINK.findall(prose(path)) if not urlparse(link).scheme}


def goals() -> set[str]:
    """Return the targets of the Makefile, with variables expanded."""
    makefile = (REPO / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    studies = re.search(r"^STUDIES := (.+)$", makefile, re.M)[1].split()
    return {*re.search(r"^\.PHONY: (.+)$", makefile, re.M)[1].split(), *studies}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(REPO).as_posix())
def test_links_resolve(path: Path) -> None:
    assert list(broken(path)) == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(REPO).as_posix())
def test_named_files_and_commands_exist(path: Path) -> None:
    code = CODE.findall(prose(path))
    gone = [name for name in code if NAMED_PATH.fullmatch(name) and not list(REPO.glob(name.rstrip("/")))]
    commands = command_line()._subparsers._group_actions[0].choices
    unknown = [f"make {goal}" for part in code for goal in MAKE.findall(part) if goal not in goals()]
    unknown += [f"rlvr {name}" for part in code for name in RLVR.findall(part) if name not in commands]
    assert gone + unknown == []


def test_the_lab_serves_the_whole_repository_and_opens_the_learners_copy_of_notebook_00() -> None:
    """Started in notebooks/, JupyterLab could not open the glossary or runs. (test-browser clicks the links.)"""
    told = subprocess.run(["make", "-n", "--old-file=venv", "lab"], cwd=REPO, stdout=subprocess.PIPE, text=True, check=True)
    flags = dict(word.split("=", 1) for word in shlex.split(told.stdout) if "=" in word)
    assert Path(flags["--ServerApp.root_dir"]) == REPO
    assert REPO / flags["--LabApp.default_url"].removeprefix("/lab/tree/") == WORK / NOTEBOOKS[0].name
    assert told.stdout.index("rlvr_utils.course.copies") < told.stdout.index("jupyterlab"), (
        "the copies must be made before the lab starts"
    )
    assert WORK.parent == NOTEBOOKS[0].parent.parent, "links must be valid in the copy"
    defaults = Path(flags["JUPYTER_CONFIG_PATH"].split("$")[0]) / "labconfig" / "default_setting_overrides.json"
    assert "fetchNews" in defaults.read_text()


def test_pages_link_in_both_directions() -> None:
    readme, glossary = REPO / "README.md", REPO / "GLOSSARY.md"
    help_pages = {glossary, REPO / "TROUBLESHOOTING.md"}
    assert targets(readme) >= {*NOTEBOOKS, *help_pages} and targets(glossary) == set(NOTEBOOKS)
    for i, path in enumerate(NOTEBOOKS):
        neighbours = {*NOTEBOOKS[max(0, i - 1) : i], *NOTEBOOKS[i + 1 : i + 2]}
        assert targets(path) >= neighbours | help_pages, path.stem


def test_every_glossary_term_occurs_where_it_links() -> None:
    rows = re.findall(r"^\| ([^|]+) \|.*\]\((notebooks/[^)]+)\) \|$", (REPO / "GLOSSARY.md").read_text(), re.M)
    assert len(rows) >= 50
    for words, target in rows:
        text = (REPO / target).read_text(encoding="utf-8").lower()
        names = re.findall(r"`([^`]+)`", words) or re.sub(r"\(.*\)|`", "", words).split(", ")
        assert any(name.strip().lower() in text for name in names), f"{words} is not in {target}"


def test_quoted_messages_exist_in_the_code() -> None:
    """Each message in the troubleshooting tables occurs in the package, the Makefile or the script."""
    sources = [*(REPO / "rlvr_utils").rglob("*.py"), REPO / "Makefile", REPO / "scripts" / "runpod.sh"]
    words = "".join(re.sub(r'"\s*\n\s*f?"', "", path.read_text(encoding="utf-8")) for path in sources)
    page = (REPO / "TROUBLESHOOTING.md").read_text(encoding="utf-8")
    tables = page.split("## Messages before a run")[1].split("## Installing")[0]
    quoted = [part for row in re.findall(r"^\| (`[^|]+) \|", tables, re.M) for part in re.findall(r"`([^`]+)`", row)]
    assert len(quoted) >= 15
    assert [part for part in quoted if part not in words] == []


def test_pre_commit_checks_are_local_and_exist() -> None:
    config = yaml.safe_load((REPO / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert [repo["repo"] for repo in config["repos"]] == ["local"], "the checks must not download anything"
    words = [word for hook in config["repos"][0]["hooks"] for word in hook["entry"].split()]
    assert "ruff" in words
    assert [word for word in words if word.startswith("tests/") and not (REPO / word).is_file()] == []


def test_the_alt_text_of_the_learning_curve_matches_the_included_runs() -> None:
    from learning_curve import block, curves
    from readme_results import RESULTS, put

    text = RESULTS.read_text(encoding="utf-8")
    assert text == put(text, "figure", block(curves())), "run `make figure` again"


def test_a_broken_link_is_reported(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "REPO", tmp_path)
    (tmp_path / "other.md").write_text("# A `heading`, here\n")
    page = tmp_path / "page.md"
    page.write_text("[a](other.md#a-heading-here) [b](gone.md) [c](other.md#gone) [d](http://x.org) [e](../out.md)\n")
    assert [sentence.split(":")[0] for sentence in broken(page)] == ["gone.md", "other.md#gone", "http", "../out.md"]

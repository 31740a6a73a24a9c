"""Badges, the clone command and the cloud notebooks come from one configuration file."""

from __future__ import annotations

import ast
from pathlib import Path

import nbformat
import pytest
from one_click import README, SETUP, badges, clone_command, place, readme, write_cloud

from rlvr_utils.course.runner import course_notebooks


def settings(path: Path, address: str) -> Path:
    path.write_text(f"address: {address!r}\nbranch: main\n", encoding="utf-8")
    return path


def test_the_readme_matches_the_settings() -> None:
    assert README.read_text(encoding="utf-8") == readme(*place()), "run tools/one_click.py again"


@pytest.mark.parametrize("address", ["https://github.com/me/course", "https://github.com/me/course.git"])
def test_an_address_gives_three_badges_and_a_clone_command(tmp_path, address: str) -> None:
    name, branch = place(settings(tmp_path / "s.yaml", address))
    assert (name, branch) == ("me/course", "main")
    colab, kaggle, binder = badges(name, branch).splitlines()
    assert "(https://colab.research.google.com/github/me/course/blob/main/cloud/00_start_here.ipynb)" in colab
    assert "src=https://github.com/me/course/blob/main/cloud/00_start_here.ipynb)" in kaggle
    assert "(https://mybinder.org/v2/gh/me/course/main?urlpath=lab/tree/cloud/00_start_here.ipynb)" in binder
    assert "git clone --depth 1 https://github.com/me/course rlvr-course" in clone_command(name)


def test_without_an_address_there_are_no_badges(tmp_path) -> None:
    assert place(settings(tmp_path / "s.yaml", "")) == ("", "main")
    assert badges("", "main") == ""
    write_cloud("", "main", tmp_path / "cloud")
    assert not (tmp_path / "cloud").exists()


@pytest.mark.parametrize("address", ["github.com/me/course", "https://example.org/me/course", "https://github.com/me"])
def test_another_host_raises(tmp_path, address: str) -> None:
    with pytest.raises(ValueError, match="Write it as https://github.com/OWNER/NAME"):
        place(settings(tmp_path / "s.yaml", address))


def test_the_notebooks_for_the_cloud_fetch_the_course_first_and_have_no_outputs(tmp_path) -> None:
    write_cloud("me/course", "main", tmp_path / "cloud")
    written = sorted((tmp_path / "cloud").glob("*.ipynb"))
    assert [path.name for path in written] == [path.name for path in course_notebooks()]
    for path in written:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert code[0].source == SETUP.format(address="https://github.com/me/course", branch="main")
        assert not any(cell.outputs for cell in code)
    ast.parse(SETUP)

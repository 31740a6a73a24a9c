"""The talk has marked figures under their headings, no code, and questions at the end."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from slides import closing_questions, part, write_slides

from rlvr_utils import REPO

new = nbformat.v4


def notebook(number: int):
    figure = new.new_output("display_data", data={"text/html": f'<figure><img alt="curve {number}" src="data:,"></figure>'})
    marked = new.new_code_cell("draw(secret)", outputs=[figure], metadata={"slideshow": {"slide_type": "slide"}})
    unmarked = new.new_code_cell("print(1)", outputs=[new.new_output("stream", text="left out")])
    texts = (
        f"# 0{number}. Title\n\nOne thing: it works. More follows.",
        "## 1. A heading\n\ntext",
        "## Questions\n\n1. Why so?\n2. And then?",
    )
    first, section, questions = map(new.new_markdown_cell, texts)
    return new.new_notebook(cells=[first, section, unmarked, marked, questions])


def test_a_part_has_a_title_and_its_marked_figures() -> None:
    texts = [cell.source for cell in part(notebook(1))]
    assert texts == ["# 01. Title\n\nOne thing", "## A heading", "draw(secret)"]


def test_the_last_slide_has_one_question_per_notebook() -> None:
    assert [cell.source for cell in closing_questions([notebook(1), notebook(2)])] == ["- Why so?", "- Why so?"]


def test_the_talk_shows_figures_and_no_code(tmp_path: Path) -> None:
    paths = [tmp_path / f"0{number}_a.ipynb" for number in (1, 2)]
    for number, path in enumerate(paths, start=1):
        nbformat.write(notebook(number), path)
    page = write_slides(paths, tmp_path / "slides.html").read_text()
    body = page[page.index('<div class="slides">') :]
    assert re.findall(r'alt="(curve \d)"', body) == ["curve 1", "curve 2"]
    assert "secret" not in body and "left out" not in body
    assert body.index(">Questions") > body.index("curve 2")


def test_a_course_that_was_not_run_raises(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="00_a was not executed. Run `make course`"):
        write_slides([tmp_path / "00_a.ipynb"], tmp_path / "slides.html")


def test_the_course_is_a_short_talk() -> None:
    notebooks = [nbformat.read(path, as_version=4) for path in sorted((REPO / "notebooks").glob("*.ipynb"))]
    slides = [sum(cell.metadata["slideshow"]["slide_type"] == "slide" for cell in part(n)) for n in notebooks]
    assert min(slides) >= 2 and 15 <= sum(slides) <= 30
    assert len(list(closing_questions(notebooks))) == len(notebooks)

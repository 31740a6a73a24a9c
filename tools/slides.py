"""Make a short talk from the executed notebooks: figures with their captions, and questions at the end.

``make slides`` selects the cells whose ``slideshow`` metadata is ``slide`` and shows their outputs without their code,
each under its heading. ``jupyter nbconvert --to slides`` would make one talk per notebook with code, so we merge the cells
first and then use its exporter. The page loads reveal.js from the network.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from rlvr_utils import REPO
from rlvr_utils.course import course_notebooks

_HEADING = re.compile(r"^(#{1,3}) +(.+)$", re.M)
_FIRST_QUESTION = re.compile(r"^## Questions\n+1\. (.+)$", re.M)


def write_slides(executed: Sequence[Path], target: Path) -> Path:
    """Write the talk from the ``executed`` notebooks to ``target`` and return its path.

    Raises ValueError if a notebook was not executed.
    """
    import nbformat
    from nbconvert import SlidesExporter

    missing = [path.stem for path in executed if not path.is_file()]
    if missing:
        raise ValueError(f"{missing[0]} was not executed. Run `make course` before `make slides`.")
    talk = nbformat.v4.new_notebook(metadata={"title": "The RLVR course"})
    notebooks = [nbformat.read(path, as_version=4) for path in executed]
    talk.cells = [cell for notebook in notebooks for cell in part(notebook)]
    talk.cells += [_slide("# Questions"), *closing_questions(notebooks)]
    exporter = SlidesExporter(exclude_input=True, exclude_output_prompt=True, reveal_theme="white")
    page, _ = exporter.from_notebook_node(talk, {"metadata": {"name": "The RLVR course"}})
    target.write_text(page, encoding="utf-8")
    return target


def part(notebook) -> Iterator:
    """Yield the slides of one notebook: its title with the first sentence, then each marked cell under its heading."""
    title, first = notebook.cells[0].source.split("\n\n")[:2]
    yield _slide(f"{title}\n\n{re.match(r'.+?[.:](?= |$)', first)[0].rstrip(':')}")
    heading = title
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for found in _HEADING.finditer(cell.source):
                heading = found[2]
        elif cell.metadata.get("slideshow", {}).get("slide_type") == "slide":
            yield _slide(f"## {re.sub(r'^[0-9.]+ ', '', heading)}")
            cell.metadata["slideshow"] = {"slide_type": "-"}
            yield cell


def closing_questions(notebooks: Sequence) -> Iterator:
    """Yield the first question of each notebook for the last slide."""
    import nbformat

    for notebook in notebooks:
        text = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
        for question in _FIRST_QUESTION.findall(text):
            yield nbformat.v4.new_markdown_cell(f"- {question}", metadata={"slideshow": {"slide_type": "fragment"}})


def _slide(text: str):
    import nbformat

    return nbformat.v4.new_markdown_cell(text, metadata={"slideshow": {"slide_type": "slide"}})


if __name__ == "__main__":
    folder = REPO / "runs" / "course"
    try:
        print(write_slides([folder / path.name for path in course_notebooks()], folder / "slides.html"))
    except ValueError as error:
        sys.exit(str(error))

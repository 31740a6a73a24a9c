"""The exercise cells of a notebook: stubs found by tag, solutions from folded cells, and solved notebooks."""

from __future__ import annotations

import ast
import copy
import re
from pathlib import Path

import nbformat
from IPython.core.inputtransformer2 import TransformerManager
from nbformat import NotebookNode

NOTEBOOKS = {path.stem[:2]: path for path in sorted((Path(__file__).resolve().parent.parent / "notebooks").glob("*.ipynb"))}
TAG = "exercise:"
SOLUTION = re.compile(r"<summary>Solution</summary>\n\n<!-- solution: (\S+) -->\n```python\n(.*?)\n```\n", re.S)


def read(number: str) -> NotebookNode:
    """Read the notebook with this number, such as "00"."""
    return nbformat.read(NOTEBOOKS[number], as_version=4)


def exercise_of(cell: NotebookNode) -> str | None:
    """Return the exercise whose stub this cell is, None for other cells."""
    tags = [tag for tag in cell.metadata.get("tags", []) if tag.startswith(TAG)]
    return tags[0].removeprefix(TAG) if tags else None


def stubs(notebook: NotebookNode) -> list[tuple[str, int]]:
    """Return (exercise, index of its stub's cell), in order."""
    named = [(exercise_of(cell), index) for index, cell in enumerate(notebook.cells)]
    return [(name, index) for name, index in named if name]


def solutions(notebook: NotebookNode) -> list[tuple[str, str]]:
    """Return (exercise, code) of every folded solution, in order."""
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    return [match.groups() for text in texts for match in SOLUTION.finditer(text)]


def with_solutions(notebook: NotebookNode) -> NotebookNode:
    """Return a copy of the notebook with every stub replaced by its solution."""
    solved, codes = copy.deepcopy(notebook), dict(solutions(notebook))
    for name, index in stubs(solved):
        solved.cells[index].source = codes[name]
    return solved


def solve_folder(folder: Path) -> None:
    """Replace all stubs by solutions in the notebooks of a copied directory."""
    for path in folder.glob("*.ipynb"):
        nbformat.write(with_solutions(nbformat.read(path, as_version=4)), path)


def namespace(notebook: NotebookNode, code: str) -> dict:
    """Run the notebook's imports that ``code`` uses, so that an exercise cell can run alone."""
    used = {node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)}
    transform, found = TransformerManager().transform_cell, {}
    for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
        for node in ast.parse(transform(cell.source)).body:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                node.names = [name for name in node.names if (name.asname or name.name.split(".")[0]) in used]
                if node.names:
                    run(ast.unparse(node), found)
    return found


def run(code: str, names: dict) -> None:
    """Run the code of a cell of our own notebooks in this namespace."""
    exec(compile(code, "<exercise cell>", "exec"), names)


def function_in(notebook: NotebookNode, code: str):
    """Return the function that a stub or a solution defines."""
    names = namespace(notebook, code)
    run(code, names)
    (definition,) = (node for node in ast.parse(code).body if isinstance(node, ast.FunctionDef))
    return names[definition.name]

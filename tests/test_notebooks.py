"""Static rules for every notebook of the course (test_course.py runs them)."""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

REPO = Path(__file__).resolve().parent.parent
NAMES = (
    "00_start_here",
    "01_boxed_answer_verifier",
    "02_grpo_on_toy_tensors",
    "03_lora_setup",
    "04_training_run",
    "05_results_analysis",
    "06_reward_hacking",
    "07_inside_the_run",
    "08_variants_and_your_own",
)
PATHS = sorted((REPO / "notebooks").glob("*.ipynb"))
KILOBYTE = 1000
PRIVATE_PATH = re.compile(r"(?<![\w./])/(?:home|root|work|tmp|Users|mnt|opt|var)/\w|\b[A-Z]:\\\w")
HOST = re.compile(r"\b\w[\w-]*\.(?:local|lan|internal)\b|\b(?:10|172|192)\.\d+\.\d+\.\d+\b")


def cells(notebook, kind: str) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == kind]


def headings(notebook) -> list[tuple[int, str]]:
    """Return (level, title) of every heading outside fenced blocks."""
    found = []
    for cell in cells(notebook, "markdown"):
        prose = re.sub(r"^(```|~~~).*?^\1", "", cell.source, flags=re.S | re.M)
        found += [(len(m[1]), m[2].strip()) for m in re.finditer(r"^(#{1,6}) +(.+)$", prose, re.M)]
    return found


def syntax(source: str) -> ast.Module:
    """Parse the code of a cell, with IPython's magics converted to calls."""
    return ast.parse(TransformerManager().transform_cell(source))


def texts(notebook) -> Iterator[str]:
    """Return all visible text: sources, printed lines, text and HTML outputs, without pictures."""
    for cell in notebook.cells:
        yield cell.source
        for output in cell.get("outputs", []):
            yield output.get("text", "")
            data = output.get("data", {})
            yield from (str(data[kind]) for kind in data if kind.startswith("text/"))


# Each rule takes a notebook and its name, and yields violations.


def is_valid(notebook, name: str) -> Iterator[str]:
    if (notebook.nbformat, notebook.nbformat_minor) != (4, 5):
        yield f"format {notebook.nbformat}.{notebook.nbformat_minor} is not 4.5"
    ids = [cell.get("id") for cell in notebook.cells]
    if len(set(ids)) < len(ids):
        yield "two cells share an id"
        return
    try:
        nbformat.validate(notebook)
    except nbformat.ValidationError as error:
        yield str(error).splitlines()[0]
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        yield "the kernel is not python3"
    if notebook.metadata.get("kernelspec", {}).get("language") != "python":
        yield "the kernel's language is not python (papermill needs it)"


def has_parameters(notebook, name: str) -> Iterator[str]:
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1:
        yield f"{len(tagged)} cells are tagged parameters"
        return
    defaults = {}
    for statement in syntax(tagged[0].source).body:
        try:
            (target,) = statement.targets
            defaults[target.id] = ast.literal_eval(statement.value)
        except (AttributeError, ValueError):
            yield f"'{ast.unparse(statement)}' is not NAME = literal: derived values go to a later cell"
    if (defaults.get("profile"), defaults.get("seed")) != ("mini", 0):
        yield 'the defaults are not profile = "mini" and seed = 0'


def has_short_cells(notebook, name: str) -> Iterator[str]:
    for cell in cells(notebook, "code"):
        lines = cell.source.count("\n") + 1
        if lines > 40:
            yield f"a code cell of {lines} lines, starting {cell.source[:40]!r}"


def opens_with_goals(notebook, name: str) -> Iterator[str]:
    first = notebook.cells[0]
    if first.cell_type != "markdown" or not first.source.startswith(f"# {name[:2]}. "):
        yield f"the first cell does not start with '# {name[:2]}. '"
    opening = "\n".join(cell.source for cell in notebook.cells[:2] if cell.cell_type == "markdown")
    if not re.search(r"you (?:will|can)\b", opening, re.I) or not re.search(r"^\s*[-*\d]", opening, re.M):
        yield "the opening does not list what you will be able to do"
    if not re.search(r"\bminutes?\b", opening):
        yield "the opening does not say how many minutes it takes"


def has_headings_in_order(notebook, name: str) -> Iterator[str]:
    levels = [level for level, _ in headings(notebook)]
    if levels.count(1) != 1:
        yield f"{levels.count(1)} first-level headings"
    for (before, _), (after, title) in zip(headings(notebook), headings(notebook)[1:], strict=False):
        if after > before + 1:
            yield f"'{title}' skips a heading level"


def is_anonymous(notebook, name: str) -> Iterator[str]:
    for text in texts(notebook):
        for pattern, what in ((PRIVATE_PATH, "an absolute path"), (HOST, "a host name")):
            if found := pattern.search(text):
                yield f"{what}: {text[found.start() : found.start() + 40]!r}"


def has_alt_texts(notebook, name: str) -> Iterator[str]:
    for cell in cells(notebook, "markdown"):
        if re.search(r"!\[\s*\]\(", cell.source) or re.search(r"<img(?![^>]*\balt=\"[^\"]+\")", cell.source):
            yield f"a picture without alt text in {cell.source[:40]!r}"


def shows_figures_properly(notebook, name: str) -> Iterator[str]:
    for cell in cells(notebook, "code"):
        for node in ast.walk(syntax(cell.source)):
            if not isinstance(node, ast.Call) or ast.unparse(node.func).split(".")[-1] != "show":
                continue
            if ast.unparse(node.func) in ("plt.show", "fig.show", "figure.show"):
                yield "a figure is shown around rlvr_utils.plots.show"
            elif not {"alt", "caption"} <= {keyword.arg for keyword in node.keywords}:
                yield f"show() without alt= and caption=: {ast.unparse(node)[:60]!r}"


def ends_with_questions(notebook, name: str) -> Iterator[str]:
    titles = [title.lower() for level, title in headings(notebook) if level == 2]
    last = [title for title in titles if title not in ("references", "further reading")][-2:]
    wanted = ("what you learned", "questions")
    if len(last) < 2 or not all(map(str.startswith, last, wanted)):
        yield f"the last two sections are {last}, not 'What you learned' and 'Questions'"


def has_clean_outputs(notebook, name: str) -> Iterator[str]:
    for cell in cells(notebook, "code"):
        for output in cell.outputs:
            if output.output_type == "error" or output.get("name") == "stderr":
                yield f"an error or warning among the saved outputs of {cell.source[:40]!r}"


def trusts_nobody(notebook, name: str) -> Iterator[str]:
    for cell in cells(notebook, "code"):
        if secret := re.search(r"hf_[A-Za-z]{30}|\b[0-9a-f]{40}\b", cell.source):
            yield f"what looks like a key: {secret[0][:8]}..."
        for call in (node for node in ast.walk(syntax(cell.source)) if isinstance(node, ast.Call)):
            if ast.unparse(call.func) in ("eval", "exec"):
                yield f"code from text: {ast.unparse(call)[:60]!r}"
            if "trust_remote_code" in {keyword.arg for keyword in call.keywords}:
                yield f"code from the network: {ast.unparse(call)[:60]!r}"


RULES: tuple[Callable, ...] = (
    is_valid,
    has_parameters,
    has_short_cells,
    opens_with_goals,
    has_headings_in_order,
    is_anonymous,
    has_alt_texts,
    shows_figures_properly,
    ends_with_questions,
    has_clean_outputs,
    trusts_nobody,
)


def test_all_notebooks_exist() -> None:
    assert tuple(path.stem for path in PATHS) == NAMES


def test_notebooks_follow_the_rules() -> None:
    broken = {
        f"{path.stem}: {rule.__name__}": found
        for path in PATHS
        for rule in RULES
        if (found := list(rule(nbformat.read(path, as_version=nbformat.NO_CONVERT), path.stem)))
    }
    assert broken == {}


def test_the_notebooks_are_small() -> None:
    sizes = {path.name: path.stat().st_size for path in PATHS}
    assert {name: size for name, size in sizes.items() if size > 600 * KILOBYTE} == {}
    assert sum(sizes.values()) <= 2500 * KILOBYTE


def good_notebook():
    new = nbformat.v4
    parameters = new.new_code_cell('profile = "mini"\nseed = 0')
    parameters.metadata["tags"] = ["parameters"]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = new.new_notebook(metadata={"kernelspec": kernel})
    notebook.cells = [
        new.new_markdown_cell("# 07. A title\n\nIn ten minutes you will be able to\n\n- count.\n\n```\n### x\n```"),
        parameters,
        new.new_code_cell('show(figure, alt="a line", caption="it rises")'),
        new.new_markdown_cell("## What you learned\n\nTo count. ![a line](x.png)\n\n## Questions\n\n1. Why?"),
    ]
    return notebook


def spoil(cell: int, source: str) -> Callable:
    def change(notebook) -> None:
        notebook.cells[cell].source = source

    return change


def with_output(output: dict) -> Callable:
    def change(notebook) -> None:
        notebook.cells[2].outputs = [nbformat.from_dict(output)]

    return change


SPOILED = [
    (is_valid, lambda notebook: notebook.cells[1].update(id=notebook.cells[2].id)),
    (is_valid, lambda notebook: notebook.metadata.kernelspec.update(name="rlvr")),
    (is_valid, lambda notebook: notebook.metadata.kernelspec.pop("language")),
    (has_parameters, lambda notebook: notebook.cells[1].metadata.clear()),
    (has_parameters, spoil(1, 'profile = "mini"\nseed = 0\nsteps = 2 * 50')),
    (has_parameters, spoil(1, 'profile = "llama-8b"\nseed = 0')),
    (has_short_cells, spoil(2, "x = 1\n" * 41)),
    (opens_with_goals, spoil(0, "# A title\n\nIn ten minutes you will be able to\n\n- count.")),
    (opens_with_goals, spoil(0, "# 07. A title\n\nIn ten minutes.\n\n- count.")),
    (opens_with_goals, spoil(0, "# 07. A title\n\nYou will be able to\n\n- count.")),
    (has_headings_in_order, spoil(3, "### What you learned")),
    (has_headings_in_order, spoil(3, "# Another title")),
    (is_anonymous, spoil(2, 'path = "/home/me/runs"')),
    (is_anonymous, with_output({"output_type": "stream", "name": "stdout", "text": "on box.local"})),
    (has_alt_texts, spoil(3, "![](x.png)")),
    (has_alt_texts, spoil(3, '<img src="x.png">')),
    (shows_figures_properly, spoil(2, 'plots.show(figure, alt="a line")')),
    (shows_figures_properly, spoil(2, "plt.show()")),
    (ends_with_questions, spoil(3, "## Questions\n\n## What you learned")),
    (has_clean_outputs, with_output({"output_type": "stream", "name": "stderr", "text": "UserWarning: x"})),
    (trusts_nobody, spoil(2, "load(model, trust_remote_code=True)")),
    (trusts_nobody, spoil(2, "eval(answer)")),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_good_notebook_passes(rule: Callable) -> None:
    assert list(rule(good_notebook(), "07_title")) == []


@pytest.mark.parametrize(("rule", "change"), SPOILED)
def test_a_faulty_notebook_is_caught(rule: Callable, change: Callable) -> None:
    notebook = copy.deepcopy(good_notebook())
    change(notebook)
    assert list(rule(notebook, "07_title")) != []


@pytest.mark.parametrize("name", ["01_boxed_answer_verifier", "04_training_run", "05_results_analysis"])
def test_no_cell_assumes_that_the_split_is_called_test(name):
    notebook = nbformat.read(REPO / "notebooks" / f"{name}.ipynb", as_version=4)
    assert [cell.id for cell in cells(notebook, "code") if re.search(r"""["']test["']""", cell.source)] == []

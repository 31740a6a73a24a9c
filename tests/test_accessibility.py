"""Accessibility, one test per rule: readable with a screen reader, without colours, and in order."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import numpy as np
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from nbconvert import HTMLExporter

from rlvr_utils import REPO, plots
from rlvr_utils.course import report
from rlvr_utils.exercises.attempts import LOOKS

NOTEBOOKS = sorted((REPO / "notebooks").glob("*.ipynb"))
PAGES = [*sorted(REPO.glob("*.md")), *sorted((REPO / "docs").glob("*.md")), *sorted((REPO / "data").rglob("README.md"))]
ROOMS = ("rlvr_utils", "studies", "tools")
DRAWING = [*NOTEBOOKS, *(file for room in ROOMS for file in sorted((REPO / room).rglob("*.py")))]
#: Features other than colour that distinguish lines and bars.
SHAPES = {"marker", "linestyle", "ls", "fmt", "hatch"}
COLOUR = re.compile(r"\b(blue|orange|red|green|yellow|purple|pink|grey|gray)\b", re.I)
SHAPE = re.compile(r"\b(circle|square|triangle|diamond|cross|dot|dash|line|solid|hatch|left|right|upper|lower|bar)", re.I)


def name(path: Path) -> str:
    return path.relative_to(REPO).as_posix()


def cells(path: Path, kind: str) -> list:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def code(path: Path) -> ast.Module:
    if path.suffix == ".py":
        return ast.parse(path.read_text(encoding="utf-8"))
    return ast.parse("\n".join(TransformerManager().transform_cell(cell.source) for cell in cells(path, "code")))


def calls(tree: ast.AST, *methods: str) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in methods:
            yield node


# --- the rules ---


def pictures_without_words(html: str) -> list[str]:
    """Return image elements without alternative text."""
    return [tag[:80] for tag in re.findall(r"<img\b[^>]*>", html) if not re.search(r'alt="[^"]{10,}"', tag)]


def markdown_pictures_without_words(text: str) -> list[str]:
    return [found for found in re.findall(r"!\[([^\]]*)\]\(", text) if len(found) < 10]


def headings_out_of_order(text: str) -> list[str]:
    """Return skipped heading levels, and an error unless the page starts with its only first-level heading."""
    levels = [len(found) for found in re.findall(r"^(#{1,6}) ", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M), re.M)]
    skipped = [f"{a} to {b}" for a, b in itertools.pairwise(levels) if b > a + 1]
    return skipped + ([] if levels[:1] == [1] and levels.count(1) == 1 else ["not one first-level heading at the top"])


def colour_alone(tree: ast.AST) -> list[str]:
    """Return lines and bars that differ only in colour."""
    found = []
    for call in calls(tree, "plot", "errorbar", "scatter", "bar", "barh"):
        given = {keyword.arg for keyword in call.keywords}
        format_string = any(isinstance(a, ast.Constant) and isinstance(a.value, str) for a in call.args)
        if given & {"color", "c"} and not given & SHAPES and None not in given and not format_string:
            found.append(f"line {call.lineno}: {ast.unparse(call)[:80]}")
    return found


def colour_words_alone(text: str) -> list[str]:
    """Return sentences that identify things only by colour."""
    text = re.sub(r"red[- ]team", "search", text)  # "red team" is not a colour
    return [s.strip() for s in re.split(r"(?<=[.;:])\s", text) if COLOUR.search(s) and not SHAPE.search(s)]


def pictures_of_tables(tree: ast.AST) -> list[str]:
    drawn = [ast.unparse(call.func) for call in calls(tree, "imshow", "table", "matshow", "pcolormesh")]
    return [function for function in drawn if function.split(".")[0] in ("axes", "ax", "plt", "figure", "panels")]


def tables_without_header(text: str) -> list[str]:
    """Return Markdown tables without a header row."""
    blocks = re.findall(r"(?:^\|.*\|\s*$\n?)+", text, re.M)
    return [b[:60] for b in blocks if not re.match(r"^\|.*\|\s*\n\|[\s:|-]+\|\s*(?:\n|$)", b)]


def shown_words(tree: ast.AST) -> str:
    """Return the alt texts and captions written in the source."""
    keywords = [keyword for node in ast.walk(tree) if isinstance(node, ast.Call) for keyword in node.keywords]
    parts = [list(ast.walk(keyword.value)) for keyword in keywords if keyword.arg in ("alt", "caption")]
    return "\n".join(" ".join(str(n.value) for n in part if isinstance(n, ast.Constant)) for part in parts)


# --- held ---


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_pictures_have_alternative_texts(path: Path) -> None:
    prose = "\n".join(cell.source for cell in cells(path, "markdown"))
    shown = "".join(str(out.get("data", {}).get("text/html", "")) for cell in cells(path, "code") for out in cell.outputs)
    bare = [out for cell in cells(path, "code") for out in cell.outputs if "image/png" in out.get("data", {})]
    assert pictures_without_words(prose + shown) + markdown_pictures_without_words(prose) == []
    assert bare == [], "a bare PNG has no alternative text in JupyterLab: show it with plots.show"


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_pages_have_headings_in_order_and_pictures_with_words(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    body = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.S)  # a model card's front matter
    assert headings_out_of_order(body) + markdown_pictures_without_words(body) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_notebooks_have_headings_in_order(path: Path) -> None:
    assert headings_out_of_order("\n\n".join(cell.source for cell in cells(path, "markdown"))) == []


def test_no_line_or_bar_is_distinguished_by_colour_alone() -> None:
    assert {name(path): found for path in DRAWING if (found := colour_alone(code(path)))} == {}


def test_no_sentence_relies_on_colour_alone() -> None:
    def words(path: Path) -> str:
        prose = "\n".join(cell.source for cell in cells(path, "markdown")) if path.suffix == ".ipynb" else ""
        return f"{prose}\n{shown_words(code(path))}"

    assert {name(path): found for path in DRAWING if (found := colour_words_alone(words(path)))} == {}


@pytest.mark.parametrize("path", [*NOTEBOOKS, *PAGES], ids=name)
def test_tables_are_tables_with_a_header(path: Path) -> None:
    notebook = path.suffix == ".ipynb"
    text = "\n\n".join(cell.source for cell in cells(path, "markdown")) if notebook else path.read_text(encoding="utf-8")
    assert tables_without_header(text) + (pictures_of_tables(code(path)) if notebook else []) == []


# Machado, Oliveira and Fernandes 2009, severity 1: linear RGB as perceived.
BLINDNESS = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def linear(colour: str) -> np.ndarray:
    value = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


@pytest.mark.parametrize("kind", BLINDNESS)
def test_the_first_colours_are_distinguishable_with_colour_blindness(kind: str) -> None:
    seen = [np.clip(np.array(BLINDNESS[kind]) @ linear(colour), 0, 1) ** (1 / 2.2) for colour in plots.PALETTE[:3]]
    assert min(np.abs(a - b).max() for a, b in itertools.combinations(seen, 2)) > 0.1


def contrast(colour: str, background: str = "#FFFFFF") -> float:
    """Return WCAG's contrast ratio of two colours, 1 to 21."""
    a, b = (np.array([0.2126, 0.7152, 0.0722]) @ linear(c) for c in (colour, background))
    return (max(a, b) + 0.05) / (min(a, b) + 0.05)


def theme_colour(name: str, theme: str) -> str:
    """Return a colour of nbconvert's theme ("light" or "dark") as #rrggbb, blended with the page if transparent."""
    static = Path(HTMLExporter().template_paths[0]) / "static"
    styles = "".join((static / file).read_text(encoding="utf-8") for file in ("index.css", f"theme-{theme}.css"))
    value = re.findall(rf"{name}: *([^;]+);", styles)[-1].strip()
    if value.startswith("var("):
        return theme_colour(value[4:-1], theme)
    if value.startswith("rgba("):
        *parts, alpha = map(float, value[5:-1].split(","))
        page = 0x11 if theme == "dark" else 0xFF
        return "#" + "".join(f"{round(alpha * part + (1 - alpha) * page):02x}" for part in parts)
    value = {"white": "#fff"}.get(value, value)
    return "#" + "".join(2 * digit for digit in value[1:]) if len(value) == 4 else value


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_of_the_report_and_of_exercises_have_contrast(theme: str) -> None:
    used = re.findall(r"[^-]color: var\((--[\w-]+)\)", report.TEMPLATE)
    used += [re.search(r"--[\w-]+", colour)[0] for _, _, colour in LOOKS.values()]
    assert len(set(used)) >= 3 and not re.search(r"color: #", report.TEMPLATE), "colours must follow the theme"
    page = theme_colour("--jp-layout-color0", theme)
    ratios = {name: contrast(theme_colour(name, theme), page) for name in used}
    assert {name: ratio for name, ratio in ratios.items() if ratio < 4.5} == {}


SPOILED = [
    (pictures_without_words, '<img src="x.png" alt="">'),
    (markdown_pictures_without_words, "![](x.png)"),
    (headings_out_of_order, "# A\n\n### B"),
    (headings_out_of_order, "## A\n\n# B"),
    (colour_words_alone, "The blue ones are ours."),
    (tables_without_header, "| a | b |\n| 1 | 2 |\n"),
    (lambda text: colour_alone(ast.parse(text)), "axes.plot(x, y, color=PALETTE[0])"),
    (lambda text: pictures_of_tables(ast.parse(text)), "axes.imshow(counts)"),
]
GOOD = [
    (pictures_without_words, '<img alt="accuracy rises to 0.8" src="x.png">'),
    (markdown_pictures_without_words, "![accuracy rises](x.png)"),
    (headings_out_of_order, "# A\n\n## B\n\n### C\n\n## D"),
    (colour_words_alone, "Blue circles are ours."),
    (tables_without_header, "| a | b |\n|---|---|\n| 1 | 2 |\n"),
    (lambda text: colour_alone(ast.parse(text)), "axes.plot(x, y, color=PALETTE[0], marker='o')"),
    (lambda text: pictures_of_tables(ast.parse(text)), "display(pd.DataFrame(counts))"),
]


@pytest.mark.parametrize(("rule", "text"), SPOILED)
def test_violations_are_found(rule, text: str) -> None:
    assert rule(text) != []


@pytest.mark.parametrize(("rule", "text"), GOOD)
def test_correct_pages_pass(rule, text: str) -> None:
    assert rule(text) == []

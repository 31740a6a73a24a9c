"""One HTML file with every executed notebook and a table of contents.

nbconvert makes a page per notebook, without contents. Here it renders one notebook that holds them all. Pictures, styles
and text are all in the file. Only formulas are set by MathJax from the network, where there is one; without it they stay
readable as LaTeX.
"""

from __future__ import annotations

import html
import os
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from rlvr_utils import REPO

TEMPLATE = r"""
{%- extends 'lab/index.html.j2' -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block jupyter_widgets -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}
<script>
window.MathJax = {tex: {inlineMath: [['$', '$'], ['\\(', '\\)']], processEscapes: true}};
</script>
<script async src="{{ resources.mathjax_url }}"></script>
{%- endblock -%}
{%- block html_head_css -%}
<style>
nav.contents { font-family: var(--jp-content-font-family); padding: 1.5em; line-height: 1.6; }
nav.contents ul { list-style: none; margin: 0; padding-left: 1em; }
nav.contents > ul { padding-left: 0; }
nav.contents li.part { font-weight: 600; margin-top: .8em; }
nav.contents li li { font-weight: 400; }
nav.contents a { color: #0b5394; }
figcaption { color: #444; font-style: italic; }
main { max-width: 78em; margin: 0 auto; }
.jp-RenderedMarkdown { max-width: 52em; }
.jp-InputArea-editor, .jp-OutputArea-output { overflow-x: auto !important; }
@media (min-width: 82em) {
  nav.contents { position: fixed; top: 0; bottom: 0; left: 0; width: 19em; overflow-y: auto; font-size: 90%; }
  main { margin-left: 21em; }
}
@media print { nav.contents { position: static; width: auto; } main { margin: 0; } }
</style>
{%- endblock -%}
{%- block body_header -%}
<body class="jp-Notebook" data-jp-theme-light="true" data-jp-theme-name="JupyterLab Light">
<nav class="contents" aria-label="Contents">{{ resources.contents }}</nav>
<main>
{%- endblock -%}
"""
MATHJAX = "https://cdnjs.cloudflare.com/ajax/libs/mathjax/3.2.2/es5/tex-mml-chtml.min.js"
WIDGET = "application/vnd.jupyter.widget-view+json"
_FENCE = re.compile(r"^\s*(```|~~~)")
_HEADING = re.compile(r"^(#{1,2}) +(.+?) *#*$")
_LINK = re.compile(r"\]\((?:\./)?(\d\d_\w+)\.ipynb(?:#[^)]*)?\)")
_REPO_LINK = re.compile(r"\]\(\.\./(?=[^.)])")  # from a notebook to a file of the repository

Entry = tuple[int, str, str]  # level, title, anchor


def write_report(notebooks: Sequence[Path], target: Path) -> Path:
    """Write the executed ``notebooks`` into one self-contained HTML file ``target`` and return its path."""
    import nbformat
    from nbconvert import HTMLExporter
    from nbconvert.preprocessors import CoalesceStreamsPreprocessor

    whole, entries = nbformat.v4.new_notebook(), []
    for path in notebooks:
        notebook = nbformat.read(path, as_version=4)
        entries += _add_anchors(notebook, path.stem, quote(os.path.relpath(REPO, target.parent)))
        whole.cells += [_static(cell, path.stem) for cell in notebook.cells]
        whole.metadata.setdefault("language_info", notebook.metadata.get("language_info", {"name": "python"}))
    # Without embed_images: it closes every <details> before its text. Outputs hold their pictures; the prose has none.
    exporter = HTMLExporter(raw_template=TEMPLATE, mathjax_url=MATHJAX)
    exporter.register_preprocessor(CoalesceStreamsPreprocessor, enabled=True)  # a rewritten line: its last state
    about = {"name": "The RLVR course", "path": str(target.parent)}
    page, _ = exporter.from_notebook_node(whole, {"contents": _contents(entries), "metadata": about})
    target.write_text(page, encoding="utf-8")
    return target


def _add_anchors(notebook, name: str, home: str) -> list[Entry]:
    """Put an anchor before every first- and second-level heading; return them for the table of contents.

    Links to other notebooks become links inside the report, those to the repository's files lead to its ``home``.
    """
    entries: list[Entry] = []
    for cell in notebook.cells:
        if cell.cell_type != "markdown":
            continue
        lines, fenced = [], False
        linked = _REPO_LINK.sub(f"]({home}/", _LINK.sub(r"](#\1)", cell.source))
        for line in linked.split("\n"):
            fenced ^= bool(_FENCE.match(line))
            heading = None if fenced else _HEADING.match(line)
            if heading:
                anchor = f"{name}-{len(entries)}" if entries else name
                entries.append((len(heading[1]), heading[2], anchor))
                lines += [f'<a id="{anchor}"></a>', ""]
            lines.append(line)
        cell.source = "\n".join(lines)
    return entries


def _contents(entries: Sequence[Entry]) -> str:
    """A nested list: a part for each first-level heading, its sections below."""
    parts: list[tuple[str, list[str]]] = []
    for level, title, anchor in entries:
        link = f'<a href="#{anchor}">{html.escape(re.sub(r"[*`]", "", title))}</a>'
        if level == 1 or not parts:
            parts.append((link, []))
        else:
            parts[-1][1].append(f"<li>{link}</li>")
    items = (f'<li class="part">{link}<ul>{"".join(sections)}</ul></li>' for link, sections in parts)
    return f"<ul>{''.join(items)}</ul>"


def _static(cell, name: str):
    """A cell for a page without a kernel: a widget shows its text, and no two notebooks share a cell's id."""
    cell.id = f"{name[:2]}-{cell.get('id', '')}"
    for output in cell.get("outputs", []):
        if len(output.get("data", {})) > 1:
            output.data.pop(WIDGET, None)
    return cell

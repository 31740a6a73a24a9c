"""Write one HTML file with every executed notebook, a summary and a table of contents.

nbconvert writes one page per notebook, without a table of contents, so we merge all notebooks into one and render that.
The file includes pictures, styles and formulas and needs no network. Formulas become MathML, which browsers render.
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
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_css -%}
{{ resources.include_css("static/theme-dark.css")
   | replace('<style', '<style media="screen and (prefers-color-scheme: dark)"') }}
<style>
body { margin: 0; padding: 0; background: var(--jp-layout-color0); color: var(--jp-content-font-color1); }
header, nav.contents { font-family: var(--jp-content-font-family); line-height: 1.6; padding: 0 1.5em; }
header h1 { margin-bottom: 0; }
header .result { font-size: 1.3em; max-width: 40em; }
nav.contents summary { font-weight: 600; cursor: pointer; }
nav.contents ul { list-style: none; margin: 0; padding-left: 1em; }
nav.contents details > ul { padding-left: 0; }
nav.contents li.part { font-weight: 600; margin-top: .8em; }
nav.contents li li { font-weight: 400; }
nav.contents a, nav.contents summary, .code > summary { color: var(--jp-content-link-color); }
main { max-width: 78em; margin: 0 auto; min-width: 0; }
figure { margin: 0; break-inside: avoid; }
figure img { max-width: 100%; }
figcaption { color: var(--jp-content-font-color2); font-style: italic; }
.jp-OutputArea-output pre { word-break: normal !important; overflow-wrap: anywhere; }
.code > summary { cursor: pointer; font-family: var(--jp-content-font-family); font-size: 85%; }
.jp-RenderedMarkdown { max-width: 52em; }
.jp-OutputArea-output, .jp-InputArea-editor, math[display="block"] { overflow-x: auto !important; }
math[display="block"] { margin: .8em 0; padding-bottom: .9em; overflow-y: hidden; }
:root { color-scheme: light dark; }
math { font-size: 1.1em; }
@media (min-width: 60em) {
  nav.contents { position: fixed; top: 0; bottom: 0; left: 0; width: 16em; overflow-y: auto; padding: 1em; font-size: 90%; }
  header, main { margin-left: 18em; }
}
@media (max-width: 40em) {
  .jp-InputPrompt, .jp-OutputPrompt, .jp-Collapser { display: none !important; }
  body.jp-Notebook { padding: 0; }
  header, nav.contents { padding: 0 .6em; }
  .jp-RenderedMarkdown table { display: block; overflow-x: auto; }
}
@media print {
  nav.contents { position: static; width: auto; }
  header, main { margin: 0; max-width: none; }
  pre, code { white-space: pre-wrap !important; overflow-wrap: anywhere; }
  .jp-OutputArea-output, .jp-InputArea-editor, .jp-OutputArea-child, .jp-Cell { overflow: visible !important; }
  table { max-width: 100%; font-size: 80%; }
  td, th { white-space: normal !important; overflow-wrap: anywhere; }
  tr, img, math { break-inside: avoid; }
  h1, h2, h3 { break-after: avoid; }
}
</style>
{%- endblock -%}
{%- block body_header -%}
<body class="jp-Notebook" data-jp-theme-light="true" data-jp-theme-name="JupyterLab Light">
{{ resources.summary }}
<nav class="contents" aria-label="Contents"><details><summary>Contents</summary>{{ resources.contents }}</details></nav>
<script>
const contents = document.querySelector('nav.contents details'), wide = matchMedia('(min-width: 60em)');
const follow = () => { contents.open = wide.matches; };
wide.addEventListener('change', follow);
follow();
</script>
<main>
{%- endblock -%}
{%- block body_footer -%}
</main>
{{ super() }}
{%- endblock -%}
{%- block input -%}
<details class="code"><summary>Code</summary>{{ super() }}</details>
{%- endblock -%}
"""
WIDGET = "application/vnd.jupyter.widget-view+json"
_FENCE = re.compile(r"^\s*(```|~~~)")
_HEADING = re.compile(r"^(#{1,2}) +(.+?) *#*$")
_LINK = re.compile(r"\]\((?:\./)?(\d\d_\w+)\.ipynb(?:#[^)]*)?\)")
_REPO_LINK = re.compile(r"\]\(\.\./(?=[^.)])")  # link from a notebook to a file in the repository

Entry = tuple[int, str, str]  # level, title, anchor


def write_report(notebooks: Sequence[Path], target: Path, summary: Sequence[str] = ()) -> Path:
    """Write the executed ``notebooks`` into one self-contained HTML file ``target`` and return its path.

    Args:
        summary: sentences for the top of the page, starting with the result.
    """
    import nbformat
    from nbconvert.preprocessors import CoalesceStreamsPreprocessor

    whole, entries = nbformat.v4.new_notebook(), []
    for path in notebooks:
        notebook = nbformat.read(path, as_version=4)
        entries += _add_anchors(notebook, path.stem, quote(os.path.relpath(REPO, target.parent)))
        whole.cells += [_static(cell, path.stem) for cell in notebook.cells]
        whole.metadata.setdefault("language_info", notebook.metadata.get("language_info", {"name": "python"}))
    # No embed_images: it closes every <details> before its text. Outputs include their pictures, and the prose has none.
    exporter = _exporter()
    exporter.register_preprocessor(CoalesceStreamsPreprocessor, enabled=True)  # keeps the last state of a progress line
    about = {"name": "The RLVR course", "path": str(target.parent)}
    resources = {"contents": _contents(entries), "summary": _summary(summary), "metadata": about}
    page, _ = exporter.from_notebook_node(whole, resources)
    target.write_text(page, encoding="utf-8")
    return target


def _exporter():
    """Return nbconvert's HTML exporter with our template and formulas as MathML."""
    from jinja2 import pass_context
    from nbconvert import HTMLExporter
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

    class Renderer(IPythonRenderer):
        def inline_math(self, text: str) -> str:
            return formula(text, "inline")

        def block_math(self, text: str) -> str:
            return formula(text, "block")

    @pass_context
    def markdown2html(context, source: str) -> str:
        return MarkdownWithMath(renderer=Renderer(escape=False, anchor_link_text="")).render(source)

    exporter = HTMLExporter(raw_template=TEMPLATE)
    exporter.register_filter("markdown2html", markdown2html)
    return exporter


def formula(latex: str, display: str) -> str:
    """Convert LaTeX to MathML. ``display`` is "inline" or "block". If the conversion fails, return the LaTeX as code."""
    try:
        from latex2mathml.converter import convert

        return convert(latex, display=display)
    except Exception:  # not installed, or one of many error types for unsupported LaTeX
        return f"<code>{html.escape(latex)}</code>"


def _summary(sentences: Sequence[str]) -> str:
    """Return the page header: title, result and further sentences."""
    first, *rest = sentences or ("",)
    lines = "".join(f"<p>{html.escape(sentence)}</p>" for sentence in rest)
    return f'<header><h1>The RLVR course</h1><p class="result">{html.escape(first)}</p>{lines}</header>'


def _add_anchors(notebook, name: str, home: str) -> list[Entry]:
    """Add an anchor before every first- and second-level heading and return the entries of the table of contents.

    Links to other notebooks become links inside the report. Links to files in the repository start at ``home``.
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
    """Return a nested list: one part per first-level heading, with its sections."""
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
    """Return the cell for a page without a kernel: widgets become text, and cell ids are unique across notebooks."""
    cell.id = f"{name[:2]}-{cell.get('id', '')}"
    for output in cell.get("outputs", []):
        if len(output.get("data", {})) > 1:
            output.data.pop(WIDGET, None)
    return cell

"""Controls above an output that is redrawn on every change, or the output alone outside a live notebook."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ipywidgets import Widget

#: A notebook output: data by MIME type, as returned by ``plots.figure_bundle`` and :func:`table`.
Output = dict[str, str]

VIEW = "application/vnd.jupyter.widget-view+json"
#: Sets each slider's label as the accessible name of its handle, because ipywidgets sets none and screen readers need it.
#: The view is added to the page after this output, so the script retries.
NAME_HANDLES = """
let looks = 0;
const timer = setInterval(() => {
  for (const slider of document.querySelectorAll('.rlvr-%s .widget-inline-hbox'))
    for (const handle of slider.querySelectorAll('.noUi-handle'))
      handle.setAttribute('aria-label', slider.querySelector('.widget-label').textContent);
  if (++looks === 40) clearInterval(timer);
}, 250);
"""


def token_name(token: str) -> str:
    """Return a token as escaped HTML with visible spaces and line breaks."""
    return html.escape(token.replace(" ", "\u2423").replace("\n", "\u21b5"))


class Control(NamedTuple):
    """The description of a control: the name of its ipywidgets class and its options, including the initial value."""

    kind: str
    options: dict

    @property
    def value(self) -> object:
        return self.options["value"]

    def make(self) -> Widget:
        import ipywidgets  # optional: only a live notebook needs it

        return getattr(ipywidgets, self.kind)(**self.options)


def _control(kind: str, label: str, value: object, width: str = "20em", **options: object) -> Control:
    looks = {"style": {"description_width": "initial"}, "layout": {"width": width}}
    return Control(kind, {"value": value, "description": label} | options | looks)


def slider(label: str, value: float, low: float, high: float, step: float) -> Control:
    """Return a slider from ``low`` to ``high``. The output updates when the slider is released."""
    return _control("FloatSlider", label, value, min=low, max=high, step=step, continuous_update=False, readout_format=".2f")


def picker(label: str, value: object, options: Sequence, stepwise: bool = False) -> Control:
    """Return a dropdown, or a slider if ``stepwise``, of ``options``: values, or pairs of a name and a value."""
    if stepwise:
        return _control("SelectionSlider", label, value, options=list(options), continuous_update=False)
    return _control("Dropdown", label, value, options=list(options))


def textbox(label: str, value: str, rows: int = 1) -> Control:
    """Return a text field. The output updates while you type."""
    kind, options = ("Textarea", {"rows": rows}) if rows > 1 else ("Text", {})
    return _control(kind, label, value, "95%", **options)


def somebody_is_there() -> bool:
    """Return whether this cell runs in a live notebook. Under papermill and nbconvert, ``allow_stdin`` is false."""
    from IPython import get_ipython

    kernel = getattr(get_ipython(), "kernel", None)
    return bool(kernel and kernel.get_parent().get("content", {}).get("allow_stdin"))


def interactive_or_static(
    name: str, draw: Callable[..., Output], controls: dict[str, Control], button: str | None = None
) -> None:
    """Display ``draw(**values)`` below its controls, or without controls outside a live notebook.

    Outside a live notebook no widget is created, so that an executed notebook contains a plain figure or table and no
    widget state without a kernel. In a live notebook the plain output is included for viewers without widgets.

    Args:
        name: the view's HTML class is ``rlvr-NAME``.
        draw: a pure function of the controls' values by name. The message of a ValueError is shown in place of the output.
        controls: controls by the names of ``draw``'s arguments.
        button: if given, redraw only when this button is pressed, for slow views.
    """
    from IPython.display import display

    data = draw(**{key: control.value for key, control in controls.items()})
    if somebody_is_there():
        view = controlled(name, draw, controls, button, data["text/html"])
        data = data | {VIEW: view._repr_mimebundle_()[VIEW]}
    display(data, raw=True)
    if somebody_is_there() and any(control.kind.endswith("Slider") for control in controls.values()):
        display({"application/javascript": NAME_HANDLES % name}, raw=True)


def controlled(
    name: str, draw: Callable[..., Output], controls: dict[str, Control], button: str | None, first: str
) -> Widget:
    """Return the view as one widget. Its last child is the output, initially the HTML ``first``.

    ipywidgets' own ``interactive`` would draw the initial values twice and show a ValueError as a traceback.
    """
    from ipywidgets import HTML, Box, Button, VBox

    inputs = {key: control.make() for key, control in controls.items()}
    output, press = HTML(value=first), Button(description=button or "", button_style="primary")

    def redraw(_=None) -> None:
        press.disabled = True
        try:
            output.value = draw(**{key: widget.value for key, widget in inputs.items()})["text/html"]
        except ValueError as error:
            output.value = f'<p role="alert"><strong>{html.escape(str(error))}</strong></p>'
        press.disabled = False

    if button:
        press.on_click(redraw)
    else:
        for widget in inputs.values():
            widget.observe(redraw, "value")
    above = Box(list(inputs.values()), layout={"display": "flex", "flex_flow": "row wrap"})
    view = VBox([above, *([press] if button else []), output])
    view.add_class(f"rlvr-{name}")
    return view


class Markup(NamedTuple):
    """HTML made from escaped parts, and its plain ``text``."""

    html: str
    text: str

    def __str__(self) -> str:
        return self.text


def as_written(text_of: str) -> Markup:
    """Return escaped text that keeps its spaces and dollars and is not rendered as a formula."""
    return Markup(f'<code style="white-space:pre-wrap;background:none">{html.escape(text_of)}</code>', text_of)


def table(headline: str, header: Sequence[str], rows: Sequence[Sequence[str | Markup]], note: str = "") -> Output:
    """Return a table as output. All text except :class:`Markup` is escaped.

    Args:
        headline: a sentence above the table, its HTML caption.
        header: column names.
        rows: one sequence per row, one cell per column.
        note: a sentence below the table.
    """

    def cell(value: str | Markup) -> str:
        return f"<td style={place!r}>{value.html if isinstance(value, Markup) else html.escape(value)}</td>"

    place = "text-align:left;vertical-align:top;padding:3px 12px 3px 0"
    head = "".join(f'<th scope="col" style="{place}">{html.escape(name)}</th>' for name in header)
    body = "".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in rows)
    caption = f'<caption style="{place}"><strong>{html.escape(headline)}</strong></caption>'
    page = f'<table style="line-height:1.4">{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    page += f"<p>{html.escape(note)}</p>" if note else ""
    lines = [headline, " | ".join(header), *(" | ".join(map(str, row)) for row in rows), *([note] if note else [])]
    return {"text/html": page, "text/plain": "\n".join(lines)}

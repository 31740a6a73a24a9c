"""Controls above an output that is drawn anew when one moves, or the output alone where nobody can move them."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ipywidgets import Widget

#: A notebook output, as ``plots.figure_bundle`` and :func:`table` make it: data by MIME type.
Output = dict[str, str]

VIEW = "application/vnd.jupyter.widget-view+json"
#: Gives the handle of each slider of a view the slider's label as its name, for those who hear the page: ipywidgets leaves
#: it without one. The view is in the page only after the output, hence the repeated look.
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
    """A token as HTML: escaped, with its spaces and line breaks to be seen."""
    return html.escape(token.replace(" ", "\u2423").replace("\n", "\u21b5"))


class Control(NamedTuple):
    """A control before it is a widget: the name of its class in ipywidgets, and its options, the first value among them."""

    kind: str
    options: dict

    @property
    def value(self) -> object:
        return self.options["value"]

    def make(self) -> Widget:
        import ipywidgets  # where nobody can move it, it need not be there

        return getattr(ipywidgets, self.kind)(**self.options)


def _control(kind: str, label: str, value: object, width: str = "20em", **options: object) -> Control:
    looks = {"style": {"description_width": "initial"}, "layout": {"width": width}}
    return Control(kind, {"value": value, "description": label} | options | looks)


def slider(label: str, value: float, low: float, high: float, step: float) -> Control:
    """A number from ``low`` to ``high``; the output follows when the slider is let go."""
    return _control("FloatSlider", label, value, min=low, max=high, step=step, continuous_update=False, readout_format=".2f")


def picker(label: str, value: object, options: Sequence, stepwise: bool = False) -> Control:
    """One of ``options`` (values, or pairs of a name and a value), from a list or, ``stepwise``, on a slider."""
    if stepwise:
        return _control("SelectionSlider", label, value, options=list(options), continuous_update=False)
    return _control("Dropdown", label, value, options=list(options))


def textbox(label: str, value: str, rows: int = 1) -> Control:
    """Text of any kind; the output follows while it is typed."""
    kind, options = ("Textarea", {"rows": rows}) if rows > 1 else ("Text", {})
    return _control(kind, label, value, "95%", **options)


def somebody_is_there() -> bool:
    """Whether this cell was run by a person at a notebook: papermill and nbconvert cannot be asked for input."""
    from IPython import get_ipython

    kernel = getattr(get_ipython(), "kernel", None)
    return bool(kernel and kernel.get_parent().get("content", {}).get("allow_stdin"))


def interactive_or_static(
    name: str, draw: Callable[..., Output], controls: dict[str, Control], button: str | None = None
) -> None:
    """Display ``draw(**values)`` below its controls, or, where nobody can move them, for their first values alone.

    Without a person no widget is made at all, so that an executed notebook holds a plain figure or table and no state
    of a widget that no kernel answers for. With one, the plain output travels along, for viewers without widgets.

    Args:
        name: marks the view in the page, as the class ``rlvr-NAME``.
        draw: a pure function of the controls' values by name; a ValueError is shown as its sentence.
        controls: by the names of ``draw``'s arguments.
        button: draw only when this button is pressed, for what takes more than a moment.
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
    """The view as one widget whose last child is the output, at the start ``first``.

    ipywidgets' own ``interactive`` would draw the start a second time, and show a ValueError as a traceback.
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
    """HTML that was made from escaped parts, and the plain ``text`` beside it."""

    html: str
    text: str

    def __str__(self) -> str:
        return self.text


def as_written(text_of: str) -> Markup:
    """Text as somebody wrote it, with its spaces and dollars: escaped, and never set as a formula."""
    return Markup(f'<code style="white-space:pre-wrap;background:none">{html.escape(text_of)}</code>', text_of)


def table(headline: str, header: Sequence[str], rows: Sequence[Sequence[str | Markup]], note: str = "") -> Output:
    """A table as output; every text but :class:`Markup` is escaped here.

    Args:
        headline: a sentence above it, also its caption for those who hear it.
        header: column names; rows: as many cells each.
        note: a sentence below it.
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

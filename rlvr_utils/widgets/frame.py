"""Controls above an output that is drawn anew when one moves, or the output alone where nobody can move them."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ipywidgets import Widget

#: A notebook output, as ``plots.figure_bundle`` and :func:`table` make it: data by MIME type, and metadata.
Output = tuple[dict[str, str], dict]

VIEW = "application/vnd.jupyter.widget-view+json"


class Control(NamedTuple):
    """A control before it is a widget: its first ``value``, and what makes the widget where one is wanted."""

    value: object
    make: Callable[[], Widget]


def slider(label: str, value: float, low: float, high: float, step: float) -> Control:
    """A number from ``low`` to ``high``; the output follows when the slider is let go."""
    def make():
        import ipywidgets  # where nobody can move it, it need not be there

        return ipywidgets.FloatSlider(value=value, min=low, max=high, step=step, description=label,
                                      continuous_update=False, readout_format=".2f", **_looks())
    return Control(value, make)


def choice(label: str, value: object, options: Sequence, stepwise: bool = False) -> Control:
    """One of ``options`` (values, or pairs of a name and a value), from a list or, ``stepwise``, on a slider."""
    def make():
        import ipywidgets

        kind = ipywidgets.SelectionSlider if stepwise else ipywidgets.Dropdown
        options_of_slider = {"continuous_update": False} if stepwise else {}
        return kind(options=list(options), value=value, description=label, **options_of_slider, **_looks())
    return Control(value, make)


def text(label: str, value: str, rows: int = 1) -> Control:
    """Text of any kind; the output follows while it is typed."""
    def make():
        import ipywidgets

        kind, options = (ipywidgets.Textarea, {"rows": rows}) if rows > 1 else (ipywidgets.Text, {})
        return kind(value=value, description=label, **options, **_looks("95%"))
    return Control(value, make)


def _looks(width: str = "20em") -> dict:
    return {"style": {"description_width": "initial"}, "layout": {"width": width}}


def somebody_is_there() -> bool:
    """Whether this cell was run by a person at a notebook: papermill and nbconvert cannot be asked for input."""
    from IPython import get_ipython

    kernel = getattr(get_ipython(), "kernel", None)
    return bool(kernel and kernel.get_parent().get("content", {}).get("allow_stdin"))


def interactive_or_static(name: str, draw: Callable[..., Output], controls: dict[str, Control],
                          button: str | None = None) -> None:
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

    data, metadata = draw(**{key: control.value for key, control in controls.items()})
    if somebody_is_there():
        view = build(name, draw, controls, button, data["text/html"])
        data = data | {VIEW: view._repr_mimebundle_()[VIEW]}
    display(data, raw=True, metadata=metadata)


def build(name: str, draw: Callable[..., Output], controls: dict[str, Control], button: str | None, first: str) -> Widget:
    """The view as one widget whose last child is the output, at the start ``first``."""
    from ipywidgets import HTML, Box, Button, VBox

    inputs = {key: control.make() for key, control in controls.items()}
    output, press = HTML(value=first), Button(description=button or "", button_style="primary")

    def redraw(_=None) -> None:
        press.disabled = True
        output.value = drawn(draw, {key: widget.value for key, widget in inputs.items()})
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


def drawn(draw: Callable[..., Output], values: dict) -> str:
    """The HTML of ``draw(**values)``, or the sentence that says why there is none."""
    try:
        return draw(**values)[0]["text/html"]
    except ValueError as error:
        return f'<p role="alert"><strong>{html.escape(str(error))}</strong></p>'


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
    place = "text-align:left;vertical-align:top;padding:3px 12px 3px 0"
    head = "".join(f'<th scope="col" style="{place}">{html.escape(name)}</th>' for name in header)
    body = "".join(f"<tr>{''.join(f'<td style={place!r}>{_cell(value)}</td>' for value in row)}</tr>" for row in rows)
    caption = f'<caption style="{place}"><strong>{html.escape(headline)}</strong></caption>'
    page = f'<table style="line-height:1.4">{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    page += f"<p>{html.escape(note)}</p>" if note else ""
    lines = [headline, " | ".join(header), *(" | ".join(map(str, row)) for row in rows), *([note] if note else [])]
    return {"text/html": page, "text/plain": "\n".join(lines)}, {}


def _cell(value: str | Markup) -> str:
    return value.html if isinstance(value, Markup) else html.escape(value)

"""Figures that everybody can read: one way to show them; markers and dashes beside the colours."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike

#: Okabe and Ito's eight colours, told apart with every common colour blindness (jfly.uni-koeln.de/color).
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#F0E442", "#000000")
#: A marker for each colour of the palette, so that no figure depends on colour alone.
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
#: A dash pattern for each colour of the palette.
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 3)))
#: Dots an inch of a stored picture: sharp at its own size, and small enough for a notebook that is read on GitHub.
DPI = 84


def style() -> None:
    """Set the course's look for all figures made after it: palette with dashes, light grid, readable text.

    Tables show LaTeX as it was written: in a course on answers in LaTeX the writing is what matters.
    """
    import matplotlib as mpl
    import pandas as pd

    for option in ("display.html.use_mathjax", "styler.html.mathjax"):
        pd.set_option(option, False)

    mpl.rcParams.update(
        {
            "axes.prop_cycle": mpl.cycler(color=PALETTE) + mpl.cycler(linestyle=DASHES),
            "axes.grid": True,
            "grid.alpha": 0.3,
            "axes.axisbelow": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "figure.figsize": (6.4, 3.8),
            "figure.constrained_layout.use": True,
            "font.size": 11,
            "legend.frameon": False,
            "lines.markersize": 6,
        }
    )


def show(figure: Figure, *, alt: str, caption: str, dpi: int = DPI) -> None:
    """Display ``figure`` with its ``alt`` text and ``caption``, then close it (see :func:`figure_bundle`)."""
    from IPython.display import display

    display(figure_bundle(figure, alt=alt, caption=caption, dpi=dpi), raw=True)


def figure_bundle(figure: Figure, *, alt: str, caption: str, dpi: int = DPI) -> dict[str, str]:
    """A notebook output for ``figure``, which is closed: data by MIME type.

    The output holds the picture once, in an HTML ``<figure>``: the one form in which JupyterLab, nbconvert and
    GitHub keep the alt text (JupyterLab drops the ``alt`` in a bare PNG's metadata) and show the caption as text.
    A terminal gets both as plain text. Raises ValueError where ``alt`` or ``caption`` is empty: a figure nobody
    can hear or interpret teaches only some of the readers.
    """
    import matplotlib.pyplot as plt

    for name, text in (("alt", alt), ("caption", caption)):
        if not text or not text.strip():
            raise ValueError(f"a figure needs its {name} text: say in one sentence what there is to see")
    png = png_of(figure, dpi)
    plt.close(figure)
    return {"text/html": figure_html(png, alt, caption), "text/plain": f"[figure] {alt} ({caption})"}


def png_of(figure: Figure, dpi: int = DPI) -> str:
    """``figure`` as base64 PNG in 128 colours: a third of the bytes, with no difference that an eye sees.

    The colours are moved to the means of what they stand for; without that, thin lines lose theirs to wide bands.
    """
    from PIL import Image

    full, small = io.BytesIO(), io.BytesIO()
    figure.savefig(full, format="png", dpi=dpi, bbox_inches="tight", facecolor="white")
    picture = Image.open(full).convert("RGB").quantize(128, kmeans=2, dither=Image.Dither.NONE)
    picture.save(small, format="png", optimize=True)
    return base64.b64encode(small.getvalue()).decode()


def figure_html(png: str, alt: str, caption: str) -> str:
    """The ``<figure>`` element for a base64 ``png``; alt and caption are escaped, so any text is safe."""
    return (
        '<figure style="margin:0"><img style="max-width:100%;height:auto" '
        f'alt="{html.escape(alt, quote=True)}" src="data:image/png;base64,{png}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def draw_lines(axes: Axes, curves: Mapping[str, tuple[Sequence, Sequence]], **settings: object) -> None:
    """Draw one line per label of ``curves``, each an (x, y), with a legend; ``settings`` go to ``axes.set``."""
    for index, (label, (x, y)) in enumerate(curves.items()):
        # A marker per point would hide a long line: then one per tenth of the diagonal, each line's at other places.
        axes.plot(x, y, label=label, markevery=(0.03 * index, 0.1) if len(x) > 24 else 1, **_look(index))
    axes.set(**settings)
    if len(curves) > 1:
        axes.legend(fontsize=9)


def draw_curves(axes: Axes, curves: Mapping[str, ArrayLike], **settings: object) -> None:
    """As :func:`draw_lines`, with intervals as bands: each of ``curves`` is a table of x, mean, low and high, (n, 4)."""
    columns = {label: np.asarray(table, dtype=float).T for label, table in curves.items()}
    for index, (x, _, low, high) in enumerate(columns.values()):
        axes.fill_between(x, low, high, color=_look(index)["color"], alpha=0.18, linewidth=0)
    draw_lines(axes, {label: (x, mean) for label, (x, mean, _, _) in columns.items()}, **settings)


def intervals(
    axes: Axes, labels: Sequence[str], estimates: Sequence, *, label: str, index: int = 0, offset: float = 0.0
) -> None:
    """Draw one horizontal interval per row: ``estimates`` are (mean, low, high), named by ``labels``, top down.

    ``offset`` shifts the rows by a fraction of a row, so that two sets can share the axes.
    """
    looks = _look(index)
    rows = [row + offset for row in range(len(labels))]
    means = [estimate[0] for estimate in estimates]
    # A mean from a different resampling may sit a hair outside its own interval; an error bar cannot be negative.
    errors = [[max(0.0, e[0] - e[1]) for e in estimates], [max(0.0, e[2] - e[0]) for e in estimates]]
    axes.errorbar(means, rows, xerr=errors, fmt=looks["marker"], color=looks["color"], capsize=2, label=label)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)


def before_after(rates: Mapping[str, object], *, what: str, xlabel: str, caption: str) -> None:
    """Show each of ``rates`` by its label, one row each, as two intervals: its ``before`` and its ``after``.

    ``analysis.RateChange`` has both. The alt text is ``what`` and the means.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7.2, 1.3 + 0.28 * len(rates)))
    for index, when, offset in ((1, "before", -0.13), (0, "after", 0.13)):
        estimates = [getattr(rate, when) for rate in rates.values()]
        intervals(axes, list(rates), estimates, label=when, index=index, offset=offset)
    axes.set(xlabel=xlabel, xlim=(-0.02, 1.02))
    figure.legend(loc="outside lower center", ncols=2)
    told = "; ".join(f"{name} {rate.before.mean:.2f} to {rate.after.mean:.2f}" for name, rate in rates.items())
    show(figure, alt=f"{what}: {told}.", caption=caption)


def _look(index: int) -> dict:
    place = index % len(PALETTE)
    return {"color": PALETTE[place], "marker": MARKERS[place], "linestyle": DASHES[place]}

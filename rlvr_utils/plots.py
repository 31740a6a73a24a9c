"""Accessible figures: one function to show them with alt text and caption, and markers and dashes besides colours."""

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

#: Okabe and Ito's eight colours, distinguishable with common colour blindness (jfly.uni-koeln.de/color).
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#F0E442", "#000000")
#: A marker for each colour of the palette, so that no figure depends on colour alone.
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
#: A dash pattern for each colour of the palette.
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 3)))
#: Dots per inch of a saved figure: sharp at its own size, and small enough for notebooks on GitHub.
DPI = 84


def style() -> None:
    """Set the course's style for all later figures: palette with dashes, light grid, readable text.

    Also turns off LaTeX rendering in tables, because answers in LaTeX must be shown as written.
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
    """Return a notebook output for ``figure`` as data by MIME type, and close the figure.

    The output contains the picture once, in an HTML ``<figure>``. Only this form keeps the alt text and the caption in
    JupyterLab, nbconvert and GitHub (JupyterLab drops the ``alt`` in a bare PNG's metadata). A terminal shows both as
    plain text. Raises ValueError if ``alt`` or ``caption`` is empty, because screen readers need them.
    """
    import matplotlib.pyplot as plt

    for name, text in (("alt", alt), ("caption", caption)):
        if not text or not text.strip():
            raise ValueError(f"A figure needs its {name} text. Describe in one sentence what the figure shows.")
    png = png_of(figure, dpi)
    plt.close(figure)
    return {"text/html": figure_html(png, alt, caption), "text/plain": f"[figure] {alt} ({caption})"}


def png_of(figure: Figure, dpi: int = DPI) -> str:
    """Return ``figure`` as a base64 PNG with 128 colours, a third of the size without a visible difference.

    K-means moves each palette colour to the mean of its pixels. Without it, wide bands would change the colour of thin
    lines.
    """
    from PIL import Image

    full, small = io.BytesIO(), io.BytesIO()
    figure.savefig(full, format="png", dpi=dpi, bbox_inches="tight", facecolor="white")
    picture = Image.open(full).convert("RGB").quantize(128, kmeans=2, dither=Image.Dither.NONE)
    picture.save(small, format="png", optimize=True)
    return base64.b64encode(small.getvalue()).decode()


def figure_html(png: str, alt: str, caption: str) -> str:
    """Return the ``<figure>`` element for a base64 ``png``, with alt text and caption escaped."""
    return (
        '<figure style="margin:0"><img style="max-width:100%;height:auto" '
        f'alt="{html.escape(alt, quote=True)}" src="data:image/png;base64,{png}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def draw_lines(axes: Axes, curves: Mapping[str, tuple[Sequence, Sequence]], **settings: object) -> None:
    """Draw one line per label of ``curves``, each (x, y), with a legend. ``settings`` are passed to ``axes.set``."""
    for index, (label, (x, y)) in enumerate(curves.items()):
        # A marker per point would hide a long line, so use one per tenth of the diagonal, shifted per line.
        axes.plot(x, y, label=label, markevery=(0.03 * index, 0.1) if len(x) > 24 else 1, **_look(index))
    axes.set(**settings)
    if len(curves) > 1:
        axes.legend(fontsize=9)


def draw_curves(axes: Axes, curves: Mapping[str, ArrayLike], **settings: object) -> None:
    """Like :func:`draw_lines`, with intervals as bands. ``curves`` are tables of x, mean, low and high, shape (n, 4)."""
    columns = {label: np.asarray(table, dtype=float).T for label, table in curves.items()}
    for index, (x, _, low, high) in enumerate(columns.values()):
        axes.fill_between(x, low, high, color=_look(index)["color"], alpha=0.18, linewidth=0)
    draw_lines(axes, {label: (x, mean) for label, (x, mean, _, _) in columns.items()}, **settings)


def intervals(
    axes: Axes, labels: Sequence[str], estimates: Sequence, *, label: str, index: int = 0, offset: float = 0.0
) -> None:
    """Draw one horizontal interval per row, top down. ``estimates`` are (mean, low, high).

    ``offset`` shifts the rows by a fraction of a row, so that two sets can share the axes.
    """
    looks = _look(index)
    rows = [row + offset for row in range(len(labels))]
    means = [estimate[0] for estimate in estimates]
    # A mean from a different resampling may be slightly outside its interval, but an error bar cannot be negative.
    errors = [[max(0.0, e[0] - e[1]) for e in estimates], [max(0.0, e[2] - e[0]) for e in estimates]]
    axes.errorbar(means, rows, xerr=errors, fmt=looks["marker"], color=looks["color"], capsize=2, label=label)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)


def before_after(rates: Mapping[str, object], *, what: str, xlabel: str, caption: str) -> None:
    """Show the ``before`` and ``after`` intervals of ``rates``, one row per label.

    The values have the attributes of ``analysis.RateChange``. The alt text is ``what`` with the means.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7.2, 1.3 + 0.28 * len(rates)))
    for index, when, offset in ((1, "before", -0.13), (0, "after", 0.13)):
        estimates = [getattr(rate, when) for rate in rates.values()]
        intervals(axes, list(rates), estimates, label=when, index=index, offset=offset)
    axes.set(xlabel=xlabel, xlim=(-0.02, 1.02))
    figure.legend(loc="outside lower center", ncols=2)
    told = ", ".join(f"{name} {rate.before.mean:.2f} to {rate.after.mean:.2f}" for name, rate in rates.items())
    show(figure, alt=f"{what}: {told}.", caption=caption)


def _look(index: int) -> dict:
    place = index % len(PALETTE)
    return {"color": PALETTE[place], "marker": MARKERS[place], "linestyle": DASHES[place]}

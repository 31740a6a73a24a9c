"""Figures: alt text, caption, one small picture, and no figure left open."""

from __future__ import annotations

import base64
import io
import re
from types import SimpleNamespace

import matplotlib
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest

from rlvr_utils import plots
from rlvr_utils.stats import Estimate

matplotlib.use("Agg")


@pytest.fixture
def displayed(monkeypatch):
    """Collect the bundles and options passed to IPython's display."""
    bundles = []
    monkeypatch.setattr("IPython.display.display", lambda data, **options: bundles.append((data, options)))
    return bundles


def drawn():
    figure, axes = plt.subplots()
    plots.draw_curves(axes, {"accuracy": [(0, 0.2, 0.1, 0.3), (1, 0.8, 0.7, 0.9)]})
    return figure


def picture(bundle) -> np.ndarray:
    png = re.search(r"data:image/png;base64,([^\"]+)", bundle["text/html"])[1]
    return plt.imread(io.BytesIO(base64.b64decode(png)))


def test_show_gives_one_picture_with_alt_and_caption(displayed):
    figure = drawn()
    plots.show(figure, alt='a "rising" line <x>', caption="Accuracy rises & stays.")
    [(bundle, options)] = displayed
    assert set(bundle) == {"text/html", "text/plain"} and options == {"raw": True}
    assert 'alt="a &quot;rising&quot; line &lt;x&gt;"' in bundle["text/html"]
    assert "<figcaption>Accuracy rises &amp; stays.</figcaption>" in bundle["text/html"]
    assert 'a "rising" line' in bundle["text/plain"]
    assert picture(bundle).shape[0] > 200 and picture(bundle).std() > 0
    assert not plt.fignum_exists(figure.number)


def test_a_saved_figure_is_small_and_keeps_its_line_colours():
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.4))
    noise = np.random.default_rng(0).normal(size=(5, 60)).cumsum(axis=1) / 30
    bands = {f"line {i}": np.column_stack([range(60), y, y - 0.1, y + 0.1]) for i, y in enumerate(noise)}
    plots.draw_curves(panels[0], bands)
    full = io.BytesIO()
    figure.savefig(full, format="png", dpi=plots.DPI, bbox_inches="tight", facecolor="white")
    png = plots.png_of(figure)
    plt.close(figure)
    assert len(png) < len(full.getvalue()) / 2
    pixels = plt.imread(io.BytesIO(base64.b64decode(png)))[..., :3].reshape(-1, 3)
    for colour in plots.PALETTE[:5]:
        assert np.abs(pixels - matplotlib.colors.to_rgb(colour)).max(axis=1).min() < 0.03, colour


@pytest.mark.parametrize("words", [{"alt": " ", "caption": "c"}, {"alt": "a", "caption": ""}])
def test_show_requires_alt_text_and_caption(displayed, words):
    with pytest.raises(ValueError, match="needs its"):
        plots.show(drawn(), **words)
    assert displayed == []
    plt.close("all")


def test_html_report_keeps_picture_alt_and_caption(displayed):
    from nbconvert import HTMLExporter

    plots.show(drawn(), alt="the alt text", caption="the caption")
    output = nbformat.v4.new_output("display_data", data=displayed[0][0])
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("", outputs=[output])])
    page, _ = HTMLExporter().from_notebook_node(notebook)
    assert page.count('alt="the alt text"') == 1 and "<figcaption>the caption</figcaption>" in page


def test_colours_markers_and_dashes_go_together():
    looks = list(zip(plots.PALETTE, plots.MARKERS, plots.DASHES, strict=True))
    assert len({c for c, _, _ in looks}) == len({m for _, m, _ in looks}) == len({str(d) for _, _, d in looks}) == 8
    with matplotlib.rc_context():
        plots.style()
        assert matplotlib.rcParams["axes.prop_cycle"].by_key()["color"] == list(plots.PALETTE)


def test_intervals_are_drawn_at_their_values():
    figure, axes = plt.subplots()
    plots.intervals(axes, ["Algebra", "Geometry"], [(0.5, 0.4, 0.7), (0.2, 0.1, 0.25)], label="base")
    bar = axes.containers[0]
    ends = np.array([segment[:, 0] for segment in bar[2][0].get_segments()])
    np.testing.assert_allclose(ends, [[0.4, 0.7], [0.1, 0.25]])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["Algebra", "Geometry"]
    plt.close(figure)


def test_each_line_has_its_own_marker_and_several_have_a_legend():
    figure, (one, two) = plt.subplots(1, 2)
    plots.draw_lines(one, {"a": (range(100), range(100))}, xlabel="step")
    plots.draw_lines(two, {"a": ([0, 1], [0, 1]), "b": ([0, 1], [1, 0])})
    assert one.get_legend() is None and one.get_xlabel() == "step"
    assert [text.get_text() for text in two.get_legend().get_texts()] == ["a", "b"]
    assert [line.get_marker() for line in two.lines] == list(plots.MARKERS[:2])
    plt.close(figure)


def test_before_and_after_are_in_the_alt_text(displayed):
    rate = SimpleNamespace(before=Estimate(0.4, 0.3, 0.5), after=Estimate(0.9, 0.8, 1.0))
    plots.before_after({"boxed": rate}, what="One rate", xlabel="share", caption="It rose.")
    assert 'alt="One rate: boxed 0.40 to 0.90."' in displayed[0][0]["text/html"]

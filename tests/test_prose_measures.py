"""The script that measures our prose counts correctly. No page fails because of its style."""

from __future__ import annotations

import nbformat
from prose_measures import measures, missing_terms, prose_of


def test_measures_are_counted() -> None:
    found = measures("Four samples a problem; it stands beside the box.\n\n" + "word " * 40 + ".")
    assert (len(found.semicolons), len(found.long), len(found.distributive), len(found.archaic)) == (1, 1, 1, 2)
    plain = measures("We sample four responses per problem. It is a number.\n\n- one;\n- two.")
    assert not (plain.semicolons or plain.long or plain.distributive or plain.archaic)


def test_code_and_formulas_are_not_prose(tmp_path) -> None:
    page = tmp_path / "page.md"
    page.write_text("Text `a; b` and $x; y$.\n\n```\nfor a in b; do\n```\n")
    assert measures(prose_of(page)).semicolons == []


def test_captions_in_code_are_prose(tmp_path) -> None:
    cell = nbformat.v4.new_code_cell('show(figure, caption=f"It rises to {x:.0%}; then it falls by a lot.")\nx = "a; b"')
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "page.ipynb")
    assert len(measures(prose_of(tmp_path / "page.ipynb")).semicolons) == 1


def test_terms_that_never_occur() -> None:
    missing = missing_terms("We use PPO and a policy gradient.")
    assert "PPO" not in missing and "policy gradient" not in missing and "trust region" in missing

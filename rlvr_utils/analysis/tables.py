"""Format estimates as text for tables, captions and the README."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from rlvr_utils.stats import Estimate, percent


def points(change: Estimate, digits: int = 0, margin: float = 0.0) -> str:
    """Format a change in percentage points with its 95 % interval, such as ``"+47 (+44 to +50)"``.

    A bound decides about a :func:`verdict` by its side of 0 or of ``margin``. Where rounding would hide the side, all three
    numbers get one more digit.
    """
    if not np.isfinite(change.mean):
        return "no value (nothing to count)"
    limits = (0, 100 * margin, -100 * margin)
    if any(round(100 * bound, digits) == limit != 100 * bound for bound in change[1:] for limit in limits):
        digits += 1
    mean, low, high = (re.sub(r"^[+-](0(\.0+)?)$", r"\1", f"{100 * value:+.{digits}f}") for value in change)
    return f"{mean} ({low} to {high})"


def verdict(change: Estimate, margin: float = 0.0) -> str:
    """Return the conclusion that the interval of ``change`` supports.

    Without a margin it is "higher", "lower" or "no significant change". With a ``margin`` fixed in advance (0.08 for 8
    points) it can also be an equivalence claim, such as "less than 8 points apart". This needs the *whole* interval within
    the margin. An interval that only contains zero is not enough.
    """
    if not np.isfinite(change.mean):
        return "nothing to count"
    side = "higher" if change.low > 0 else "lower" if change.high < 0 else "no significant change"
    if not margin:
        return side
    size = f"{100 * margin:.0f} points"
    if max(abs(change.low), abs(change.high)) < margin:
        return f"less than {size} apart" if side.startswith("no") else f"{side}, by less than {size}"
    if side.startswith("no"):
        return f"inconclusive at {size}"
    return (
        f"{side}, by more than {size}"
        if max(change.low, -change.high) >= margin
        else f"{side}, and {size} are not ruled out"
    )


def as_text(table: pd.DataFrame) -> pd.DataFrame:
    """Return ``table`` with estimates as text: ``change`` and ``difference`` in points, the others in percent."""
    table = table.copy()
    for column in table:
        if len(table) and isinstance(table[column].iloc[0], Estimate):
            table[column] = table[column].map(points if column in ("change", "difference") else percent)
    return table


def as_markdown(table: pd.DataFrame) -> str:
    """Return ``table`` as a left-aligned Markdown table, for cells with long text."""
    lines = [table.columns, ["---"] * table.shape[1], *table.astype(str).to_numpy()]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)

"""Which solved problems stand before the problem in a few-shot prompt."""

from __future__ import annotations

from ..prompts import RLVR_MATH_EXEMPLARS
from .loading import load_problems

#: Which solved problems of MiniMATH's training split serve as exemplars, in this order (one a subject, then again).
EXEMPLAR_TEMPLATES = ("linear_equation", "draw_probability", "neither_club", "point_on_line",
                      "triangle_angle", "remainder", "percent_of", "absolute_inequality")


def exemplars(dataset: str, shots: int) -> list[tuple[str, str]]:
    """The first ``shots`` (question, answer) pairs for a data set: MiniMATH's own, or RLVR-MATH's fixed four.

    Raises:
        ValueError: more shots than there are exemplars.
    """
    if dataset == "minimath":
        first = {}
        for row in load_problems("minimath", "train"):
            first.setdefault(row["template"], (row["problem"], " " + row["solution"]))
        pairs = [first[name] for name in EXEMPLAR_TEMPLATES]
    else:
        pairs = list(RLVR_MATH_EXEMPLARS)
    if not 0 <= shots <= len(pairs):
        raise ValueError(f"shots={shots}: there are {len(pairs)} exemplars for {dataset}, so choose 0 to {len(pairs)}.")
    return pairs[:shots]

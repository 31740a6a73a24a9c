"""Reading: how the verifier's tiers decide on a response (notebook 01), and the responses of a run (notebook 05)."""

from __future__ import annotations

import html
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import pandas as pd

from ..verifier import verify
from ..verifier.kinds import is_words, words
from ..verifier.limits import MAX_CHARACTERS, Unreadable
from ..verifier.normalize import normalize
from ..verifier.verdict import plain_number, readings
from .frame import Markup, Output, as_written, interactive_or_static, picker, table, textbox

#: Each tier's name and the question that it asks, cheapest first.
TIERS = (
    ("box", "Is there an answer in the last box?"),
    ("spelling", "Is it the same text, up to spelling?"),
    ("plain number", "Are both plain numbers? Then compare exactly."),
    ("words", "Is it a choice, a time of day, or words?"),
    ("tree", "Read both into trees: do structures and rational values agree?"),
    ("exact algebra", "Do both have the same normal form?"),
    ("enclosures", "Do balls with a proven radius separate the values at some point, or agree at all of them?"),
)
_DECIDED_AT = {"extraction": 0, "identity": 1, "text": 3, "structure": 4, "unreadable": 4, "symbolic": 5, "numerical": 6}
LONGEST = 120


class Tier(NamedTuple):
    """What one tier does with a pair: what it sees on both sides, and how it ends."""

    name: str
    asks: str
    answer: str
    truth: str
    outcome: str  #: "passed on", "decides: ..." or "not needed"


def tiers(response: str, truth: str) -> list[Tier]:
    """The way of one response through the tiers, as ``verify`` goes it; never raises on text."""
    verdict = verify(response, truth)
    numbers = verdict.tier == "number" and None not in map(_number, (verdict.answer, truth))
    # A number that is not plain ("x = 5", "30%") had to be read into a tree first.
    last = _DECIDED_AT.get(verdict.tier, 2 if numbers else 4)
    rows = []
    for place, (name, asks) in enumerate(TIERS):
        seen = _seen(name, response, verdict.answer, truth) if place <= last else ("", "")
        outcome = "passed on" if place < last else "not needed"
        if place == last:
            outcome = f"decides: {verdict.outcome if verdict.answer else 'no answer'}"
        rows.append(Tier(name, asks, *map(shortened, seen), outcome))
    return rows


def _number(text_of: str):
    return plain_number(normalize(text_of)) if len(text_of) <= MAX_CHARACTERS else None


def _seen(tier: str, response: str, answer: str | None, truth: str) -> tuple[str, str]:
    """What a tier compares, as two texts."""
    if tier == "box" or answer is None:
        return (answer or "no answer"), truth
    if max(len(answer), len(truth)) > MAX_CHARACTERS:
        return "too long to read", truth
    look = {
        "spelling": normalize,
        "plain number": _as_number,
        "tree": _as_tree,
        "words": lambda side: words(normalize(side)) if is_words(normalize(side)) else "no words",
    }.get(tier)
    return (look(answer), look(truth)) if look else ("the tree above", "the tree above")


def _as_number(side: str) -> str:
    number = _number(side)
    return "not a plain number" if number is None else str(number)


def _as_tree(side: str) -> str:
    try:
        return str(readings(normalize(side))[0])
    except (Unreadable, RecursionError) as error:
        return f"cannot be read: {error}"


def shortened(text_of: str, longest: int = LONGEST) -> str:
    """At most ``longest`` characters of a text, and how many there were."""
    return text_of if len(text_of) <= longest else f"{text_of[:longest]} ... ({len(text_of):,} characters)"


def draw_tiers(response: str, truth: str) -> Output:
    """The verdict with its reason, and a table of the tiers."""
    if not truth.strip():
        raise ValueError("There is no ground truth to compare with: type one, such as 14 or \\frac{1}{2}.")
    verdict = verify(response, truth)
    headline = f"Reward {int(verdict.correct)}: {shortened(verdict.reason)}"
    note = f"Outcome: {verdict.outcome}. Units of work: {verdict.work:,}." if verdict.answer else ""
    rows = [
        (row.name, row.asks, as_written(row.answer), as_written(row.truth), _marked(row.outcome))
        for row in tiers(response, truth)
    ]
    return table(headline, ("tier", "asks", "sees in the answer", "sees in the ground truth", "outcome"), rows, note)


def _marked(outcome: str) -> str | Markup:
    return Markup(f"<strong>{html.escape(outcome)}</strong>", outcome) if outcome.startswith("decides") else outcome


def verifier_explorer(response: str, truth: str) -> None:
    """Show how the tiers decide on ``response``; in a live notebook both texts can be typed over."""
    interactive_or_static(
        "verifier", draw_tiers, {"response": textbox("response", response, rows=3), "truth": textbox("ground truth", truth)}
    )


# --- the base model's responses beside the trained one's ---

ANY = "any"
PER_PAGE = 5
REWARDS = {ANY: None, "1": True, "0": False}


def side_by_side(frame: pd.DataFrame, step: int) -> pd.DataFrame:
    """One row per problem and sample of the evaluation at ``step``, with the base model's response beside it.

    Args:
        frame: responses of one run with ``step, problem_id, sample, response, ground_truth, correct, category, subject``
            (``analysis.classified`` makes them).

    Returns:
        The rows of ``step``; ``response_before``, ``category_before`` and ``correct_before`` are those of the first
        evaluation. A sample that only one of the two has is left out.
    """
    key = ["problem_id", "sample"]
    first = frame[frame["step"] == frame["step"].min()][[*key, "response", "category", "correct"]]
    return frame[frame["step"] == step].merge(first, on=key, suffixes=("", "_before"))


def matching(pairs: pd.DataFrame, reward: str, verdict: str, subject: str) -> pd.DataFrame:
    """The pairs whose response at the later step has this reward, verdict and subject; ``"any"`` lets all through."""
    keep = pd.Series(True, index=pairs.index)
    if REWARDS[reward] is not None:
        keep &= pairs["correct"] == REWARDS[reward]
    for column, wanted in (("category", verdict), ("subject", subject)):
        if wanted != ANY:
            keep &= pairs[column] == wanted
    return pairs[keep]


def draw_responses(
    frame: pd.DataFrame, questions: dict[str, str], step: int, reward: str, verdict: str, subject: str, page: int
) -> Output:
    """One page of the matching pairs as a table; a page beyond the end is the last one."""
    pairs = side_by_side(frame, step)
    found = matching(pairs, reward, verdict, subject)
    pages = max(1, -(-len(found) // PER_PAGE))
    page = min(page, pages)
    shown = found.iloc[(page - 1) * PER_PAGE : page * PER_PAGE]
    rows = [
        (
            as_written(f"{questions[row.problem_id]}\nground truth: {row.ground_truth}"),
            as_written(row.response_before.strip()),
            f"{int(row.correct_before)}, {row.category_before}",
            as_written(row.response.strip()),
            f"{int(row.correct)}, {row.category}",
        )
        for row in shown.itertuples()
    ]
    share = len(found) / len(pairs) if len(pairs) else 0
    headline = f"{len(found):,} of {len(pairs):,} responses at step {step} ({share:.1%}); page {page} of {pages}"
    return table(
        headline,
        ("problem", "base model", "reward", f"at step {step}", "reward"),
        rows,
        "" if rows else "Nothing matches: set one of the filters back to any.",
    )


def response_browser(frame: pd.DataFrame, problems: Sequence[dict], verdict: str = ANY) -> None:
    """Show responses of one run, the last evaluation first; in a live notebook they can be filtered and paged through."""
    questions = {row["id"]: row["problem"] for row in problems}
    steps = sorted(set(frame["step"]))[1:]
    if not steps:
        raise ValueError("this run has been evaluated only once: there is nothing yet to put beside the base model")

    kinds = sorted(set(frame["category"]) | {verdict} - {ANY})
    subjects = sorted(set(frame["subject"].dropna())) if "subject" in frame else []
    interactive_or_static(
        "responses",
        partial(draw_responses, frame, questions),
        {
            "step": picker("step", steps[-1], steps),
            "reward": picker("reward", ANY, tuple(REWARDS)),
            "verdict": picker("verdict", verdict, (ANY, *kinds)),
            "subject": picker("subject", ANY, (ANY, *subjects)),
            "page": picker("page", 1, range(1, 1 + -(-len(frame) // PER_PAGE)), stepwise=True),
        },
    )

"""Views of texts: the verifier's tiers on a response (notebook 01), and the responses of a run (notebook 05)."""

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

#: Each tier's name and question, cheapest first.
TIERS = (
    ("box", "Is there an answer in the last box?"),
    ("spelling", "Are the texts equal after normalizing the spelling?"),
    ("plain number", "Are both plain numbers? Then compare exactly."),
    ("words", "Is it a choice, a time of day, or words?"),
    ("tree", "Parse both into trees. Do the structures and rational values agree?"),
    ("exact algebra", "Do both have the same normal form?"),
    ("enclosures", "Do proven error bounds separate the values at a sampled point, or overlap at all points?"),
)
_DECIDED_AT = {"extraction": 0, "identity": 1, "text": 3, "structure": 4, "unreadable": 4, "symbolic": 5, "numerical": 6}
LONGEST = 120


class Tier(NamedTuple):
    """One tier's view of both sides, and its outcome."""

    name: str
    asks: str
    answer: str
    truth: str
    outcome: str  #: "passed on", "decides: ..." or "not needed"


def tiers(response: str, truth: str) -> list[Tier]:
    """Return what each tier does with a response, in the order of ``verify``. Never raises on text."""
    verdict = verify(response, truth)
    numbers = verdict.tier == "number" and None not in map(_number, (verdict.answer, truth))
    # A number that is not plain ("x = 5", "30%") was parsed into a tree first.
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
    """Return the two texts that a tier compares."""
    if tier == "box" or answer is None:
        return (answer or "no answer"), truth
    if max(len(answer), len(truth)) > MAX_CHARACTERS:
        return "too long to read", truth
    look = {
        "spelling": normalize,
        "plain number": _as_number,
        "tree": _as_tree,
        "words": lambda side: words(normalize(side)) if is_words(normalize(side)) else "not words",
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
    """Return a text truncated to ``longest`` characters, with its full length."""
    return text_of if len(text_of) <= longest else f"{text_of[:longest]} ... ({len(text_of):,} characters)"


def draw_tiers(response: str, truth: str) -> Output:
    """Return a table of the tiers, with the verdict and its reason as headline."""
    if not truth.strip():
        raise ValueError("The ground truth is empty. Type one, such as 14 or \\frac{1}{2}.")
    verdict = verify(response, truth)
    headline = f"Reward {int(verdict.correct)}: {shortened(verdict.reason)}"
    note = f"Outcome: {verdict.outcome}. Units of work: {verdict.work:,}." if verdict.answer else ""
    rows = [
        (row.name, row.asks, as_written(row.answer), as_written(row.truth), _marked(row.outcome))
        for row in tiers(response, truth)
    ]
    return table(headline, ("tier", "question", "answer as compared", "ground truth as compared", "outcome"), rows, note)


def _marked(outcome: str) -> str | Markup:
    return Markup(f"<strong>{html.escape(outcome)}</strong>", outcome) if outcome.startswith("decides") else outcome


def verifier_explorer(response: str, truth: str) -> None:
    """Show how the tiers judge ``response``, with text fields for both texts in a live notebook."""
    interactive_or_static(
        "verifier", draw_tiers, {"response": textbox("response", response, rows=3), "truth": textbox("ground truth", truth)}
    )


# --- responses of the base model and of the trained model ---

ANY = "any"
PER_PAGE = 5
REWARDS = {ANY: None, "1": True, "0": False}


def side_by_side(frame: pd.DataFrame, step: int) -> pd.DataFrame:
    """Return one row per problem and sample of the evaluation at ``step``, joined with the base model's response.

    Args:
        frame: responses of one run with ``step, problem_id, sample, response, ground_truth, correct, category, subject``,
            as returned by ``analysis.classified``.

    Returns:
        The rows of ``step``. ``response_before``, ``category_before`` and ``correct_before`` come from the first
        evaluation. Samples that only one of the two evaluations has are left out.
    """
    key = ["problem_id", "sample"]
    first = frame[frame["step"] == frame["step"].min()][[*key, "response", "category", "correct"]]
    return frame[frame["step"] == step].merge(first, on=key, suffixes=("", "_before"))


def matching(pairs: pd.DataFrame, reward: str, verdict: str, subject: str) -> pd.DataFrame:
    """Return the pairs whose later response has this reward, verdict and subject. ``"any"`` matches all."""
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
    """Return one page of the matching pairs as a table. A page number past the end gives the last page."""
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
    headline = f"{len(found):,} of {len(pairs):,} responses at step {step} ({share:.1%}), page {page} of {pages}"
    return table(
        headline,
        ("problem", "base model", "verdict", f"at step {step}", "verdict"),
        rows,
        "" if rows else "No responses match these filters. Set one of them back to any.",
    )


def response_browser(frame: pd.DataFrame, problems: Sequence[dict], verdict: str = ANY) -> None:
    """Show responses of one run's last evaluation, with filters and pages in a live notebook."""
    questions = {row["id"]: row["problem"] for row in problems}
    steps = sorted(set(frame["step"]))[1:]
    if not steps:
        raise ValueError("This run has only one evaluation. Train until the next evaluation to compare with the base model.")

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

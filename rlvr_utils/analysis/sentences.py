"""Sentences that state a result, computed from the data: other data, other sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from rlvr_utils.stats import Estimate, out_of, percent

from .errors import LengthChange
from .rates import Comparison


def points(change: Estimate) -> str:
    """``"+47 (+44 to +50)"``: a change in percentage points with its 95 % interval."""
    if not np.isfinite(change.mean):
        return "no value (nothing to count)"
    return f"{100 * change.mean:+.0f} ({100 * change.low:+.0f} to {100 * change.high:+.0f})"


def improved_sentence(what: str, result: Comparison, n_problems: int, n_runs: int) -> str:
    """Did ``what`` rise, fall, or can neither be told?"""
    over = f"{n_problems} problems and {n_runs} seeds" if n_runs > 1 else f"{n_problems} problems, one run"
    before, after = percent(result.before), percent(result.after)
    verdict = _direction(result.change)
    if verdict is None:
        return (
            f"Whether {what} changed cannot be told: {before} before, {after} after, "
            f"a change of {points(result.change)} points over {over}; the interval holds zero."
        )
    return (
        f"{what[0].upper()}{what[1:]} {verdict} from {before} to {after}: "
        f"{points(result.change)} points, paired over {over}."
    )


def _direction(change: Estimate) -> str | None:
    if change.low > 0:
        return "rose"
    return "fell" if change.high < 0 else None


def split_sentence(boxed: Comparison, right_if_boxed: Comparison) -> str:
    """Is it format alone? Boxes counted apart from being right given a box."""
    box = f"Boxes went from {percent(boxed.before)} to {percent(boxed.after)}"
    old, new = percent(right_if_boxed.before), percent(right_if_boxed.after)
    right = f"right answers among boxed ones from {old} to {new}"
    if _direction(right_if_boxed.change) == "rose":
        verdict = "so the gain is not format alone"
    elif _direction(boxed.change) == "rose":
        verdict = "so nothing beyond the format can be told"
    else:
        verdict = "so neither the format nor the answers got better for sure"
    return f"{box}, {right}: {verdict}."


def pass_at_k_sentence(before: pd.DataFrame, after: pd.DataFrame) -> str:
    """Learned or sharpened? One sample beside all ``k`` taken (curves as from ``pass_at_k_curve``)."""
    k = int(min(before["k"].max(), after["k"].max()))
    one, many = ([f[f["k"] == n].iloc[0] for f in (before, after)] for n in (1, k))
    if k == 1:
        return "One sample a problem is too few to tell learning from sharpening."
    said = [percent(Estimate(row["mean"], row["low"], row["high"])) for row in (*one, *many)]
    facts = f"With one sample {said[0]} became {said[1]}; with {k} samples {said[2]} became {said[3]}"
    gap_one, gap_many = (pair[1]["mean"] - pair[0]["mean"] for pair in (one, many))
    if gap_one <= 0:
        return f"{facts}: a single sample did not get better."
    if many[1]["low"] > many[0]["high"]:
        return f"{facts}: the gap shrinks by {100 * (1 - gap_many / gap_one):.0f} % but stays at k = {k}."
    return f"{facts}: at k = {k} no gap can be told, so what was gained is being right at the first try."


def samples_needed_sentence(before: pd.DataFrame, after: pd.DataFrame) -> str:
    """How many samples of the base model do what one of the trained model does (curves as above)?"""
    reached = before["k"][before["mean"] >= after["mean"].iloc[0]]
    if len(reached):
        return f"The base model needs {reached.iloc[0]:.0f} samples to be right as often as the trained model with one."
    most = before.iloc[-1]
    return (
        f"Even {most['k']:.0f} samples of the base model ({100 * most['mean']:.0f} %) do not reach "
        f"one sample of the trained model."
    )


def beyond_sentence(n_unsolved: int, n_samples: int, after: Estimate | None) -> str:
    """Can the trained model do what the base model never did? From ``beyond_the_base``."""
    if after is None:
        return f"Every problem was solved by at least one of {n_samples} base samples: nothing is left to learn anew."
    kind = "problem was" if n_unsolved == 1 else "problems were"
    return (
        f"{n_unsolved} {kind} never solved in {n_samples} samples of the base model; "
        f"after training {percent(after)} of the samples on them are right."
    )


def learned_or_sharpened(before: pd.DataFrame, after: pd.DataFrame, beyond: Estimate | None) -> str:
    """The verdict: how much of the gain lies within what more samples of the base reach, and what lies beyond.

    ``before`` and ``after`` as from ``pass_at_k_curve``, ``beyond`` the third value of ``beyond_the_base``.
    """
    start, end, reach = before["mean"].iloc[0], after["mean"].iloc[0], before["mean"].iloc[-1]
    k = int(before["k"].iloc[-1])
    if end <= start:
        return "Neither: a single sample did not get better."
    share = min(1.0, (reach - start) / (end - start))
    facts = (f"{share:.0%} of what one sample gained lies within what {k} samples of the base model reach: to that extent "
             "training made likely what the model could already do")
    if beyond is None or beyond.high < 0.05:
        return f"{facts}, and nothing shows that it can do more."
    return (f"{facts}. It is not all: on the problems that the base never solved, {percent(beyond)} of the samples are "
            "right now, though some of these the base would have solved in more samples.")


def grid_sentence(grid: pd.DataFrame) -> str:
    """Which learning rate is best for each way of training, and how far apart (rows as from ``learning_rate_grid``)."""
    if grid["adapter"].nunique() < 2:
        return "The grid of learning rates was not run for both."
    best = {adapter: rows.loc[rows["accuracy"].map(lambda e: e.mean).idxmax()] for adapter, rows in grid.groupby("adapter")}
    lora, full = best["lora"], best["none"]
    return (f"LoRA does best at {lora['learning_rate']:g} ({percent(lora['accuracy'])}), full fine-tuning at "
            f"{full['learning_rate']:g} ({percent(full['accuracy'])}): {lora['learning_rate'] / full['learning_rate']:.2g} "
            "times apart. One seed a point, so these are places to look, not results.")


def mistake_sentence(mistake: Comparison | None, difference: Estimate | None) -> str:
    """What full fine-tuning's learning rate used with LoRA costs at equal samples (``difference``: minus the default)."""
    if mistake is None or difference is None:
        return "LoRA at full fine-tuning's learning rate: not run."
    facts = (f"LoRA at full fine-tuning's learning rate ends at {percent(mistake.after)}, which is "
             f"{points(difference)} points from LoRA at its own")
    if difference.high < 0:
        return f"{facts}: a loss that looks like a limit of LoRA and is a setting."
    return f"{facts}: these runs do not show that the mistake costs anything."


def choices_sentence(differences: Mapping[str, Estimate], smallest_gap: float) -> str:
    """Which choices matter? Each arm's final accuracy minus the default's, against the smallest gap of interest."""
    if not differences:
        return "None of these arms was run."
    verdicts: dict[str, list[str]] = {}
    for name, change in differences.items():
        verdicts.setdefault(_place(change, smallest_gap), []).append(name)
    margin = f"{100 * smallest_gap:.0f} points"
    words = {"same": f"surely within {margin} of the default", "better": "better", "worse": "worse",
             "open": f"too uncertain to tell from none or from {margin}"}
    parts = [f"{len(verdicts[place])} {words[place]} ({', '.join(verdicts[place])})" for place in words if place in verdicts]
    return f"Of {len(differences)} choices: {'; '.join(parts)}."


def _place(change: Estimate, smallest_gap: float) -> str:
    if max(abs(change.low), abs(change.high)) < smallest_gap:
        return "same"
    return {"rose": "better", "fell": "worse"}.get(_direction(change), "open")


def prompting_sentence(alone: Estimate, shots: int, after: Estimate) -> str:
    """Does RLVR add to what ``shots`` exemplars in the prompt get out of the base model for nothing?"""
    facts = (
        f"The base model with {shots} solved exemplars in the prompt: {percent(alone)}; "
        f"the trained model without any: {percent(after)}"
    )
    if after.low > alone.high:
        return f"{facts}. Training adds to what the prompt can do, by about {100 * (after.mean - alone.mean):.0f} points."
    if after.high < alone.low:
        return f"{facts}. The prompt alone does better."
    return f"{facts}. The intervals overlap: the prompt alone may do as well."


def control_sentence(arm: str, control: Comparison | None, gain: Estimate) -> str:
    """What a control arm gains, as a share of ``gain``, the change under the verifier's reward."""
    if control is None:
        return f"{arm}: not run."
    facts = f"{arm}: {percent(control.before)} before, {percent(control.after)} after"
    if control.change.low <= 0 <= control.change.high:
        return f"{facts}, a change that these runs cannot tell from none ({points(control.change)} points)."
    if control.change.mean < 0:
        return f"{facts}: it lost {points(control.change)} points."
    share = control.change.mean / gain.mean
    return f"{facts}: {points(control.change)} points, {share:.0%} of what the verifier's reward gains."


def length_sentence(change: LengthChange) -> str:
    """How length moved, and how much of it is working instead of blurting."""
    total = change.after - change.before
    verb = "grew" if total > 0 else "shrank"
    more = "more" if change.from_working > 0 else "fewer"
    if abs(total) < 0.5:
        return f"Responses kept their length ({change.before:.1f} tokens before, {change.after:.1f} after)."
    return (
        f"Responses {verb} from {change.before:.1f} to {change.after:.1f} tokens ({total:+.1f}): "
        f"{change.from_working:+.1f} because {more} of them are worked, "
        f"{change.within:+.1f} because worked and blurted responses changed length themselves."
    )


def cogent_sentence(cogent: Comparison) -> str:
    """Were the wrong answers "largely cogent"? Their share among the wrong, before and after."""
    after = cogent.after
    if not np.isfinite(after.mean):
        return "No wrong response is left, so none can be cogent."
    if after.low > 0.5:
        verdict = "most of what is still wrong is cogent"
    elif after.high < 0.5:
        verdict = "most of what is still wrong is not cogent"
    else:
        verdict = "whether most of what is still wrong is cogent cannot be told"
    before = percent(cogent.before)
    return f"Among wrong responses {before} were cogent before and {percent(after)} after: {verdict}."


def spread_sentence(own: float, reference: Sequence[float]) -> str:
    """Does a run's final accuracy lie in the 95 % prediction interval of the ``reference`` runs' ones?"""
    from scipy.stats import t

    values = np.asarray(reference, dtype=float)
    if len(values) < 3:
        return f"{len(values)} reference runs are too few to say where another seed should end."
    half = t.ppf(0.975, len(values) - 1) * values.std(ddof=1) * np.sqrt(1 + 1 / len(values))
    low, high = max(0.0, values.mean() - half), min(1.0, values.mean() + half)
    place = "inside" if low <= own <= high else "below" if own < low else "above"
    return (
        f"This run ended at {100 * own:.1f} %, {place} the {100 * low:.1f} to {100 * high:.1f} % "
        f"in which one more seed should end, going by {len(values)} runs (95 % prediction interval)."
    )


def lora_sentence(full_minus_lora: Estimate | None, smallest_gap: float) -> str | None:
    """Is LoRA the reason for a gap? An equivalence claim needs the whole interval within the smallest gap."""
    if full_minus_lora is None:
        return None
    said = f"Full fine-tuning minus LoRA: {points(full_minus_lora)} points"
    margin = f"{100 * smallest_gap:.0f} points"
    if max(abs(full_minus_lora.low), abs(full_minus_lora.high)) < smallest_gap:
        return f"{said}. The whole interval is within {margin}: in this miniature LoRA is not the reason for such a gap."
    if full_minus_lora.high < 0:
        return f"{said}. LoRA is ahead, so it is not the reason for a gap in this miniature."
    if full_minus_lora.low > 0:
        return f"{said}. LoRA is behind, and {margin} cannot be ruled out: in this miniature it can be a reason."
    return f"{said}. The interval is too wide to rule a gap of {margin} in or out: more seeds are needed."


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """``table`` with its estimates as text: ``change`` in points, the others in percent."""
    table = table.copy()
    for column in table:
        if len(table) and isinstance(table[column].iloc[0], Estimate):
            table[column] = table[column].map(points if column == "change" else percent)
    return table


def as_markdown(table: pd.DataFrame) -> str:
    """``table`` as a Markdown table, for long texts that should stand left-aligned."""
    lines = [table.columns, ["---"] * table.shape[1], *table.astype(str).to_numpy()]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def projection_sentence(table: pd.DataFrame, fraction: float) -> str:
    """What projecting from the first ``fraction`` was worth (rows as from ``projection_table``)."""
    rows = table[np.isclose(table["fraction"], fraction)]
    parts = [f"the {kind} missed the end by {100 * group['error'].abs().mean():.0f} points on average and its interval held "
             f"it in {out_of(int(group['covered'].sum()), len(group))}" for kind, group in rows.groupby("kind", sort=False)]
    n_runs = rows["run"].nunique()
    return f"From the first {100 * fraction:.0f} % of {n_runs} run{'s' * (n_runs != 1)}: {'; '.join(parts)}."


def projection_gap_sentence(table: pd.DataFrame, fraction: float, gap: float) -> str:
    """Can a projection from the first ``fraction`` carry a claim about a ``gap``? (rows as from ``projection_table``)"""
    rows = table[np.isclose(table["fraction"], fraction)]
    errors = rows["error"].abs().groupby(rows["kind"], sort=False).mean()
    kind, error = errors.idxmin(), errors.min()
    facts = (f"From the first {100 * fraction:.0f} % the best family, the {kind}, misses the end by {100 * error:.0f} "
             "points on average")
    if error >= gap / 2:
        return (f"{facts}. A gap of {100 * gap:.0f} points between such a projection and another number needs no "
                "explanation yet: the projection's own error is of that size.")
    return f"{facts}: small enough to see a gap of {100 * gap:.0f} points, as far as other curves are like these."

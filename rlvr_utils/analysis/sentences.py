"""Sentences that state a result, computed from the data: other data, other sentence."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from rlvr_utils.stats import Estimate, out_of, percent

from .categories import LengthChange
from .rates import RateChange


def points(change: Estimate) -> str:
    """``"+47 (+44 to +50)"``: a change in percentage points with its 95 % interval."""
    if not np.isfinite(change.mean):
        return "no value (nothing to count)"
    mean, low, high = (re.sub("^[+-]0$", "0", f"{100 * value:+.0f}") for value in change)
    return f"{mean} ({low} to {high})"


def improved_sentence(what: str, result: RateChange, n_problems: int, n_runs: int) -> str:
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


def split_sentence(boxed: RateChange, right_if_boxed: RateChange) -> str:
    """Is it the box alone? Boxes counted apart from being right given a box."""
    box = f"Boxes went from {percent(boxed.before)} to {percent(boxed.after)}"
    old, new = percent(right_if_boxed.before), percent(right_if_boxed.after)
    right = f"right answers among boxed ones from {old} to {new}"
    if _direction(right_if_boxed.change) == "rose":
        verdict = "so more has changed than the box"
    elif _direction(boxed.change) == "rose":
        verdict = "so nothing beyond the box can be told"
    else:
        verdict = "so neither the boxes nor the answers got better for sure"
    return f"{box}, {right}: {verdict}."


def pass_at_k_sentence(before: pd.DataFrame, after: pd.DataFrame) -> str:
    """Does the gap close? One sample beside all ``k`` taken (curves as from ``pass_at_k_curve``)."""
    k = int(min(before["k"].max(), after["k"].max()))
    one, many = ([f[f["k"] == n].iloc[0] for f in (before, after)] for n in (1, k))
    if k == 1:
        return "One sample a problem is too few to tell learning from sharpening."
    said = [percent(Estimate(row["mean"], row["low"], row["high"])) for row in (*one, *many)]
    facts = f"With one sample {said[0]} became {said[1]}; with {k} samples {said[2]} became {said[3]}"
    gap_one, gap_many = (pair[1]["mean"] - pair[0]["mean"] for pair in (one, many))
    if gap_one <= 0:
        return f"{facts}: a single sample did not get better."
    if many[1]["high"] < many[0]["low"]:
        return f"{facts}: at k = {k} the base model reaches more problems than the trained one."
    if many[1]["low"] <= many[0]["high"]:
        return f"{facts}: at k = {k} these samples cannot tell the two apart."
    if gap_many >= gap_one:
        return f"{facts}: the gap does not shrink."
    return f"{facts}: the gap shrinks by {100 * (1 - gap_many / gap_one):.0f} % but stays at k = {k}."


def samples_needed_sentence(before: pd.DataFrame, after: pd.DataFrame) -> str:
    """Among how many samples of the base model is a right one as often as one of the trained model is right?"""
    reached = before["k"][before["mean"] >= after["mean"].iloc[0]]
    if len(reached):
        return (
            f"Somewhere among {reached.iloc[0]:.0f} samples of the base model there is a right one as often as a single "
            "sample of the trained model is right; but to pick it takes the verifier."
        )
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


def learned_or_sharpened(share: float, n_samples: int, beyond: Estimate | None) -> str:
    """The verdict: how much of the gain is on problems that the base model solved now and then, how much on the others.

    ``share`` as from ``gain_on_solved``, ``beyond`` the third value of ``beyond_the_base``, ``n_samples`` the second.
    """
    if not np.isfinite(share):
        return "Neither: a single sample did not get better."
    facts = (
        f"{share:.0%} of the gain is on problems that the base model solved at least once in {n_samples} samples: "
        "there training made likely what the model could already do"
    )
    if beyond is None or beyond.low <= 0:
        return f"{facts}. Nothing here shows that it can do more."
    return (
        f"{facts}. The rest is on problems that it never solved, where {percent(beyond)} of the samples are right now; "
        "with more samples the base would have solved some of these too."
    )


def grid_sentence(grid: pd.DataFrame) -> str:
    """Which learning rate is best for each way of training (rows as from ``learning_rate_grid``), and which is as good?"""
    if grid["adapter"].nunique() < 2:
        return "The grid of learning rates was not run for both."
    parts = []
    for adapter, name in (("lora", "LoRA"), ("none", "full fine-tuning")):
        rows = grid[grid["adapter"] == adapter]
        best = rows.loc[rows["accuracy"].map(lambda e: e.mean).idxmax()]
        alike = [
            f"{rate:g}"
            for rate, e in zip(rows["learning_rate"], rows["accuracy"], strict=True)
            if rate != best["learning_rate"] and e.high >= best["accuracy"].low
        ]
        parts.append(
            f"{name} does best at {best['learning_rate']:g} ({percent(best['accuracy'])})"
            + (f", which one seed cannot tell from {' or '.join(alike)}" if alike else "")
        )
    return f"{'; '.join(parts)}. Both were chosen on these test problems, which flatters both a little."


def mistake_sentence(mistake: RateChange | None, difference: Estimate | None) -> str:
    """What full fine-tuning's learning rate used with LoRA costs at equal samples (``difference``: minus the default)."""
    if mistake is None or difference is None:
        return "LoRA at full fine-tuning's learning rate: not run."
    facts = (
        f"LoRA at full fine-tuning's learning rate ends at {percent(mistake.after)}, which is "
        f"{points(difference)} points from LoRA at its own"
    )
    if difference.high < 0:
        return f"{facts}: a loss that looks like a limit of LoRA and is a setting."
    return f"{facts}: these runs do not show that the mistake costs anything."


def choices_sentence(differences: Mapping[str, Estimate], smallest_gap: float, other: str = "the default") -> str:
    """Which choices matter? Each arm's final accuracy minus that of ``other``, against the smallest gap of interest."""
    if not differences:
        return "None of these arms was run."
    verdicts: dict[str, list[str]] = {}
    for name, change in differences.items():
        verdicts.setdefault(_verdict(change, smallest_gap), []).append(name)
    parts = [f"{verdict} ({' · '.join(names)})" for verdict, names in sorted(verdicts.items())]
    return f"Beside {other}: {'; '.join(parts)}."


def _verdict(change: Estimate, smallest_gap: float) -> str:
    """Two questions: on which side of 0 is the whole interval, and is it within the smallest gap, or beyond it?"""
    margin, direction = f"{100 * smallest_gap:.0f} points", _direction(change)
    side = {"rose": "higher", "fell": "lower", None: "no difference told"}[direction]
    if max(abs(change.low), abs(change.high)) < smallest_gap:
        return f"{side}, by less than {margin}" if direction else f"{side}, {margin} ruled out"
    if direction is None:
        return f"{side}, {margin} not ruled out"
    beyond = max(change.low, -change.high) >= smallest_gap
    return f"{side}, {'' if beyond else 'perhaps '}by more than {margin}"


def prompting_sentence(alone: Estimate, shots: int, after: Estimate) -> str:
    """Which gets further: ``shots`` exemplars in the base model's prompt, for nothing, or training without any?"""
    facts = (
        f"The base model with {shots} solved exemplars in the prompt: {percent(alone)}; "
        f"the trained model without any, on the same problems: {percent(after)}"
    )
    if after.low > alone.high:
        return f"{facts}. Training gets further than the prompt, by about {100 * (after.mean - alone.mean):.0f} points."
    if after.high < alone.low:
        return f"{facts}. The prompt alone gets further."
    return f"{facts}. The intervals overlap: the prompt alone may do as well."


def control_sentence(arm: str, control: RateChange | None, gain: Estimate) -> str:
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


def cogent_sentence(cogent: RateChange, sound: RateChange) -> str:
    """Were the wrong answers "largely cogent"? Their share among the wrong, and that of those with only true steps."""
    after = cogent.after
    if not np.isfinite(after.mean):
        return "No wrong response is left, so none can be cogent."
    if after.low > 0.5:
        verdict = "most of what is still wrong is cogent"
    elif after.high < 0.5:
        verdict = "most of what is still wrong is not cogent"
    else:
        verdict = "whether most of what is still wrong is cogent cannot be told"
    return (
        f"Among wrong responses {percent(cogent.before)} were cogent (worked, with an answer in a box) before and "
        f"{percent(after)} after: {verdict}. Who asks of a cogent answer that every step be true finds "
        f"{percent(sound.after)}."
    )


def spread_sentence(own: float, reference: Sequence[float]) -> str:
    """Does a run's final accuracy lie in the 95 % prediction interval of the ``reference`` runs' ones?"""
    from scipy.stats import t

    values = np.asarray(reference, dtype=float)
    if len(values) < 3:
        return f"{len(values)} reference runs are too few to say where another seed should end."
    half = t.ppf(0.975, len(values) - 1) * values.std(ddof=1) * np.sqrt(1 + 1 / len(values))
    low, high = max(0.0, values.mean() - half), min(1.0, values.mean() + half)
    place = "inside" if low <= own <= high else "below" if own < low else "above"
    chance = "" if place == "inside" else "; by chance alone that happens to one run in twenty"
    return (
        f"This run ended at {100 * own:.1f} %, {place} the {100 * low:.1f} to {100 * high:.1f} % "
        f"in which one more seed should end, going by {len(values)} runs (95 % prediction interval){chance}."
    )


def lora_sentence(full_minus_lora: Estimate | None, smallest_gap: float) -> str | None:
    """Is LoRA the reason for a gap? An equivalence claim needs the whole interval within the smallest gap."""
    if full_minus_lora is None:
        return None
    said = f"Full fine-tuning minus LoRA: {points(full_minus_lora)} points"
    margin = f"{100 * smallest_gap:.0f} points"
    low, high = full_minus_lora.low, full_minus_lora.high
    if max(abs(low), abs(high)) < smallest_gap:
        return f"{said}. The whole interval is within {margin}: in this miniature LoRA is not the reason for such a gap."
    if high < smallest_gap:
        return f"{said}. LoRA does not trail by {margin}: in this miniature it is not the reason for such a gap."
    if low >= smallest_gap:
        return f"{said}. LoRA trails by at least {margin}: in this miniature it is reason enough for such a gap."
    if low > 0:
        return f"{said}. LoRA trails, perhaps by {margin} or more: in this miniature it can be a reason."
    return f"{said}. The interval is too wide to rule a gap of {margin} in or out: more seeds are needed."


def as_text(table: pd.DataFrame) -> pd.DataFrame:
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
    parts = [
        f"the {kind} missed the reward at the end by {100 * group['error'].abs().mean():.0f} points on average and its "
        f"interval held it in {out_of(int(group['covered'].sum()), len(group))}"
        for kind, group in rows.groupby("kind", sort=False)
    ]
    n_runs = rows["run"].nunique()
    return f"From the first {100 * fraction:.0f} % of {n_runs} run{'s' * (n_runs != 1)}: {'; '.join(parts)}."


def projection_gap_sentence(table: pd.DataFrame, fraction: float, gap: float) -> str:
    """Can a projection from the first ``fraction`` carry a claim about a ``gap``? (rows as from ``projection_table``)"""
    rows = table[np.isclose(table["fraction"], fraction)]
    errors = rows["error"].abs().groupby(rows["kind"], sort=False).mean()
    facts = (
        f"From the first {100 * fraction:.0f} % the families miss the end by {100 * errors.min():.0f} to "
        f"{100 * errors.max():.0f} points on average, and which is best is known only afterwards"
    )
    if errors.max() >= gap / 2:
        return (
            f"{facts}. A gap of {100 * gap:.0f} points between such a projection and another number needs no "
            "explanation yet: the projection's own error may be half of that gap or more."
        )
    return (
        f"{facts}. A gap of {100 * gap:.0f} points is larger than most of these errors, as far as other curves are like "
        "these."
    )


def reward_is_not_accuracy(reward: float, accuracy: float) -> str:
    """What a perfect projection of the training reward would still miss (means over the runs, at their ends)."""
    apart = 100 * (reward - accuracy)
    facts = f"These runs end at a training reward of {reward:.2f} and a test accuracy of {accuracy:.2f}"
    if abs(apart) < 1:
        return f"{facts}: here the one may stand for the other."
    return (
        f"{facts}. A perfect projection of the reward would still be {abs(apart):.0f} points "
        f"{'above' if apart > 0 else 'below'} the accuracy."
    )

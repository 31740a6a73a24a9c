"""How sure is a number: intervals, bootstraps and pass@k. Plain numpy; nothing here knows about models.

Every interval is two-sided and holds 95 %. Every random resampling takes a ``seed``, so a quoted interval can be recomputed.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

#: The share of a distribution below a 95 % interval's low end, and below its high end.
LOW_END, HIGH_END = 0.5 - 0.95 / 2, 0.5 + 0.95 / 2


class Estimate(NamedTuple):
    """A mean with its interval: unpacks as ``mean, low, high``."""

    mean: float
    low: float
    high: float


def percent(estimate: Estimate) -> str:
    """``"62 % (59 to 65)"``: the estimate with its 95 % interval."""
    if not np.isfinite(estimate.mean):
        return "no value (nothing to count)"
    if estimate.low == estimate.high and estimate.mean in (0, 1):
        # Drawing the same zeros again gives zeros: the bootstrap's interval would pretend to be certain.
        return "0 % (none seen)" if estimate.mean == 0 else "100 % (no exception seen)"
    mean, low, high = (_in_percent(value) for value in estimate)
    return f"{mean} % ({low} to {high})"


def _in_percent(share: float) -> str:
    """Without digits, but 99.8 is not 100 and 0.2 is not 0."""
    rounded = f"{100 * share:.0f}"
    return f"{100 * share:.1f}".removesuffix(".0") if rounded in ("0", "100") else rounded


def out_of(successes: int, n: int) -> str:
    """``"3 of 6 (19 to 81 %)"``: a count with Wilson's 95 % interval."""
    low, high = wilson_interval(successes, n)
    return f"{successes} of {n} ({100 * low:.0f} to {100 * high:.0f} %)"


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """Interval (low, high) for a proportion: ``successes`` out of ``n`` independent trials (Wilson 1927).

    Unlike ``p ± 1.96 se`` it stays within [0, 1] and has a width at 0 or n successes too.
    Raises ValueError where ``n < 1`` or ``successes`` is outside 0..n.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes out of {n} trials is impossible: give 0 <= successes <= n, n >= 1")
    z = NormalDist().inv_cdf(HIGH_END)
    p = successes / n
    centre = p + z**2 / (2 * n)
    half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    low, high = (centre - half) / (1 + z**2 / n), (centre + half) / (1 + z**2 / n)
    # Rounding must not push the exact ends 0 and 1 away from a rate of exactly 0 or 1.
    return (0.0 if successes == 0 else float(low)), (1.0 if successes == n else float(high))


def problem_means(values: Sequence) -> np.ndarray:
    """One mean per problem, (n_problems,), from (n_problems, n_samples), a ragged list of lists, or means."""
    rows = [np.atleast_1d(np.asarray(row, dtype=float)) for row in values]
    if not rows or any(row.size == 0 for row in rows):
        raise ValueError("no values to average: give at least one problem with at least one sample each")
    means = np.array([row.mean() for row in rows])
    if not np.isfinite(means).all():
        raise ValueError("a value is missing (NaN) or infinite: drop or count those samples first")
    return means


def bootstrap_over_problems(values: Sequence, n_resamples: int = 2000, seed: int = 0) -> Estimate:
    """Mean over problems with a percentile interval from resampling *problems* (Efron 1979).

    ``values``: array (n_problems, n_samples), or a list of per-problem means. Samples of one problem are
    alike, so problems are the unit that is drawn again; single samples would make the interval too narrow.
    """
    means = problem_means(values)
    drawn = np.random.default_rng(seed).integers(len(means), size=(n_resamples, len(means)))
    return percentile_interval(means.mean(), means[drawn].mean(axis=1))


def paired_bootstrap(before: Sequence, after: Sequence, n_resamples: int = 2000, seed: int = 0) -> Estimate:
    """Mean of ``after - before`` with its interval, each problem compared with itself.

    Both as in ``bootstrap_over_problems``, row i of both being problem i. Pairing takes the difficulty of the
    problems out of the comparison. Raises ValueError where the two have a different number of problems.
    """
    old, new = problem_means(before), problem_means(after)
    if len(old) != len(new):
        raise ValueError(f"{len(old)} problems before but {len(new)} after: pair the same problems, in order")
    return bootstrap_over_problems(new - old, n_resamples, seed)


def bootstrap_seeds_and_problems(values: Sequence, n_resamples: int = 2000, seed: int = 0) -> Estimate:
    """Mean of ``values`` (n_seeds, n_problems), seeds *and* problems drawn again independently.

    The interval then speaks about another run on other problems of the same kind (a two-way or "pigeonhole"
    bootstrap, Owen 2007), and is never narrower than the seeds' own (:func:`hold_seeds`). With one seed only the problems
    vary: it says nothing about other seeds.
    """
    table = np.asarray(values, dtype=float)
    if table.ndim != 2 or table.size == 0 or not np.isfinite(table).all():
        raise ValueError(f"expected a full table (n_seeds, n_problems) without gaps, got shape {table.shape}")
    weights = two_way_weights(*table.shape, n_resamples, seed)
    drawn = percentile_interval(table.mean(), resampled_means(table, weights))
    return hold_seeds(drawn, table.mean(axis=1))


def hold_seeds(drawn: Estimate, *arms: Sequence[float]) -> Estimate:
    """``drawn`` again, widened where needed to hold Student's t interval over seeds.

    Three seeds drawn from three look more alike than seeds are, so where seeds differ much a bootstrap over them promises
    too much (``studies/coverage.py``). One number per seed and Student's t do not; but they know nothing of problems.

    Args:
        arms: one value per seed; with two arms, ``drawn`` is the first minus the second, and Welch's t is taken. Values
            without a number are left out, and with fewer than two in an arm there is no scatter to hold.
    """
    from scipy.stats import t

    arms = [values[np.isfinite(values)] for values in map(np.asarray, arms)]
    if min(map(len, arms)) < 2:
        return drawn
    variances = np.array([values.var(ddof=1) / len(values) for values in arms])
    if not variances.any():
        return drawn
    freedom = variances.sum() ** 2 / sum(v**2 / (len(values) - 1) for v, values in zip(variances, arms, strict=True))
    half = t.ppf(HIGH_END, freedom) * np.sqrt(variances.sum())
    return Estimate(drawn.mean, float(min(drawn.low, drawn.mean - half)), float(max(drawn.high, drawn.mean + half)))


def as_share(estimate: Estimate) -> Estimate:
    """``estimate`` with its interval cut off at 0 and 1, beyond which no share can lie."""
    return Estimate(estimate.mean, max(estimate.low, 0.0), min(estimate.high, 1.0))


def two_way_weights(n_seeds: int, n_problems: int, n_resamples: int = 2000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """How often each seed and problem is drawn: shares (n_resamples, n_seeds), (n_resamples, n_problems).

    Using the same weights for two tables compares them resample by resample, which is what pairs them.
    """
    generator = np.random.default_rng(seed)
    return tuple(generator.multinomial(n, np.full(n, 1 / n), n_resamples) / n for n in (n_seeds, n_problems))


def resampled_means(table: np.ndarray, weights: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """The weighted mean of ``table`` (n_seeds, n_problems) in every resample, shape (n_resamples,)."""
    by_seed, by_problem = weights
    return ((by_seed @ table) * by_problem).sum(axis=1)


def t_interval(values: Sequence[float]) -> Estimate:
    """Mean with Student's t interval, for a handful of independent values such as one number per seed.

    With one value the interval is infinitely wide, because one value says nothing about scatter.
    """
    from scipy.stats import t

    values = np.asarray(values, dtype=float)
    if values.size == 0 or not np.isfinite(values).all():
        raise ValueError("a t interval needs at least one value and no gaps")
    mean = float(values.mean())
    if values.size == 1:
        return Estimate(mean, -np.inf, np.inf)
    half = t.ppf(HIGH_END, values.size - 1) * values.std(ddof=1) / np.sqrt(values.size)
    return Estimate(mean, float(mean - half), float(mean + half))


def pass_at_k(n: int, c: int | np.ndarray, k: int) -> float | np.ndarray:
    """Chance that at least one of ``k`` samples is right, from ``c`` right out of ``n`` (unbiased).

    ``1 - C(n-c, k) / C(n, k)``, Chen et al. 2021 (arXiv:2107.03374), eq. 1, as their stable product.
    ``c`` may be an array, one count a problem. Raises ValueError where k > n or c is outside 0..n.
    """
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k} cannot be estimated from {n} samples: take 1 <= k <= n")
    counts = np.atleast_1d(np.asarray(c, dtype=int))
    if ((counts < 0) | (counts > n)).any():
        raise ValueError(f"a count of right samples lies outside 0..{n}")
    by_count = np.array([_pass_at_k(n, right, k) for right in range(n + 1)])
    result = by_count[counts]
    return float(result[0]) if np.ndim(c) == 0 else result


def _pass_at_k(n: int, c: int, k: int) -> float:
    if n - c < k:
        return 1.0
    return float(1.0 - np.prod(1.0 - k / np.arange(n - c + 1, n + 1)))


def percentile_interval(mean: float, resampled: np.ndarray) -> Estimate:
    """``mean`` with the middle 95 % of its resampled values as interval."""
    low, high = np.quantile(resampled, [LOW_END, HIGH_END])
    return Estimate(float(mean), float(low), float(high))


# --- projections: where does a curve go? ---

PROJECTIONS = ("sigmoid", "exponential", "line")


def project(
    kind: str,
    steps: Sequence[float],
    rewards: Sequence[float],
    at: Sequence[float],
    *,
    start: float,
    n_resamples: int = 200,
    seed: int = 0,
) -> np.ndarray:
    """Project a reward curve to the steps ``at``: rows (best, low, high), shape (len(at), 3), within [0, 1].

    Least squares for ``reward = start + gain * shape(step)`` with ``0 <= gain <= 1 - start``; the shapes are

    * ``sigmoid``: ``1 / (1 + (middle / step)**slope)``, ScaleRL (Khatri et al. 2025, arXiv:2510.13786), eq. 1;
    * ``exponential``: ``1 - exp(-step / scale)``, a gain that saturates;
    * ``line``: ``step / last``, what a ruler on the figure says.

    The gain is solved exactly for every shape of a fine grid, so there is no starting point to get wrong. The
    interval draws the observed steps again (pairs bootstrap): it holds the noise of the fit, not the chance
    that the family of curves is the wrong one. Raises ValueError for an unknown kind or fewer than 5 points.
    """
    x, y = np.asarray(steps, dtype=float), np.asarray(rewards, dtype=float) - start
    if len(x) != len(y) or len(x) < 5 or (x <= 0).any():
        raise ValueError(f"a projection needs at least 5 points at steps above 0, got {len(x)}")
    observed, wanted = _shapes(kind, x), _shapes(kind, np.asarray(at, dtype=float), last=x.max())
    draws = np.random.default_rng(seed).multinomial(len(x), np.full(len(x), 1 / len(x)), n_resamples)
    weights = np.vstack([np.ones(len(x)), draws])  # the first row is the data as they are
    cross, square = (weights * y) @ observed.T, weights @ (observed**2).T
    # Only the line's gain may pass 1 - start within the data: its projection is cut off at 1 instead.
    limit = np.inf if kind == "line" else 1 - start
    gain = np.clip(cross / np.maximum(square, 1e-12), 0, limit)
    best = (gain**2 * square - 2 * gain * cross).argmin(axis=1)
    curves = start + gain[np.arange(len(weights)), best, None] * wanted[best]
    curves = np.clip(curves, 0, 1)
    low, high = np.quantile(curves[1:], [LOW_END, HIGH_END], axis=0)
    return np.column_stack([curves[0], low, high])


def _shapes(kind: str, x: np.ndarray, last: float | None = None) -> np.ndarray:
    """Every candidate shape at ``x``, (n_shapes, len(x)); scales are relative to ``last``, the last seen."""
    last = last or x.max()
    if kind == "line":
        return (x / last)[None]
    scale = last * np.geomspace(0.05, 20, 80)
    if kind == "exponential":
        return -np.expm1(-x / scale[:, None])
    if kind == "sigmoid":
        slope = np.geomspace(0.5, 10, 30)
        return (1 / (1 + (scale[:, None, None] / x) ** slope[:, None])).reshape(-1, len(x))
    raise ValueError(f"unknown projection {kind!r}: choose one of {', '.join(PROJECTIONS)}")

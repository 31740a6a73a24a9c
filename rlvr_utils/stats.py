"""Intervals, bootstraps, pass@k and curve projections, in plain numpy.

All intervals are two-sided with 95 % coverage. Every resampling takes a ``seed``, so that intervals can be recomputed.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

#: The quantiles at the low and the high end of a 95 % interval.
LOW_END, HIGH_END = 0.5 - 0.95 / 2, 0.5 + 0.95 / 2


class Estimate(NamedTuple):
    """A mean with its interval. Unpacks as ``mean, low, high``."""

    mean: float
    low: float
    high: float


def percent(estimate: Estimate) -> str:
    """Format an estimate with its 95 % interval, such as ``"62 % (59 to 65)"``."""
    if not np.isfinite(estimate.mean):
        return "no value (nothing to count)"
    if estimate.low == estimate.high and estimate.mean in (0, 1):
        # Resampling only zeros gives only zeros, so the bootstrap interval would wrongly have width 0.
        return "0 % (none seen)" if estimate.mean == 0 else "100 % (no exception seen)"
    mean, low, high = (_in_percent(value) for value in estimate)
    return f"{mean} % ({low} to {high})"


def _in_percent(share: float) -> str:
    """Format without decimals, except that 99.8 is not rounded to 100 and 0.2 not to 0."""
    rounded = f"{100 * share:.0f}"
    return f"{100 * share:.1f}".removesuffix(".0") if rounded in ("0", "100") else rounded


def out_of(successes: int, n: int) -> str:
    """Format a count with Wilson's 95 % interval, such as ``"3 of 6 (19 to 81 %)"``."""
    low, high = wilson_interval(successes, n)
    return f"{successes} of {n} ({100 * low:.0f} to {100 * high:.0f} %)"


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """Return the interval (low, high) of a proportion, ``successes`` out of ``n`` independent trials (Wilson 1927).

    Unlike ``p ± 1.96 se`` it stays within [0, 1] and has a positive width for 0 or n successes.
    Raises ValueError if ``n < 1`` or ``successes`` is outside 0..n.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes out of {n} trials is impossible. Pass 0 <= successes <= n and n >= 1.")
    z = NormalDist().inv_cdf(HIGH_END)
    p = successes / n
    centre = p + z**2 / (2 * n)
    half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    low, high = (centre - half) / (1 + z**2 / n), (centre + half) / (1 + z**2 / n)
    # Rounding must not move the ends that are exactly 0 or 1.
    return (0.0 if successes == 0 else float(low)), (1.0 if successes == n else float(high))


def problem_means(values: Sequence) -> np.ndarray:
    """Return the mean per problem, shape (n_problems,), from (n_problems, n_samples), a ragged list of lists, or means.

    Raises ValueError if there are no values for a problem, or a value is NaN or infinite.
    """
    rows = [np.atleast_1d(np.asarray(row, dtype=float)) for row in values]
    if not rows or any(row.size == 0 for row in rows):
        raise ValueError("There are no values to average. Pass at least one problem, and at least one sample per problem.")
    means = np.array([row.mean() for row in rows])
    if not np.isfinite(means).all():
        raise ValueError("A value is missing (NaN) or infinite. Drop these samples, or count them as wrong, first.")
    return means


def bootstrap_over_problems(values: Sequence, n_resamples: int = 2000, seed: int = 0) -> Estimate:
    """Return the mean over problems with a percentile interval from resampling *problems* (Efron 1979).

    ``values`` is an array (n_problems, n_samples) or a list of per-problem means. Samples of one problem are correlated,
    so we resample whole problems. Resampling single samples would make the interval too narrow.
    """
    means = problem_means(values)
    drawn = np.random.default_rng(seed).integers(len(means), size=(n_resamples, len(means)))
    return percentile_interval(means.mean(), means[drawn].mean(axis=1))


def paired_bootstrap(before: Sequence, after: Sequence, n_resamples: int = 2000, seed: int = 0) -> Estimate:
    """Return the mean of ``after - before`` with its interval, paired by problem.

    Both arguments are as in ``bootstrap_over_problems``, and row i of both is problem i. Pairing removes the variance due
    to the problems' difficulty. Raises ValueError if the numbers of problems differ.
    """
    old, new = problem_means(before), problem_means(after)
    if len(old) != len(new):
        raise ValueError(f"{len(old)} problems before but {len(new)} after. Pass the same problems in the same order.")
    return bootstrap_over_problems(new - old, n_resamples, seed)


def bootstrap_seeds_and_problems(values: Sequence, n_resamples: int = 2000, seed: int = 0) -> Estimate:
    """Return the mean of ``values`` (n_seeds, n_problems) with an interval from resampling seeds *and* problems.

    The two are resampled independently (a two-way or "pigeonhole" bootstrap, Owen 2007), so the interval covers new runs
    on new problems of the same kind. It is never narrower than the interval over seeds alone (:func:`hold_seeds`). With
    one seed only the problems vary, so the interval does not cover other seeds. Raises ValueError for missing values.
    """
    table = np.asarray(values, dtype=float)
    if table.ndim != 2 or table.size == 0 or not np.isfinite(table).all():
        raise ValueError(f"Expected a full table (n_seeds, n_problems) without missing values, got shape {table.shape}.")
    weights = two_way_weights(*table.shape, n_resamples, seed)
    drawn = percentile_interval(table.mean(), resampled_means(table, weights))
    return hold_seeds(drawn, table.mean(axis=1))


def hold_seeds(drawn: Estimate, *arms: Sequence[float]) -> Estimate:
    """Return ``drawn``, widened if needed to contain Student's t interval over seeds.

    Resampling only three seeds underestimates the variance between seeds (``studies/coverage.py``), so a bootstrap over
    seeds can be too narrow. Student's t over one number per seed is not, but it ignores the variance between problems.

    Args:
        drawn: the bootstrap's estimate. With two arms, the first minus the second.
        arms: one value per seed. Two arms use Welch's t. Missing values are dropped. If an arm has fewer than two
            values, ``drawn`` is returned unchanged.
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
    """Return ``estimate`` with its interval clipped to [0, 1], the range of a share."""
    return Estimate(estimate.mean, max(estimate.low, 0.0), min(estimate.high, 1.0))


def two_way_weights(n_seeds: int, n_problems: int, n_resamples: int = 2000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return resampling weights of seeds and problems, shapes (n_resamples, n_seeds) and (n_resamples, n_problems).

    Use the same weights for two tables to pair them. With one seed the resamples are those of
    :func:`bootstrap_over_problems`, so that both give the same interval.
    """
    generator = np.random.default_rng(seed)
    if n_seeds == 1:
        drawn = generator.integers(n_problems, size=(n_resamples, n_problems))
        cells = drawn + n_problems * np.arange(n_resamples)[:, None]  # every resample counts in its own cells
        counts = np.bincount(cells.ravel(), minlength=n_resamples * n_problems)
        return np.ones((n_resamples, 1)), counts.reshape(n_resamples, n_problems) / n_problems
    return tuple(generator.multinomial(n, np.full(n, 1 / n), n_resamples) / n for n in (n_seeds, n_problems))


def resampled_means(table: np.ndarray, weights: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Return the weighted mean of ``table`` (n_seeds, n_problems) per resample, shape (n_resamples,)."""
    by_seed, by_problem = weights
    return ((by_seed @ table) * by_problem).sum(axis=1)


def t_interval(values: Sequence[float]) -> Estimate:
    """Return the mean with Student's t interval, for a few independent values such as one number per seed.

    With one value the interval is infinitely wide, because the variance is unknown. Raises ValueError for missing values.
    """
    from scipy.stats import t

    values = np.asarray(values, dtype=float)
    if values.size == 0 or not np.isfinite(values).all():
        raise ValueError("A t interval needs at least one value and no missing values. Drop missing values first.")
    mean = float(values.mean())
    if values.size == 1:
        return Estimate(mean, -np.inf, np.inf)
    half = t.ppf(HIGH_END, values.size - 1) * values.std(ddof=1) / np.sqrt(values.size)
    return Estimate(mean, float(mean - half), float(mean + half))


def pass_at_k(n: int, c: int | np.ndarray, k: int) -> float | np.ndarray:
    """Return the unbiased estimate of the probability that at least one of ``k`` samples is correct.

    ``c`` of ``n`` samples are correct. ``c`` can be an array with one count per problem. The formula is
    ``1 - C(n-c, k) / C(n, k)``, Chen et al. 2021 (arXiv:2107.03374), eq. 1, computed as their stable product.
    Raises ValueError if k > n or c is outside 0..n.
    """
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k} cannot be estimated from {n} samples. Choose 1 <= k <= n.")
    counts = np.atleast_1d(np.asarray(c, dtype=int))
    if ((counts < 0) | (counts > n)).any():
        raise ValueError(f"A count of correct samples is outside 0..{n}. Check c.")
    by_count = np.array([_pass_at_k(n, right, k) for right in range(n + 1)])
    result = by_count[counts]
    return float(result[0]) if np.ndim(c) == 0 else result


def _pass_at_k(n: int, c: int, k: int) -> float:
    if n - c < k:
        return 1.0
    return float(1.0 - np.prod(1.0 - k / np.arange(n - c + 1, n + 1)))


def percentile_interval(mean: float, resampled: np.ndarray) -> Estimate:
    """Return ``mean`` with the middle 95 % of its resampled values as the interval."""
    low, high = np.quantile(resampled, [LOW_END, HIGH_END])
    return Estimate(float(mean), float(low), float(high))


# --- projections of reward curves ---

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
    """Project a reward curve to the steps ``at``. Returns rows (best, low, high), shape (len(at), 3), within [0, 1].

    Fits ``reward = start + gain * shape(step)`` by least squares with ``0 <= gain <= 1 - start``. The shapes are

    * ``sigmoid``: ``1 / (1 + (middle / step)**slope)``, ScaleRL (Khatri et al. 2025, arXiv:2510.13786), eq. 1
    * ``exponential``: ``1 - exp(-step / scale)``, which saturates
    * ``line``: ``step / last``, a straight line

    The gain is solved exactly for every shape on a fine grid, so the fit needs no starting point. The interval resamples
    the observed steps (pairs bootstrap). It includes the noise of the fit, but not the risk of choosing the wrong family
    of curves. Raises ValueError for an unknown kind or fewer than 5 points.
    """
    x, y = np.asarray(steps, dtype=float), np.asarray(rewards, dtype=float) - start
    if len(x) != len(y) or len(x) < 5 or (x <= 0).any():
        raise ValueError(
            f"A projection needs at least 5 points at steps above 0, got {len(x)}. Use a larger part of the run."
        )
    observed, wanted = _shapes(kind, x), _shapes(kind, np.asarray(at, dtype=float), last=x.max())
    draws = np.random.default_rng(seed).multinomial(len(x), np.full(len(x), 1 / len(x)), n_resamples)
    weights = np.vstack([np.ones(len(x)), draws])  # the first row is the original data
    cross, square = (weights * y) @ observed.T, weights @ (observed**2).T
    # The line's gain may exceed 1 - start. Its projection is clipped at 1 instead.
    limit = np.inf if kind == "line" else 1 - start
    gain = np.clip(cross / np.maximum(square, 1e-12), 0, limit)
    best = (gain**2 * square - 2 * gain * cross).argmin(axis=1)
    curves = start + gain[np.arange(len(weights)), best, None] * wanted[best]
    curves = np.clip(curves, 0, 1)
    low, high = np.quantile(curves[1:], [LOW_END, HIGH_END], axis=0)
    return np.column_stack([curves[0], low, high])


def _shapes(kind: str, x: np.ndarray, last: float | None = None) -> np.ndarray:
    """Return every candidate shape at ``x``, shape (n_shapes, len(x)). Scales are relative to ``last``, the last step."""
    last = last or x.max()
    if kind == "line":
        return (x / last)[None]
    scale = last * np.geomspace(0.05, 20, 80)
    if kind == "exponential":
        return -np.expm1(-x / scale[:, None])
    if kind == "sigmoid":
        slope = np.geomspace(0.5, 10, 30)
        return (1 / (1 + (scale[:, None, None] / x) ** slope[:, None])).reshape(-1, len(x))
    raise ValueError(f"There is no projection {kind!r}. Choose from {', '.join(PROJECTIONS)}.")

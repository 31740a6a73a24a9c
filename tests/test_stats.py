"""Coverage of the intervals, and pass@k compared with counting."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_ind

from rlvr_utils import stats


def test_wilson_matches_the_published_example():
    # Newcombe (1998), Statistics in Medicine 17:857, table I: 81/263 and 0/20, score method without
    # correction.
    assert stats.wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert stats.wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_contains_the_rate_and_is_symmetric(counts):
    successes, n = counts
    low, high = stats.wilson_interval(successes, n)
    assert 0 <= low <= successes / n <= high <= 1 and low < high
    assert stats.wilson_interval(n - successes, n) == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize("successes, n", [(1, 0), (-1, 5), (6, 5)])
def test_wilson_raises_for_impossible_counts(successes, n):
    with pytest.raises(ValueError, match="impossible"):
        stats.wilson_interval(successes, n)


def test_bootstrap_has_the_nominal_coverage():
    generator = np.random.default_rng(1)
    hits = 0
    for trial in range(200):
        ability = generator.beta(1, 1, size=60)
        values = generator.random((60, 4)) < ability[:, None]
        _, low, high = stats.bootstrap_over_problems(values, n_resamples=300, seed=trial)
        hits += low <= 0.5 <= high
    assert 0.88 <= hits / 200 <= 0.99


def test_bootstrap_resamples_problems_not_samples():
    values = np.repeat(np.arange(20) % 2, 50).reshape(20, 50)  # all samples of a problem are equal
    wide = stats.bootstrap_over_problems(values)
    assert wide.high - wide.low > 0.3
    assert stats.bootstrap_over_problems(values.mean(axis=1)) == wide
    assert stats.bootstrap_over_problems([[0, 1, 1], [1]]).mean == pytest.approx((2 / 3 + 1) / 2)


def test_same_seed_same_interval_other_seed_other_interval():
    values = np.random.default_rng(0).random(40)
    assert stats.bootstrap_over_problems(values, seed=3) == stats.bootstrap_over_problems(values, seed=3)
    assert stats.bootstrap_over_problems(values, seed=3) != stats.bootstrap_over_problems(values, seed=4)


def test_pairing_removes_the_variance_of_difficulty():
    generator = np.random.default_rng(0)
    before = generator.random(100)
    after = before + 0.05 + 0.01 * generator.standard_normal(100)
    change = stats.paired_bootstrap(before, after)
    unpaired = stats.bootstrap_over_problems(after)
    assert change.low > 0.045 and change.high < 0.055
    assert change.high - change.low < (unpaired.high - unpaired.low) / 5
    assert stats.paired_bootstrap(after, before).mean == pytest.approx(-change.mean)


def test_invalid_tables_raise_clear_errors():
    with pytest.raises(ValueError, match="3 problems before but 2 after"):
        stats.paired_bootstrap([1, 0, 1], [1, 0])
    with pytest.raises(ValueError, match="missing"):
        stats.bootstrap_over_problems([0.5, float("nan")])
    with pytest.raises(ValueError, match="at least one problem"):
        stats.bootstrap_over_problems([])
    with pytest.raises(ValueError, match="full table"):
        stats.bootstrap_seeds_and_problems([1.0, 0.0])


def test_seeds_that_differ_widen_the_interval():
    problems = np.random.default_rng(0).random(200)
    alike = stats.bootstrap_seeds_and_problems(np.tile(problems, (5, 1)))
    apart = stats.bootstrap_seeds_and_problems(problems + np.array([-0.2, -0.1, 0, 0.1, 0.2])[:, None])
    assert apart.high - apart.low > 2 * (alike.high - alike.low)
    single = stats.bootstrap_over_problems(problems)
    assert (alike.low, alike.high) == pytest.approx((single.low, single.high), abs=0.01)


def test_intervals_over_three_seeds_have_the_nominal_coverage():
    """If only seeds vary, the interval is Student's t for one arm and Welch's t for two, as in scipy."""
    generator = np.random.default_rng(0)
    held = {"alone": 0, "wider": 0}
    for _ in range(200):
        table = np.repeat(0.5 + generator.normal(0, 0.1, (3, 1)), 20, axis=1)
        weights = stats.two_way_weights(*table.shape, n_resamples=200, seed=int(generator.integers(1000)))
        alone = stats.percentile_interval(table.mean(), stats.resampled_means(table, weights))
        wider = stats.hold_seeds(alone, table.mean(axis=1))
        held["alone"] += alone.low <= 0.5 <= alone.high
        held["wider"] += wider.low <= 0.5 <= wider.high
    assert held["alone"] < 170 and 182 <= held["wider"] <= 198, held

    one, two = generator.normal(0, 1, 3), generator.normal(1, 2, 5)
    narrow = stats.Estimate(one.mean() - two.mean(), 0.0, 0.0)
    welch = ttest_ind(one, two, equal_var=False).confidence_interval()
    assert stats.hold_seeds(narrow, one, two)[1:] == pytest.approx((min(0, welch.low), max(0, welch.high)))
    assert stats.hold_seeds(stats.Estimate(1.0, 0.9, 1.1), one[:1]) == (1.0, 0.9, 1.1)  # one seed has no variance
    assert stats.hold_seeds(stats.Estimate(1.0, 0.9, 1.1), one, [np.nan, 1.0]) == (1.0, 0.9, 1.1)


@pytest.mark.parametrize("n, c, k", [(5, 2, 1), (6, 3, 2), (6, 0, 3), (6, 5, 2), (7, 1, 7)])
def test_pass_at_k_is_the_share_of_subsets_with_a_hit(n, c, k):
    right = [True] * c + [False] * (n - c)
    subsets = list(combinations(right, k))
    assert stats.pass_at_k(n, c, k) == pytest.approx(sum(any(s) for s in subsets) / len(subsets))


def test_pass_at_k_takes_arrays_and_raises_for_invalid_counts():
    np.testing.assert_allclose(stats.pass_at_k(4, np.array([0, 1, 4]), 1), [0, 0.25, 1])
    with pytest.raises(ValueError, match="pass@5"):
        stats.pass_at_k(4, 2, 5)
    with pytest.raises(ValueError, match="outside"):
        stats.pass_at_k(4, 5, 2)


def test_t_interval_matches_a_textbook_value_and_is_infinite_for_one_value():
    mean, low, high = stats.t_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    half = 2.7764451 * np.sqrt(2.5 / 5)  # t(0.975, 4) from the tables
    assert (mean, low, high) == pytest.approx((3, 3 - half, 3 + half))
    assert stats.t_interval([0.4]) == (0.4, -np.inf, np.inf)


def test_one_run_has_the_same_interval_whichever_function_computes_it():
    table = np.random.default_rng(0).random((1, 60)).round(2)
    alone, both = stats.bootstrap_over_problems(table[0]), stats.bootstrap_seeds_and_problems(table)
    assert both == pytest.approx(alone)


def test_weights_shared_by_two_tables_pair_them():
    table = np.random.default_rng(0).random((3, 50))
    weights = stats.two_way_weights(3, 50, n_resamples=100)
    difference = stats.resampled_means(table + 0.1, weights) - stats.resampled_means(table, weights)
    np.testing.assert_allclose(difference, 0.1)


STEPS = np.arange(1, 161)
TRUE_CURVES = {
    "sigmoid": 0.1 + 0.7 / (1 + (50 / STEPS) ** 3.0),
    "exponential": 0.1 + 0.7 * -np.expm1(-STEPS / 40),
    "line": 0.1 + 0.7 * STEPS / 160,
}


@pytest.mark.parametrize("kind", stats.PROJECTIONS)
def test_each_family_recovers_its_own_curve(kind):
    half = slice(0, 80)
    best = stats.project(kind, STEPS[half], TRUE_CURVES[kind][half], STEPS, start=0.1)[:, 0]
    np.testing.assert_allclose(best, TRUE_CURVES[kind], atol=0.02)


def test_a_projection_agrees_with_scipy_on_the_sigmoid():
    from scipy.optimize import curve_fit

    rewards = TRUE_CURVES["sigmoid"] + 0.04 * np.random.default_rng(0).standard_normal(160)

    def sigmoid(x, gain, middle, slope):
        return 0.1 + gain / (1 + (middle / x) ** slope)

    best, _ = curve_fit(sigmoid, STEPS, rewards, p0=[0.5, 40, 2])
    ours = stats.project("sigmoid", STEPS, rewards, STEPS, start=0.1)
    np.testing.assert_allclose(ours[:, 0], sigmoid(STEPS, *best), atol=0.01)
    assert (ours[:, 1] <= ours[:, 2]).all() and 0.001 < (ours[:, 2] - ours[:, 1]).mean() < 0.1


def test_less_data_gives_a_wider_projection():
    rewards = TRUE_CURVES["sigmoid"] + 0.04 * np.random.default_rng(1).standard_normal(160)
    widths = []
    for upto in (40, 120):
        _, low, high = stats.project("sigmoid", STEPS[:upto], rewards[:upto], [160], start=0.1)[0]
        widths.append(high - low)
    assert widths[0] > 2 * widths[1]


def test_projection_raises_for_too_few_points_and_unknown_kinds():
    with pytest.raises(ValueError, match="at least 5 points"):
        stats.project("line", [1, 2], [0.1, 0.2], [3], start=0.0)
    with pytest.raises(ValueError, match="no projection"):
        stats.project("crystal ball", STEPS, TRUE_CURVES["line"], [200], start=0.0)

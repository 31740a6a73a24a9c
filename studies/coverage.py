"""Measure the coverage of 95 % intervals over seeds and problems, in simulated experiments with a known truth.

Each experiment draws new seeds and new problems, with four samples each. Each seed, each problem and each combination of
the two shifts the success rate. We count how often the interval contains the true value, for the rate of one arm and for
the difference of two equal arms. "bootstrap alone" is the interval before ``stats.hold_seeds``.

    python studies/coverage.py [--experiments 1000]

One minute on one core. Writes studies/results/coverage.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from rlvr_utils import stats
from rlvr_utils.runs.tracking import git_commit

RESULT = Path(__file__).parent / "results" / "coverage.json"
TRUTH, BY_PROBLEM, BY_CELL = 0.5, 0.15, 0.1  # the rate, and standard deviations over problems and over (seed, problem) pairs
N_PROBLEMS, N_SAMPLES, N_RESAMPLES = 250, 4, 300


def responses(generator: np.random.Generator, n_seeds: int, by_seed: float, problems: np.ndarray) -> np.ndarray:
    """Return the share of correct samples, shape (n_seeds, n_problems)."""
    seeds = generator.normal(0, by_seed, (n_seeds, 1))
    rates = TRUTH + seeds + problems + generator.normal(0, BY_CELL, (n_seeds, N_PROBLEMS))
    return generator.binomial(N_SAMPLES, rates.clip(0, 1)) / N_SAMPLES


def experiment(generator: np.random.Generator, n_seeds: int, by_seed: float) -> dict[str, bool]:
    """Run one experiment and return which intervals contain the truth."""
    problems = generator.normal(0, BY_PROBLEM, N_PROBLEMS)
    arms = [responses(generator, n_seeds, by_seed, problems) for _ in range(2)]
    seed = int(generator.integers(2**31))
    by_seed_a, by_problem = stats.two_way_weights(*arms[0].shape, N_RESAMPLES, seed)
    by_seed_b, _ = stats.two_way_weights(*arms[1].shape, N_RESAMPLES, seed + 1)
    draws = [
        stats.resampled_means(arm, (weights, by_problem)) for arm, weights in zip(arms, (by_seed_a, by_seed_b), strict=True)
    ]
    one = stats.percentile_interval(arms[0].mean(), draws[0])
    two = stats.percentile_interval(arms[0].mean() - arms[1].mean(), draws[0] - draws[1])
    means = [arm.mean(axis=1) for arm in arms]
    held = {
        "one arm, bootstrap alone": (one, TRUTH),
        "one arm": (stats.hold_seeds(one, means[0]), TRUTH),
        "two arms, bootstrap alone": (two, 0.0),
        "two arms": (stats.hold_seeds(two, *means), 0.0),
    }
    return {name: interval.low <= truth <= interval.high for name, (interval, truth) in held.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", type=int, default=1000)
    n = parser.parse_args().experiments
    generator, rows = np.random.default_rng(0), []
    for n_seeds in (3, 5):
        for by_seed in (0.0, 0.01, 0.03, 0.06):
            held = [experiment(generator, n_seeds, by_seed) for _ in range(n)]
            counts = {name: sum(one[name] for one in held) for name in held[0]}
            rows.append({"seeds": n_seeds, "seeds_scatter_by": by_seed, "experiments": n, "held": counts})
            print(
                f"{n_seeds} seeds with a standard deviation of {100 * by_seed:.0f} points: "
                + ", ".join(f"{name} {count / n:.1%}" for name, count in counts.items()),
                flush=True,
            )
    RESULT.write_text(json.dumps({"commit": git_commit(), "coverage": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()

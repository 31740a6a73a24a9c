"""List the distinct ground truths of MATH's test set that the verifier considers equal.

Two different ground truths that the verifier considers equal are either the same value in two spellings or a false
positive. The list is short enough to read. We judge every ordered pair, about four million verdicts.

    python studies/verifier_pairs.py [--limit N]

Needs the public test data (``RLVR_TEST_DATA``). Takes about five minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import combinations

from rlvr_utils.problems import test_data_dir
from rlvr_utils.verifier import answers_match


def ground_truths() -> list[str]:
    """Return the distinct ground truths of MATH's 5,000 test problems."""
    lines = (test_data_dir() / "math_test.jsonl").read_text(encoding="utf-8").splitlines()
    return sorted({json.loads(line)["answer"] for line in lines})


def equal_pairs(answers: list[str]) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Return the pairs that are equal in both directions, and those in one direction only (prediction, ground truth)."""
    both, one_way = [], []
    for a, b in combinations(answers, 2):
        forward, backward = answers_match(a, b), answers_match(b, a)
        if forward and backward:
            both.append((a, b))
        elif forward or backward:
            one_way.append((a, b) if forward else (b, a))
    return both, one_way


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--limit", type=int, help="judge only the first N distinct ground truths")
    answers = ground_truths()[: parser.parse_args().limit]
    start = time.perf_counter()
    both, one_way = equal_pairs(answers)
    for title, pairs in (("equal both ways", both), ("equal one way only", one_way)):
        print(f"{len(pairs)} pairs {title}")
        for a, b in pairs:
            print(f"  {a!r:45} {b!r}")
    print(
        f"{len(answers)} distinct ground truths, {len(answers) * (len(answers) - 1):,} ordered pairs, "
        f"{time.perf_counter() - start:.0f} s"
    )


if __name__ == "__main__":
    main()

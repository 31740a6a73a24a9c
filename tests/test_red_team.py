"""The search for universal answers, with a new seed at every run, on ground truths of different value."""

from __future__ import annotations

import itertools
import json
import random
from types import SimpleNamespace

import mpmath
import pytest
import red_team

from rlvr_utils import REPO


def test_a_search_with_a_new_seed_finds_no_hit():
    seed = random.SystemRandom().randrange(2**32)
    search = red_team.Search(seed).run(comparisons=10**6, seconds=10)
    assert not search.hits and not search.raised, f"seed {seed}:\n" + "\n".join(red_team.samples(search))
    assert search.comparisons > 500


def test_the_ground_truths_differ_in_value_also_by_the_conventions_on_percent_and_degrees():
    with mpmath.workdps(60):
        values = {text: [mpmath.mpmathify(value(x)) for x in red_team.POINTS] for text, value in red_team.VALUES.items()}
        for (one, a), (other, b) in itertools.permutations(values.items(), 2):
            for factor in (1, 100, mpmath.pi / 180):
                gap = max(abs(x * factor - y) for x, y in zip(a, b, strict=True))
                assert gap > 1e-6, f"{one} and {other} differ by a factor of {factor}"
    assert len(set(red_team.TRUTHS)) == len(red_team.TRUTHS) >= 30


def test_a_faulty_grader_is_caught(monkeypatch):
    def holed(answer, truth):
        return SimpleNamespace(equal=answer == truth or "50!" in answer, outcome="undecided", tier="")

    monkeypatch.setattr(red_team, "judge", holed)
    search = red_team.Search(0).run(comparisons=30_000)
    assert any(len(hit["accepted_for"]) == len(red_team.TRUTHS) for hit in search.hits)


def test_the_oracle_confirms_and_refutes():
    difference = red_team.branch("@-(@)", "50!", "50!")
    assert red_team.really_equal(difference, "0") is True and red_team.really_equal(difference, "5") is False
    assert red_team.really_equal("9^{9^{9}}", "5") is None  # too large for mpmath


def test_the_included_result_has_a_million_comparisons_and_no_hit():
    path = REPO / "studies" / "results" / "red_team.json"
    if not path.is_file():
        pytest.skip("make red-team writes the result")
    result = json.loads(path.read_text(encoding="utf-8"))
    assert result["comparisons"] >= 1_000_000 and result["ground_truths"] >= 30
    assert result["hits"] == result["exceptions"] == 0

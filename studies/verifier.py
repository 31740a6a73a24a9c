"""Compare the verifier with Math-Verify 0.9.0: speed, hostile input, labelled cases, and disagreements.

Both graders judge the same pairs in the same process and thread, without caching. We measure CPU time, which does not
depend on the load of the machine. Math-Verify judges a sample of the pairs, because it needs milliseconds for each.

    python studies/verifier.py [--pairs 5000] [--sample 300] [--mutations 2000]

Needs the public test data (``RLVR_TEST_DATA``) and math-verify (``pip install '.[bench]'``). Writes
studies/results/verifier.json, which notebook 01 shows.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import random
import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from verifier_mutations import MUTATIONS, mutated_pairs

from rlvr_utils import REPO
from rlvr_utils.problems import test_data_dir
from rlvr_utils.verifier import answers_match, judge, verify

Pair = tuple[str, str]
HOSTILE = {
    "tower of powers": "9^{9^{9^{9}}}",
    "factorial of 10^8": "(10^8)!",
    "nested factorials": "((9!)!)!",
    "20,000 braces": "{" * 20_000 + "1" + "}" * 20_000,
    "200,000 characters": "a" * 200_000,
    "200,000 digits": "7" * 200_000,
    "60 terms of trigonometry": "+".join(rf"\sin({k}x)" for k in range(1, 61)),
    "dense 10 by 10 matrix": r"\begin{pmatrix}"
    + r"\\".join(["&".join(rf"\sqrt{{{7 * i + j + 2}}}" for j in range(10)) for i in range(10)])
    + r"\end{pmatrix}",
    "expansion": "(a+b+c+d+e+f)^{50}",
    "long powers": "+".join(["7^{20000}"] * 60),
    "many radicals": "+".join(rf"\sqrt{{{1000003 + 2 * k}}}" for k in range(60)),
    "denominators": "+".join(f"1/(x+{k})" for k in range(40)),
    "scientific": "+".join(["1e9999"] * 100),
}


def math_verify_match(predicted: str, truth: str) -> bool:
    """Return Math-Verify's verdict, called as documented for boxed answers, with the ground truth in dollars."""
    from math_verify import parse
    from math_verify import verify as mv_verify

    return bool(mv_verify(parse(f"${truth}$"), parse(rf"$\boxed{{{predicted}}}$")))


def other_form(answer: str, rng: random.Random) -> str:
    """Return an answer of equal value in another form."""
    if re.fullmatch(r"-?\d+", answer):
        return rng.choice((f"{answer}.0", f"x = {answer}", rf"{answer}\text{{ units}}", f"{int(answer):,}.00"))
    if match := re.fullmatch(r"(-?)\\frac\{(\d+)\}\{(\d+)\}", answer):
        return f"{match[1]}{match[2]}/{match[3]}"
    return f"x = {answer}" if re.fullmatch(r"[^=,a-z]*(\\[a-z]+[^=,a-z]*)*", answer) else answer.replace("\\frac", "\\dfrac")


def make_pairs(answers: list[str], n: int, rng: random.Random) -> dict[str, list[Pair]]:
    """Return identical pairs, and a mix of 1/2 identical, 1/5 equal in another form and 3/10 wrong."""
    drawn = rng.choices(answers, k=n)
    identical = [(answer, answer) for answer in drawn]
    mix = identical[: n // 2] + [(other_form(answer, rng), answer) for answer in drawn[n // 2 : n * 7 // 10]]
    mix += [
        (next(a for a in iter(lambda: rng.choice(answers), None) if a != answer), answer) for answer in drawn[n * 7 // 10 :]
    ]
    rng.shuffle(mix)
    return {"identical": identical, "mix": mix}


def per_second(match: Callable[[str, str], bool], pairs: list[Pair], repeats: int = 1) -> float:
    """Return verdicts per second of CPU time, the best of ``repeats``."""
    best = 0.0
    for _ in range(repeats):
        start = time.process_time()
        for predicted, truth in pairs:
            match(predicted, truth)
        best = max(best, len(pairs) / (time.process_time() - start))
    return best


def speed(answers: list[str], n: int, sample: int) -> dict:
    """Return verdicts per second of both graders, and the share of pairs that each tier decided."""
    rng = random.Random(0)
    rows = {}
    for name, pairs in make_pairs(answers, n, rng).items():
        ours, theirs = per_second(answers_match, pairs, repeats=3), per_second(math_verify_match, pairs[:sample])
        tiers = Counter(judge(*pair).tier for pair in pairs)
        rows[name] = {
            "pairs": n,
            "ours_per_s": round(ours),
            "math_verify_pairs": min(sample, n),
            "math_verify_per_s": round(theirs, 1),
            "times": round(ours / theirs),
            "tiers": {tier: count / n for tier, count in tiers.most_common()},
        }
    return rows


def hostile() -> dict[str, float]:
    """Return the CPU milliseconds of the slowest verdict per hostile answer, as a response and as a ground truth."""
    slowest = {}
    judge(r"\arctan 1", r"\frac{\pi}{4}")  # the first verdict fills FLINT's caches
    for name, text in HOSTILE.items():
        times = []
        for truth in ("5", r"\sin x", r"\{1,2\}", text[:900]):
            start = time.process_time()
            verify(rf"So \boxed{{{text}}}", truth)
            judge(truth, text)
            times.append(1000 * (time.process_time() - start))
        slowest[name] = round(max(times), 2)
    return slowest


def labelled() -> dict[str, dict[str, int]]:
    """Count wrong verdicts of both graders on our labelled bare answers, which both graders parse in the same way."""
    lines = (REPO / "data" / "verifier_cases.jsonl").read_text(encoding="utf-8").splitlines()
    cases = [case for case in map(json.loads, lines) if "answer" in case]
    counts = {}
    for name, match in (("ours", answers_match), ("math_verify", math_verify_match)):
        verdicts = [(match(case["answer"], case["ground_truth"]), case["correct"]) for case in cases]
        counts[name] = {
            "cases": len(cases),
            "false_positives": sum(v and not c for v, c in verdicts),
            "false_negatives": sum(c and not v for v, c in verdicts),
        }
    return counts


def agreement(answers: list[str], n: int) -> list[dict]:
    """Return, per mutation, how often each grader is correct, and an example of a disagreement."""
    rows = {
        m.name: {
            "mutation": m.name,
            "deserves": m.same,
            "why": m.why,
            "n": 0,
            "ours": 0,
            "math_verify": 0,
            "disagree": 0,
            "example": None,
        }
        for m in MUTATIONS
    }
    for mutation, changed, truth in mutated_pairs(answers, n):
        ours, theirs = answers_match(changed, truth), math_verify_match(changed, truth)
        row = rows[mutation.name]
        row["n"] += 1
        row["ours"] += ours == mutation.same
        row["math_verify"] += theirs == mutation.same
        row["disagree"] += ours != theirs
        if ours != theirs and row["example"] is None:
            row["example"] = {"answer": changed, "ground_truth": truth, "ours": ours, "math_verify": theirs}
    return [row for row in rows.values() if row["n"]]


def environment() -> dict:
    """Return commit, machine and versions of the measurement."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=REPO, capture_output=True, text=True).stdout
    info = Path("/proc/cpuinfo")
    models = re.findall(r"model name\s*: (.*)", info.read_text()) if info.exists() else []
    return {
        "commit": commit.strip(),
        "cpu": models[0] if models else platform.processor(),
        "python": platform.python_version(),
        "math_verify": version("math-verify"),
        "sympy": version("sympy"),
        "time": "CPU time of one thread, no verdict cached",
        "chosen_by": "the authors of this verifier: the pairs, the changes, the labels and their conventions",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=5_000)
    parser.add_argument("--sample", type=int, default=300, help="pairs that Math-Verify judges")
    parser.add_argument("--mutations", type=int, default=2_000)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)  # Math-Verify warns about each expression that it cannot parse
    lines = (test_data_dir() / "math_test.jsonl").read_text(encoding="utf-8").splitlines()
    answers = [json.loads(line)["answer"] for line in lines]
    result = {
        "environment": environment(),
        "speed": speed(answers, arguments.pairs, arguments.sample),
        "hostile_ms": hostile(),
        "labelled": labelled(),
        "agreement": agreement(answers, arguments.mutations),
    }
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    text = json.dumps(result, indent=1, ensure_ascii=False)
    (results / "verifier.json").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()

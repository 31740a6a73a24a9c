"""Fuzz the verifier for exceptions, verdicts over 100 ms of CPU time, and asymmetric verdicts.

The inputs come from hypothesis (arbitrary text, and text made of LaTeX pieces) and from a fast grammar that builds LaTeX
answers of every form and mutates them: it drops, doubles or inserts pieces, moves them, or splices two answers. Each
response is judged against a readable ground truth. Every tenth pair of grammar answers is judged in both directions.

    python studies/verifier_fuzz.py [--responses 1000000] [--seed 0]

Writes studies/results/verifier_fuzz.json and exits with 1 after an exception or a slow verdict.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import sys
import time
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlvr_utils.verifier import expressions_equal, judge, verify

LIMIT_MS = 100.0
PIECES = [
    *"0123456789xyzabi+-*/^_=<>()[]{}|!%,;:.$&' \"\\",
    r"\frac",
    r"\sqrt",
    r"\boxed{",
    r"\text{",
    r"\left",
    r"\right",
    r"\begin{pmatrix}",
    r"\end{pmatrix}",
    r"\pi",
    r"\infty",
    r"\sin",
    r"\log_",
    r"\cup",
    r"\pm",
    "^\\circ",
    r"\{",
    r"\}",
    r"\\",
    r"\overline{",
    r"\binom",
    "<think>",
    "</think>",
    " and ",
    " or ",
    r"\cdot",
    r"\le",
    r"\in",
    r"\lfloor",
    "e^",
    "!",
    "**",
    "1,000",
    "99999999",
    "0.333",
    "é",
    "²",
    "π",
    "∞",
    "\n",
]
LEAVES = [
    "0",
    "1",
    "2",
    "-3",
    "17",
    "0.5",
    "1,234",
    r"\frac{1}{2}",
    r"\frac34",
    "x",
    "y",
    "n",
    r"\pi",
    "e",
    "i",
    r"\infty",
    r"\sqrt{2}",
    r"\sqrt[3]{5}",
    "30^\\circ",
    r"25\%",
    r"\$4",
    r"5\text{ cm}",
    "A",
    r"\text{(B)}",
    r"\text{east}",
    "2516_8",
    "1:2",
    "7!",
    "x_1",
]


class Timer:
    """Judges answers, and records the slowest verdict and all exceptions."""

    def __init__(self) -> None:
        self.count = 0
        self.slowest: tuple[float, str, str] = (0.0, "", "")
        self.raised: list[str] = []

    def judge(self, function, *arguments: str):
        """Time and return ``function(*arguments)``. Return None if it raises."""
        start = time.perf_counter()
        try:
            return function(*arguments)
        except Exception as error:  # any exception is a finding
            self.raised.append(f"{type(error).__name__} on {arguments!r}")
            return None
        finally:
            self.count += 1
            elapsed = 1000 * (time.perf_counter() - start)
            if elapsed > self.slowest[0]:
                self._keep(function, arguments, elapsed)

    def _keep(self, function, arguments: tuple[str, ...], elapsed: float) -> None:
        """Repeat a slow verdict and record its CPU time, because wall time depends on the load of the machine."""
        start = time.process_time()
        with contextlib.suppress(Exception):
            function(*arguments)
        elapsed = min(elapsed, 1000 * (time.process_time() - start))
        if elapsed > self.slowest[0]:
            self.slowest = (elapsed, *(text[:200] for text in arguments[:2]))


def expression(rng: random.Random, depth: int = 3) -> str:
    """Return a random LaTeX expression."""
    if depth == 0 or rng.random() < 0.3:
        return rng.choice(LEAVES)
    a, b = expression(rng, depth - 1), expression(rng, depth - 1)
    return rng.choice(
        (
            f"{a}+{b}",
            f"{a} - {b}",
            f"({a})({b})",
            rf"\frac{{{a}}}{{{b}}}",
            rf"{a} \cdot {b}",
            f"({a})^{{{b}}}",
            f"{a}^2",
            rf"\sqrt{{{a}}}",
            rf"\sin({a})",
            rf"\log_{{{a}}} {b}",
            rf"\binom{{{a}}}{{{b}}}",
            f"|{a}|",
            rf"\lfloor {a} \rfloor",
            f"{a} : {b}",
            f"-{a}",
            f"({a})!",
        )
    )


def answer(rng: random.Random) -> str:
    """Return a random answer of any form."""
    a, b, c = (expression(rng, rng.choice((0, 1, 1, 2))) for _ in range(3))
    return rng.choice(
        (
            a,
            expression(rng),
            f"x = {a}",
            f"({a}, {b})",
            f"[{a}, {b})",
            f"({a}, {b}) \\cup [{b}, {c}]",
            f"{a}, {b}, {c}",
            rf"\{{{a}, {b}\}}",
            rf"{a} \pm {b}",
            f"{a} < x \\le {b}",
            f"{a} = {b}",
            rf"\begin{{pmatrix}} {a} & {b} \\ {c} & 1 \end{{pmatrix}}",
            rf"x \in ({a}, {b}]",
            rf"{a} \text{{ or }} {b}",
            rf"\text{{{a}}}",
            rf"{a} \approx {b}",
        )
    )


def mutated(text: str, other: str, rng: random.Random) -> str:
    """Return the text after one to three random edits."""
    for _ in range(rng.randint(1, 3)):
        at, to = rng.randrange(len(text) + 1), rng.randrange(len(text) + 1)
        text = rng.choice(
            (
                text[:at] + text[at + 1 :],
                text[:at] + rng.choice(PIECES) + text[at:],
                text[: min(at, to)] + text[max(at, to) :],
                text[:at] + other[at:],
                text[at:] + text[:at],
                text[:at] + text[at : at + 4] * rng.choice((2, 5, 60)) + text[at:],
            )
        )[:3000]
    return text


def fuzz_grammar(timer: Timer, responses: int, rng: random.Random) -> list[tuple[str, str]]:
    """Judge ``responses`` grammar answers and mutations, and return the asymmetric pairs."""
    asymmetric = []
    previous = "5"
    for index in range(responses):
        text = answer(rng)
        if index % 10 == 0:
            forward, backward = timer.judge(judge, text, previous), timer.judge(judge, previous, text)
            if forward and backward and forward.equal != backward.equal:
                asymmetric.append((text, previous))
            timer.judge(expressions_equal, text, previous)
        if index % 4:
            text = mutated(text, previous, rng)
        timer.judge(verify, f"So the answer is $\\boxed{{{text}}}$.", previous)
        previous = answer(rng) if rng.random() < 0.5 else text[:400]
    return asymmetric


def fuzz_hypothesis(timer: Timer, examples: int) -> None:
    """Judge arbitrary text and strings of LaTeX pieces from hypothesis."""
    junk = st.one_of(st.text(max_size=80), st.lists(st.sampled_from(PIECES), max_size=30).map("".join))

    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(junk, junk)
    def judged(a: str, b: str) -> None:
        timer.judge(judge, a, b)
        timer.judge(verify, a, b)

    judged()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--responses", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    timer, start = Timer(), time.perf_counter()
    judge(r"\arctan 1", r"\frac{\pi}{4}")  # the first verdict fills FLINT's caches
    fuzz_hypothesis(timer, max(100, arguments.responses // 200))
    asymmetric = fuzz_grammar(timer, arguments.responses, random.Random(arguments.seed))
    result = {
        "responses": arguments.responses,
        "seed": arguments.seed,
        "verdicts": timer.count,
        "exceptions": len(timer.raised),
        "slowest_ms": round(timer.slowest[0], 1),
        "slowest": timer.slowest[1:],
        "asymmetric": len(asymmetric),
        "seconds": round(time.perf_counter() - start),
    }
    print(json.dumps(result, indent=1, ensure_ascii=False))
    for line in timer.raised[:20] + [f"asymmetric: {pair!r}" for pair in asymmetric[:20]]:
        print(line)
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    (results / "verifier_fuzz.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    return int(bool(timer.raised) or timer.slowest[0] > LIMIT_MS)


if __name__ == "__main__":
    sys.exit(main())

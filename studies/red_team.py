"""Search for a universal answer: one box that the verifier accepts for two ground truths of different value.

A policy that finds such a box gets reward 1 on every problem, so a single hit makes the reward useless. Three searches:

* *grammar*: random expressions (functions, huge and tiny constants, differences of equals, long products, wrappers) are
  compared with every ground truth below. If an answer is accepted once, mpmath recomputes its value. Half of the answers
  are mutations of earlier undecided ones, because hits are likely near them.
* *near misses*: ground truths changed by 10^-k, k up to 60, in many spellings, also inside tuples, sets and intervals.
* *attacks*: terms that vanish next to others (``e^{-1000}``), whose first orders cancel (``\\cosh 10^{-700} - 1``), that are
  0 at integers and simple rationals (``\\sin(12 \\pi x)``) or on one side of a far kink (``|x-10^6|``), or that have no
  real value anywhere.

    python studies/red_team.py [--seed 0] [--parts 0 1 2] [--jobs 2]

There are twenty parts of 50,000 comparisons. Each part adds its counts to studies/results/red_team.json, so you can stop
and continue.
Exits with 1 on a hit, an exception, or a verdict over 100 ms of CPU time.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import mpmath

from rlvr_utils.verifier import judge

LIMIT_MS = 100.0
#: mpmath's precision for the oracle, in decimal digits, so that 10^-60 next to 10^200 still shows.
DIGITS = 300
POINTS = (mpmath.mpf(7) / 3, mpmath.mpf(-13) / 5, mpmath.mpf(97) / 89)

# Numbers and functions of x, with their value for the oracle. No two are equal on an interval (by the conventions
# (\sqrt{x})^2 equals both x and |x|, because we compare it where it is real). No two differ by a factor of 100 or pi/180
# (50% equals both 50 and 0.5).
VALUES: dict[str, Callable] = {
    "0": lambda x: 0,
    "1": lambda x: 1,
    "5": lambda x: 5,
    "-3": lambda x: -3,
    "17": lambda x: 17,
    "128": lambda x: 128,
    "1234": lambda x: 1234,
    r"\frac{1}{2}": lambda x: mpmath.mpf(1) / 2,
    r"\frac{7}{3}": lambda x: mpmath.mpf(7) / 3,
    r"-\frac{5}{8}": lambda x: mpmath.mpf(-5) / 8,
    "0.35": lambda x: mpmath.mpf(35) / 100,
    r"\sqrt{2}": lambda x: mpmath.sqrt(2),
    r"3\sqrt{5}": lambda x: 3 * mpmath.sqrt(5),
    r"1+\sqrt{3}": lambda x: 1 + mpmath.sqrt(3),
    r"\sqrt[3]{4}": lambda x: mpmath.cbrt(4),
    r"\pi": lambda x: +mpmath.pi,
    r"\frac{3\pi}{4}": lambda x: 3 * mpmath.pi / 4,
    "e": lambda x: +mpmath.e,
    "e^2": lambda x: mpmath.exp(2),
    r"\ln 2": lambda x: mpmath.log(2),
    r"\log_2 3": lambda x: mpmath.log(3) / mpmath.log(2),
    r"\sin 1": lambda x: mpmath.sin(1),
    "2+3i": lambda x: mpmath.mpc(2, 3),
    "x": lambda x: x,
    "x^2-1": lambda x: x**2 - 1,
    r"\frac{1}{x+1}": lambda x: 1 / (x + 1),
    r"|x-3|": lambda x: abs(x - 3),
    r"\sin x": mpmath.sin,
    "e^x": mpmath.exp,
    r"\sqrt{x}": mpmath.sqrt,
    r"\ln x": mpmath.log,
    "2^x": lambda x: 2**x,
}
# Different from all of the above and from each other by their kind.
OTHERS = (
    "(1,2)",
    r"(0,\sqrt{2})",
    r"\left(1,\frac{1}{2},-3\right)",
    r"\{1,2,4\}",
    "3,-4",
    "[0,1)",
    r"(-\infty,6]",
    "x>7",
    r"\begin{pmatrix}1&2\\3&4\end{pmatrix}",
    "y=2x+1",
    r"\text{east}",
    r"\text{no solution}",
    "B",
    r"25\text{ cm}",
    r"\$40",
    r"72^\circ",
    "2:7",
    r"3:30\text{ PM}",
    "2516_8",
    r"4\pmod{9}",
    r"\infty",
    r"\mathbb{R}",
    r"\emptyset",
)
TRUTHS = (*VALUES, *OTHERS)

# -- the grammar: a tree is a leaf or (template, children), with one "@" per child -------------------------------

LEAVES: dict[str, Callable] = {
    **{text: VALUES[text] for text in ("0", "1", "5", r"\pi", "e", r"\sqrt{2}", "x", r"\frac{7}{3}", "17")},
    "2": lambda x: 2,
    "10": lambda x: 10,
    "14": lambda x: 14,
    "1000": lambda x: 1000,
    "0.1": lambda x: mpmath.mpf(1) / 10,
    "50!": lambda x: mpmath.factorial(50),
    "(2000)!": lambda x: mpmath.factorial(2000),
    "10^{400}": lambda x: mpmath.mpf(10) ** 400,
    "2^{5000}": lambda x: mpmath.mpf(2) ** 5000,
    "10^{-200}": lambda x: mpmath.mpf(10) ** -200,
    "2^{-900}": lambda x: mpmath.mpf(2) ** -900,
    "e^{-1000}": lambda x: mpmath.exp(-1000),
    "e^{e^5}": lambda x: mpmath.exp(mpmath.exp(5)),
    r"\pi^{\pi^{\pi}}": lambda x: mpmath.pi**mpmath.pi**mpmath.pi,
}
BEYOND = (
    "9^{9^{9}}",
    "(10^9)!",
    "e^{e^{e^{e}}}",
    "10^{10^{10}}",
    r"\infty",
    r"\frac{1}{0}",
    "i",
    "n",
    r"0.\overline{9}",
    "e^{-10^{9}}",
    r"\ln 0",
    r"\sqrt{-1-x^2}",
    r"\sqrt{-(x-1)^2}",
    r"\ln(10^{-30}-|x-1|)",
    r"\int_0^1 x\,dx",
    r"\sum_{k=1}^{10^9} k",
)  # no oracle
OPERATIONS: dict[str, Callable] = {
    r"\sin(@)": mpmath.sin,
    r"\cos(@)": mpmath.cos,
    r"\tan(@)": mpmath.tan,
    r"\arctan(@)": mpmath.atan,
    r"\exp(@)": mpmath.exp,
    "e^{@}": mpmath.exp,
    r"\ln(@)": mpmath.log,
    r"\sqrt{@}": mpmath.sqrt,
    "|@|": abs,
    r"\lfloor @\rfloor": mpmath.floor,
    r"\tanh(@)": mpmath.tanh,
    "-(@)": lambda a: -a,
    "(@)^2": lambda a: a**2,
    "(@)^{14}": lambda a: a**14,
    "(@)!": mpmath.factorial,
    r"\frac{1}{@}": lambda a: 1 / a,
    "(@)^{0}": lambda a: a**0,
    "@+@": lambda a, b: a + b,
    "@-(@)": lambda a, b: a - b,
    "(@)(@)": lambda a, b: a * b,
    r"(@)\cdot(@)": lambda a, b: a * b,
    r"\frac{@}{@}": lambda a, b: a / b,
    "(@)^{@}": lambda a, b: a**b,
    r"\max(@,@)": lambda a, b: max(a, b),
    r"\log_{@}(@)": lambda a, b: mpmath.log(b) / mpmath.log(a),
    r"(@)\bmod(@)": lambda a, b: a - b * mpmath.floor(a / b),
    r"\binom{@}{@}": mpmath.binomial,
}
SAME_TWICE = ("@-(@)", r"\frac{@}{@}", r"(@)\cdot(@)", "(@)^{@}", "(@)-(@)+0")
WRAPPERS = (
    "@",
    "@",
    "@",
    "x=@",
    r"\boxed{@}",
    "$@$",
    r"\text{@}",
    r"\mathbf{@}",
    r"(@,@)",
    r"\{@,@\}",
    "@,@",
    "[@,@)",
    r"@\text{ cm}",
    r"\$@",
    r"@^\circ",
    r"@\%",
    r"@\pmod{9}",
    "x>@",
    r"@\pm@",
    r"\begin{pmatrix}@&@\\@&@\end{pmatrix}",
    "@:@",
    r"@\text{ or }@",
    r"\text{@ or any other number}",
    "@=@",
    "x\\in[@,@]",
    "y=@x+@",
    "\u200b@\u200b",
    r"@_{8}",
    r"\left(@,\sqrt{2}\right)",
    r"@ \approx @",
    r"\mathbb{R}\setminus\{@\}",
    "(-\\infty,@]",
    r"\text{(B) }@",
    "B. @",
    r"\text{Answer: }@",
    r"\det(A)=@",
    r"\begin{cases}x=@\\y=@\end{cases}",
    "{@}{@}",
)


def branch(template: str, *children: tuple | str) -> tuple:
    return (template, children)


def grow(rng: random.Random, depth: int = 3) -> tuple | str:
    """Return a random tree."""
    if depth == 0 or rng.random() < 0.15:
        return rng.choice(BEYOND if rng.random() < 0.1 else tuple(LEAVES))
    kind = rng.random()
    if kind < 0.15:
        child = grow(rng, depth - 1)
        return branch(rng.choice(SAME_TWICE), child, child)
    if kind < 0.25:  # long products gave the first universal answer
        return branch("(@)" * (times := rng.randint(3, 16)), *[grow(rng, depth - 1)] * times)
    template = rng.choice(tuple(OPERATIONS))
    return branch(template, *(grow(rng, depth - 1) for _ in range(template.count("@"))))


def mutate(tree: tuple | str, rng: random.Random) -> tuple | str:
    """Return the tree with one part replaced, wrapped in a function, or combined with itself."""
    if isinstance(tree, tuple) and rng.random() < 0.7:
        template, children = tree
        place = rng.randrange(len(children))
        changed = mutate(children[place], rng)
        same = len(set(map(str, children))) == 1  # mostly keep differences of equal parts
        return branch(template, *(changed if k == place or same and place else child for k, child in enumerate(children)))
    if rng.random() < 0.4:
        return grow(rng, 1)
    template = rng.choice(tuple(OPERATIONS) + SAME_TWICE)
    others = range(template.count("@") - 1)
    return branch(template, tree, *(tree if template in SAME_TWICE else grow(rng, 1) for _ in others))


def latex(tree: tuple | str) -> str:
    if isinstance(tree, str):
        return tree
    first, *rest = tree[0].split("@")
    return first + "".join(latex(child) + text for child, text in zip(tree[1], rest, strict=True))


def value(tree: tuple | str, x):
    """Return mpmath's value of a tree. Raises if it has no value or is too large."""
    if isinstance(tree, str):
        return mpmath.mpmathify(LEAVES[tree](x))
    template, children = tree
    parts = [value(child, x) for child in children]
    if any(abs(part) > mpmath.mpf(10) ** 400 for part in parts) and template not in ("@-(@)", "(@)-(@)+0", "@+@"):
        raise OverflowError
    if template in OPERATIONS:
        return mpmath.mpmathify(OPERATIONS[template](*parts))
    return parts[0] - parts[1] if template == "(@)-(@)+0" else math.prod(parts)


def really_equal(tree: tuple | str, truth: str) -> bool | None:
    """Return whether mpmath finds both equal at the points where both are real, None if there is no such point."""
    verdicts = []
    with mpmath.workdps(DIGITS):
        for x in POINTS:
            try:
                a, b = value(tree, x), mpmath.mpmathify(VALUES[truth](x))
                real = all(mpmath.isfinite(part) and (truth == "2+3i" or mpmath.im(part) == 0) for part in (a, b))
            except (KeyError, ArithmeticError, ValueError, TypeError, NotImplementedError, MemoryError):
                continue
            if real:
                verdicts.append(abs(a - b) <= mpmath.mpf(10) ** -100 * (1 + abs(b)))
    return all(verdicts) if verdicts else None


# -- near misses and attacks: (answer, ground truth), never equal -----------------------------------------------------

ADDED = (
    r"@+10^{-K}",
    r"@-10^{-K}",
    r"@+\frac{1}{10^{K}}",
    "@+0.ZERO1",
    r"@-0.ZERO1",
    r"@+10^{-K}\sqrt{2}",
    r"@+2^{-BITS}",
    r"@+e^{-NATS}",
    r"@+\sin(10^{-K})",
    r"@+\frac{\pi}{10^{K}}",
    r"10^{-K}+@",
    r"@+\ln(1+10^{-K})",
    r"@-\tan(10^{-K})",
)
SCALED = (
    r"(@)(1+10^{-K})",
    r"\frac{@}{1+10^{-K}}",
    r"(@)\cdot 1.ZERO1",
    r"(@)\cos(10^{-K})",
    r"\frac{10^{K}+1}{10^{K}}(@)",
    r"(@)\sqrt{1+10^{-K}}",
    r"(@)\tanh(NATS)",
)
INSIDE = ("@", "@", "@", "(@,2)", r"\{@,-9\}", "@,-9", "[@,9999]", r"\begin{pmatrix}@\\2\end{pmatrix}", "x=@", "x<@")
VANISHING = (
    r"e^{-1000}",
    r"e^{-e^{8}}",
    r"2^{-3000}",
    r"10^{-500}",
    r"e^{-10^{6}}",
    r"10^{-10^{5}}",
    r"e^{-(x-1000)^2}",
    r"e^{-x^2-N}",
    r"e^{-10^{N}x^2}",
    r"e^{-e^{x^2+10}}",
    r"\frac{1}{10^{60}(x^2+1)}",
    r"(1-\tanh(N))",
    r"(1-\cos(10^{-N}))",
    r"\frac{1}{N!}",
    r"\sin(10^{-N})",
    r"\left(\sqrt{10^{2N}+1}-10^{N}\right)",
    r"\left(\frac{\pi}{2}-\arctan(10^{N})\right)",
    r"\ln(1+10^{-N})",
    r"\sin(\pi x)",
    r"\sin(12\pi x)",
    r"\sin(720720\pi x)",
    r"\sin^2(N\pi x)",
    r"x!\sin(\pi x)",
    r"x(x-1)(x-2)(x-3)(x+1)(x+2)",
    r"(2x-1)(3x-1)(3x-2)(4x-1)(2x-3)x",
    r"(|x-N|-N+x)",
    r"(|x+N|-x-N)",
    r"(\max(x,N)-N)",
    r"(\sqrt{(x-N)^2}-N+x)",
    r"(||x|-N|-N+|x|)",
    r"\max(0,10^{-20}-|x-\pi|)",
    r"\lfloor\frac{|x|}{10^{N}}\rfloor",
    r"\lfloor\sin^2 x\rfloor x^2",
    r"(|\ln|x|-N|-N+\ln|x|)",
    r"(|x^3-10^{N}|-10^{N}+x^3)",
    r"\frac{x-N+|x-N|}{2}",
    r"e^{-N}|x-3|",
    r"(x-\lfloor 10^{N}x\rfloor/10^{N})",
    r"\frac{1}{1+e^{10^{10}x}}",
    r"(\cosh(10^{-N})-1)",
    r"(\sin(10^{-N})-10^{-N})",
    r"(\cosh(10^{-N})+\cos(10^{-N})-2)",
    r"(\sin(\tan(10^{-N}))-\tan(\sin(10^{-N})))",
    r"(\ln(10^{N}+1)+\ln(10^{N}-1)-2\ln(10^{N}))",
    r"(\sqrt{1+10^{-N}}-1-\frac{10^{-N}}{2})",
    r"(\cosh(\frac{x}{10^{N}})-1)",
    r"(\cosh(e^{-N-x^2})-1)",
)
UNDEFINED = (
    r"0\cdot\frac{1}{0}",
    r"0\cdot\infty",
    r"\frac{0}{x-x}",
    r"0\cdot\ln(0)",
    r"0\cdot\tan(90^\circ)",
    r"\infty-\infty",
    r"\frac{\infty}{\infty}",
    r"0^{-1}-0^{-1}",
    r"\frac{1}{\sin(\pi)}-\frac{1}{\sin(\pi)}",
)
NOWHERE_REAL = (r"\sqrt{-1-x^2}", r"\ln(-1-x^2)", r"\arcsin(2+x^2)")


def near_miss(rng: random.Random) -> tuple[str, str]:
    """Return a ground truth changed by 10^-k, bare or inside a structure, with the original."""
    truth, k = rng.choice(tuple(VALUES)), rng.randint(1, 60)
    template = rng.choice(ADDED if truth == "0" or rng.random() < 0.65 else SCALED)
    inside = rng.choice(INSIDE if truth != "2+3i" else INSIDE[:6])
    filled = template.replace("K", str(k)).replace("ZERO", "0" * (k - 1)).replace("BITS", str(10 * k // 3 + 1))
    filled = filled.replace("NATS", str(23 * k // 10 + 1))
    return inside.replace("@", filled.replace("@", truth)), inside.replace("@", truth)


def attack(rng: random.Random) -> tuple[str, str]:
    """Return a ground truth plus a term that is almost 0 or has no value, with the original."""
    truth = rng.choice([text for text in VALUES if text not in ("2+3i", r"\sqrt{x}", r"\ln x")])  # real everywhere
    term = rng.choice(UNDEFINED if rng.random() < 0.2 else VANISHING)
    term = term.replace("N", str(rng.choice((7, 60, 300, 777, 1000, 4321))))
    inside = rng.choice(INSIDE[:8])
    if rng.random() < 0.05:  # two different sums with a term that is nowhere real, so no point can compare them
        nowhere, other = rng.choice(NOWHERE_REAL), rng.choice([text for text in VALUES if text != truth])
        return inside.replace("@", f"{truth}+{nowhere}"), inside.replace("@", f"{other}+{nowhere}")
    return inside.replace("@", rng.choice((f"{truth}+{term}", f"{term}+{truth}"))), inside.replace("@", truth)


# -- the search -------------------------------------------------------------------------------------------------------


class Search:
    """Judges and counts answers, and records hits, exceptions and the slowest verdict."""

    def __init__(self, seed: int | str) -> None:
        self.rng = random.Random(seed)
        self.counts: Counter = Counter()
        self.hits: list[dict] = []
        self.raised: list[str] = []
        self.slowest: tuple[float, str, str] = (0.0, "", "")
        self.pool: list = []  # trees with undecided verdicts

    def judge(self, kind: str, answer: str, truth: str):
        """Return the verdict, or None if the verifier raises."""
        self.counts[kind] += 1
        start = time.process_time()
        try:
            return judge(answer, truth)
        except Exception as error:
            self.raised.append(f"{type(error).__name__} on {answer!r}, {truth!r}")
        finally:
            elapsed = 1000 * (time.process_time() - start)
            if elapsed > self.slowest[0]:
                self.slowest = (elapsed, answer, truth)

    def universal(self) -> None:
        """Judge one answer of the grammar against every ground truth."""
        rng = self.rng
        kind = "guided" if self.pool and rng.random() < 0.5 else "grammar"
        tree = mutate(rng.choice(self.pool), rng) if kind == "guided" else grow(rng, rng.randint(1, 4))
        bare = latex(tree)
        if len(bare) > 900:
            return
        wrapper = rng.choice(WRAPPERS)
        answer = wrapper.replace("@", bare, 1).replace("@", latex(grow(rng, 1)) if rng.random() < 0.5 else bare)
        accepted, undecided = [], 0
        for truth in TRUTHS:
            verdict = self.judge(kind, answer, truth)
            if verdict and verdict.equal:
                accepted.append(truth)
            undecided += verdict is not None and verdict.outcome == "undecided"
        self.counts["answers"] += 1
        self.counts["undecided"] += undecided
        if len(accepted) > 1:
            self.hits.append({"kind": kind, "answer": answer, "accepted_for": accepted})
        elif accepted and accepted[0] in VALUES and wrapper in ("@", "x=@", "$@$", r"\boxed{@}"):
            equal = really_equal(tree, accepted[0])
            self.counts[{True: "confirmed by mpmath", None: "accepted, without an oracle"}.get(equal, "refuted")] += 1
            if equal is False:
                self.hits.append({"kind": "refuted by mpmath", "answer": answer, "accepted_for": accepted})
        if undecided and len(bare) < 300:
            self.pool = [*self.pool[-199:], tree]

    def single(self, kind: str, pair: tuple[str, str]) -> None:
        """Judge one answer that differs from its ground truth."""
        verdict = self.judge(kind, *pair)
        if verdict and verdict.equal:
            self.hits.append({"kind": kind, "answer": pair[0], "accepted_for": [pair[1]]})

    def run(self, comparisons: int, seconds: float = math.inf) -> Search:
        """Search until ``comparisons`` are made or ``seconds`` of CPU time are used."""
        end = time.process_time() + seconds
        while self.comparisons < comparisons and time.process_time() < end:
            self.universal()
            for _ in range(20):
                self.single("near miss", near_miss(self.rng))
            for _ in range(3):
                self.single("attack", attack(self.rng))
        return self

    @property
    def comparisons(self) -> int:
        return sum(self.counts[kind] for kind in ("grammar", "guided", "near miss", "attack"))


def search_part(seed: int, part: int, comparisons: int) -> tuple[int, dict, list[str]]:
    """Search one part. Return (part, its summary, lines to print)."""
    judge(r"\arctan 1", r"\frac{\pi}{4}")  # the first verdict fills FLINT's caches
    start = time.perf_counter()
    search = Search(f"{seed}/{part}").run(comparisons)
    return part, summary(search, time.perf_counter() - start), list(samples(search))


def summary(search: Search, seconds: float) -> dict:
    """Return the results of one part."""
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True)
    return {
        "commit": git.stdout.strip(),
        "comparisons": search.comparisons,
        "counts": dict(search.counts),
        "hits": search.hits[:20],
        "n_hits": len(search.hits),
        "exceptions": search.raised[:20],
        "slowest_ms": round(search.slowest[0], 1),
        "slowest": list(search.slowest[1:]),
        "seconds": round(seconds),
    }


def report(parts: dict[str, dict], seed: int) -> dict:
    """Return the sum over all parts."""
    slowest = max(parts.values(), key=lambda part: part["slowest_ms"])
    counts = sum((Counter(part["counts"]) for part in parts.values()), Counter())
    return {
        "command": f"python studies/red_team.py --seed {seed}",
        "seed": seed,
        "python": platform.python_version(),
        "ground_truths": len(TRUTHS),
        "comparisons": sum(part["comparisons"] for part in parts.values()),
        "hits": sum(part["n_hits"] for part in parts.values()),
        "counts": dict(counts),
        "exceptions": sum(len(part["exceptions"]) for part in parts.values()),
        "slowest_ms": slowest["slowest_ms"],
        "slowest": slowest["slowest"],
        "seconds": sum(part["seconds"] for part in parts.values()),
        "parts": parts,
    }


def samples(search: Search) -> Iterator[str]:
    """Yield hits and exceptions as lines to print."""
    yield from (f"{hit['kind']}: {hit['answer']!r} is accepted for {hit['accepted_for'][:6]}" for hit in search.hits[:40])
    yield from search.raised[:20]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--parts", type=int, nargs="*", default=range(20), help="parts to search, each with its own random stream"
    )
    parser.add_argument("--jobs", type=int, default=1, help="number of parts at a time")
    parser.add_argument("--comparisons", type=int, default=50_000, help="comparisons per part")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "red_team.json")
    arguments = parser.parse_args()
    found = json.loads(arguments.output.read_text(encoding="utf-8")) if arguments.output.is_file() else {}
    parts = found["parts"] if found.get("seed") == arguments.seed else {}  # another seed starts over
    with ProcessPoolExecutor(arguments.jobs) as pool:
        asked = [pool.submit(search_part, arguments.seed, part, arguments.comparisons) for part in arguments.parts]
        for done in as_completed(asked):
            part, found, lines = done.result()
            parts[str(part)] = found
            result = report({part: parts[part] for part in sorted(parts, key=int)}, arguments.seed)
            arguments.output.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            print(*lines, f"{result['comparisons']:,} comparisons, {result['hits']} hits", sep="\n", flush=True)
    return int(bool(result["hits"] or result["exceptions"]) or result["slowest_ms"] > LIMIT_MS)


if __name__ == "__main__":
    sys.exit(main())

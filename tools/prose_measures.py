"""Print style measures per page and notebook. They are informative and never fail a test.

Per page: semicolons per 1,000 words of prose, sentences of more than 35 words, candidates for a distributive "a" (which
should be "per"), and archaic words. At the end it prints terms of the field that no page uses.
Run:  python tools/prose_measures.py [--show] [PAGE ...]   (``--show`` lists what was found, for you to judge)
"""

from __future__ import annotations

import argparse
import ast
import re
import warnings
from pathlib import Path
from typing import NamedTuple

import nbformat
from IPython.core.inputtransformer2 import TransformerManager

from rlvr_utils import REPO

PAGES = ("*.md", "docs/*.md", "data/*.md", "data/minillama/*.md", "notebooks/*.ipynb")
LONG = 35  # words
ARCHAIC = (
    r"dear(?:er|ly)?|mend(?:s|ed|ing)?|whole lot|for nothing|to be had|beside|stands?|asks?|asked|tells?|told|"
    r"as people mean it|made parts|refuses?|anybody|nobody|whoever"
)
ARCHAIC_WORDS = re.compile(rf"\b(?:{ARCHAIC})\b", re.I)
UNITS = (
    "second|minute|hour|step|problem|prompt|response|token|group|seed|run|row|layer|block|process|GPU|day|epoch|"
    "notebook|checkpoint|sample|number|line|page"
)
COUNTED = (
    r"\d[\d,.]*|one|two|three|four|five|six|eight|sixteen|many|few|several|once|twice|each|tokens|samples|responses|"
    "seconds|minutes|hours|dollars|nats|bytes|rows|steps|lines|problems|numbers|shots|threads"
)
#: "four samples a problem", "once a step": something counted, at most one word, then "a" and a unit.
DISTRIBUTIVE = re.compile(rf"\b(?:{COUNTED})(?:\s\w+)?\s+an?\s+(?:{UNITS})\b(?!-)", re.I)
TERMS = (
    "policy gradient",
    "REINFORCE",
    "log-derivative trick",
    "baseline",
    "variance reduction",
    "importance sampling",
    "on-policy",
    "off-policy",
    "trust region",
    "reward hacking",
    "outcome reward",
    "process reward",
    "sparse reward",
    "exploration",
    "entropy collapse",
    "chain of thought",
    "reasoning model",
    "DeepSeek-R1",
    "R1-Zero",
    "Tulu 3",
    "SFT",
    "DPO",
    "PPO",
    "critic",
    "value function",
    "distillation",
    "rejection sampling",
    "best-of-n",
    "RAFT",
    "curriculum",
    "dynamic sampling",
    "contamination",
    "spurious reward",
    "ablation",
    "hyperparameter",
    "faithful",
)


class Measures(NamedTuple):
    """The findings on one page."""

    words: int
    semicolons: list[str]
    long: list[str]
    distributive: list[str]
    archaic: list[str]


def prose_of(path: Path) -> str:
    """Return the prose of a page: Markdown without code, formulas and links, and a notebook's alt texts and captions."""
    if path.suffix != ".ipynb":
        return plain(path.read_text(encoding="utf-8"))
    parts = []
    for cell in nbformat.read(path, as_version=4).cells:
        parts.append(plain(cell.source) if cell.cell_type == "markdown" else " ".join(spoken(cell.source)))
    return "\n\n".join(parts)


def spoken(code: str) -> list[str]:
    """Return the string literals of a code cell with five or more words, with computed parts as X."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a LaTeX backslash in a learner's cell
        tree = ast.parse(TransformerManager().transform_cell(code))
    texts = []
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            texts.append("".join(part.value if isinstance(part, ast.Constant) else "X" for part in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            texts.append(node.value)
    return [f"{plain(text)}\n\n" for text in texts if len(text.split()) >= 5]


def plain(text: str) -> str:
    """Return Markdown without fenced code, comments, HTML, code spans, formulas and addresses."""
    text = re.sub(r"^(```|~~~).*?^\1", "", text, flags=re.S | re.M)
    text = re.sub(r"<!--.*?-->|<[^>]+>", " ", text, flags=re.S)
    text = re.sub(r"\$\$.*?\$\$|\$[^$\n]+\$|`[^`\n]+`", "X", text, flags=re.S)
    text = re.sub(r"\]\([^)\s]+\)", "]", text)
    return re.sub(r"[*_\[\]]", "", text)


def sentences(text: str) -> list[str]:
    """Split text into sentences. Table cells, headings and list items also end a sentence."""
    pieces = re.split(r"\n\s*\n|\n(?=\s*(?:[-#>|]|\d+\.) )|\|", text)
    found = [part for piece in pieces for part in re.split(r"(?<=[.!?:])\s+(?=[A-Z\"'(])", " ".join(piece.split()))]
    return [sentence for sentence in found if sentence.strip()]


def measures(text: str) -> Measures:
    """Return the measures of a page's prose."""
    found = sentences(text)

    def around(pattern: re.Pattern) -> list[str]:
        return [f"{m[0]}: {sentence}" for sentence in found for m in pattern.finditer(sentence)]

    return Measures(
        words=len(text.split()),
        semicolons=around(re.compile(r";(?=\s)")),  # a semicolon at the end of a list item is not counted
        long=[sentence for sentence in found if len(sentence.split()) > LONG],
        distributive=around(DISTRIBUTIVE),
        archaic=around(ARCHAIC_WORDS),
    )


def missing_terms(text: str) -> list[str]:
    """Return the terms that ``text`` does not use."""
    return [term for term in TERMS if not re.search(rf"\b{re.escape(term)}", text, re.I)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--show", action="store_true", help="list every finding")
    parser.add_argument("pages", nargs="*", type=Path, help="pages to measure (default: all)")
    arguments = parser.parse_args()
    pages = arguments.pages or [path for pattern in PAGES for path in sorted(REPO.glob(pattern))]
    texts = {path: prose_of(path) for path in pages}
    print(f"{'page':<40}{'words':>7}{'; /1000':>9}{'> 35':>6}{'a/per':>7}{'archaic':>9}")
    for path, text in texts.items():
        found = measures(text)
        rate = 1000 * len(found.semicolons) / max(1, found.words)
        name = path.resolve().relative_to(REPO).as_posix() if path.resolve().is_relative_to(REPO) else str(path)
        counts = f"{len(found.long):>6}{len(found.distributive):>7}{len(found.archaic):>9}"
        print(f"{name:<40}{found.words:>7}{rate:>9.1f}{counts}")
        for kind in ("semicolons", "long", "distributive", "archaic") if arguments.show else ():
            for sentence in getattr(found, kind):
                print(f"    {kind}: {' '.join(sentence.split())[:300]}")
    print(f"\nTerms that never occur: {', '.join(missing_terms(' '.join(texts.values()))) or 'none'}")


if __name__ == "__main__":
    main()

r"""Extract the answer of a response: the last ``\boxed{}``, found by counting braces.

The rule is MATH's ``last_boxed_only_string`` (hendrycks/math, modeling/dataset/util.py) with its known bugs fixed: a mere
mention of the command is not a box, white space may precede the brace, escaped braces are not counted, and a box inside
``<think>`` does not count.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_COMMAND = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])")
# Limit the backslashes and the unbraced characters, so that every search stays linear in the length of the text.
_PIECES = re.compile(r"\\{1,2}(?:boxed|fbox)(?![A-Za-z])(?:\s*(\{))?|\\.|[{}]", re.DOTALL)
# Without braces a box contains a number, or one letter without a word after it: `\boxed 12`, `\boxed5`, `\boxed x$`.
_UNBRACED = re.compile(
    r"\s{0,9}([+-]?\.?[0-9][^\s$]{0,200}|-?\\(?:[dt]?frac|sqrt|pi|text)(?![A-Za-z])[^\s$]{0,200}"
    r"|[A-Za-z](?=\s{0,9}(?:\$|\\[)\]]|[.,;]?\s{0,9}$)))"
)
_WORD = re.compile(r"\s{1,9}(?!\\{1,2}[bf]o)([^\s$]{1,200})")

_FORMULA_BEGINS = ("$", "(", "[", "=")

#: Number of characters at the end of a response in which we search for the box.
MAX_SEARCHED = 150_000


class Box(NamedTuple):
    """``answer`` is the content of the box. If it is None, ``problem`` is the reason."""

    answer: str | None
    problem: str = ""


def find_box(response: str) -> Box:
    """Return the last box of ``response`` that is not inside another box, or the reason why there is none."""
    thought_end = response.rfind("</think>")
    text = response[thought_end + len("</think>") :] if thought_end >= 0 else response
    if (thought_start := text.rfind("<think>")) >= 0:
        text = text[:thought_start]
    text = text[-MAX_SEARCHED:]
    first = _COMMAND.search(text)
    if first is None:
        return Box(None, "there is no box after the thinking ends" if thought_end >= 0 else "there is no box")
    answer = _last_box(text, max(0, first.start() - 1))
    if answer is None:
        return Box(None, "there is no box: the command is only mentioned")
    return answer


def _last_box(text: str, start: int) -> Box | None:
    """Return the last box that is not inside a closed one, in one pass over the braces. If never closed, it has no answer.

    A word after the command (``\\boxed area``) is an answer only if there is no real box.
    """
    found: list[tuple[int, Box]] = []
    mention, word_end = None, -1
    opened: list[int | None] = []  # per open brace: the start of the box that it opens, else None
    for match in _PIECES.finditer(text, start):
        piece = match.group()
        if piece == "}":
            begin = opened.pop() if opened else None
            if begin is not None:
                while found and found[-1][0] > begin:
                    found.pop()
                content = text[begin : match.start()].strip()
                found.append((begin, Box(content) if content else Box(None, "the last box is empty")))
        elif piece == "{" or match.group(1):
            opened.append(match.end() if piece != "{" and match.start() >= word_end else None)
        elif "box" in piece and match.start() >= word_end:
            unbraced, word = _UNBRACED.match(text, match.end()), _WORD.match(text, match.end())
            if unbraced and unbraced[1].count("{") == unbraced[1].count("}"):
                found.append((match.end(), Box(unbraced[1].rstrip(".,;:!?`*'\""))))
            elif word:
                mention, word_end = Box(word[1].rstrip(".,;:!?`*'\"") or None, "the last box is empty"), word.end()
            elif not text[match.end() : match.end() + 99].strip() and text[: match.start()].rstrip()[-1:] in _FORMULA_BEGINS:
                opened.append(match.end())  # the response is truncated: after a word, the command is only mentioned
    unclosed = Box(None, "the last box is never closed")
    found += [(begin, unclosed) for begin in opened if begin is not None]
    return max(found, key=lambda place: place[0])[1] if found else mention


def last_boxed(text: str) -> str | None:
    r"""Return the content of the last ``\boxed{}`` (``\fbox{}``, ``\boxed 12``) of ``text``, None if there is no answer.

    If the last box is empty or never closed, the result is None even if an earlier box is valid.
    """
    return find_box(text).answer

r"""Split an answer into tokens: numbers, letters, commands, words, and one-character operators.

The tokens are an immutable tuple. Arguments without braces are split here, as in TeX:
``\frac43`` is ``\frac`` ``4`` ``3``.
"""

from __future__ import annotations

import re
from fractions import Fraction

from .kinds import BARE_UNITS, FUNCTIONS, MULTIPLIERS, SPELLED, is_product
from .limits import MAX_TOKENS, TooBig, Unreadable
from .trees import Tree

#: ``(kind, value)``: num, value (a finished tree), sym, text, or op (a sign, or the name of a command).
Token = tuple
END: Token = ("end", "")

_TOKEN = re.compile(
    r"\s*(?:([0-9]+(?:\.[0-9]+)?|\.[0-9]+)"
    r"|([A-Za-z]+)|\\([A-Za-z]+)\*?|\\(.)|(\*\*|\S))",
    re.DOTALL,
)
_DOTS = re.compile(r"([0-9]*)\.([0-9]*)((?:\\dot\s?(?:\{[0-9]\}|[0-9])|[0-9])*)")
_REPEATING = re.compile(r"([0-9]*)\.([0-9]*)\\(?:overline|bar)\s?(?:\{([0-9]+)\}|([0-9]))(?! ?[0-9])")
_SCIENTIFIC = re.compile(r"([0-9]+\.[0-9]+|[0-9]+(?=E)|[0-9]+(?=e\+?[0-9])|1(?=e))[eE]([+-]?[0-9]{1,3})(?![0-9.A-Za-z])")
_MIXED = re.compile(
    r"([0-9]+) ?(?:\\frac ?(?:\{([0-9]+)\}|([0-9])) ?(?:\{([0-9]+)\}|([0-9]))"
    r"|(?<= )([0-9]+)/([0-9]+)(?![0-9.]))"
)
_BASES = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}
_BASED = re.compile(
    r"([0-9][0-9A-Z]*(?:\.[0-9]+)?)_(\{)?(\\text\{ ?)?"
    rf"([0-9]{{1,2}}|{'|'.join(_BASES)})(?(3) ?\}})(?(2)\}})"
)
_ENVIRONMENT = re.compile(r"\s?\{([a-zA-Z]+)\}(?:(?<=array\})\s?\{[^{}]*\})?")
SETS_IN_WORDS: dict[str, Token] = {
    "all real numbers": ("sym", "bb R"),
    "all reals": ("sym", "bb R"),
    "no solution": ("op", "emptyset"),
    "no solutions": ("op", "emptyset"),
}
_ARGUMENTS = {"frac": 2, "binom": 2, "sqrt": 1, "overline": 1, "vec": 1, "hat": 1, "bar": 1}
_SPLIT_AT = re.compile(r"(,|;|\band/or\b|\band\b|\bor\b)")


def number(digits: str) -> int | Fraction:
    """Return the exact value of ``12`` or ``0.5``."""
    if "." not in digits:
        return int(digits)
    value = Fraction(digits)
    return value.numerator if value.denominator == 1 else value


def _with_period(whole: str, fixed: str, period: str) -> Tree:
    """Return the exact value of ``0.1\\overline{6}``."""
    scale, nines = 10 ** len(fixed), 10 ** len(period) - 1
    return ("num", int(whole or 0) + Fraction(int(fixed or 0), scale) + Fraction(int(period), scale * nines))


def _repeating(match: re.Match) -> Tree:
    return _with_period(match[1], match[2], match[3] or match[4])


def _dotted(match: re.Match) -> Tree | None:
    fixed, dots, period = match[3].partition("\\dot")
    return _with_period(match[1], match[2] + fixed, re.sub(r"[^0-9]", "", period)) if dots else None


def _scientific(match: re.Match) -> Tree:
    return ("num", Fraction(number(match[1])) * Fraction(10) ** int(match[2]))


def _mixed(match: re.Match) -> Tree | None:
    """Return the value of ``3\\frac{1}{2}`` or ``3 1/2`` if the fraction is proper, else None."""
    whole, above, below = (int(part) for part in match.groups() if part)
    return ("num", whole + Fraction(above, below)) if 0 < above < below else None


def _in_base(match: re.Match) -> Tree | None:
    """Return digits and base of ``152A_{11}``."""
    digits, base = match[1], _BASES.get(match[4]) or int(match[4])
    digits = digits.rstrip("0").rstrip(".") if "." in digits else digits.lstrip("0") or "0"
    return ("based", digits, base) if base > 1 else None


_FORMS = ((_REPEATING, _repeating), (_DOTS, _dotted), (_SCIENTIFIC, _scientific), (_BASED, _in_base), (_MIXED, _mixed))

#: Characters that can follow the first digits of such a number.
_FORM_STARTS = frozenset(". _\\eABCDEFGHIJKLMNOPQRSTUVWXYZ")


def group_end(text: str, start: int) -> int:
    """Return the index of the brace that closes the one at ``start``."""
    depth = 0
    for index in range(start, len(text)):
        if text[index] == "{":
            depth += 1
        elif text[index] == "}":
            depth -= 1
            if depth == 0:
                return index
    raise Unreadable("a brace is never closed")


def _letters(run: str, previous: Token, following: str) -> list[Token]:
    """Return the tokens of letters without a backslash: a function, unit or word, else one symbol per letter."""
    if len(run) == 1:
        return [("sym", run)]
    after_value = previous[0] in ("num", "value") or previous[1] in ("}", ")")
    if after_value and run in BARE_UNITS and following not in ("(", "_", "{") and not following.isdecimal():
        return [("text", run)]
    if run in FUNCTIONS or run in SPELLED:
        return [("op", SPELLED.get(run, run))]
    if run in ("dx", "dy", "dt"):  # a differential: dy/dx is not y/x
        return [("sym", run)]
    if run == "per" and previous[0] == "text":  # miles per hour
        return [("text", run)]
    is_figure = run.isupper() and len(run) < 6  # ABCD
    if run in ("and", "or") or run in MULTIPLIERS or len(run) > 3 and not (is_figure or is_product(run)):
        return [("text", run)]
    return [("sym", letter) for letter in run]


def _text_tokens(content: str, previous: Token, following: str) -> list[Token]:
    r"""Return the tokens of ``\text{content}``: words, or mathematics written as text."""
    bare = content.strip().strip("():;").strip().removesuffix(".")
    after_value = previous[0] in ("num", "value") or previous[1] in ("}", ")", "%", "\\%", "circ", "pi")
    if len(bare) == 1 and bare.isalpha():
        return [("text", bare)] if (after_value or previous[1] == "{") and bare in "mgshLlNJWVACF" else [("sym", bare)]
    if (bare in FUNCTIONS or bare in SPELLED) and not (after_value and bare in BARE_UNITS):
        bracket = [("op", "(")] if bare == "mod" and content.strip()[0] == "(" else []  # 5 \\text{ (mod } 7)
        return [*bracket, ("op", SPELLED.get(bare, bare))]
    if bare.lower() in SETS_IN_WORDS:
        return [SETS_IN_WORDS[bare.lower()]]
    if match := re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s+([mgshLlNJWVACF])", bare):
        return [("num", number(match[1])), ("text", match[2])]
    if (
        "\\" in bare
        or bare.startswith("mod ")
        or not any(map(str.isalpha, bare))
        or (not after_value and re.match(r"[-+]?\.?[0-9]", bare) and not bare[-1:].isdecimal())
    ):
        return list(tokenize(content))
    if not _SPLIT_AT.search(bare) or len(bare) > 60:
        return [("text", bare)]
    tokens: list[Token] = []
    for part in _SPLIT_AT.split(bare):
        if part := part.strip().strip("()"):
            value = [("num", int(part))] if part.isdecimal() else [("text" if len(part) > 1 else "sym", part)]
            tokens += [("op", ",")] if part in (",", ";") else value
    return tokens


class _Tokenizer:
    """One pass over a text. ``needed`` counts, per group, the arguments that commands still expect."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[Token] = []
        self.needed = [0]
        self.openers = [""]

    def run(self) -> tuple[Token, ...]:
        position, text = 0, self.text
        while position < len(text) and (match := _TOKEN.match(text, position)):
            position = self._step(match)
            if len(self.tokens) > MAX_TOKENS:
                raise TooBig(f"more than {MAX_TOKENS} symbols")
        return tuple(self.tokens)

    def _step(self, match: re.Match) -> int:
        """Append the tokens of one match and return the start of the next."""
        digits, letters, command, escaped, other = match.groups()
        start, position, text = match.start(match.lastindex), match.end(), self.text
        if digits is not None or (other == "." and text.startswith("\\", position)):
            return self._number(start, position, digits)
        if letters is not None:
            if self.needed[-1]:
                letters, position = letters[0], start + 1
            previous = self.tokens[-1] if self.tokens else END
            self.tokens += _letters(letters, previous, text[position : position + 1])
        elif command in ("text", "mathbb") and text.startswith("{", position):
            end = group_end(text, position)
            content, previous = text[position + 1 : end], self.tokens[-1] if self.tokens else END
            self.tokens += (
                [("sym", f"bb {content.strip()}")]
                if command == "mathbb"
                else _text_tokens(content, previous, text[end + 1 : end + 2])
            )
            position = end + 1
        elif command in ("begin", "end") and (environment := _ENVIRONMENT.match(text, position)):
            self.tokens.append(("op", f"{command} {environment[1]}"))
            position = environment.end()
        elif command is not None:
            self.tokens.append(("op", command))
            self.needed[-1] = max(0, self.needed[-1] - 1) + _ARGUMENTS.get(command, 0)
            return position
        else:
            self._operator("\\" + escaped if escaped is not None else "^" if other == "**" else other)
            return position
        self.needed[-1] = max(0, self.needed[-1] - 1)
        return position

    def _operator(self, sign: str) -> None:
        previous = self.tokens[-1] if self.tokens else END
        if sign == "{" or (sign == "[" and previous == ("op", "sqrt")):
            self.needed.append(0)
            self.openers.append("}" if sign == "{" else "]")
        elif sign == self.openers[-1]:
            self.needed.pop()
            self.openers.pop()
            self.needed[-1] -= sign == "}" and self.needed[-1] > 0
        elif self.needed[-1] and sign not in ("-", "+", " "):
            self.needed[-1] = 0  # a bracket as the argument: \sqrt(2)
        self.tokens.append(("op", sign))

    def _number(self, start: int, position: int, digits: str | None) -> int:
        """Append a number: one digit if a command expects an argument, else a form of ``_FORMS``, else a plain number."""
        text, following = self.text, self.text[position : position + 1]
        if self.needed[-1] and digits and digits[0] != ".":
            self.tokens.append(("value", ("num", int(digits[0]))))
            self.needed[-1] -= 1
            return start + 1
        if base := self._base_digit(digits, position):
            self.tokens.append(("num", number(base)))
            return start + len(base)
        for pattern, build in _FORMS if following in _FORM_STARTS else ():
            if pattern is _MIXED and self.tokens[-1:] in ([("op", "^")], [("op", "_")]):
                continue  # 2^3\frac12 is a product
            if (match := pattern.match(text, start)) and (tree := build(match)):
                self.tokens.append(("value", tree))
                return match.end()
        if digits is None:
            raise Unreadable("a dot without digits")
        self.tokens.append(("num", number(digits)))
        return position

    def _base_digit(self, digits: str | None, position: int) -> str | None:
        r"""Return the base of a log without braces: 2 for ``\log_28``, as in TeX, but 10 for ``\log_10 5``."""
        if digits and len(digits) > 1 and self.tokens[-2:] == [("op", "log"), ("op", "_")] and "." not in digits:
            if not self.text[position : position + 1].strip(" ") and position < len(self.text) or digits == "10":
                return None
            return "10" if digits.startswith("10") else digits[0]
        return None


def tokenize(text: str) -> tuple[Token, ...]:
    """Return the tokens of ``text``. Raises TooBig above MAX_TOKENS and Unreadable for an unclosed group."""
    return _Tokenizer(text).run()

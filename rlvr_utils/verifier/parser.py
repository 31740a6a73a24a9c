r"""Parse an answer into a tree of plain tuples. The parser computes no values, so parsing stays cheap.

Expressions are ``("num", value)``, ``("sym", name)``, ``("const", "pi" | "e" | "i" | "infty")``,
``("add", terms)``, ``("neg", t)``, ``("mul" | "div" | "pow", a, b)``, ``("fn", name, arguments)``,
``("pm" | "mp", t)``, ``("ratio", parts)``, and values with marks: ``("deg" | "pct", t)``, ``("unit", t, unit)``,
``("label", t, words)``, ``("pmod", t, n)``, ``("based", digits, base)``.

Structures are ``("group", opener, closer, items)`` (a tuple or an interval), ``("list", items, connective)``,
``("set", items)``, ``("rel", signs, sides)``, ``("cup" | "cap" | "setminus", parts)``, ``("matrix", rows)``,
``("text", words)``, ``("name", tokens)``.

The parser reads a tuple of tokens and moves one index. Lookahead does not change its state.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce
from math import factorial

from .kinds import FUNCTIONS, GREEK, MULTIPLIERS, read_unit, unit_words
from .limits import MAX_CHARACTERS, MAX_DEPTH, MAX_FACTORS, MAX_SUFFIXES, MAX_SUM, MAX_TOKENS, TooBig, Unreadable
from .tokens import END, Token, tokenize
from .trees import Tree, each, size

_RELATIONS = {
    "=": "=",
    "<": "<",
    ">": ">",
    "le": "<=",
    "ge": ">=",
    "ne": "!=",
    "in": "in",
    "equiv": "==",
    "approx": "~",
    "to": "to",
    "subset": "subset",
}
_SIGNS = ("+", "-", "pm", "mp")
_PRODUCTS = {"*": "mul", "cdot": "mul", "times": "mul", "/": "div", "div": "div", ":": "ratio"}
_CURRENCIES = {"\\$": "usd", "euro": "eur", "pounds": "gbp", "yen": "jpy"}
_RELATION_SIGNS, _PRODUCT_SIGNS = tuple(_RELATIONS), tuple(_PRODUCTS)
_SUFFIXES = ("!", "%", "\\%", "_", "'", *_CURRENCIES)
_NO_FACTORS = ("+", "-", "boxed", "fbox")
#: We do not evaluate these commands, but before an equals sign they only name the value.
_NAMING_COMMANDS = ("det", "lim", "int", "Pr", "\\|")
_CONNECTIVES = {"and": "and", "or": "or", "and/or": "or"}


class Parser:
    """Recursive descent over a tuple of tokens. Only ``atom`` recurses, and it bounds the depth."""

    def __init__(self, tokens: tuple[Token, ...]) -> None:
        self.tokens = (*tokens, END, END, END, END)
        self.at = 0
        self.depth = 0
        self.bars = 0
        self.brace_end = -1  # where a number in its own braces ended: {1}7 is printed as 17

    def sees(self, *values: str) -> bool:
        """Return whether the next token is one of the signs or commands ``values``."""
        kind, value = self.tokens[self.at]
        return kind == "op" and value in values

    def accept(self, *values: str) -> str | None:
        """Consume one of ``values`` and return it. Return None if the next token is another one."""
        kind, value = self.tokens[self.at]
        if kind != "op" or value not in values:
            return None
        self.at += 1
        return value

    def expect(self, *values: str) -> str:
        """Consume one of ``values`` and return it. Raises Unreadable if the next token is another one."""
        if (value := self.accept(*values)) is None:
            raise Unreadable(f"{' or '.join(values)!r} is missing before {str(self.tokens[self.at][1]) or 'the end'!r}")
        return value

    def whole(self) -> Tree:
        """Parse all tokens."""
        if self.accept("=") and self.sees("="):
            raise Unreadable("two equals signs")
        tree = self.items()
        if self.tokens[self.at][0] != "end":
            raise Unreadable(f"cannot read {str(self.tokens[self.at][1])!r} here")
        return tree

    # -- lists, relations, unions ---------------------------------------------------------------------------

    def items(self) -> Tree:
        """Parse one relation or expression, or a list of them separated by commas, semicolons, "and" or "or"."""
        found, words = [self.relation()], set()
        while True:
            has_comma = self.accept(",", ";")
            kind, value = self.tokens[self.at]
            word = value.lower() if kind == "text" else ""
            if word in _CONNECTIVES:
                self.at += 1
                words.add(_CONNECTIVES[word])
            elif not has_comma:
                break
            found.append(self.relation())
        if len(words) > 1:
            raise Unreadable('"and" and "or" are mixed')
        return ("list", tuple(found), words.pop() if words else ",") if len(found) > 1 else found[0]

    def relation(self) -> Tree:
        r"""Parse ``a = b``, ``a < b <= c``, ``x \in S``, or a bare expression."""
        sides, signs = [self._name() or self._union()], []
        while sign := self.accept(*_RELATION_SIGNS):
            signs.append(_RELATIONS[sign])
            sides.append(self._name() or self._union())
        if not signs:
            return sides[0]
        if sides[-1][0] == "pmod":
            return ("pmod", ("rel", tuple(signs), (*sides[:-1], sides[-1][1])), sides[-1][2])
        return self._modulus(("rel", tuple(signs), tuple(sides)))

    def _name(self) -> Tree | None:
        r"""Parse a name before an equals sign: ``P(X = 2)``, ``f'(2)``, ``S_{\triangle ABC}``. None if there is none."""
        tokens, at = self.tokens, self.at
        kind, value = tokens[at]
        if kind == "op" and value in _NAMING_COMMANDS:
            end = at + 1
            while tokens[end][0] != "end" and tokens[end][1] not in ("=", ",", ";"):
                end = self._group_end(end)
            if tokens[end] != ("op", "="):
                return None
            self.at = end
            return ("name", (value,))
        if kind not in ("sym", "text") and value not in GREEK:
            return None
        end = at + 1
        while tokens[end] in (("op", "_"), ("op", "^"), ("op", "'")):
            end = end + 1 if tokens[end][1] == "'" else self._group_end(end + 1)
        marks, start = tokens[at + 1 : end], end
        if tokens[end] == ("op", "("):
            end = self._group_end(end)
        if (
            end == at + 1
            or tokens[end] != ("op", "=")
            or end > start
            and not _is_application(value, marks, tokens[start + 1 : end - 1])
            or tokens[at + 1] == ("op", "^")
            and tokens[end - 1] != ("op", ")")
        ):
            return None
        self.at = end
        return ("name", tuple(str(token[1]) for token in tokens[at:end] if token[1] not in ("{", "}")))

    def _group_end(self, at: int) -> int:
        """Return the index after the group in braces or brackets at ``at``, or after one token if there is no group."""
        depth = 0
        for index in range(at, len(self.tokens)):
            kind, value = self.tokens[index]
            depth += (kind == "op" and value in ("{", "(")) - (kind == "op" and value in ("}", ")"))
            if depth <= 0:
                return index + 1
        return at + 1

    def _union(self) -> Tree:
        r"""Parse sets joined by ``\cup``, ``\cap``, ``\setminus``, or ``a \bmod n``, ``n \choose k``, ``a \over b``."""
        start, joined = self.at, set()
        parts = [self.sum()]
        if self.sees("bmod"):
            parts = [self._remainder(parts[0], start)]
        elif operator := self.accept("choose", "over"):
            right = self.sum()
            parts = [("div", parts[0], right) if operator == "over" else ("fn", "binom", (parts[0], right))]
        while self.sees("cup", "cap", "setminus") or self.tokens[self.at] == ("sym", "U") and parts[-1][0] == "group":
            joined.add(self.tokens[self.at][1].replace("U", "cup"))
            self.at += 1
            parts.append(self.sum())
        if len(joined) > 1:
            raise Unreadable("unions and intersections are mixed without brackets")
        return (joined.pop(), tuple(parts)) if joined else self._modulus(parts[0])

    def _remainder(self, left: Tree, start: int) -> Tree:
        r"""Parse the rest of ``17 \bmod 5``, with ``left`` parsed from the tokens since ``start``.

        The precedence next to a sum is ambiguous: 7 \bmod 10 - 5 is 2 for some readers and 7 \bmod 5 for others. A sum needs
        brackets on both sides, and a product on the right.
        """
        unbracketed = left[0] == "add" and self._group_end(start) < self.at
        self.accept("bmod")
        right = self._signed_power()
        if unbracketed or self.sees(*_SIGNS, *_PRODUCT_SIGNS) or self._starts_factor(*self.tokens[self.at]):
            raise Unreadable(r"a sum or product next to \bmod needs brackets")
        return ("fn", "mod", (left, right))

    def _modulus(self, tree: Tree) -> Tree:
        r"""Parse the modulus of ``5 \pmod{12}``, ``5 \mod 12``, ``5 (\mathrm{mod}\ 12)``."""
        if self.sees("(") and self.tokens[self.at + 1] == ("op", "mod"):
            self.at += 2
            modulus = self.sum()
            self.expect(")")
            return ("pmod", tree, modulus)
        if self.accept("pmod"):
            return ("pmod", tree, self.argument())
        return ("pmod", tree, self.sum()) if self.accept("mod") else tree

    # -- sums and products ----------------------------------------------------------------------------------

    def sum(self) -> Tree:
        r"""Parse terms separated by ``+``, ``-``, ``\pm`` or ``\mp``."""
        terms: list[Tree] = []
        sign = self.accept(*_SIGNS) or "+"
        while sign:
            term = self.product()
            terms.append(term if sign == "+" else negative(term) if sign == "-" else (sign, term))
            sign = self.accept(*_SIGNS)
            if sign == "-" and terms[-1] == ("sym", "bb R") and self.sees("\\{"):
                return ("setminus", (terms[-1], self.atom()))
        return terms[0] if len(terms) == 1 else ("add", tuple(terms))

    def product(self) -> Tree:
        """Parse factors, with or without product signs between them."""
        tree = self.power()
        for _ in range(MAX_FACTORS):
            kind, value = self.tokens[self.at]
            if kind == "end":
                return tree
            if operator := self.accept(*_PRODUCT_SIGNS):
                right = self._signed_power()
                tree = (
                    (_PRODUCTS[operator], tree, right)
                    if operator != ":"
                    else ("ratio", (*(tree[1] if tree[0] == "ratio" else (tree,)), right))
                )
            elif (unit := self._unit(tree)) is not None:
                tree = unit
            elif self._starts_factor(kind, value):
                if tree[0] in ("text", "unit", "label"):
                    raise Unreadable("a value follows words")
                tree = ("mul", tree, self.power())
            else:
                return tree
        raise TooBig(f"a product of more than {MAX_FACTORS} factors")

    def _signed_power(self) -> Tree:
        sign, value = self.accept(*_SIGNS), self.power()
        if sign in ("pm", "mp"):
            return (sign, value)
        return negative(value) if sign == "-" else value

    def _starts_factor(self, kind: str, value) -> bool:
        previous_kind, previous = self.tokens[self.at - 1]
        if kind in ("num", "value"):
            self._check_beside_number()
            return True
        if kind == "sym":
            return not (value == "U" and (previous_kind, previous) in (("op", ")"), ("op", "]")))
        if value == "(" and self.tokens[self.at + 1] == ("op", "mod"):
            return False
        if value == "{" and self.tokens[self.at + 1][0] in ("num", "value"):
            self._check_beside_number()
        return kind == "op" and value in _BUILDERS and value not in _NO_FACTORS and (value != "|" or not self.bars)

    def _check_beside_number(self) -> None:
        """Raise Unreadable if the next number would print as one with the digits before it."""
        after_digits = self.tokens[self.at - 1][0] == "num" and self.tokens[self.at - 2][1] not in ("_", "^")
        if after_digits or self.at == self.brace_end:
            raise Unreadable("two numbers are adjacent")

    # -- units ----------------------------------------------------------------------------------------------

    def _unit(self, value: Tree) -> Tree | None:
        r"""Parse the words after a value: ``25 \text{ ft}``, ``15 \text{ cm}^2``, ``60 \frac{\text{km}}{\text{h}}``."""
        kind, word = self.tokens[self.at]
        if value[0] == "deg" and kind in ("sym", "text") and word in ("C", "F"):
            self.at += 1
            return ("unit", value[1], ((f"deg{word}", 1),))
        start, words = self.at, self._words()
        if words and value[0] == "unit" and (money := value[2][0][0]) in _CURRENCIES.values():
            factor = MULTIPLIERS.get(words[0].lower(), 1)
            rest = words[factor > 1 :]  # $5 million, $15 per hour
            is_whole = not rest or read_unit(rest) == value[2]  # $5 dollars
            if unit := value[2] if is_whole else read_unit([money, *rest]) if rest[0] in ("per", "/") else None:
                return ("unit", ("mul", value[1], ("num", factor)), unit)
        if not words or value[0] in ("unit", "label", "text"):
            self.at = start
            return None
        while words and (factor := MULTIPLIERS.get(words[0].lower()) or MULTIPLIERS.get(words[0].lower().removesuffix("s"))):
            value, words = ("mul", value, ("num", factor)), words[1:]
        unit = read_unit(words) if words else ()
        if unit is None:
            return ("label", value, " ".join(words).lower())
        return ("unit", value, unit) if unit else value

    def _words(self) -> list[str]:
        """Consume the words, signs and exponents of a unit and return them."""
        words: list[str] = []
        while True:
            kind, value = self.tokens[self.at]
            if kind == "text" and value.lower() not in _CONNECTIVES or kind == "sym" and words[-1:] in (["per"], ["*"]):
                words += unit_words(value)
                self.at += 1
            elif words and words[-1][0] != "^" and self.accept("^"):
                exponent = self.argument()
                if exponent[0] != "num" or not isinstance(exponent[1], int) or abs(exponent[1]) > 999:
                    raise Unreadable("a unit with an exponent that is not an integer")
                words.append(f"^{exponent[1]}")
            elif words and value in ("/", "cdot", "*") and self.tokens[self.at + 1][0] in ("text", "sym"):
                words.append("per" if value == "/" else "*")
                self.at += 1
            else:
                return words

    # -- powers and suffixes -------------------------------------------------------------------

    def power(self) -> Tree:
        """Parse an atom with its exponents and the signs after it."""
        tree = self._suffixes(self.atom())
        if self.accept("^"):
            tree = self._suffixes(self._raised(tree))
            if self.accept("^"):
                raise Unreadable("two exponents in a row")
        return tree

    def _raised(self, base: Tree) -> Tree:
        return ("deg", base) if self.accept("circ") else ("pow", base, self.argument())

    def _suffixes(self, tree: Tree) -> Tree:
        for _ in range(MAX_SUFFIXES):
            sign = self.accept(*_SUFFIXES)
            if sign is None:
                return tree
            if sign == "!":
                if self.tokens[self.at - 2] == ("op", "!"):
                    raise Unreadable("a double factorial")
                tree = ("fn", "factorial", (tree,))
            elif sign == "_":
                tree = self._subscript(tree)
            elif sign == "'":
                tree = self._primed(tree)
            else:
                tree = ("unit", tree, ((_CURRENCIES[sign], 1),)) if sign in _CURRENCIES else ("pct", tree)
        raise TooBig(f"more than {MAX_SUFFIXES} signs after one value")

    def _primed(self, tree: Tree) -> Tree:
        if tree[0] != "sym":
            raise Unreadable("a prime after a value")
        return ("sym", tree[1] + "'")

    def _subscript(self, tree: Tree) -> Tree:
        start = self.at
        self.at = self._group_end(start)
        inside = self.tokens[start : self.at]
        index = "".join(str(token[1]) for token in (inside[1:-1] if inside[0] == ("op", "{") else inside))
        if tree[0] == "sym" and index and self.tokens[start][0] != "end":
            return ("sym", f"{tree[1]}_{index}")
        raise Unreadable("a subscript after something that is not a symbol")

    def argument(self) -> Tree:
        """Parse the argument of a command or an exponent: a group or the next token (``x^10`` means ``x^{10}``)."""
        tree = negative(self.argument()) if self.accept("-") else self.atom()
        self.brace_end = -1
        return tree

    # -- atoms ----------------------------------------------------------------------------------------------

    def atom(self) -> Tree:
        """Parse one number, letter, command with arguments, or bracket. The only method that recurses."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise TooBig(f"nested deeper than {MAX_DEPTH}")
        kind, value = self.tokens[self.at]
        self.at += 1
        if kind == "num":
            tree = (kind, value)
        elif kind == "value":
            tree = value
        elif kind == "sym":
            tree = self._symbol(value)
        elif kind == "text":
            tree = ("text", value.lower())
        elif kind == "op":
            if value not in _BUILDERS:
                raise Unreadable(f"cannot read {value!r} here")
            tree = _BUILDERS[value](self)
        else:
            raise Unreadable("the expression ends too early")
        self.depth -= 1
        return tree

    def _symbol(self, name: str) -> Tree:
        if name in ("f", "g", "h") and self.accept("("):
            return ("fn", name, self.entries(")"))
        return ("const", name) if name in ("e", "i") else ("sym", name)

    # -- brackets and commands ------------------------------------------------------------------------------

    def inside(self, *closers: str) -> tuple[Tree, str]:
        """Parse up to one of ``closers``. Return the tree and the closer."""
        bars, self.bars = self.bars, 0
        tree = self.items()
        closer = self.expect(*closers)
        self.bars = bars
        return tree, closer

    def braces(self) -> Tree:
        """Parse ``{x + 1}``."""
        tree, _ = self.inside("}")
        self.brace_end = self.at if tree[0] == "num" else -1
        return tree

    def entries(self, closer: str) -> tuple[Tree, ...]:
        """Parse the items before a closing bracket."""
        return _items(self.inside(closer)[0])

    def absolute(self) -> Tree:
        """Parse ``|x|``."""
        self.bars += 1
        inside = self.sum()
        self.expect("|")
        self.bars -= 1
        return ("fn", "abs", (inside,))

    def set(self) -> Tree:
        r"""Parse ``\{1, 2\}``, or ``\{\mid x > 3\}``, which becomes its condition."""
        if self.accept("\\}"):
            return ("set", ())
        is_condition = self.accept("mid")
        tree, _ = self.inside("\\}")
        if not is_condition:
            return ("set", _items(tree))
        if tree[0] not in ("rel", "list", "label", "pmod"):
            raise Unreadable("a set whose condition is not a relation")
        return tree

    def group(self, opener: str) -> Tree:
        """Parse a tuple or an interval. Brackets around a single value only group."""
        if opener == "(" and self.accept(")"):
            raise Unreadable("empty brackets")
        tree, closer = self.inside(")", "]")
        return tree if tree[0] != "list" and opener + closer in ("()", "[]") else ("group", opener, closer, _items(tree))

    def money(self, sign: str) -> Tree:
        r"""Parse ``\$5``."""
        return ("unit", self.power(), ((_CURRENCIES[sign], 1),))

    def accent(self, name: str) -> Tree:
        r"""Parse ``\overline{AB}`` or ``\angle ABC``: a name of letters and digits, or an expression."""
        is_figure, is_braced = name in ("angle", "triangle"), self.sees("{")
        start = end = self.at + is_braced
        while (is_figure or is_braced) and self.tokens[end][0] in ("sym", "num"):
            end += 1
        if end > start and (not is_braced or self.tokens[end] == ("op", "}")):
            self.at = end + is_braced
            return ("fn", name, (("sym", "".join(str(value) for _, value in self.tokens[start:end])),))
        return ("sym", name) if is_figure and self.sees("=") else ("fn", name, (self.argument(),))

    def root(self) -> Tree:
        r"""Parse ``\sqrt[3]{x}``."""
        index: Tree = ("num", 2)
        if self.accept("["):
            index, _ = self.inside("]")
        return ("fn", "root", (self.argument(), index))

    def function(self, name: str) -> Tree:
        r"""Parse ``\sin^2 3x``, ``\log_2 (x + 1)``, ``\gcd(12, 18)``."""
        base = exponent = None
        for _ in range(2):
            if self.accept("_"):
                base = self.argument()
            elif self.accept("^"):
                exponent = self.argument()
        bracketed = self.tokens[self.at] == ("op", "(")
        arguments = self._arguments()
        if exponent is None and bracketed and name != "log" and self.accept("^"):
            exponent = self.argument()
        if base is not None:
            arguments += (base,)
        if exponent == ("num", -1):
            if f"arc{name}" not in FUNCTIONS:  # \\ln^{-1} has no usual meaning
                raise Unreadable(f"\\{name}^{{-1}} is ambiguous")
            return ("fn", "arc" + name, arguments)
        tree = ("fn", name, arguments)
        return tree if exponent is None else ("pow", tree, exponent)

    def _arguments(self) -> tuple[Tree, ...]:
        r"""Parse a bracket, a group in braces, or a product, which ends at ``+ - = , /`` and at another function."""
        if self.accept("("):
            return self.entries(")")
        if self.tokens[self.at] in (("op", "{"), ("op", "[")):
            tree = self.atom()
            return _items(tree) if tree[0] == "list" else (self._suffixes(self._raised(tree) if self.accept("^") else tree),)
        is_negative, tree = self.accept("-"), self.power()
        for _ in range(MAX_FACTORS):
            if self.tokens[self.at][0] != "sym" and not self.sees("frac", "sqrt", "pi", *GREEK):
                return (negative(tree) if is_negative else tree,)
            tree = ("mul", tree, self.power())
        raise TooBig(f"a product of more than {MAX_FACTORS} factors")

    def written_out(self, name: str) -> Tree:
        r"""Expand ``\sum_{k=1}^{4} k`` to its terms, for integer limits and few terms."""
        if not self.accept("_"):
            raise Unreadable(f"\\{name} without limits")
        start = self.argument()
        if (
            not self.accept("^")
            or start[0] != "rel"
            or start[1] != ("=",)
            or (start[2][0][0] != "sym" and start[2][0] != ("const", "i"))
        ):
            raise Unreadable(f"the limits of \\{name} are not supported")
        (symbol, first), last = start[2], self.argument()
        body = self.product()
        if not all(end[0] == "num" and isinstance(end[1], int) for end in (first, last)):
            raise Unreadable(f"the limits of \\{name} are not integers")
        steps = last[1] - first[1]
        if not 0 <= steps < MAX_SUM or steps * size(body) > MAX_TOKENS:
            raise TooBig(f"a sum of more than {MAX_SUM} terms or {MAX_TOKENS} symbols")
        terms = tuple(substitute(body, symbol, ("num", first[1] + k)) for k in range(steps + 1))
        return ("add", terms) if name == "sum" else reduce(lambda product, term: ("mul", product, term), terms)

    # -- matrices -------------------------------------------------------------------------------------------

    def matrix(self, name: str) -> Tree:
        rows = self._rows(f"end {name}")
        if len({len(row) for row in rows}) != 1:
            raise Unreadable("the rows of the matrix differ in length")
        return determinant(rows) if name == "vmatrix" else ("matrix", rows)

    def cases(self) -> Tree:
        """Parse a system of equations, one per row, joined by "and"."""
        rows = []
        while not self.accept("end cases"):
            rows.append(self.relation())
            while self.accept("\\\\", ","):
                continue
        return ("list", tuple(rows), "and") if len(rows) > 1 else rows[0]

    def _rows(self, end: str) -> tuple[tuple[Tree, ...], ...]:
        rows: list[tuple[Tree, ...]] = []
        row: list[Tree] = []
        while not self.accept(end):
            row.append(self.sum())
            if not self.accept("&"):
                rows.append(tuple(row))
                row = []
                while self.accept("\\\\", "hline"):
                    continue
        if row:
            raise Unreadable("a matrix ends with an empty entry")
        return tuple(rows)


#: Builders of the signs and commands that can start a factor.
_BUILDERS: dict[str, Callable[[Parser], Tree]] = {
    "frac": lambda parser: ("div", parser.argument(), parser.argument()),
    "binom": lambda parser: ("fn", "binom", (parser.argument(), parser.argument())),
    "abs": lambda parser: ("fn", "abs", (parser.argument(),)),
    "pi": lambda parser: ("const", "pi"),
    "infty": lambda parser: ("const", "infty"),
    "emptyset": lambda parser: ("set", ()),
    "lfloor": lambda parser: ("fn", "floor", parser.entries("rfloor")),
    "|": Parser.absolute,
    "lceil": lambda parser: ("fn", "ceil", parser.entries("rceil")),
    "lvert": lambda parser: ("fn", "abs", parser.entries("rvert")),
    "{": Parser.braces,
    "\\{": Parser.set,
    "boxed": Parser.argument,
    "fbox": Parser.argument,
    "+": Parser.power,
    "-": lambda parser: negative(parser.power()),
    **{name: partial(Parser.group, opener=name) for name in "(["},
    **{name: partial(Parser.money, sign=name) for name in _CURRENCIES},
    **{name: partial(Parser.function, name=name) for name in FUNCTIONS},
    "sqrt": Parser.root,
    **{name: partial(Parser.written_out, name=name) for name in ("sum", "prod")},
    **{
        name: partial(Parser.accent, name=name)
        for name in "overline vec hat bar widehat overrightarrow angle triangle".split()
    },
    **{
        f"begin {name}": partial(Parser.matrix, name=name)
        for name in "pmatrix bmatrix Bmatrix matrix vmatrix smallmatrix array".split()
    },
    "begin cases": Parser.cases,
    **{name: lambda parser, name=name: ("sym", name) for name in GREEK},
}


def _items(tree: Tree) -> tuple[Tree, ...]:
    return tree[1] if tree[0] == "list" else (tree,)


def negative(tree: Tree) -> Tree:
    """Return minus a tree. Minus a number is a number."""
    return ("num", -tree[1]) if tree[0] == "num" else ("neg", tree)


def _is_application(name: str, marks: tuple[Token, ...], inside: tuple[Token, ...]) -> bool:
    """Return whether ``name(inside)`` before an equals sign is a function application. ``k(k+1)`` is a product.

    Primes, an exponent of -1, ``f``, words, and relations such as in ``P(X = 2)`` mark a function. Capitals and names with
    an index apply to anything except a sum. Other letters apply to one letter, and letters that are unusual as unknowns
    also to a number: ``a(1)``.
    """
    if any(mark == ("op", "'") for mark in marks):
        return True
    values = [token[1] for token in inside]
    if (
        ("op", "^") in marks
        and [mark[1] for mark in marks if mark[1] not in ("{", "}")][-3:] != ["^", "-", 1]
        or any(token == name and following != "(" for token, following in zip(values, [*values[1:], ""], strict=False))
    ):
        return False
    is_word = len(name) > 1 and name not in GREEK
    if is_word or name in ("f", "g", "h", "E", "F", "G", "H", "P") or set(values) & {"|", *_RELATIONS}:
        return True
    if set(values[1:]) & {"+", "-", "pm"}:
        return False
    return not name.islower() or name in GREEK or len(inside) == 1 and (inside[0][0] == "sym" or name not in "ijkmntxyz")


def determinant(rows: tuple[tuple[Tree, ...], ...]) -> Tree:
    """Expand the determinant along the first row (at most 4 rows)."""
    if len(rows) != len(rows[0]) or len(rows) > 4:
        raise Unreadable("a determinant that is not square, or has more than 4 rows")
    # An entry of the last row occurs (n - 1)! times. The copies share memory, but later steps visit each of them.
    if factorial(len(rows) - 1) * size(rows) > MAX_TOKENS:
        raise TooBig(f"a determinant of more than {MAX_TOKENS} symbols")
    if len(rows) == 1:
        return rows[0][0]
    terms = []
    for k, entry in enumerate(rows[0]):
        term = ("mul", entry, determinant(tuple((*row[:k], *row[k + 1 :]) for row in rows[1:])))
        terms.append(("neg", term) if k % 2 else term)
    return ("add", tuple(terms))


def substitute(tree: Tree, symbol: Tree, value: Tree) -> Tree:
    """Return the tree with every ``symbol`` replaced by a number, also in subscripts."""
    if tree == symbol:
        return value
    if tree[:1] == ("sym",) and symbol[1] in tree[1].partition("_")[2]:
        base, _, index = tree[1].partition("_")
        if index != symbol[1]:
            raise Unreadable("a computed subscript")
        return ("sym", f"{base}_{value[1]}")
    return each(tree, lambda part: substitute(part, symbol, value))


def parse(text: str) -> Tree:
    """Return the tree of a normalised answer. Raises only Unreadable and its subclass TooBig."""
    if len(text) > MAX_CHARACTERS:
        raise TooBig(f"more than {MAX_CHARACTERS} characters")
    tokens = tokenize(text)
    if not tokens:
        raise Unreadable("it is empty")
    return Parser(tokens).whole()

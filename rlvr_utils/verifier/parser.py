r"""A parser of our own: text in, a tree of plain tuples out. Nothing is computed, so nothing can blow up.

Expressions are ``("num", value)``, ``("sym", name)``, ``("const", "pi" | "e" | "i" | "infty")``,
``("add", terms)``, ``("neg", t)``, ``("mul" | "div" | "pow", a, b)``, ``("fn", name, arguments)``,
``("pm" | "mp", t)``, ``("ratio", parts)``, and values with marks: ``("deg" | "pct", t)``, ``("unit", t, unit)``,
``("label", t, words)``, ``("pmod", t, n)``, ``("based", digits, base)``.

Structures are ``("group", opener, closer, items)`` (a tuple or an interval), ``("list", items, connective)``,
``("set", items)``, ``("rel", signs, sides)``, ``("cup" | "cap" | "setminus", parts)``, ``("matrix", rows)``,
``("text", words)``, ``("name", tokens)``.

The parser reads a tuple of tokens and moves one index. Where it looks ahead it changes nothing.
"""

from __future__ import annotations

from math import factorial

from .kinds import FUNCTIONS, GREEK, MULTIPLIERS, read_unit, unit_words
from .limits import MAX_CHARACTERS, MAX_DEPTH, MAX_FACTORS, MAX_SUFFIXES, MAX_SUM, MAX_TOKENS, TooBig, Unreadable
from .tokens import END, Token, tokenize
from .trees import Tree, each, size

_RELATIONS = {"=": "=", "<": "<", ">": ">", "le": "<=", "ge": ">=", "ne": "!=", "in": "in", "equiv": "==", "approx": "~",
              "to": "to", "subset": "subset"}
_SIGNS = ("+", "-", "pm", "mp")
_PRODUCTS = {"*": "mul", "cdot": "mul", "times": "mul", "/": "div", "div": "div", ":": "ratio"}
_CURRENCIES = {"\\$": "usd", "euro": "eur", "pounds": "gbp", "yen": "jpy"}
_PARTNERS = {"lfloor": ("rfloor", "floor"), "lceil": ("rceil", "ceil"), "lvert": ("rvert", "abs")}
_MATRICES = frozenset(f"begin {name}" for name in "pmatrix bmatrix Bmatrix matrix vmatrix smallmatrix array".split())
_ACCENTS = frozenset("overline vec hat bar widehat overrightarrow angle triangle".split())
_FACTORS = FUNCTIONS | GREEK | _ACCENTS | _MATRICES | frozenset(
    "frac sqrt pi infty binom lfloor lceil lvert sum prod abs ( [ \\{ {".split())
_CONNECTIVES = {"and": "and", "or": "or", "and/or": "or"}


class Parser:
    """Recursive descent over a tuple of tokens. Only ``atom`` nests, and it bounds the depth."""

    def __init__(self, tokens: tuple[Token, ...]) -> None:
        self.tokens = (*tokens, END, END, END, END)
        self.at = 0
        self.depth = 0
        self.bars = 0

    def sees(self, *values: str) -> bool:
        """Whether a sign or command is next that is one of ``values``."""
        kind, value = self.tokens[self.at]
        return kind == "op" and value in values

    def accept(self, *values: str) -> str | None:
        """Step over one of ``values`` and return it; None if something else is next."""
        if not self.sees(*values):
            return None
        self.at += 1
        return self.tokens[self.at - 1][1]

    def expect(self, *values: str) -> str:
        """Step over one of ``values`` and return it. Raises Unreadable if something else is next."""
        if (value := self.accept(*values)) is None:
            raise Unreadable(f"{' or '.join(values)!r} is missing before {str(self.tokens[self.at][1]) or 'the end'!r}")
        return value

    def whole(self) -> Tree:
        """The tree of all tokens."""
        if self.accept("=") and self.sees("="):
            raise Unreadable("two equals signs")
        tree = self.items()
        if self.tokens[self.at][0] != "end":
            raise Unreadable(f"cannot read {str(self.tokens[self.at][1])!r} here")
        return tree

    # -- lists, relations, unions ---------------------------------------------------------------------------

    def items(self) -> Tree:
        """One relation or expression, or a list of them separated by commas, semicolons, "and" or "or"."""
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
        r"""``a = b``, ``a < b <= c``, ``x \in S``, or a bare expression."""
        sides, signs = [self._name() or self._union()], []
        while sign := self.accept(*_RELATIONS):
            signs.append(_RELATIONS[sign])
            sides.append(self._name() or self._union())
        if not signs:
            return sides[0]
        if sides[-1][0] == "pmod":
            return ("pmod", ("rel", tuple(signs), (*sides[:-1], sides[-1][1])), sides[-1][2])
        return self._modulus(("rel", tuple(signs), tuple(sides)))

    def _name(self) -> Tree | None:
        r"""``P(X = 2)``, ``f'(2)``, ``S_{\triangle ABC}`` before an equals sign: a name whatever the brackets hold."""
        tokens, at = self.tokens, self.at
        kind, value = tokens[at]
        if kind not in ("sym", "text") and value not in GREEK:
            return None
        end = at + 1
        while tokens[end] in (("op", "_"), ("op", "^"), ("op", "'")):
            end = end + 1 if tokens[end][1] == "'" else self._group_end(end + 1)
        marks, start = tokens[at + 1:end], end
        if tokens[end] == ("op", "("):
            end = self._group_end(end)
        if end == at + 1 or tokens[end] != ("op", "=") or end > start and not _is_application(
                value, marks, tokens[start + 1:end - 1]) or tokens[at + 1] == ("op", "^") and tokens[end - 1] != ("op", ")"):
            return None
        self.at = end
        return ("name", tuple(str(token[1]) for token in tokens[at:end] if token[1] not in ("{", "}")))

    def _group_end(self, at: int) -> int:
        """Where a group in braces or brackets ends that begins at ``at``; the next token if there is none."""
        depth = 0
        for index in range(at, len(self.tokens)):
            kind, value = self.tokens[index]
            depth += (kind == "op" and value in ("{", "(")) - (kind == "op" and value in ("}", ")"))
            if depth <= 0:
                return index + 1
        return at + 1

    def _union(self) -> Tree:
        r"""Sets joined by ``\cup``, ``\cap`` or ``\setminus``; ``a \bmod n``, ``n \choose k``, ``a \over b``."""
        parts, joined = [self.sum()], set()
        if operator := self.accept("bmod", "choose", "over"):
            right = self.sum()
            parts = [("div", parts[0], right) if operator == "over" else
                     ("fn", "mod" if operator == "bmod" else "binom", (parts[0], right))]
        while self.sees("cup", "cap", "setminus") or self.tokens[self.at] == ("sym", "U") and parts[-1][0] == "group":
            joined.add(self.tokens[self.at][1].replace("U", "cup"))
            self.at += 1
            parts.append(self.sum())
        if len(joined) > 1:
            raise Unreadable("unions and intersections are mixed without brackets")
        return (joined.pop(), tuple(parts)) if joined else self._modulus(parts[0])

    def _modulus(self, tree: Tree) -> Tree:
        r"""``5 \pmod{12}``, ``5 \mod 12``, ``5 (\mathrm{mod}\ 12)``."""
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
        r"""Terms with ``+``, ``-``, ``\pm`` or ``\mp`` between them."""
        terms: list[Tree] = []
        sign = self.accept(*_SIGNS) or "+"
        while sign:
            term = self.product()
            terms.append(term if sign == "+" else ("neg", term) if sign == "-" else (sign, term))
            sign = self.accept(*_SIGNS)
            if sign == "-" and terms[-1] == ("sym", "bb R") and self.sees("\\{"):
                return ("setminus", (terms[-1], self.atom()))
        return terms[0] if len(terms) == 1 else ("add", tuple(terms))

    def product(self) -> Tree:
        """Factors with a product sign, or nothing, between them."""
        tree = self.power()
        for _ in range(MAX_FACTORS):
            kind, value = self.tokens[self.at]
            if kind == "end":
                return tree
            if operator := self.accept(*_PRODUCTS):
                right = self._signed_power()
                tree = (_PRODUCTS[operator], tree, right) if operator != ":" else (
                    "ratio", (*(tree[1] if tree[0] == "ratio" else (tree,)), right))
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
        sign = self.accept(*_SIGNS)
        if sign in ("pm", "mp"):
            raise Unreadable("a plus-minus sign follows a product sign")
        return ("neg", self.power()) if sign == "-" else self.power()

    def _starts_factor(self, kind: str, value) -> bool:
        previous_kind, previous = self.tokens[self.at - 1]
        if kind in ("num", "value"):
            if previous_kind == "num" and self.tokens[self.at - 2][1] not in ("_", "^"):
                raise Unreadable("two numbers stand side by side")
            return True
        if kind == "sym":
            return not (value == "U" and (previous_kind, previous) in (("op", ")"), ("op", "]")))
        if value == "(" and self.tokens[self.at + 1] == ("op", "mod"):
            return False
        return kind == "op" and (value in _FACTORS or value == "|" and not self.bars)

    # -- units ----------------------------------------------------------------------------------------------

    def _unit(self, value: Tree) -> Tree | None:
        r"""A value with the words after it: ``25 \text{ ft}``, ``15 \text{ cm}^2``, ``60 \frac{\text{km}}{\text{h}}``."""
        kind, word = self.tokens[self.at]
        if value[0] == "deg" and kind in ("sym", "text") and word in ("C", "F"):
            self.at += 1
            return ("unit", value[1], ((f"deg{word}", 1),))
        start, words = self.at, self._words()
        if words and value[0] == "unit" and (money := value[2][0][0]) in _CURRENCIES.values():
            factor = MULTIPLIERS.get(words[0].lower(), 1)
            rest = words[factor > 1:]  # $5 million, $15 per hour
            if unit := value[2] if not rest else read_unit([money, *rest]) if rest[0] in ("per", "/") else None:
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
        """Step over the words, signs and exponents of a unit and return them."""
        words: list[str] = []
        while True:
            kind, value = self.tokens[self.at]
            if kind == "text" and value.lower() not in _CONNECTIVES or kind == "sym" and words[-1:] in (["per"], ["*"]):
                words += unit_words(value)
                self.at += 1
            elif words and words[-1][0] != "^" and self.accept("^"):
                sign, exponent = 1, self.argument()
                if exponent[0] == "neg":
                    sign, exponent = -1, exponent[1]
                if exponent[0] != "num" or not isinstance(exponent[1], int) or exponent[1] > 999:
                    raise Unreadable("an exponent of a unit that is no integer")
                words.append(f"^{sign * exponent[1]}")
            elif words and value in ("/", "cdot", "*") and self.tokens[self.at + 1][0] in ("text", "sym"):
                words.append("per" if value == "/" else "*")
                self.at += 1
            else:
                return words

    # -- powers and what follows a factor -------------------------------------------------------------------

    def power(self) -> Tree:
        """An atom with its exponents and the signs after it."""
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
            sign = self.accept("!", "%", "\\%", "_", "'", *_CURRENCIES)
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
        inside = self.tokens[start:self.at]
        index = "".join(str(token[1]) for token in (inside[1:-1] if inside[0] == ("op", "{") else inside))
        if tree[0] == "sym" and index and self.tokens[start][0] != "end":
            return ("sym", f"{tree[1]}_{index}")
        raise Unreadable("a subscript after something that is no symbol")

    def argument(self) -> Tree:
        """The argument of a command, or an exponent: a group, or the next token (``x^10`` is meant as ``x^{10}``)."""
        return ("neg", self.argument()) if self.accept("-") else self.atom()

    # -- atoms ----------------------------------------------------------------------------------------------

    def atom(self) -> Tree:
        """One number, letter, command with its arguments, or bracket: the only place where the parser nests."""
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
            tree = self._bracket(value) or self._command(value)
        else:
            raise Unreadable("the expression ends too early")
        self.depth -= 1
        return tree

    def _symbol(self, name: str) -> Tree:
        if name in ("f", "g", "h") and self.accept("("):
            return ("fn", name, self._entries(")"))
        return ("const", name) if name in ("e", "i") else ("sym", name)

    # -- brackets -------------------------------------------------------------------------------------------

    def _inside(self, *closers: str) -> tuple[Tree, str]:
        """What stands before one of ``closers``, and which one it is."""
        bars, self.bars = self.bars, 0
        tree = self.items()
        closer = self.expect(*closers)
        self.bars = bars
        return tree, closer

    def _entries(self, closer: str) -> tuple[Tree, ...]:
        tree, _ = self._inside(closer)
        return tree[1] if tree[0] == "list" else (tree,)

    def _bracket(self, opener: str) -> Tree | None:
        """What a sign at the start of a factor opens: a group, a set, an absolute value, an amount of money."""
        if opener == "{":
            return self._inside("}")[0]
        if opener == "\\{":
            return self._set()
        if opener in ("(", "["):
            return self._group(opener)
        if opener == "|":
            self.bars += 1
            inside = self.sum()
            self.expect("|")
            self.bars -= 1
            return ("fn", "abs", (inside,))
        if opener in _CURRENCIES:
            return ("unit", self.power(), ((_CURRENCIES[opener], 1),))
        if opener in ("+", "-"):
            inside = self.power()
            return inside if opener == "+" else ("neg", inside)
        return None

    def _set(self) -> Tree:
        r"""``\{1, 2\}``, or ``\{\mid x > 3\}``, which is its condition."""
        if self.accept("\\}"):
            return ("set", ())
        is_condition = self.accept("mid")
        tree, _ = self._inside("\\}")
        if not is_condition:
            return ("set", tree[1] if tree[0] == "list" else (tree,))
        if tree[0] not in ("rel", "list", "label", "pmod"):
            raise Unreadable("a set by a condition that is none")
        return tree

    def _group(self, opener: str) -> Tree:
        if opener == "(" and self.accept(")"):
            raise Unreadable("empty brackets")
        tree, closer = self._inside(")", "]")
        if tree[0] != "list" and opener + closer in ("()", "[]"):
            return tree
        return ("group", opener, closer, tree[1] if tree[0] == "list" else (tree,))

    # -- commands -------------------------------------------------------------------------------------------

    def _command(self, name: str) -> Tree:
        """A command at the start of a factor, with its arguments."""
        if name == "frac":
            return ("div", self.argument(), self.argument())
        if name in ("pi", "infty"):
            return ("const", name)
        if name == "sqrt":
            return self._root()
        if name in GREEK:
            return ("sym", name)
        if name in FUNCTIONS:
            return self._function(name)
        if name == "abs":
            return ("fn", "abs", (self.argument(),))
        if name in _MATRICES:
            return self._matrix(name.removeprefix("begin "))
        if name == "binom":
            return ("fn", "binom", (self.argument(), self.argument()))
        if name in _PARTNERS:
            closer, function = _PARTNERS[name]
            return ("fn", function, self._entries(closer))
        if name == "emptyset":
            return ("set", ())
        if name in ("sum", "prod"):
            return self._written_out(name)
        return self._accent(name)

    def _accent(self, name: str) -> Tree:
        r"""``\overline{AB}``, ``\angle ABC``: a name, whatever letters follow."""
        if name not in _ACCENTS:
            raise Unreadable(f"cannot read {name!r} here")
        if name not in ("angle", "triangle"):
            return ("fn", name, (self._named() or self.argument(),))
        letters = ""
        while self.tokens[self.at][0] == "sym":
            letters += self.tokens[self.at][1]
            self.at += 1
        if not letters and self.tokens[self.at] == ("op", "="):
            return ("sym", name)
        return ("fn", name, (("sym", letters) if letters else self.argument(),))

    def _named(self) -> Tree | None:
        r"""The letters and digits of ``\vec{AB}`` as one name, in their order; None for anything else in the braces."""
        end = self.at + 1
        while self.tokens[end][0] in ("sym", "num"):
            end += 1
        if self.tokens[self.at] != ("op", "{") or end == self.at + 1 or self.tokens[end] != ("op", "}"):
            return None
        name = "".join(str(value) for _, value in self.tokens[self.at + 1:end])
        self.at = end + 1
        return ("sym", name)

    def _root(self) -> Tree:
        index: Tree = ("num", 2)
        if self.accept("["):
            index, _ = self._inside("]")
        return ("fn", "root", (self.argument(), index))

    def _function(self, name: str) -> Tree:
        r"""``\sin^2 3x``, ``\log_2 (x + 1)``, ``\gcd(12, 18)``."""
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
        if exponent == ("neg", ("num", 1)):
            if f"arc{name}" not in FUNCTIONS:  # \\ln^{-1} has no usual meaning
                raise Unreadable(f"the inverse of \\{name}, or one over it")
            return ("fn", "arc" + name, arguments)
        tree = ("fn", name, arguments)
        return tree if exponent is None else ("pow", tree, exponent)

    def _arguments(self) -> tuple[Tree, ...]:
        r"""A bracket, a group in braces, or the product that follows: it ends at ``+ - = , /`` and at another function."""
        if self.accept("("):
            return self._entries(")")
        if self.tokens[self.at] in (("op", "{"), ("op", "[")):
            tree = self.atom()
            return tree[1] if tree[0] == "list" else (self._suffixes(self._raised(tree) if self.accept("^") else tree),)
        if self.accept("-"):
            return (("neg", self._more_factors(self.power())),)
        return (self._more_factors(self.power()),)

    def _more_factors(self, tree: Tree) -> Tree:
        for _ in range(MAX_FACTORS):
            kind, value = self.tokens[self.at]
            if kind != "sym" and not (kind == "op" and (value in ("frac", "sqrt", "pi") or value in GREEK)):
                return tree
            tree = ("mul", tree, self.power())
        raise TooBig(f"a product of more than {MAX_FACTORS} factors")

    def _written_out(self, name: str) -> Tree:
        r"""``\sum_{k=1}^{4} k`` as the sum of its terms, where the ends are integers and the terms few."""
        if not self.accept("_"):
            raise Unreadable(f"\\{name} without its ends")
        start = self.argument()
        if not self.accept("^") or start[0] != "rel" or start[1] != ("=",) or (
                start[2][0][0] != "sym" and start[2][0] != ("const", "i")):
            raise Unreadable(f"the ends of \\{name} are not read")
        (symbol, first), last = start[2], self.argument()
        body = self.product()
        ends = [end[1] if end[0] == "num" else -end[1][1] if end[0] == "neg" and end[1][0] == "num" else None
                for end in (first, last)]
        if not all(isinstance(end, int) for end in ends):
            raise Unreadable(f"the ends of \\{name} are no numbers")
        if not 0 <= ends[1] - ends[0] < MAX_SUM or (ends[1] - ends[0]) * size(body) > MAX_TOKENS:
            raise TooBig(f"a sum of more than {MAX_SUM} terms or {MAX_TOKENS} symbols")
        terms = tuple(substitute(body, symbol, ("num", k)) for k in range(ends[0], ends[1] + 1))
        if name == "sum":
            return ("add", terms)
        tree = terms[0]
        for term in terms[1:]:
            tree = ("mul", tree, term)
        return tree

    # -- matrices -------------------------------------------------------------------------------------------

    def _matrix(self, name: str) -> Tree:
        rows = self._rows(f"end {name}")
        if len({len(row) for row in rows}) != 1:
            raise Unreadable("the rows of the matrix differ in length")
        return determinant(rows) if name == "vmatrix" else ("matrix", rows)

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


def _is_application(name: str, marks: tuple[Token, ...], inside: tuple[Token, ...]) -> bool:
    """Whether ``name(inside)`` before an equals sign is a function at a place. ``k(k+1)`` is a product.

    Primes and an exponent of -1 mark a function, and so do ``f``, words, and a relation such as in ``P(X = 2)``.
    Capitals and other names with an index apply to anything but a sum, other letters to one letter, and those that are
    no usual unknowns also to a number: ``a(1)``.
    """
    if any(mark == ("op", "'") for mark in marks):
        return True
    values = [token[1] for token in inside]
    if ("op", "^") in marks and [mark[1] for mark in marks if mark[1] not in ("{", "}")][-3:] != ["^", "-", 1] or any(
            token == name and following != "(" for token, following in zip(values, [*values[1:], ""], strict=False)):
        return False
    is_word = len(name) > 1 and name not in GREEK
    if is_word or name in ("f", "g", "h", "E", "F", "G", "H", "P") or set(values) & {"|", *_RELATIONS}:
        return True
    if set(values[1:]) & {"+", "-", "pm"}:
        return False
    return not name.islower() or name in GREEK or len(inside) == 1 and (inside[0][0] == "sym" or name not in "ijkmntxyz")


def determinant(rows: tuple[tuple[Tree, ...], ...]) -> Tree:
    """The determinant written out along the first row (at most 4 rows)."""
    if len(rows) != len(rows[0]) or len(rows) > 4:
        raise Unreadable("a determinant that is not square, or has more than 4 rows")
    # An entry of the last row is written (n - 1)! times. The parts share their memory, but whoever reads them does not.
    if factorial(len(rows) - 1) * size(rows) > MAX_TOKENS:
        raise TooBig(f"a determinant of more than {MAX_TOKENS} symbols")
    if len(rows) == 1:
        return rows[0][0]
    terms = []
    for k, entry in enumerate(rows[0]):
        term = ("mul", entry, determinant(tuple((*row[:k], *row[k + 1:]) for row in rows[1:])))
        terms.append(("neg", term) if k % 2 else term)
    return ("add", tuple(terms))


def substitute(tree: Tree, symbol: Tree, value: Tree) -> Tree:
    """The tree with every ``symbol`` replaced by a number, also where it is an index."""
    if tree == symbol:
        return value
    if tree[:1] == ("sym",) and symbol[1] in tree[1].partition("_")[2]:
        base, _, index = tree[1].partition("_")
        if index != symbol[1]:
            raise Unreadable("an index that is computed")
        return ("sym", f"{base}_{value[1]}")
    return each(tree, lambda part: substitute(part, symbol, value))


def parse(text: str) -> Tree:
    """The tree of a normalised answer. Raises Unreadable (TooBig is one), and nothing else."""
    if len(text) > MAX_CHARACTERS:
        raise TooBig(f"more than {MAX_CHARACTERS} characters")
    tokens = tokenize(text)
    if not tokens:
        raise Unreadable("there is nothing to read")
    return Parser(tokens).whole()

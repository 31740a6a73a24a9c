r"""Classify the words in an answer: units, counted things, choices, times of day, or plain text.

Units come from one allow-list. An answer with any other word is a value with a label, and equals only the same value
with the same label.
"""

from __future__ import annotations

import re

from .normalize import TEXT

FUNCTIONS = frozenset(
    "sin cos tan cot sec csc arcsin arccos arctan arccot arcsec arccsc sinh cosh tanh coth sech csch "
    "arcsinh arccosh arctanh cis log ln lg exp sqrt gcd lcm min max sgn".split()
)
#: Names written without a backslash or in several ways, and the command that they mean.
SPELLED = {
    "pi": "pi",
    "infinity": "infty",
    "infty": "infty",
    "inf": "infty",
    "asin": "arcsin",
    "acos": "arccos",
    "atan": "arctan",
    "asinh": "arcsinh",
    "acosh": "arccosh",
    "atanh": "arctanh",
    "arsinh": "arcsinh",
    "arcosh": "arccosh",
    "artanh": "arctanh",
    "mod": "mod",
    "theta": "theta",
    "alpha": "alpha",
    "beta": "beta",
    "lambda": "lambda",
    "abs": "abs",
}
GREEK = frozenset(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau "
    "upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Upsilon Phi Psi Omega ell".split()
)
#: Number words after a value: ``5 \text{ million}``.
MULTIPLIERS = {
    "hundred": 10**2,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
    "dozen": 12,
    "quadrillion": 10**15,
}

# -- units ------------------------------------------------------------------------------------------------------------

_PREFIXES = {
    "": "",
    "k": "kilo",
    "c": "centi",
    "m": "milli",
    "μ": "micro",
    "n": "nano",
    "d": "deci",
    "M": "mega",
    "G": "giga",
}
#: Symbol, words (singular) and prefixes of each unit.
_SI = (
    ("m", "meter metre", "kcmμnd"),
    ("g", "gram gramme", "kmμ"),
    ("s", "second", "mμn"),
    ("L", "liter litre", "mcd"),
    ("J", "joule", "kM"),
    ("W", "watt", "kmMG"),
    ("V", "volt", "kmM"),
    ("N", "newton", "kM"),
    ("Pa", "pascal", "kM"),
    ("Hz", "hertz", "kMG"),
    ("A", "amp ampere", "m"),
    ("mol", "mole", "m"),
)
_OTHER = {
    "g": "gm gms",
    "in": "in inch inches",
    "ft": "ft foot feet",
    "yd": "yd yds yard",
    "mi": "mi mile",
    "lb": "lb lbs pound",
    "oz": "oz ounce",
    "ton": "ton tonne",
    "s": "sec secs",
    "min": "min mins minute",
    "h": "h hr hrs hour",
    "day": "day",
    "week": "wk week",
    "month": "month",
    "year": "yr yrs year",
    "decade": "decade",
    "century": "century centuries",
    "mph": "mph",
    "km/h": "kph kmh",
    "L": "l",
    "mL": "ml cc",
    "gal": "gal gallon",
    "qt": "qt quart",
    "pt": "pint",
    "cup": "cup",
    "acre": "acre",
    "hectare": "ha hectare",
    "degC": "celsius",
    "degF": "fahrenheit",
    "kelvin": "kelvin",
    "usd": "dollar usd USD buck",
    "cent": "cent",
    "eur": "euro eur EUR",
    "gbp": "gbp",
    "rupee": "rupee",
    "deg": "degree",
    "rad": "rad radian",
    "%": "percent percentage pct",
    "rev": "revolution",
    "unit": "unit",
    "bit": "bit",
    "byte": "byte",
}
_COUNTED = (
    "adult angle animal apple arrangement bag ball balloon banana basket bead bicycle bike bird block bolt book "
    "bottle box boxes boy bus buses cake calorie candies candle candy car card case cat chair chicken child children "
    "circle class classes code coin color column combination committee cookie copies copy cow cube cupcake customer "
    "day desk diagonal digit dime divisor dog doll duck edge egg element employee face factor families family female "
    "fish floor flower friend fruit function game gift girl glass glasses goal grape group guest hand handshake hat "
    "hexagon home horse house integer item jar kid lap lattice leg lemon letter license line male man marble match "
    "matches meal member men message movie muffin multiple necklace nickel night number nut orange outcome pack page "
    "pair part passenger path pear pen pencil pennies penny pentagon people permutation person pet pie piece pizza "
    "plant plate player point polygon possibilities possibility present primes problem question rabbit rectangle "
    "region rise room root rose route row sandwich seat segment sequence set sheep sheet shell shirt shoe show side "
    "slice sock solution song square stair stamp step sticker student subset table teacher team term ticket tile time "
    "token toy train tree triangle triangles trip triple truck tuple turn value vertex vertices vote way wheel window "
    "woman women word worker zero "
).split()


def _plural(word: str) -> tuple[str, ...]:
    return word, f"{word}s"


def _units() -> dict[str, str]:
    """Return a dict from every spelling of a unit or a counted thing to its name."""
    found = {}
    for word in _COUNTED:
        found |= dict.fromkeys(_plural(word), word.removesuffix("s"))
    for symbol, words, prefixes in _SI:
        for prefix in ("", *prefixes):
            spellings = [prefix + symbol]
            for word in words.split():
                spellings += _plural(_PREFIXES[prefix] + word)
            found |= dict.fromkeys(spellings, prefix + symbol)
    for name, words in _OTHER.items():
        for word in words.split():
            found |= dict.fromkeys(_plural(word) if len(word) > 2 else (word,), name)
    return found


UNITS = _units()
_COMPOUND = {"mph": {"mi": 1, "h": -1}, "km/h": {"km": 1, "h": -1}}
#: Letters without \text that are a unit after a number: ``5cm`` has a unit, ``2mv`` is a product.
BARE_UNITS = frozenset("cm mm km kg mg ft in yd mi lb lbs oz hr hrs mph ml mL sec min mins deg gal".split())
_WORDS = re.compile(r"\^\{?-?[0-9]+\}?|[A-Za-zμ]+|[0-9]+|\\[A-Za-z]+|\S")
_EXPONENT = re.compile(r"\^\{?-?[0-9]{1,3}\}?")
#: Words allowed after a unit: ``14 years old``.
_REMARKS = frozenset("old tall long wide high deep each left remaining".split())
#: Words allowed before a counted thing.
_ADJECTIVES = frozenset("possible ordered distinct different real positive unique total prime whole more additional".split())
_POWER = {"square": 2, "sq": 2, "cubic": 3, "cu": 3, "squared": 2, "cubed": 3}


def unit_words(text: str) -> list[str]:
    """Split a text that may be a unit into words, signs and exponents: ``m/s^2`` gives ``["m", "/", "s", "^2"]``."""
    return _WORDS.findall(text)


def read_unit(words: list[str]) -> tuple[tuple[str, int], ...] | None:
    """Return a unit's names with exponents, sorted (``miles per hour`` is mi and h^-1), or None if a word is not a unit."""
    powers: dict[str, int] = {}
    sign, power, last, is_open = 1, 1, {}, False
    for word in words:
        lower = word.lower()
        if lower in ("per", "/"):
            sign = -1
        elif _EXPONENT.fullmatch(word) or (lower in ("squared", "cubed") and last):
            exponent = _POWER.get(lower) or int(word.strip("^{}"))
            for name, count in last.items():
                powers[name] += count * (exponent - 1)
            sign = 1
        elif lower in _POWER:
            power = _POWER[lower]
        elif lower in _ADJECTIVES:
            is_open = True
        elif not (last and lower in _REMARKS) and word not in ("*", "·", "\\cdot", ".", "-", "(", ")"):
            name = UNITS.get(word) or (UNITS.get(lower) if len(word) > 3 or lower == word else None)
            if name is None:
                return None
            last = {part: count * sign * power for part, count in _COMPOUND.get(name, {name: 1}).items()}
            for part, count in last.items():
                powers[part] = powers.get(part, 0) + count
            sign = power = 1
            is_open = False
    if {"degC", "degF"} & set(powers):
        powers.pop("deg", None)  # degrees Celsius
    if sign != 1 or power != 1 or is_open or not words:
        return None
    return tuple(sorted((name, count) for name, count in powers.items() if count))


def unit_text(unit: tuple) -> str:
    """Return a unit as text: ``mi h^-1``."""
    return " ".join(name if count == 1 else f"{name}^{count}" for name, count in unit)


# -- words ------------------------------------------------------------------------------------------------------------

_BARE_WORDS = re.compile(r"[A-Za-z][A-Za-z .,'&-]*[0-9]{0,4}")
_RUN = re.compile(r"[A-Za-z]{2,}")
_COMMAND = re.compile(r"\\[A-Za-z]+")
_VOWEL = re.compile(r"[aeiouyAEIOUY]")
_BETWEEN_LETTERS = re.compile(r"(?<=[a-z]{2})-(?=[a-z]{3})|(?<![0-9])\s+|\s+(?![0-9])|[{}\"'`]|\.(?![0-9])")
_ARTICLE = re.compile(r"^(?:an?|the)\s+(?=[a-z]{2})")
_VALUE_FIRST = re.compile(r"\s*[-+(]?\s*(?:[0-9.]|\\frac|\\sqrt|\\pi)")


def plain_text(text: str) -> str:
    r"""Return normalised text without ``\text{}`` and style braces."""
    return TEXT.sub(r"\1", text).replace("{", "").replace("}", "").strip()


def words(text: str) -> str:
    r"""Return words as we compare them: without case, spaces and full stops, with digits, signs and decimal points."""
    return _BETWEEN_LETTERS.sub("", _ARTICLE.sub("", plain_text(text).casefold()))


def is_words(text: str) -> bool:
    r"""Return whether a normalised answer is words, such as ``\text{odd}``, ``\text{June 20}`` or ``Monday``."""
    if _VALUE_FIRST.match(plain_text(text)):
        return False
    outside = TEXT.sub("", text).strip(" .{}\"`'()")
    contents = TEXT.findall(text)
    if outside:
        return bool(_BARE_WORDS.fullmatch(outside)) and any(map(_is_word, _runs(outside))) and "," not in outside
    return any(map(_is_text, contents)) and "," not in text and not any(_separated(content) for content in contents)


def _separated(content: str) -> bool:
    """Return whether this is a list of single letters, such as ``A and D``. ``Dana and Evelyn`` is not."""
    return bool(re.fullmatch(r"\s*\(?[A-Z]\)?(?:\s*(?:,|and|or)\s*\(?[A-Z]\)?)+\s*", content))


def _runs(content: str) -> list[str]:
    return [run for run in _RUN.findall(_COMMAND.sub(" ", content)) if run not in FUNCTIONS and run not in SPELLED]


def _is_text(content: str) -> bool:
    return any(not is_product(run) for run in _runs(content))


def _is_word(run: str) -> bool:
    """Return whether letters outside ``\\text`` are a word: ``Monday`` and ``cat`` are, ``xyz`` and ``AB`` are not."""
    return run.lower() == "no" or len(run) > 2 and not is_product(run) and (len(run) > 3 or bool(_VOWEL.search(run)))


def is_product(run: str) -> bool:
    """Return whether letters are consecutive (``xyz``, ``abc``), and so a product rather than a word."""
    return all(ord(b) - ord(a) == 1 for a, b in zip(run, run[1:], strict=False))


# -- choices and times ------------------------------------------------------------------------------------------------

_LETTER = re.compile(r"\(?([A-Z])\)?")
_MARKED = re.compile(r"(?:\(([A-Z])\)|([A-Z])[).:])\s?(.*)", re.DOTALL)
_REFUSED_AFTER = re.compile(r"(?:\\[A-Za-z]+|[A-Za-z]{3,}|\bor\b|\band\b|\bno|[A-Z]|[?,;])")
_CLOCK = re.compile(r"([0-9]{1,2})(?::([0-9]{2}))?(?::([0-9]{2}))?\s?(?:([apAP])\.?\s?[mM]\.?)?(?:\s?o'?clock)?")


def choice(text: str) -> str | None:
    r"""Return the letter of a bare choice: ``B``, ``(B)``, ``\text{(B)}``."""
    match = _LETTER.fullmatch(plain_text(text).rstrip(" ."))
    return match and match.group(1)


def chosen(text: str) -> str | None:
    r"""Return the chosen letter of an answer whose value may follow: ``(B)``, ``B)``, ``B.``, ``\textbf{(B)} 12``."""
    plain = plain_text(text)
    if letter := choice(text):
        return letter
    match = _MARKED.fullmatch(plain)
    if match is None or _REFUSED_AFTER.search(re.sub(r"\\(?:frac|sqrt|pi|cdot|circ|times)(?![A-Za-z])", "", match.group(3))):
        return None
    return match.group(1) or match.group(2)


def clock_time(text: str) -> tuple[int, int, int, str] | None:
    r"""Return hour, minute, second and half of the day of ``\text{1:03 PM}``, ``9 \text{ a.m.}`` or ``12:00``."""
    plain = plain_text(text)
    match = _CLOCK.fullmatch(plain) if plain[:1].isdecimal() and plain.isascii() else None
    if match is None or plain.isdecimal() or int(match[1]) > 24 or int(match[2] or 0) > 59 or int(match[3] or 0) > 59:
        return None
    return int(match[1]), int(match[2] or 0), int(match[3] or 0), (match[4] or "").lower()


def is_certain_time(text: str) -> bool:
    """Return whether a time cannot be a ratio, because it has a.m. or p.m., or a leading zero in the minutes."""
    plain = plain_text(text)
    return bool(re.search(r"[A-Za-z]|:0", plain))

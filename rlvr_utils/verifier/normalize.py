r"""Normalise the spelling of answers: Unicode, spaces, styles, ``\left``, ``\dfrac``, ``$``.

Sources: MATH's ``_strip_string`` (hendrycks/math, modeling/math_equivalence.py) and Minerva's normalisation
(Lewkowycz et al. 2022, appendix D.1). We use only the steps that keep the meaning. Units, percent signs and names before
``=`` are conventions and are handled after parsing.
"""

from __future__ import annotations

import re
import unicodedata

_TEXT_STYLES = (
    r"text(?:bf|it|rm|sf|tt|sc|up|sl|md|normal)?|mbox|hbox|mathrm|mathsf|mathtt|mathop|operatorname"
    r"|emph|rm"
)
#: Words in ``\text`` or ``\mbox``. The group is the content.
TEXT = re.compile(r"\\(?:text|mbox)\s?\{([^{}]*)\}")
_TO_TEXT = re.compile(rf"\\(?:{_TEXT_STYLES})(?![A-Za-z])\*?\s*(?=\{{)")
# \text{Option B}, \text{The answer is }5
_LEAD = re.compile(
    r"^(\\text\{)?\s*(?:(?:[Tt]he )?(?:[Ff]inal )?[Aa]nswer(?: is(?![A-Za-z])|:)|(?:[Oo]ption|[Cc]hoice)(?![A-Za-z])):?\s*"
)
_LONE_STYLE = re.compile(r"\\(mathbb|mathrm|text|mbox|operatorname)\s+([A-Za-z])(?![A-Za-z])")
# A style without an argument (\bf, \large, \displaystyle), a color, or a mathematical style (\mathbf{7} is {7}).
_STYLES = re.compile(
    r"\\(?:(?:bf|it|rm|sf|tt|sl|sc|em|cal|(?:bf|md)series|(?:it|sl|sc|up)shape|(?:rm|sf|tt)family|normalfont|tiny|small|large"
    r"|Large|LARGE|huge|Huge|normalsize|footnotesize|scriptsize|(?:display|text|script|scriptscript)style|limits|nolimits"
    r"|ensuremath|pmb|bm|boldsymbol|underline|uline|math(?!bb|op)[a-z]+|text(?!backslash|degree)[a-z]{2}|unboldmath|strut"
    r")(?![A-Za-z])\*?|(?:text)?color\s?(?:\[[^\]{}]*\])?\s?\{[^{}]*\})\s?"
)
_SPACES = re.compile(
    r"\\text\{ ?\}|(?<!\\)\\[,;:!> ]|\\(?:quad|qquad|enspace|thinspace|medspace|thickspace|negthinspace|nobreakspace|space"
    r"|(?:[bB]igg?[lrm]?|left|right|middle)(?![A-Za-z])\.?)(?![A-Za-z])|\\hspace\*?\{[^{}]*\}|~"
)
_SPACED_THOUSANDS = re.compile(r"(?<=[0-9])\s?(?:\{\s?,\s?\}|,\s?\\!|\\,|\\ |\\;|~)\s?(?=[0-9]{3}(?![0-9]))")
_GROUPED = re.compile(r"(?<![0-9.])[1-9][0-9]{0,2}(?: [0-9]{3})+(?![0-9/])")
_RENAMED = {
    "leq": r"\le ",
    "leqslant": r"\le ",
    "geq": r"\ge ",
    "geqslant": r"\ge ",
    "neq": r"\ne ",
    "lt": "<",
    "gt": ">",
    "colon": ":",
    "ast": "*",
    "vert": "|",
    "langle": "(",
    "rangle": ")",
    "lparen": "(",
    "rparen": ")",
    "lbrack": "[",
    "rbrack": "]",
    "lbrace": r"\{",
    "rbrace": r"\}",
    "varnothing": r"\emptyset ",
    "backslash": r"\setminus ",
    "rightarrow": r"\to ",
    "subseteq": r"\subset ",
    "measuredangle": r"\angle ",
    "land": r"\text{and}",
    "wedge": r"\text{and}",
    "lor": r"\text{or}",
    "vee": r"\text{or}",
    "top": "T ",
    "textsuperscript": "^",
    "dfrac": r"\frac",
    "tfrac": r"\frac",
    "cfrac": r"\frac",
    "nicefrac": r"\frac",
    "sfrac": r"\frac",
    "dbinom": r"\binom",
    "tbinom": r"\binom",
}
_RENAMES = re.compile(rf"\\({'|'.join(_RENAMED)})(?![A-Za-z])\s?")
_ESCAPED = re.compile(r"(?<!\\)\\\\begin")
_ROW_SPACE = re.compile(r"\\\\\s?\[[^\]]{0,12}\]")
_DOLLAR = re.compile(r"(?<!\\)\$")
_LISTED = re.compile(r"(?<=[0-9]), (?=[0-9]{3}(?![0-9]))")  # a comma and a space separate values, never thousands
_UNIT = r"((?:\\text\{[^{}]*\}(?:\s?\^\s?(?:\{-?[0-9]+\}|[0-9]))?\s?(?:\\cdot\s)?)+)"
_UNIT_FRACTION = re.compile(rf"\\frac\s?(\{{)?{_UNIT}(?(1)\}}) ?(\{{)?{_UNIT}(?(3)\}})")
_BUILDER = re.compile(r"\\\{\s?[A-Za-z]\s?(?:\\in\s?\\mathbb\{R\}\s?)?(?:\||:|\\mid(?![A-Za-z]))")
_BASED = re.compile(r"(?<![A-Za-z0-9)}])\(([0-9]+)\)(?=\s?_)")
_WHITE = re.compile(r"\s+")
_DROP_SPACE = re.compile(r"(?<![0-9A-Za-z]) | (?![0-9A-Za-z])")
_DEGREE = re.compile(r"\^\s?(?:\{\s?\\circ\s?\}|\\circ(?![A-Za-z]))|\\(?:text)?degree(?![A-Za-z])|\\deg(?![A-Za-z])")
_PRIME = re.compile(r"\^\s?(?:\{\s?\\prime\s?\}|\\prime(?![A-Za-z]))|\\prime(?![A-Za-z])")
_COMPARED = re.compile(r"<\s?=|>\s?=|(?<=[A-Za-z])\s?!\s?=")  # x != 3, where 5! = 120 is a factorial
_INVISIBLE = re.compile("[\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufe00-\ufe0f\ufeff]")
_SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱ"
_SUBSCRIPTS = "₀₁₂₃₄₅₆₇₈₉₊₋₍₎"
_RAISED = re.compile(f"[{_SUPERSCRIPTS}]+")
_LOWERED = re.compile(f"[{_SUBSCRIPTS}]+")
_VULGAR = re.compile("[¼-¾⅐-⅞]")
_ROOT = re.compile(
    r"√\s*([0-9]+(?:\.[0-9]+)?)"
)  # the root of the whole number, unlike \sqrt12, which is the root of 1 times 2
_SCRIPT_DIGITS = str.maketrans(_SUPERSCRIPTS + _SUBSCRIPTS, "0123456789+-()ni0123456789+-()")
_UNICODE = str.maketrans(
    {
        "−": "-",
        "–": "-",
        "‒": "-",
        "‐": "-",
        "‑": "-",
        "﹣": "-",
        "－": "-",
        "×": r"\times ",
        "·": r"\cdot ",
        "÷": r"\div ",
        "π": r"\pi ",
        "∞": r"\infty ",
        "≤": r"\le ",
        "≥": r"\ge ",
        "≠": r"\ne ",
        "∪": r"\cup ",
        "∩": r"\cap ",
        "⩽": r"\le ",
        "⩾": r"\ge ",
        "∈": r"\in ",
        "±": r"\pm ",
        "∓": r"\mp ",
        "⋅": r"\cdot ",
        "∙": r"\cdot ",
        "√": r"\sqrt ",
        "θ": r"\theta ",
        "α": r"\alpha ",
        "β": r"\beta ",
        "γ": r"\gamma ",
        "λ": r"\lambda ",
        "φ": r"\phi ",
        "ω": r"\omega ",
        "∅": r"\emptyset ",
        "′": "'",
        "’": "'",
        "°": r"^\circ ",
        "∘": r"\circ ",
        "≈": r"\approx ",
        "ℝ": r"\mathbb{R}",
        "€": r"\euro ",
        "£": r"\pounds ",
        "¥": r"\yen ",
        "⟨": r"\langle ",
        "⟩": r"\rangle ",
        "∠": r"\angle ",
        "⁄": "/",
        "∕": "/",
        "⌊": r"\lfloor ",
        "⌋": r"\rfloor ",
        "⌈": r"\lceil ",
        "⌉": r"\rceil ",
        "∖": r"\setminus ",
        "∣": "|",
        "≡": r"\equiv ",
        "△": r"\triangle ",
        "µ": "μ",
        "“": '"',
        "”": '"',
    }
)


def _vulgar(match: re.Match) -> str:
    above, _, below = unicodedata.normalize("NFKC", match.group()).partition("\u2044")
    return rf"\frac{{{above}}}{{{below}}}"


def to_ascii(text: str) -> str:
    """Convert Unicode signs to LaTeX, apply NFKC (full-width digits, thin spaces) and remove invisible characters."""
    text = _INVISIBLE.sub("", text)
    text = _RAISED.sub(lambda match: f"^{{{match.group().translate(_SCRIPT_DIGITS)}}}", text)
    text = _LOWERED.sub(lambda match: f"_{{{match.group().translate(_SCRIPT_DIGITS)}}}", text)
    text = _ROOT.sub(r"\\sqrt{\1}", text)
    text = _VULGAR.sub(_vulgar, text).translate(_UNICODE)
    return unicodedata.normalize("NFKC", text)


def strip_wrappers(text: str) -> str:
    """Return ``text`` without surrounding math delimiters and trailing punctuation."""
    text = text.strip()
    for opening, closing in (("\\(", "\\)"), ("\\[", "\\]")):
        if text.startswith(opening) and text.endswith(closing):
            text = text[2:-2].strip()
    text = text.rstrip("\\ ")  # a space command, or a line break, at the end
    if text.endswith((".", ",", ";")) and not text[:-1].endswith((".", "\\", ",")):
        text = text[:-1].rstrip()
    return text


def normalize(text: str) -> str:
    """Return the normalised spelling of an answer. Not necessarily idempotent."""
    if not text.isascii():
        text = to_ascii(text)
    if "$" in text:
        text = _DOLLAR.sub(" ", text)
    text = strip_wrappers(text)
    if "\\" in text or "{" in text:
        text = _normalize_commands(text)
    text = _LEAD.sub(r"\1", text)
    if "=" in text:
        text = _COMPARED.sub(lambda match: {"<": r"\le ", ">": r"\ge "}.get(match.group()[0], r"\ne "), text)
    if "_" in text:
        text = _BASED.sub(r"\1", text)  # (1010)_2
    if " " in text or "\n" in text or "\t" in text:
        text = _WHITE.sub(" ", text.strip())
        text = _GROUPED.sub(lambda match: match.group().replace(" ", ""), text)
        text = _DROP_SPACE.sub("", _LISTED.sub(";", text))
    return text


def _normalize_commands(text: str) -> str:
    if "\\\\" in text:
        # Outside a matrix a doubled backslash is an escaped single one (as in is_equiv).
        if "\\begin" not in text or _ESCAPED.search(text):
            text = text.replace("\\\\", "\\")
        text = _ROW_SPACE.sub(r"\\\\ ", text)
    text = _SPACED_THOUSANDS.sub("", text.replace("{:}", ":"))
    text = _PRIME.sub("'", _DEGREE.sub(r"^\\circ ", text))
    text = _TO_TEXT.sub(r"\\text", text)
    text = _LONE_STYLE.sub(lambda match: rf"\{'mathbb' if match[1] == 'mathbb' else 'text'}{{{match[2]}}}", text)
    text = _SPACES.sub(" ", _STYLES.sub(" ", text))
    text = _RENAMES.sub(lambda match: _RENAMED[match[1]], text)
    if "\\frac" in text and "\\text" in text:
        text = _UNIT_FRACTION.sub(r"\2/\4", text)  # 60 km over h
    return _BUILDER.sub(r"\\{\\mid ", text)  # {x | x > 3} is its condition

"""Verdicts on two bare answers and on whole responses, and a reward function for TRL.

The tiers, cheapest first, are identity, plain numbers, words and times, and parsed answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from typing import NamedTuple

from .compare import AGREE, DIFFERENT, EQUAL, UNDECIDED, Comparison, Outcome, exactly_equal, take_marks
from .extraction import find_box
from .kinds import choice, chosen, clock_time, is_certain_time, is_words, plain_text, words
from .limits import MAX_CHARACTERS, Unreadable
from .normalize import TEXT, normalize
from .parser import parse
from .tokens import SETS_IN_WORDS
from .trees import Tree, each, letters, subtrees

#: Number of characters at the end of the question in which we search for an echo.
MAX_QUESTION = 4_000

_PLAIN = re.compile(r"(-?)(?:([0-9]+)|([0-9]*\.[0-9]+)|\\frac\{(-?[0-9]+)\}\{([0-9]+)\}|([0-9]+)/([0-9]+))")
_COMMA_GROUPS = re.compile(r"(?<![0-9.,])[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9,])")
_OPENERS = re.compile(r"\\\{|[(\[]")
_CLOSERS = re.compile(r"\\\}|[)\]]")


class Judgement(NamedTuple):
    """The ``decision``, the ``tier`` that decided, the reason ``why``, and the ``work`` in units."""

    decision: Outcome
    tier: str
    why: str
    work: int = 0

    @property
    def equal(self) -> bool:
        """Whether the answer is rewarded: proven equal, or agreeing at several points."""
        return self.decision <= AGREE

    @property
    def outcome(self) -> str:
        """``proven equal``, ``agree``, ``undecided`` or ``proven different``."""
        return self.decision.label


class Verdict(NamedTuple):
    """The verdict on a response.

    Attributes:
        correct: whether the response is rewarded.
        answer: the content of the last box, None if there is no answer.
        reason: the reason for the verdict.
        tier: the tier that decided.
        work: units of work, see ``limits``.
        outcome: ``proven equal``, ``agree``, ``undecided`` or ``proven different``.
    """

    correct: bool
    answer: str | None
    reason: str
    tier: str = "extraction"
    work: int = 0
    outcome: str = "proven different"


# -- two bare answers -------------------------------------------------------------------------------------------------


def plain_number(text: str) -> int | Fraction | None:
    """Return the value of a plain integer, decimal or fraction of integers, None for anything else."""
    match = _PLAIN.fullmatch(text)
    if match is None:
        return None
    sign, whole, decimal, above, below, left, right = match.groups()
    if whole is not None:
        value = int(whole)
    elif decimal is not None:
        value = Fraction(decimal)
    else:
        if not int(below or right):
            return None
        value = Fraction(int(above or left), int(below or right))
    return -value if sign else value


def judge(predicted: str, truth: str) -> Judgement:
    """Judge a bare answer against a bare ground truth. Never raises on text."""
    try:
        return _judge(predicted, truth)
    except Exception as error:  # a bug of the verifier must not end a training run
        return Judgement(UNDECIDED, "unreadable", f"the comparison failed: {type(error).__name__}: {error}")


def _judge(predicted: str, truth: str) -> Judgement:
    if predicted == truth and truth.strip():
        return Judgement(EQUAL, "identity", "the same text")
    if len(predicted) > MAX_CHARACTERS or len(truth) > MAX_CHARACTERS:
        same = predicted.strip() == truth.strip() != ""
        return Judgement(
            EQUAL if same else UNDECIDED, "identity", "the same text" if same else f"longer than {MAX_CHARACTERS} characters"
        )
    left, right = normalize(predicted), normalize(truth)
    if not left or not right:
        return Judgement(DIFFERENT, "identity", "one of the answers is empty")
    if left == right:
        return Judgement(EQUAL, "identity", "the same after normalisation")
    if max(len(left), len(right)) > 2 * MAX_CHARACTERS:
        return Judgement(UNDECIDED, "identity", f"longer than {MAX_CHARACTERS} characters")
    a, b = plain_number(left), plain_number(right)
    if a is not None and b is not None:
        if a == b:
            return Judgement(EQUAL, "number", "the same number")
        return Judgement(DIFFERENT, "number", _numbers_differ(left, right, a, b))
    return _judge_words(left, right) or _judge_parsed(left, right)


def _judge_words(left: str, right: str) -> Judgement | None:
    """Judge choices, times of day and words. Return None if both answers are mathematics."""
    letter = choice(right)
    if letter and (found := chosen(left) or _named_letter(left)):
        equal = found == letter
        return Judgement(EQUAL if equal else DIFFERENT, "text", f"the choice {'is' if equal else 'is not'} {letter}")
    if (found := chosen(left)) and not choice(left) and found not in right:  # (D) 0 is not 0, although D times 0 is
        return Judgement(DIFFERENT, "text", f"the choice {found} with its value is not {plain_text(right)}")
    times = clock_time(left), clock_time(right)
    pairs = zip((left, right), times, strict=True)
    if any(times) and (all(times) or any(is_certain_time(text) for text, time in pairs if time)):
        equal = times[0] == times[1]
        return Judgement(
            EQUAL if equal else DIFFERENT,
            "text",
            "the same time" if equal else f"{plain_text(left)} is not the time {plain_text(right)}",
        )
    if left.isalpha() or right.isalpha():  # \text{AB} for AB, which is then not a product
        contents = {match[1].strip() if (match := TEXT.fullmatch(text)) else text for text in (left, right)}
        if len(contents) == 1:
            return Judgement(EQUAL, "text", "the same letters")
    in_words = [is_words(text) and plain_text(text).lower() not in SETS_IN_WORDS for text in (left, right)]
    if not any(in_words):
        return None
    equal = words(left) == words(right)
    return Judgement(
        EQUAL if equal else DIFFERENT,
        "text",
        "the same words" if equal else f"the words {plain_text(left)!r} are not {plain_text(right)!r}",
    )


def _named_letter(text: str) -> str:
    """Return the value of an answer such as ``x = A`` if it is one letter, else a text that is not a letter."""
    try:
        marked = take_marks(readings(text)[0])
    except (Unreadable, RecursionError):
        return "unreadable"
    value, *more = marked.values
    hedged = more or marked.name and marked.name[0] == "sym" and choice(marked.name[1])  # B = A
    return value[1] if value[0] == "sym" and not (hedged or marked.unit or marked.modulus) else "no letter"


def readings(text: str) -> list[Tree]:
    """Return the trees of a normalised answer. ``1,234`` outside brackets gives two: a number, then a list.

    Raises Unreadable if the answer cannot be parsed.
    """
    joined = _join_thousands(text) if "," in text else text
    trees = [parse(joined)]
    if joined != text:
        trees.append(parse(text))
    return trees


def _join_thousands(text: str) -> str:
    pieces, depth, start = [], 0, 0
    for match in _COMMA_GROUPS.finditer(text):
        between = text[start : match.start()]
        depth += len(_OPENERS.findall(between)) - len(_CLOSERS.findall(between))
        pieces += [between, match.group() if depth > 0 else match.group().replace(",", "")]
        start = match.end()
    return "".join(pieces) + text[start:]


def _judge_parsed(left: str, right: str) -> Judgement:
    comparison = Comparison()
    try:
        goals = readings(right)
    except (Unreadable, RecursionError) as error:
        return Judgement(UNDECIDED, "unreadable", f"the ground truth can only be compared as text: {error}")
    try:
        found = readings(left)
        outcome = comparison.same(found[0], goals[0])
        if not outcome.rewarded and len(found) + len(goals) > 2:
            outcome = min(outcome, comparison.same(found[-1], goals[-1]))
    except (Unreadable, ArithmeticError, RecursionError) as error:
        return Judgement(UNDECIDED, "unreadable", f"the boxed answer cannot be read: {error}", comparison.budget.spent)
    why = {EQUAL: "equal in value", AGREE: "equal in value: they agree at several points"}.get(outcome)
    return Judgement(
        outcome, comparison.tier, why or f"boxed {left}, ground truth {right}: {comparison.why}", comparison.budget.spent
    )


def _numbers_differ(left: str, right: str, a: int | Fraction, b: int | Fraction) -> str:
    if a == -b:
        cause = "the sign differs"
    elif "." in left and abs(a - b) <= Fraction(1, 2 * 10 ** len(left.partition(".")[2])):
        cause = "a rounded decimal is not the exact value"
    else:
        cause = "different numbers"
    return f"boxed {left}, ground truth {right}: {cause}"


def answers_match(predicted: str, ground_truth: str) -> bool:
    """Return whether a bare answer (without a box) equals a bare ground truth. Never raises on text."""
    return judge(predicted, ground_truth).decision <= AGREE


def readable(ground_truth: str) -> str | None:
    """Return None if the ground truth can be parsed, else the reason why it can only be compared as text."""
    try:
        text = normalize(ground_truth) if len(ground_truth) <= MAX_CHARACTERS else ""
        if not text:
            return "it is empty" if not ground_truth.strip() else f"it is longer than {MAX_CHARACTERS} characters"
        if plain_number(text) is None and not (choice(text) or clock_time(text) or is_words(text)):
            readings(text)
    except Exception as error:
        return str(error) or type(error).__name__
    return None


def expressions_equal(lhs: str, rhs: str) -> bool:
    """Return whether two LaTeX expressions are equal without conventions: 30% is 3/10, a unit counts. Never raises."""
    if max(len(lhs), len(rhs)) > MAX_CHARACTERS:
        return False
    try:
        return exactly_equal(Comparison(), parse(normalize(lhs)), parse(normalize(rhs))).rewarded
    except Exception:
        return False


# -- echoes -----------------------------------------------------------------------------------------------------------

_FORMULA = re.compile(r"\$\$?([^$]+)\$\$?|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_RUN = re.compile(r"(?:\\(?!\w*text)[A-Za-z]+|[0-9.]+|[-+*/^=!|(){}\[\],<>%]|(?<![A-Za-z])[A-Za-z](?![A-Za-z])|\s)+")


def is_echo(answer: str, question: str) -> bool:
    """Return whether the answer is an unevaluated computation copied from the question.

    Compares expression trees without brackets, names and neutral terms: ``(2+3)``, ``x = 2+3`` and ``1 \\cdot (2+3)`` all
    echo ``2+3``, but ``x+1`` does not echo ``x+10``.
    """
    try:
        # One result in a chain is enough: ``4+7=11`` and ``11=4+7`` are evaluated.
        values = [stripped(value) for value in take_marks(readings(normalize(answer))[0]).values]
        if not all(map(is_undone, values)):
            return False
        return any(part in values for tree in formulas(question[-MAX_QUESTION:]) for part in subtrees(tree))
    except Exception:  # an answer that cannot be read is not a copy of a formula
        return False


def formulas(question: str) -> Iterator[Tree]:
    """Yield the stripped trees of all formulas in a question, with or without dollars."""
    pieces = [next(filter(None, match.groups())) for match in _FORMULA.finditer(question)]
    pieces += [run for run in _RUN.findall(_FORMULA.sub(" # ", question)) if any(c in run for c in "0123456789\\^+=")]
    for piece in pieces:
        with suppress(Exception):
            yield stripped(readings(normalize(piece.strip(" .,?\n")))[0])


def stripped(tree: Tree) -> Tree:
    """Return the tree with nested sums and products flattened, without units and neutral terms."""
    kind = tree[0]
    if kind in ("unit", "label", "pmod", "pct"):
        return stripped(tree[1]) if kind != "pct" else ("pct", stripped(tree[1]))
    if kind in ("add", "mul"):
        terms: list[Tree] = []
        for part in (stripped(part) for part in (tree[1] if kind == "add" else tree[1:])):
            terms += part[1] if part[0] == kind else [part]
        neutral = ("num", 0 if kind == "add" else 1)
        terms = [term for term in terms if term != neutral] or [neutral]
        if not letters(tree):  # 3 + 2 copies 2 + 3
            terms.sort(key=repr)
        return terms[0] if len(terms) == 1 else (kind, tuple(terms))
    if kind in ("div", "pow") and tree[2] == ("num", 1):
        return stripped(tree[1])
    if kind == "neg" and tree[1][0] == "neg":
        return stripped(tree[1][1])
    if kind in ("group", "set") and len(tree[-1]) == 1:
        return stripped(tree[-1][0])
    if kind == "fn" and tree[1] == "abs" and not letters(tree) and is_undone(inside := stripped(tree[2][0])):
        return inside
    return each(tree, stripped)


def is_undone(tree: Tree) -> bool:
    r"""Return whether a stripped tree is a computation, not a result such as ``\frac12``, ``3\sqrt2`` or ``2\pi``."""
    kind = tree[0]
    if kind in ("num", "sym", "const", "text", "based"):
        return False
    if kind in ("neg", "pct", "deg"):
        return is_undone(tree[1])
    if kind == "div" and tree[2][0] == "num" and tree[1][0] != "num":
        return is_undone(tree[1])
    if kind == "div" and tree[1][0] == tree[2][0] == "num":
        below = tree[2][1]
        return (
            below == 0 or Fraction(tree[1][1]) / below != tree[1][1]
            if isinstance(tree[1][1], Fraction)
            else (below == 0 or (Fraction(tree[1][1]) / below).denominator != below)
        )
    if kind == "fn" and tree[1] == "root" and tree[2][0][0] == "num" and tree[2][1] == ("num", 2):
        radicand = tree[2][0][1]
        return not isinstance(radicand, int) or any(radicand % (d * d) == 0 for d in range(2, 60))
    if kind == "mul" and len(tree[1]) == 2 and tree[1][0][0] == "num" and tree[1][1][0] in ("const", "fn"):
        return is_undone(tree[1][1])
    if kind in ("group", "set", "list"):
        return any(is_undone(item) for item in tree[3 if kind == "group" else 1])
    return True


# -- responses and rewards --------------------------------------------------------------------------------------------


def verify(response: str, ground_truth: str, question: str | None = None) -> Verdict:
    """Judge a whole response by the last box in it. Never raises on text.

    Args:
        response: the text of the response.
        ground_truth: the bare answer, without a box.
        question: the text of the problem. If given, an expression copied from it is not an answer, even if it equals the
            answer (``\\boxed{2 + 3}`` does not answer "Compute $2 + 3$").
    """
    box = find_box(response)
    if box.answer is None:
        return Verdict(False, None, f"no answer: {box.problem}")
    judgement = judge(box.answer, ground_truth)
    if question and judgement.equal and judgement.tier != "identity" and is_echo(box.answer, question):
        return Verdict(False, box.answer, "the box only repeats an expression of the question", "echo")
    return Verdict(judgement.equal, box.answer, judgement.why, judgement.tier, judgement.work, judgement.outcome)


def completion_text(completion) -> str:
    """Return the text of a plain completion, or of the last message of a chat completion."""
    if isinstance(completion, str):
        return completion
    message = completion[-1] if isinstance(completion, list) and completion else completion
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, list):
        content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def make_boxed_reward(value: float = 1.0, name: str = "boxed_reward", unreadable: float | None = 0.0, verdict_on=verify):
    """Return a TRL reward function that gives ``value`` for a correct box and 0.0 for anything else.

    Args:
        value: the reward of a correct response. Tulu 3 used 10.0 (open-instruct, ``verification_reward``). With group
            scaling the advantages are the same.
        name: the function's name. TRL uses it in its metrics (``rewards/boxed_reward/mean``).
        unreadable: the reward of an incorrect response if the ground truth can only be compared as text. With None, TRL
            leaves these rows out of the loss.
        verdict_on: the function that judges, with the arguments of :func:`verify`. Runs pass a cached one.
    """

    def reward(completions, ground_truth, **columns) -> list[float | None]:
        """Return ``value`` if the last box equals the ground truth, 0.0 if not, None for rows without a ground truth.

        Args:
            completions: texts or chat messages, one per ground truth.
            ground_truth: bare answers. None or an empty text marks a row without one.
            **columns: the other columns of the data set. ``problem``, if present, is used to reject echoes.
        """
        problems = columns.get("problem") or [None] * len(completions)
        return [
            _score(completion, truth, problem, value, unreadable, verdict_on)
            for completion, truth, problem in zip(completions, ground_truth, problems, strict=True)
        ]

    reward.__name__ = reward.__qualname__ = name
    return reward


def _score(completion, truth, problem, value: float, unreadable: float | None, verdict_on) -> float | None:
    if truth is None or not str(truth).strip():
        return None
    question = problem if isinstance(problem, str) else None
    if verdict_on(completion_text(completion), str(truth), question).correct:
        return value
    return unreadable if unreadable != 0.0 and readable(str(truth)) else 0.0


boxed_reward = make_boxed_reward()

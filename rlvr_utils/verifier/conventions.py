"""The verifier's conventions, as documentation and test cases. No other module uses this table.

The table lists decisions on answers that some readers consider equal and others do not.

The default is the practice of MATH, whose ground truths the course uses. If MATH's string comparison would reject an equal
value (``0.5`` for ``1/2``) or accept a different one, the value decides.
"""

from __future__ import annotations

from typing import NamedTuple


class Rule(NamedTuple):
    """One convention: the case, the decision, an accepted and a rejected (answer, ground truth) pair, and the source.

    ``problem`` is the text of the problem, if the decision depends on it.
    """

    question: str
    decision: str
    accepted: tuple[str, str]
    refused: tuple[str, str]
    source: str
    problem: str | None = None


CONVENTIONS = (
    Rule(
        "decimal against exact value",
        "equal only if the decimal is exact, a rounded decimal is wrong",
        ("0.25", r"\frac{1}{4}"),
        ("0.33", r"\frac{1}{3}"),
        "the value",
    ),
    Rule(
        "fraction not reduced, computation not done",
        "equal values are equal (but see 'echo of the question')",
        (r"\frac{6}{8}", r"\frac{3}{4}"),
        (r"\frac{6}{9}", r"\frac{3}{4}"),
        "the value (prm800k rejects it)",
    ),
    Rule(
        "echo of the question",
        "rejected if the verifier gets the question, unless the copy is the ground truth word for word",
        ("14", "14"),
        (r"2 + 3 \cdot 4", "14"),
        "this course",
        problem=r"Evaluate $2 + 3 \cdot 4$.",
    ),
    Rule(
        "percent against number",
        "the sign may be dropped or converted: 30% is 30 and 0.3, but 0.5% is not a bare 0.5",
        (r"30\%", "30"),
        (r"0.5\%", "0.5"),
        "MATH is_equiv, the value",
    ),
    Rule(
        "unit against bare number",
        "a unit on one side only is dropped",
        (r"25\text{ ft}", "25"),
        (r"24\text{ ft}", "25"),
        "MATH is_equiv",
    ),
    Rule(
        "two different units",
        "different, and units are not converted",
        (r"25\text{ feet}", r"25\text{ ft}"),
        (r"5\text{ cm}", r"5\text{ ft}"),
        "the value",
    ),
    Rule(
        "word after a value",
        "dropped if it is a listed unit or counted thing, any other word makes the answers different",
        (r"18\text{ ways}", "18"),
        (r"5\text{ guess}", "5"),
        "this course",
    ),
    Rule(
        "prefix and exponent of a unit",
        "they matter, plural and spelling do not",
        (r"7\text{ miles per hour}", r"7\text{ mph}"),
        (r"5\text{ s}^{-1}", r"5\text{ s}^{-2}"),
        "the value",
    ),
    Rule(
        "modulus",
        "a modulus on one side only is dropped, two moduli must agree",
        (r"5 \pmod 7", "5"),
        (r"5\pmod{12}", r"5\pmod 7"),
        "the value",
    ),
    Rule(
        "remainder",
        "a sum beside \\bmod, or a product after it, needs brackets",
        (r"(7+10)\bmod 5", "2"),
        (r"7\bmod 10-5", "2"),
        "its precedence is not agreed on",
    ),
    Rule(
        "currency",
        "the sign is dropped, thousands separators are accepted",
        (r"\$15,\!000", "15000"),
        (r"\$15", "15000"),
        "MATH is_equiv",
    ),
    Rule(
        "degrees",
        "the sign is dropped, an angle in radians must be the same angle",
        (r"30^\circ", "30"),
        (r"30^\circ", r"\frac{\pi}{3}"),
        "MATH is_equiv, the value",
    ),
    Rule(
        "commas in numbers",
        "1,234 outside brackets is a number, and a list if the ground truth is a list",
        ("1,234", "1234"),
        ("(1,234)", "1234"),
        "prm800k, inspect_ai",
    ),
    Rule(
        "name before the value",
        "x = 5 equals 5, but another name or an expression before the sign does not",
        ("x = 5", "5"),
        ("n = 3k", "3"),
        "MATH is_equiv, Minerva",
    ),
    Rule(
        "chain of equalities",
        "every member must be correct, the part after an approximation sign is ignored",
        (r"x = \frac{4}{2} = 2", "2"),
        ("x = 1 + 1 = 5", "5"),
        "the value",
    ),
    Rule(
        "equations",
        "equal if one is a constant times the other",
        ("y = 2x + 3", "2x - y + 3 = 0"),
        ("x + y = 5", "5"),
        "Math-Verify",
    ),
    Rule("order of a tuple", "it matters", ("(1, 2)", "(1,2)"), ("(2,1)", "(1,2)"), "MATH is_equiv"),
    Rule(
        "order of a list or a set",
        "it does not matter, but no value may be missing, added or repeated",
        ("1,-2", "-2,1"),
        ("1,-2,3", "-2,1"),
        "the meaning of several solutions",
    ),
    Rule("list against tuple", "a list of values is not a point", (r"\{1,2\}", "1,2"), ("(1,2)", "1,2"), "MATH is_equiv"),
    Rule(
        "column vector, named coordinates against tuple",
        "the same point, the names give the order, also for a list without names",
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", "(1,2)"),
        ("y = 1, x = 2", "(1,2)"),
        "this course",
    ),
    Rule("open against closed ends", "they differ", ("[0, 1)", "[0,1)"), ("(0,1)", "[0,1)"), "MATH is_equiv"),
    Rule(
        "inequality against interval",
        "the same set of solutions is the same answer",
        (r"-2 \le x < 7", "[-2,7)"),
        ("-2 < x < 7", "[-2,7)"),
        "Math-Verify",
    ),
    Rule(
        '"and" against "or"',
        "they are different, a comma matches both",
        (r"x>1 \text{ and } x<3", "(1,3)"),
        (r"x>1 \text{ or } x<3", r"x>1 \text{ and } x<3"),
        "the value",
    ),
    Rule("plus-minus", "it means both values", (r"1 \pm \sqrt{2}", r"1+\sqrt2, 1-\sqrt2"), (r"\pm 3", "3"), "Math-Verify"),
    Rule(
        "numbers in another base",
        "digits and base must both be present and agree",
        (r"2516_{8}", "2516_8"),
        ("2516", "2516_8"),
        "MATH is_equiv",
    ),
    Rule(
        "times of day",
        "hour, minute and half of the day must agree",
        ("9:00 a.m.", r"9\text{ a.m.}"),
        (r"9\text{ p.m.}", r"9\text{ a.m.}"),
        "the value",
    ),
    Rule(
        "time against ratio",
        "two answers with minutes are times, a leading zero marks a time",
        ("2:4:6", "1:2:3"),
        ("1:15", "2:30"),
        "this course",
    ),
    Rule("ratios", "a ratio is its quotient", ("2:4", "1:2"), ("2:1", "1:2"), "the value"),
    Rule(
        "mixed numbers",
        "a whole number before a proper fraction is a sum",
        (r"3\frac{1}{2}", r"\frac{7}{2}"),
        ("31/2", r"3\frac12"),
        "MATH, prm800k",
    ),
    Rule(
        "choice letters",
        "brackets and typeface do not matter, the letter must be correct",
        (r"\text{(A)}", "A"),
        (r"\text{(A) or (B)}", "A"),
        "MATH",
    ),
    Rule(
        "choice letter with its value",
        "the letter decides if the ground truth is a letter",
        (r"\textbf{(B)} 12", "B"),
        ("A line", "A"),
        "MATH",
    ),
    Rule(
        "function without brackets",
        "its argument ends at + - = , / and at another function",
        (r"\ln x/x", r"\frac{\ln x}{x}"),
        (r"\sin x/\cos x", r"\sin(x/\cos x)"),
        "the usual reading",
    ),
    Rule("square brackets around one value", "they group", ("[x+1]^2", "(x+1)^2"), ("[4,5]", "4"), "the usual reading"),
    Rule(
        "doubled backslash outside a matrix",
        "one backslash",
        (r"\\frac49", r"\frac49"),
        (r"\\frac49", r"\frac94"),
        "MATH is_equiv",
    ),
    Rule(
        "words",
        "case and typeface do not matter, the words must agree",
        ("Odd", r"\text{odd}"),
        (r"\text{not odd}", r"\text{odd}"),
        "prm800k",
    ),
    Rule(
        "symbolic form",
        "equal if the values agree wherever both are real",
        ("(x+1)^2", "x^2+2x+1"),
        ("x", r"\sqrt{x^2}"),
        "Math-Verify",
    ),
    Rule(
        "agreement at points",
        "expressions that cannot be compared exactly must agree at several points to high precision",
        (r"2\sin x\cos x", r"\sin 2x"),
        (r"\sqrt2 + e^{-1000}", r"\sqrt2"),
        "this course",
    ),
    Rule(
        "smaller domain",
        "compared where both are real, undecided if either has a kink",
        (r"2\ln x", r"\ln x^2"),
        (r"|x| + 0\cdot\ln x", "x"),
        "this course",
    ),
    Rule(
        "no value",
        "a division by zero, infinity minus infinity and 0^0 never equal any answer",
        (r"\infty", r"\infty"),
        (r"\infty - \infty", "0"),
        "this course",
    ),
    Rule(
        "ground truth that cannot be read",
        "compared only as text after normalisation",
        (r"\int_0^1 f", r"\int_0^1 f"),
        ("5", r"\int_0^5 dx"),
        "this course",
    ),
    Rule(
        "size",
        "longer than 1,000 characters or over the work budget: compared only as text",
        ("2^{100}", "2^{100}"),
        ("(10^8)!", "1"),
        "this course",
    ),
)


def conventions_table() -> str:
    """Return the conventions as a Markdown table."""
    lines = ["| case | decision | equal | not equal | source |", "|---|---|---|---|---|"]
    for rule in CONVENTIONS:
        pairs = (
            "`{}` for `{}`".format(*(part.replace("|", "\\|") for part in pair)) for pair in (rule.accepted, rule.refused)
        )
        lines.append(f"| {rule.question} | {rule.decision} | {' | '.join(pairs)} | {rule.source} |")
    return "\n".join(lines)

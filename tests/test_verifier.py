"""The verifier on labelled verdicts, its conventions, and the ground truths of MATH."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

from rlvr_utils import verifier
from rlvr_utils.verifier import CONVENTIONS, answers_match, boxed_reward, expressions_equal, judge, last_boxed, verify

CASES = [
    json.loads(line)
    for line in (Path(__file__).parent.parent / "data" / "verifier_cases.jsonl").read_text(encoding="utf-8").splitlines()
]


def verdict_on(case: dict) -> bool:
    if "answer" in case:
        return answers_match(case["answer"], case["ground_truth"])
    return verify(case["response"], case["ground_truth"], case.get("question")).correct


@pytest.mark.parametrize("group", sorted({case["group"] for case in CASES}))
def test_labelled_cases_are_judged_as_labelled(group):
    wrong = [
        case
        for case in CASES
        if case["group"] == group and not case.get("known_limit") and verdict_on(case) != case["correct"]
    ]
    assert not wrong, "\n".join(f"{case}" for case in wrong)


def test_known_errors_are_few_and_never_false_positives():
    limits = [case for case in CASES if case.get("known_limit")]
    assert len(limits) <= 0.02 * len(CASES)
    assert all(case["correct"] and not verdict_on(case) for case in limits), (
        "a known error that does not occur, or a false positive"
    )


def test_the_case_file_is_well_formed():
    assert len(CASES) >= 500 and all(case["why"] for case in CASES)
    assert sum(case["group"].startswith("attacks") for case in CASES) >= 60
    keys = Counter((case.get("answer"), case.get("response"), case["ground_truth"]) for case in CASES)
    assert keys.most_common(1)[0][1] == 1, f"a case is listed twice: {keys.most_common(1)}"


def test_cases_differ_in_more_than_their_numbers():
    shapes = Counter(
        "".join("0" if c.isdigit() else c for c in f"{case.get('answer')}|{case.get('response')}|{case['ground_truth']}")
        for case in CASES
    )
    shape, count = shapes.most_common(1)[0]
    assert count <= 5, f"{count} cases differ only in numbers: {shape}"


@pytest.mark.parametrize("rule", CONVENTIONS, ids=lambda rule: rule.question)
def test_every_convention_holds(rule):
    for (answer, truth), right in ((rule.accepted, True), (rule.refused, False)):
        assert verify(rf"\boxed{{{answer}}}", truth, question=rule.problem).correct == right, rule
        assert rule.problem or answers_match(answer, truth) == right, rule


def test_conventions_table_has_one_line_per_rule():
    assert len(verifier.conventions_table().splitlines()) == len(CONVENTIONS) + 2


# -- real ground truths ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def math_rows(real_data) -> list[dict]:
    return [json.loads(line) for line in (real_data / "math_test.jsonl").read_text(encoding="utf-8").splitlines()]


def test_math_ground_truths_match_themselves(math_rows):
    failures = []
    for row in math_rows:
        truth = row["answer"]
        in_sentence = verify(f"Therefore the answer is $\\boxed{{{truth}}}$, as wanted.", truth)
        in_solution = verify(row["solution"], truth)
        if not (answers_match(truth, truth) and in_sentence.correct and in_solution.correct):
            failures.append((truth, in_sentence.reason, in_solution.reason))
    assert len(math_rows) == 5000 and not failures, failures[:10]


def test_math_ground_truths_are_parsed_not_only_recognised(math_rows):
    """All ground truths are parsed, and values equal themselves times one, which the identity tier cannot decide."""
    assert sum(verifier.readable(row["answer"]) is None for row in math_rows) >= 0.98 * len(math_rows)
    truths = sorted({row["answer"] for row in math_rows})
    respelled = [truth.replace("\\frac", "\\dfrac").replace(" ", "~") + "\\cdot 1" for truth in truths]
    values = [
        (other, truth)
        for other, truth in zip(respelled, truths, strict=True)
        if not set(truth) & set(",=[{_:") and len(truth) > 1 or "\\frac" in truth
    ]
    matched = [answers_match(other, truth) for other, truth in values if "text" not in truth and "," not in truth]
    assert sum(matched) >= 0.99 * len(matched) and len(matched) > 1000


def test_a_constant_is_rewarded_only_if_it_is_the_answer(math_rows):
    guess = "123456789"
    assert not [row["answer"] for row in math_rows if answers_match(guess, row["answer"])]


def test_neighbouring_ground_truths_do_not_match(math_rows):
    truths = sorted({row["answer"] for row in math_rows})
    equal = [(a, b) for a, b in zip(truths, truths[7:], strict=False) if answers_match(a, b)]
    assert all(answers_match(b, a) for a, b in equal)
    assert len(equal) < 0.02 * len(truths), equal


# -- extraction and reasons -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\boxed{\frac{a}{b}}", r"\frac{a}{b}"),
        (r"\boxed {3} or \fbox{4}", "4"),
        (r"\boxed 12$ is it", "12"),
        (r"\boxed{\{1\}}", r"\{1\}"),
        (r"\boxed{1} \boxed{}", None),
        (r"\boxed{1} \boxed{2", None),
        ("no box", None),
        (r"\boxed{ oh \boxed{\boxed{184}$. So \boxed{90}$.", "90"),
        (r"$\boxed{\boxed{184}$.", "184"),
        (r"\boxed{1}</think>", None),
        (r"\\boxed{7}", "7"),
        (r"\boxed{a\boxed{b}}", r"a\boxed{b}"),
    ],
)
def test_last_boxed(text, expected):
    assert last_boxed(text) == expected


@pytest.mark.parametrize(
    ("response", "truth", "words"),
    [
        (r"\boxed{0.33}", r"\frac{1}{3}", "a rounded decimal is not the exact value"),
        (r"\boxed{-4}", "4", "the sign differs"),
        (r"\boxed{5}", "4", "different numbers"),
        ("I think it is 4.", "4", "there is no box"),
        (r"\boxed{", "4", "never closed"),
        (r"\boxed{}", "4", "empty"),
        (r"\boxed{(0,1)}", "[0,1)", "brackets differ"),
        (r"\boxed{5\text{ cm}}", r"5\text{ ft}", "units differ"),
        (r"\boxed{1}", "1,2", "a list"),
        (r"\boxed{1,3}", "1,2", "not among"),
        (r"\boxed{(2,1)}", "(1,2)", "numbers"),
        (r"\boxed{\frac{}{}}", "4", "cannot be read"),
        (r"\boxed{(10^8)!}", "4", "undecided"),
        (r"\boxed{4}", "4", "the same text"),
        (r"\boxed{\frac{4}{0}}", "4", "division by zero"),
    ],
)
def test_reasons_describe_the_error(response, truth, words):
    assert words in verify(response, truth).reason


# -- exact equality for steps ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "step",
    [
        r"3 \cdot 7 = 21",
        r"\frac{6}{8} = \frac{3}{4}",
        r"\sqrt{50} = 5\sqrt{2}",
        r"(x + 2)(x - 3) = x^2 - x - 6",
        r"17 \bmod 5 = 2",
        r"\binom{5}{2} = 10",
        r"5! = 120",
        r"\gcd(12, 18) = 6",
        r"\sin 30^\circ = \frac{1}{2}",
        r"2^5 = 32",
        r"|-3| = 3",
        r"30\% = \frac{30}{100}",
        r"(1,2) = (1,2)",
        r"\lfloor 7/2 \rfloor = 3",
        r"7 \div 2 = 3.5",
    ],
)
def test_steps_are_checked_exactly(step):
    lhs, rhs = step.split("=")
    assert expressions_equal(lhs, rhs)
    assert not expressions_equal(lhs, f"{rhs} + 1") and not expressions_equal(lhs, "")


@pytest.mark.parametrize(
    ("lhs", "rhs"),
    [
        (r"30\%", "30"),
        (r"5\text{ cm}", "5"),
        ("x = 5", "5"),
        ("1,2", "2,1"),
        ("0.33", r"\frac13"),
        ("5", r"\infty"),
        ("{", "{"),
        ("a" * 5000, "a" * 5000),
    ],
)
def test_steps_are_checked_without_conventions(lhs, rhs):
    assert not expressions_equal(lhs, rhs)


# -- the reward -------------------------------------------------------------------------------------------------------


def test_reward_accepts_plain_and_chat_completions():
    chat = [{"role": "assistant", "content": r"\boxed{4}"}]
    parts = [{"role": "assistant", "content": [{"type": "text", "text": r"\boxed{4}"}]}]
    assert boxed_reward([r"\boxed{4}", chat, parts, r"\boxed{5}"], ["4"] * 4, dataset=["MATH"] * 4) == [1, 1, 1, 0]


@pytest.mark.parametrize("completion", ["", None, [], [{}], [{"role": "assistant"}], 7, [[]], [{"content": None}]])
def test_reward_never_raises_and_is_zero_for_empty_completions(completion):
    assert boxed_reward([completion], ["4"]) == [0.0]


def test_reward_is_none_only_without_a_ground_truth():
    assert boxed_reward([r"\boxed{4}"] * 3, [None, "", "4"]) == [None, None, 1.0]
    assert boxed_reward([r"\boxed{4}"], [4]) == [1.0]


def test_an_unreadable_ground_truth_rewards_only_the_same_text():
    truth = r"\int_0^1 \left( f \right)"
    assert boxed_reward([rf"\boxed{{{truth}}}", r"\boxed{1}", r"\boxed{\int}", r"\boxed{}"], [truth] * 4) == [1, 0, 0, 0]


def test_reward_rejects_an_echo_if_the_problem_is_given():
    problem = ["Compute $2 + 3$."]
    assert boxed_reward([r"\boxed{2 + 3}"], ["5"], problem=problem) == [0.0]
    assert boxed_reward([r"\boxed{5}"], ["5"], problem=problem) == [1.0]


def test_reward_keeps_its_name_for_any_value():
    ten = verifier.make_boxed_reward(10.0)
    assert ten.__name__ == boxed_reward.__name__ == "boxed_reward"
    assert ten([r"\boxed{4}", r"\boxed{5}"], ["4", "4"]) == [10.0, 0.0]
    assert pickle.loads(pickle.dumps(boxed_reward)) is boxed_reward


def test_verdicts_are_the_same_in_a_thread():
    pairs = [(r"\sin^2 x + \cos^2 x", "1"), (r"\arctan 1", r"\pi/4"), ("9^{9^{9^{9}}}", "1"), (r"\sqrt{8}", r"2\sqrt2")]
    found: list = []
    threads = [threading.Thread(target=lambda: found.append([judge(*pair) for pair in pairs])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[judge(*pair) for pair in pairs]] * 4


def test_importing_the_verifier_loads_no_ml_library():
    code = (
        "import sys, rlvr_utils.verifier as v; v.answers_match('1/2', '0.5');"
        "print([m for m in ('torch', 'transformers', 'sympy', 'numpy', 'mpmath') if m in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent
    )
    assert found.stdout.strip() == "[]"


def test_a_command_inside_text_is_not_a_word():
    r"""Otherwise ``\text{30^\circ}`` would be words as a ground truth and an angle as an answer."""
    assert answers_match(r"30^\circ + 0", r"\text{30^\circ}") and answers_match(r"\text{30^\circ}", r"30^\circ + 0")
    assert not answers_match("circ", r"\text{30^\circ}")

"""The prompt is RLVR-MATH's to the character; too long ones are refused; one rule ends a response."""

from __future__ import annotations

import pytest

from rlvr_utils.problems import EXEMPLAR_TEMPLATES, exemplars, load_problems, question_of, worked_example
from rlvr_utils.problems.prompts import RLVR_MATH_EXEMPLARS, STOP, build_prompt, cut_at_stop, refuse_long_prompts
from rlvr_utils.verifier import last_boxed


def test_four_shots_are_the_messages_of_rlvr_math_character_for_character(real_data):
    import pandas as pd

    frame = pd.read_parquet(real_data / "rlvr_math_sample.parquet")
    shots = exemplars("allenai/RLVR-MATH", 4)
    for messages in frame["messages"]:
        sent = list(messages)
        assert build_prompt(question_of(sent[-1]["content"]), shots, chat=True) == sent


def test_a_plain_prompt_is_the_same_text_and_ends_where_the_answer_begins():
    shots = exemplars("allenai/RLVR-MATH", 2)
    message = build_prompt("What is $1 + 1$?", shots, chat=True)
    assert [m["role"] for m in message] == ["user"]
    assert build_prompt("What is $1 + 1$?", shots) == message[0]["content"] + "\nAnswer:"


@pytest.mark.parametrize("dataset, most", [("minimath", 8), ("allenai/RLVR-MATH", 4), ("HuggingFaceH4/MATH-500", 4)])
def test_the_number_of_exemplars_is_a_parameter_with_limits(dataset, most):
    for shots in range(most + 1):
        pairs = exemplars(dataset, shots)
        assert len(pairs) == shots
        assert build_prompt("p", pairs).count("Question: ") == shots + 1
    for shots in (-1, most + 1):
        with pytest.raises(ValueError, match=f"shots={shots} .* has {most} few-shot examples. Choose 0 to {most}"):
            exemplars(dataset, shots)


def test_minimath_exemplars_are_solved_training_problems_with_a_box():
    train = {row["problem"]: row for row in load_problems("minimath", "train")}
    pairs = exemplars("minimath", 8)
    assert [train[question]["template"] for question, _ in pairs] == list(EXEMPLAR_TEMPLATES)
    for question, answer in pairs:
        assert answer == " " + train[question]["solution"]
        assert last_boxed(answer) == train[question]["ground_truth"]


def test_the_worked_example_is_no_exemplar():
    assert worked_example()["problem"] not in dict(exemplars("minimath", 8))


def test_every_rlvr_math_exemplar_shows_a_box():
    assert [last_boxed(answer) for _, answer in RLVR_MATH_EXEMPLARS] == ["[2,5)", "24", "16", r"-\frac{2}{3}"]


def test_long_prompts_are_refused_by_name_and_none_is_cut():
    refuse_long_prompts([10, 20], ["a", "b"], limit=20)
    with pytest.raises(ValueError, match=r"2 of 3 prompts .* max_prompt_length=20: b \(21 tokens\), c \(99"):
        refuse_long_prompts([20, 21, 99], ["a", "b", "c"], limit=20)
    with pytest.raises(ValueError, match=r"5 of 5 .*p2 \(30 tokens\), \.\.\."):
        refuse_long_prompts([30] * 5, [f"p{i}" for i in range(5)], limit=20)


ANSWERED = r" The answer is $\boxed{4}$."
INVENTED = "\n\nQuestion: What is $2$?\nAnswer: " + r"It is $\boxed{2}$."


@pytest.mark.parametrize(
    "text, kept",
    [
        (ANSWERED + INVENTED, ANSWERED),
        ("a\nQuestion:", "a"),
        ("a\n\n\n\nQuestion: b\nQuestion: c", "a"),
        ("\n\nQuestion: b", ""),
        ("no end in sight\n\n", "no end in sight\n\n"),
        ("the word Question: on its own line only ends it", "the word Question: on its own line only ends it"),
        ("", ""),
    ],
)
def test_a_response_ends_where_the_next_question_begins(text, kept):
    assert cut_at_stop(text) == kept
    assert cut_at_stop(cut_at_stop(text)) == kept


def test_the_box_of_an_invented_problem_does_not_count():
    assert STOP in INVENTED and last_boxed(ANSWERED + INVENTED) == "2"
    assert last_boxed(cut_at_stop(ANSWERED + INVENTED)) == "4"

"""Problems: loading and checking their rows, judging a response step by step, and the MiniMATH generator."""

from .judging import (
    CATEGORIES,
    ROLLOUT_COLUMNS,
    check_steps,
    classify_response,
    find_steps,
    graded,
    judge_response,
    kept_verdict,
    unreadable_ground_truths,
    worked_example,
)
from .loading import (
    EXEMPLAR_TEMPLATES,
    MINIMATH,
    all_rows,
    evaluation_rows,
    exemplars,
    load_problems,
    overlap,
    overlap_sentence,
    test_data_dir,
    training_order,
    training_rows,
)
from .rows import RepairedData, math_row, question_of

__all__ = ["CATEGORIES", "EXEMPLAR_TEMPLATES", "MINIMATH", "ROLLOUT_COLUMNS", "RepairedData", "all_rows", "check_steps",
           "classify_response", "evaluation_rows", "exemplars", "find_steps", "graded", "judge_response", "kept_verdict",
           "load_problems", "math_row", "overlap", "overlap_sentence", "question_of", "test_data_dir", "training_order",
           "training_rows", "unreadable_ground_truths", "worked_example"]

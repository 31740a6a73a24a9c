"""Problems: the MiniMATH generator, loaders for MiniMATH, RLVR-MATH and MATH, and the checking of single steps."""

from .checking import (
    CATEGORIES,
    check_steps,
    classify_response,
    find_steps,
    judge_response,
    unreadable_ground_truths,
    worked_example,
)
from .exemplars import exemplars
from .generate import generate_minimath, make_row, pretraining_rows, slipped_work, solution_text, write_minimath
from .loading import (
    all_rows,
    evaluation_rows,
    load_problems,
    overlap,
    overlap_sentence,
    test_data_dir,
    training_order,
    training_rows,
)
from .rows import RepairedData, math_row, question_of
from .templates import TEMPLATES, Template

__all__ = ["CATEGORIES", "RepairedData", "TEMPLATES", "Template", "all_rows", "check_steps", "classify_response",
           "evaluation_rows", "exemplars", "find_steps", "generate_minimath", "judge_response", "load_problems",
           "make_row", "math_row", "overlap", "overlap_sentence", "pretraining_rows", "question_of", "slipped_work",
           "solution_text", "test_data_dir", "training_order", "training_rows", "unreadable_ground_truths",
           "worked_example", "write_minimath"]

"""Load and check problem rows, judge responses and their steps. ``tools/minimath.py`` generates MiniMATH."""

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
from .prompts import build_prompt, cut_at_stop
from .rows import RepairedData, math_row, question_of

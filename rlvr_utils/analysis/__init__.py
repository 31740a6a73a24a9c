"""What happened in a run, and how sure that is: from saved responses to intervals, sentences and a claims table.

``evaluation_responses`` makes one long frame of what some runs answered; everything else takes such frames.
"""

from .arms import (
    EXPERIMENT,
    MANY,
    MANY_SAMPLES,
    arm_comparison,
    arms_made,
    arms_table,
    finished_runs,
    learning_rate_grid,
    minus,
    minus_by_seed,
    prompting_alone,
)
from .categories import COGENT, category_table, classified, examples, length_change
from .claims import SMALLEST_GAP, claims_table
from .frames import (
    endpoints,
    evaluation_responses,
    evaluations_of,
    pooled_base,
    rescored,
    runs_to_analyse,
    training_curve,
)
from .projections import END_WINDOW, projection_summary, projection_table, runs_to_project, worked_projection
from .rates import (
    Comparison,
    beyond_the_base,
    by_group,
    compare,
    gain_on_solved,
    gap,
    learning_curve,
    majority_vote,
    pass_at_k_curve,
    rate,
)
from .sentences import (
    as_markdown,
    beyond_sentence,
    choices_sentence,
    cogent_sentence,
    control_sentence,
    grid_sentence,
    improved_sentence,
    learned_or_sharpened,
    length_sentence,
    lora_sentence,
    mistake_sentence,
    pass_at_k_sentence,
    percent,
    points,
    projection_gap_sentence,
    projection_sentence,
    prompting_sentence,
    readable,
    reward_is_not_accuracy,
    samples_needed_sentence,
    split_sentence,
    spread_sentence,
)
from .wandb_log import wandb_metrics

__all__ = [
    "COGENT", "Comparison", "END_WINDOW", "EXPERIMENT", "MANY", "MANY_SAMPLES", "SMALLEST_GAP", "arm_comparison",
    "arms_made", "arms_table", "as_markdown", "beyond_sentence", "beyond_the_base", "by_group", "category_table",
    "choices_sentence", "claims_table", "classified", "cogent_sentence", "compare", "control_sentence", "endpoints",
    "evaluation_responses", "evaluations_of", "examples", "finished_runs", "gain_on_solved", "gap",
    "grid_sentence", "improved_sentence", "learned_or_sharpened", "learning_curve", "learning_rate_grid", "length_change",
    "length_sentence", "lora_sentence", "majority_vote", "minus", "minus_by_seed", "mistake_sentence", "pass_at_k_curve",
    "pass_at_k_sentence", "percent", "points", "pooled_base", "projection_gap_sentence", "projection_sentence",
    "projection_summary", "projection_table", "prompting_alone", "prompting_sentence", "rate", "readable", "rescored",
    "reward_is_not_accuracy", "runs_to_analyse", "runs_to_project", "samples_needed_sentence", "split_sentence",
    "spread_sentence", "training_curve", "wandb_metrics", "worked_projection",
]

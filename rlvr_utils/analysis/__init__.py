"""What happened in a run, and how sure that is: from saved responses to intervals and sentences.

``evaluation_responses`` makes one long frame of what some runs answered; everything else takes such frames.
"""

from .categories import COGENT, category_table, classified, examples, length_change
from .frames import (
    endpoints,
    evaluation_responses,
    evaluations_of,
    pooled_base,
    rescored,
    runs_to_analyse,
    training_curve,
    wandb_metrics,
)
from .projections import END_WINDOW, fit_projection, projection_summary, projection_table, runs_to_project
from .rates import (
    RateChange,
    beyond_the_base,
    by_group,
    gain_on_solved,
    gap,
    learning_curve,
    majority_vote,
    pass_at_k_curve,
    rate,
    rate_change,
)
from .sentences import (
    as_markdown,
    as_text,
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
    reward_is_not_accuracy,
    samples_needed_sentence,
    split_sentence,
    spread_sentence,
)

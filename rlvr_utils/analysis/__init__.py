"""Analyse runs: from saved responses to rates with intervals.

``evaluation_responses`` returns one long frame with the responses of some runs. Most other functions take such frames.
"""

from rlvr_utils.stats import percent

from .categories import COGENT, category_table, classified
from .frames import (
    endpoints,
    evaluation_responses,
    evaluations_of,
    pooled_base,
    rescored,
    runs_to_analyse,
    saved_responses,
    stages,
    training_curve,
    wandb_metrics,
)
from .projections import END_WINDOW, fit_projection, projection_table
from .rates import RateChange, by_group, gap, learning_curve, majority_vote, pass_at_k_curve, rate, rate_change
from .tables import as_markdown, as_text, points, verdict

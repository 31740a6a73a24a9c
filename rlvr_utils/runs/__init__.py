"""Runs: ``disk`` (written as they go, read while they are still going) and ``tracking`` (the same rows in W&B)."""

from .disk import (
    EVALUATION_COLUMNS,
    EVALUATION_KEY,
    GROUPS_KEPT,
    PROMPTS_DRAWN,
    REFERENCE_RUNS,
    SAMPLES_DRAWN,
    DamagedRun,
    Run,
    RunWriter,
    SilentWriter,
    is_worked,
    load_run,
    newest_run,
    reference_runs,
    summarise_evaluation,
)

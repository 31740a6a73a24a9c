"""The course's exercises: property checks and a progress table.

A notebook passes the learner's own function to a check, ``exercises.check_advantages(my_advantages)``. The check calls it
on test inputs and returns a :class:`Report`: not attempted, not right yet (with the failed property, the input and the
output), or right. ``progress()`` shows the state of every exercise, which is saved in ``runs/exercises.json``.
"""

from .attempts import Report, progress
from .grpo import check_advantages, check_averages, check_clipped_term, check_logit_gradient
from .hacking import check_discovery, check_early_stopping, check_fail_closed, check_repetition
from .inside import check_clinic, check_false_step, check_importance, check_push
from .lora import check_count, check_first_gradients, check_first_step, check_memory, check_merge
from .results import check_category, check_decomposition, check_paired_bootstrap, check_pass_at_k, check_projection
from .training import check_batch, check_length_reward, check_metrics_row, check_mixed_groups, check_resume
from .variants import check_difficulty_weight, check_dynamic_batch, check_k3, check_own_advantage, check_process_reward
from .verifier import check_last_box, check_one_spelling, check_same_number, check_shotgun, check_two_numbers, check_wilson

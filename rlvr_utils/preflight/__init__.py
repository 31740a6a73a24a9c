"""Minute zero: can this run work, will it learn, and what will it cost?

``checkup`` looks at everything that can be known without loading the model, one sentence a check; ``preflight`` is what
of that stands in the way. ``trainability`` samples the base model on training problems: where no group is mixed, GRPO
has nothing to learn from, and the hour should not be rented. ``time_steps`` runs three real steps and projects hours
and cost of the whole run. ``rlvr doctor`` does all of it from the command line.
"""

from .checks import Check, checkup, longest_prompt, machine_table, preflight
from .trials import Timing, Trainability, count_evaluation_responses, time_steps, trainability

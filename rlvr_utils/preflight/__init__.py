"""Checks before a run: can it work, will it learn, and what will it cost?

``checkup`` runs all checks that need no model weights and returns one sentence per check. ``preflight`` returns the
sentences of the failed checks. ``trainability`` samples the base model on training problems. If no group contains both
correct and wrong responses, GRPO has no learning signal, so don't rent the GPU yet. ``time_steps`` runs three training
steps and projects hours and cost of the whole run. ``rlvr doctor`` does all of this from the command line.
"""

from .checks import Check, checkup, longest_prompt, machine_table, preflight
from .trials import Timing, Trainability, count_evaluation_responses, time_steps, trainability

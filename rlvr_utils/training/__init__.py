"""The training run: TRL's ``GRPOTrainer`` on the profile's model, problems and reward, recorded as it goes.

``train`` starts a run, or resumes an interrupted run in the same folder. The order of the problems is fixed for the whole
run before it starts (one shuffled epoch after the other), because TRL's sampler would replay the first epoch after a
resume. Evaluations use their own random number generator, so they leave the training's RNG state unchanged.

Read in this order: ``run`` (the steps of a run, from start to end), ``continuing`` (resuming), ``rewards``, ``build``
(TRL's trainer and its configuration), ``trl_patches`` and ``dynamic_sampling`` (where we override TRL), ``evaluation``,
``recording`` (progress, also of a run in another process), ``recovery`` (checkpoints and failures). ``supervised`` is SFT,
before RL or instead of it. ``processes`` is for several GPUs. ``own_trainer`` is a minimal GRPO that uses no other module
of this package.
"""

import os

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # rollout_func is experimental, but we test the pinned version

from .build import build_trainer, grpo_config, training_dataset
from .continuing import settings_of
from .evaluation import Part, evaluate_all, evaluate_split
from .recording import watch_run
from .recovery import is_going
from .rewards import format_reward, random_reward, reward_function
from .run import evaluate_run, export_run, load_trained, train

"""The training run: TRL's ``GRPOTrainer`` on the profile's model, problems and reward, recorded as it goes.

``train`` starts a run or, when its folder holds one that was interrupted, continues it. The order of the problems is
laid down for the whole run before it starts (one shuffled pass after the other), because TRL's sampler would replay the
first pass after a resume; evaluations draw their own random numbers, so that they do not disturb the training.

Read in this order: ``run`` (a run from its first line to its last), ``continuing`` (what the folder holds already),
``rewards``, ``build`` (TRL's trainer and its settings), ``trl_patches`` and ``dynamic_sampling`` (where we reach into
TRL), ``evaluation``, ``recording`` (progress, also of a run that another process trains), ``recovery`` (checkpoints and
failures). ``supervised`` is SFT, before RL or in its place, ``processes`` is for several GPUs. ``own_trainer`` is GRPO on a
page: it uses nothing else of this room.
"""

import os

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # rollout_func is marked experimental; our pin is tested

from .build import build_trainer, grpo_config, training_dataset
from .continuing import settings_of
from .evaluation import Part, evaluate_all, evaluate_split
from .recording import watch_run
from .recovery import is_going
from .rewards import format_reward, random_reward, reward_function
from .run import evaluate_run, export_run, load_trained, train

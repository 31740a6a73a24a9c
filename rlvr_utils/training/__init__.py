"""The training run: TRL's ``GRPOTrainer`` on the profile's model, problems and reward, recorded as it goes.

``train`` starts a run or, when its folder holds one that was interrupted, continues it. The order of the problems is
laid down for the whole run before it starts (one shuffled pass after the other), because TRL's sampler would replay the
first pass after a resume; evaluations draw their own random numbers, so that they do not disturb the training.

Read in this order: ``run`` (start, continue, finish), ``build`` (TRL's trainer and its settings), ``sharing``
(each prompt computed once), ``rewards``, ``evaluation``, ``recording``, ``checkpoints``, ``attach`` (watch a run that
another process trains).
"""

import os
import warnings

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # rollout_func is marked experimental; our pin is tested
# TRL and transformers warn each other about a renamed option: no learner can do anything about it
warnings.filterwarnings("ignore", message=".*gradient_checkpointing.* is deprecated", category=FutureWarning)

from ..problems import training_rows  # noqa: E402
from .attach import attach, is_going  # noqa: E402
from .build import build_trainer, grpo_config, training_dataset  # noqa: E402
from .evaluation import evaluate_all, evaluate_split  # noqa: E402
from .rewards import format_reward, random_reward, reward_function  # noqa: E402
from .run import evaluate_run, export_run, load_trained, settings_of, train  # noqa: E402

__all__ = ["attach", "build_trainer", "evaluate_all", "evaluate_run", "evaluate_split", "export_run",
           "format_reward", "grpo_config", "is_going", "load_trained", "random_reward",
           "reward_function", "settings_of", "train", "training_dataset", "training_rows"]

"""A custom advantage or loss function inside TRL's trainer: ``estimator="my_file.py:my_function"``.

    def my_advantage(rewards):                              # (P, G): one row per prompt, its group's rewards
        return rewards - rewards.mean(dim=1, keepdim=True)  # (P, G)

    def my_loss(logps, old_logps, advantages, mask):        # (B, T) each, advantages (B, 1)
        ratio = (logps - old_logps).exp()
        return -(ratio * advantages * mask).sum() / mask.sum()  # a scalar, to be minimised

The name of the first parameter determines which of the two it is. A missing reward is NaN, and its response always gets
advantage 0. ``old_logps`` are the log-probabilities of the policy that sampled the responses. A loss is computed per
micro-batch, and the trainer divides it by the number of micro-batches per step. Sampling, reward, optimizer and evaluation
are unchanged. Metrics such as ``clip_ratio/*`` are still those of the profile's ``loss_type``.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from trl import GRPOTrainer

from ..profiles import Profile
from ..system.paths import current_directory_last, local_path
from .recovery import RewardFailed
from .rewards import named, place

ADVANTAGE, LOSS = "advantage", "loss"
FORMS = {ADVANTAGE: "def my_advantage(rewards)", LOSS: "def my_loss(logps, old_logps, advantages, mask)"}


def own_estimator(name: str) -> Callable:
    """Import the function ``file.py:function`` or ``module:function``. A file is read again at each call.

    Raises:
        ValueError: there is no such function, or its first parameter is neither ``rewards`` nor ``logps``.
    """
    where, _, function = name.rpartition(":")
    current_directory_last(add=True)
    try:
        module = module_of_file(local_path(where)) if where.endswith(".py") else importlib.import_module(where)
        found = getattr(module, function)
    except Exception as error:  # importing a custom module may raise any error
        raise ValueError(
            f"estimator={name!r}: {named(error)}. Give file.py:function or module:function. "
            "A function defined in this notebook is __main__:function."
        ) from error
    kind_of(found, name)
    return found


def module_of_file(path: Path):
    """Import a Python file as a module, and register it in ``sys.modules`` so that ``inspect`` finds its source.

    Raises:
        FileNotFoundError: the file does not exist. Errors from the file itself pass through.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    spec = importlib.util.spec_from_file_location(f"estimator_{path.stem}", path)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def kind_of(function: Callable, name: str) -> str:
    """Return "advantage" or "loss", by the name of the first parameter.

    Raises:
        ValueError: the first parameter is neither ``rewards`` nor ``logps``.
    """
    first = next(iter(inspect.signature(function).parameters), None) if callable(function) else None
    kinds = {"rewards": ADVANTAGE, "logps": LOSS}
    if first not in kinds:
        raise ValueError(f"estimator={name!r}: first parameter is {first!r}. Define it as {' or '.join(FORMS.values())}.")
    return kinds[first]


def try_estimator(p: Profile) -> None:
    """Call the estimator once on made-up numbers, so that a broken one raises before the training starts.

    Raises:
        ValueError: the function fails, returns another shape, NaN, or a loss without gradient, or is used with ``beta`` > 0.
    """
    function = own_estimator(p.estimator)
    numbers = torch.linspace(-1.0, -0.1, 8).view(2, 4)
    if kind_of(function, p.estimator) == ADVANTAGE:
        # Mixed, all incorrect, all correct: the last two reveal a division by 0.
        own_advantages(function, p.estimator, torch.tensor([[0.0, 1.0, 0.0, 1.0], [0.0] * 4, [1.0] * 4]))
        return
    if p.beta:
        raise ValueError(f"beta={p.beta} has no effect on a custom loss. Add the KL term to your loss and set beta=0.")
    logps = numbers.clone().requires_grad_()
    own_loss(function, p.estimator, logps, numbers, torch.tensor([[1.0], [-1.0]]), torch.ones(2, 4))


def own_advantages(function: Callable, name: str, rewards: torch.Tensor) -> torch.Tensor:
    """The advantages (P * G,) of groups with ``rewards`` (P, G), 0 where a reward is missing.

    Raises:
        RewardFailed: the function raised an error, or returned another shape, NaN or infinity.
    """
    given = called(function, name, rewards.clone())
    if not torch.is_tensor(given) or given.shape != rewards.shape:
        shape = tuple(given.shape) if torch.is_tensor(given) else type(given).__name__
        raise RewardFailed(f"estimator {name!r} returned {shape} for rewards {tuple(rewards.shape)}. Return the same shape.")
    given = given.to(rewards).masked_fill(rewards.isnan(), 0.0)
    if not given.isfinite().all():
        raise RewardFailed(f"estimator {name!r} returned NaN or infinity. Add 1e-4 to the denominator.")
    return given.detach().flatten()


def own_loss(function: Callable, name: str, logps, old_logps, advantages, mask) -> torch.Tensor:
    """The loss from the custom function, a finite scalar with gradient.

    Raises:
        RewardFailed: the function raised an error, or returned something else.
    """
    loss = called(function, name, logps, old_logps, advantages, mask)
    if not torch.is_tensor(loss) or loss.ndim or not loss.requires_grad or not loss.isfinite():
        raise RewardFailed(
            f"estimator {name!r} returned {' '.join(repr(loss).split())[:80]}. "
            "Return a finite scalar tensor with a gradient through logps."
        )
    return loss


def called(function: Callable, name: str, *tensors: torch.Tensor) -> object:
    """Call the function. If it raises, raise RewardFailed with file and line."""
    try:
        return function(*tensors)
    except (Exception, SystemExit) as error:
        raise RewardFailed(f"estimator {name!r} failed{place(error)}: {named(error)}.") from error


def with_estimator(trainer_class: type, p: Profile) -> type:
    """``trainer_class`` with the profile's estimator, or the class itself if the profile has none."""
    if p.estimator is None:
        return trainer_class
    function = own_estimator(p.estimator)
    parent = {ADVANTAGE: OwnAdvantage, LOSS: OwnLoss}[kind_of(function, p.estimator)]
    return type(parent.__name__, (parent, trainer_class), {"own": (function, p.estimator)})


class OwnAdvantage:
    """Mixin that takes the advantages from a custom function.

    The trainer class must keep the ``rewards`` of all processes, as ``DynamicSampling`` does.
    """

    own: tuple[Callable, str]

    def _generate_and_score_completions(self, inputs):
        outputs = super()._generate_and_score_completions(inputs)
        advantages = own_advantages(*self.own, self.rewards.view(-1, self.num_generations))
        here = len(outputs["advantages"])
        outputs["advantages"] = advantages[self.accelerator.process_index * here :][:here]
        return outputs


class OwnLoss:
    """Mixin that takes the loss from a custom function.

    TRL's own loss is also computed for its metrics, and discarded. It computes the log-probabilities exactly once.
    """

    own: tuple[Callable, str]

    def _get_per_token_logps_and_entropies(self, *inputs, **options):
        found = super()._get_per_token_logps_and_entropies(*inputs, **options)
        self.own_logps = found[0]
        return found

    def _compute_loss(self, model, inputs):
        # Bypass NoBackwardForZeros: a custom loss may have a gradient where the advantage is 0.
        GRPOTrainer._compute_loss(self, model, inputs)
        logps, mask = self.own_logps, inputs["completion_mask"]
        old = inputs.get("old_per_token_logps")
        advantages = inputs["advantages"].unsqueeze(1)  # (B, 1)
        if "importance_sampling_ratio" in inputs:  # vLLM's probabilities differ from the trainer's
            advantages = advantages * inputs["importance_sampling_ratio"]  # (B, T)
        loss = own_loss(*self.own, logps, logps.detach() if old is None else old, advantages, mask)
        return loss / self.current_gradient_accumulation_steps

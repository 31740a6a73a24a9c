"""The reward of a run: the verifier or a control arm, and the record of what was rewarded."""

from __future__ import annotations

import functools
import importlib
import random
from collections.abc import Callable

from ..profiles import Profile
from ..runs import RunWriter
from ..verifier import boxed_reward, last_boxed, verify
from ..verifier.reward import completion_text
from .processes import gather


def reward_function(p: Profile) -> Callable[..., list[float | None]]:
    """The reward of this run: the verifier, one of the two control arms, or a function of the reader's own.

    Raises:
        ValueError: there is no such function.
    """
    ours = {"boxed": boxed_reward, "format": format_reward, "random": random_reward}
    reward = ours[p.reward] if p.reward in ours else own_reward(p.reward)

    @functools.wraps(reward)  # TRL names its metrics after the function
    def valued(completions, **columns):
        return [None if r is None else r * p.reward_value for r in reward(completions, seed=p.seed, **columns)]

    return valued


def own_reward(name: str) -> Callable[..., list[float | None]]:
    """The function behind ``module:function``; a notebook's own functions are in the module ``__main__``.

    Raises:
        ValueError: the module or the function is not there.
    """
    module, _, function = name.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"reward={name!r}: {error}. Give module:function, where the module can be imported from here; "
                         "a function defined in this notebook is __main__:function.") from error


def format_reward(completions, **columns) -> list[float]:
    """Control arm: 1 for any closed, non-empty box, right or wrong."""
    return [float(last_boxed(completion_text(c)) is not None) for c in completions]


def random_reward(completions, trainer_state=None, seed=0, **columns) -> list[float]:
    """Control arm: a fair coin for each response, the same coin when a run is resumed."""
    coin = random.Random(f"{seed}-{trainer_state.global_step if trainer_state else 0}")
    return [float(coin.random() < 0.5) for _ in completions]


def recording(reward: Callable[..., list[float | None]], writer: RunWriter, every: int):
    """``reward`` under its own name, keeping every ``every``-th step's responses in the run's folder."""

    @functools.wraps(reward)
    def recorded(prompts, completions, problem, ground_truth, problem_id, n_tokens, trainer_state, **columns):
        rewards = reward(completions, problem=problem, ground_truth=ground_truth, trainer_state=trainer_state, **columns)
        step = trainer_state.global_step + 1
        if step % every == 0 or step == 1:
            here = zip(prompts, problem, completions, ground_truth, problem_id, n_tokens, rewards, strict=True)
            writer.log_train_rollouts(train_rows(step, *zip(*gather(list(here)), strict=True)))
        return rewards

    return recorded


def train_rows(step, prompts, problems, completions, truths, ids, lengths, rewards) -> list[dict]:
    """One step's training responses in the run format."""
    rows, seen = [], {}
    columns = zip(prompts, problems, completions, truths, ids, lengths, rewards, strict=True)
    for prompt, problem, completion, truth, name, n, reward in columns:
        text = completion_text(completion)
        verdict = verify(text, truth, question=problem) if truth is not None else None
        sample = seen[name] = seen.get(name, -1) + 1
        rows.append({"step": step, "problem_id": name, "sample": sample, "prompt": prompt if sample == 0 else None,
                     "response": text, "ground_truth": truth, "reward": reward,
                     "correct": bool(verdict and verdict.correct), "reason": verdict.reason if verdict else None,
                     "n_tokens": n})
    return rows

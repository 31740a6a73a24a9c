"""The reward of a run: the verifier or a control arm, and the record of what was rewarded."""

from __future__ import annotations

import functools
import importlib
import random
from collections.abc import Callable
from types import SimpleNamespace

from ..paths import current_directory_last
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
        rewards = reward(completions, seed=p.seed, **columns)
        return [None if r is None else r * p.reward_value for r in rewards]

    return valued


def own_reward(name: str) -> Callable[..., list[float | None]]:
    """The function behind ``module:function``; a notebook's own functions are in the module ``__main__``.

    Raises:
        ValueError: the module or the function is not there.
    """
    module, _, function = name.partition(":")
    current_directory_last(add=True)  # where a reward of one's own lies
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"reward={name!r}: {error}. Give module:function, where the module can be imported from here; "
                         "a function defined in this notebook is __main__:function.") from error


def try_reward(p: Profile, chat: bool) -> None:
    """Call the run's reward once, as TRL will, on two made-up responses: one that cannot work is refused at minute zero.

    Args:
        chat: whether the model's tokenizer has a chat template; responses are lists of messages then.

    Raises:
        ValueError: it fails, or does not return a number (or None) for each response.
    """
    texts = [r"$2 + 2 = 4$. The answer is $\boxed{4}$.", "That is hard to say."]
    columns = {"problem": ["What is $2 + 2$?"] * 2, "ground_truth": ["4"] * 2, "completion_ids": [[1], [2]],
               "trainer_state": SimpleNamespace(global_step=0, max_steps=p.max_steps),
               "log_extra": lambda name, values: None, "log_metric": lambda name, value: None}
    called = f"reward={p.reward!r}, called as TRL does on two made-up responses,"
    try:
        rewards = reward_function(p)([[{"role": "assistant", "content": t}] for t in texts] if chat else texts, **columns)
    except Exception as error:  # whatever a function of the reader's own raises
        form = ", and with this model's chat template a completion is a list of messages" if chat else ""
        raise ValueError(f"{called} failed ({type(error).__name__}: {error}). It should begin like "
                         f"`def f(completions, ground_truth, **columns)`{form}.") from error
    if len(rewards) != 2 or not all(r is None or isinstance(r, (int, float)) for r in rewards):
        raise ValueError(f"{called} gave {rewards!r}: it should give a list with one number, or None, for each response.")


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

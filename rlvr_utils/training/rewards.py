"""The reward of a run (the verifier, a control arm or a custom function), and the record of rewarded responses.

A custom reward has TRL's signature, ``f(prompts, completions, **columns)``. The columns are those of the data set and those
that TRL adds (``completion_ids, trainer_state, log_extra, log_metric``). It may be ``async``.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import importlib
import inspect
import math
import random
import sys
import sysconfig
import threading
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

from ..problems import graded, kept_verdict, training_rows
from ..problems.prompts import build_prompt
from ..profiles import REWARDS, Profile
from ..runs import RunWriter
from ..system.paths import current_directory_last
from ..verifier import completion_text, last_boxed, make_boxed_reward
from .dynamic_sampling import DRAW
from .processes import gather, rank, world_size
from .recovery import RewardFailed

#: TRL passes these arguments, so columns of the data set with these names are skipped.
TRL_NAMES = (
    "prompt",
    "completion",
    "prompts",
    "completions",
    "completion_ids",
    "trainer_state",
    "log_extra",
    "log_metric",
    "environments",
    "n_tokens",
    DRAW,
)
FORM = "def f(prompts, completions, **columns)"
LARGEST = 1e15  # TRL squares rewards in float32

boxed_reward = make_boxed_reward(verdict_on=kept_verdict)  # cached, because the record needs the same verdicts again


def reward_function(p: Profile) -> Callable[..., list[float | None]]:
    """The reward function of this run: the verifier, one of the two control arms, or a custom function.

    Returns:
        A function of ``completions`` and keyword columns, as TRL calls it. It raises RewardFailed if the reward raises an
        error, or does not return a finite number (or None) per completion.

    Raises:
        ValueError: the function does not exist.
    """
    coins = functools.wraps(random_reward)(
        lambda completions, trainer_state=None, draw_number=(0,), **columns: random_reward(
            completions, trainer_state, p.seed, draw_number[0]
        )
    )
    ours = {"boxed": boxed_reward, "format": format_reward, "random": coins}
    reward = ours[p.reward] if p.reward in ours else own_reward(p.reward)

    def valued(completions, **columns):
        return checked(reward, p.reward, completions, columns, p.reward_value)

    # TRL names its metrics after the function
    valued.__name__ = valued.__qualname__ = reward.__name__ if p.reward in ours else p.reward.rpartition(":")[2]
    return valued


def own_reward(name: str) -> Callable[..., list[float | None]]:
    """Import the function ``module:function``. Functions of a notebook are in the module ``__main__``.

    Raises:
        ValueError: the module or the function does not exist, or importing the module fails.
    """
    module, _, function = name.partition(":")
    current_directory_last(add=True)  # custom rewards are files in this directory
    try:
        found = getattr(importlib.import_module(module), function)
    except Exception as error:  # importing a custom module may raise any error
        raise ValueError(
            f"reward={name!r}: {named(error)}.{hidden(module)} Give module:function with a module that can be "
            "imported from here. A function defined in this notebook is __main__:function."
        ) from error
    if not callable(found):
        raise ValueError(f"reward={name!r} is not a function but {type(found).__name__}. Define it as `{FORM}`.")
    return found


def hidden(module: str) -> str:
    """An extra sentence if a library with the same name hides a file in the current directory. Else empty."""
    mine, taken = Path(f"{module.replace('.', '/')}.py"), getattr(sys.modules.get(module), "__file__", None)
    if taken is None or not mine.is_file() or mine.resolve() == Path(taken).resolve():
        return ""
    return f" {module} is the name of a library ({taken}). Rename your {mine}."


def checked(reward: Callable, name: str, completions: Sequence, columns: Mapping, factor: float = 1.0) -> list[float | None]:
    """Call ``reward``, check the values that it returns, and multiply them by ``factor``.

    Raises:
        RewardFailed: the function raised an error, or did not return a finite number (or None) per completion. Numbers too
            large for TRL's float32 count as infinite.
    """
    state = columns.get("trainer_state")
    where = f"reward {name!r} at step {state.global_step + 1 if state else 1}"
    passed = {"completions": completions, **columns}
    if name not in REWARDS:  # a custom reward may modify its arguments, but TRL and the record need the originals
        passed = {column: copy.deepcopy(value) if isinstance(value, list) else value for column, value in passed.items()}
    try:
        given = reward(**passed)
        given = list(result_of(given) if inspect.isawaitable(given) else given)
    except (Exception, SystemExit) as error:
        raise RewardFailed(f"{where} failed{place(error)}: {named(error)}.") from error
    if len(given) != len(completions):
        raise RewardFailed(
            f"{where} returned {len(given)} values for {len(completions)} responses. "
            "Return one number (or None) per response."
        )
    rewards = [None if (number := as_number(value)) is None else number * factor for value in given]
    bad = next((n for n, value in enumerate(rewards) if value is not None and not abs(value) < LARGEST), None)
    if bad is not None:
        said = completion_text(completions[bad])[:60]
        raise RewardFailed(
            f"{where} returned {given[bad]!r} for response {bad + 1} of {len(given)} ({said!r}). "
            f"Return a finite number below {LARGEST:g}, or None if the response cannot be judged."
        )
    return rewards


def as_number(value: object) -> float | None:
    """A reward as a float. None stays None, and other objects become NaN. Accepts NumPy and PyTorch scalars."""
    if value is None or isinstance(value, (str, bytes)):
        return None if value is None else math.nan
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def named(error: BaseException) -> str:
    """The type and the text of an error in one line."""
    text = " ".join(str(error).split()).rstrip(".")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def place(error: BaseException) -> str:
    """The file and line that raised the error, if known: the last stack frame outside of libraries.

    A reward may fail deep inside a library. W&B also replaces ``sys.exit`` with its own function.
    """
    frames = traceback.extract_tb(error.__traceback__)[1:]  # skip our own call
    libraries = tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    own = [frame for frame in frames if not frame.filename.startswith((*libraries, "<frozen"))] or frames
    return f" in {own[-1].filename.rpartition('/')[2]}, line {own[-1].lineno}" if own else ""


@functools.cache
def event_loop() -> asyncio.AbstractEventLoop:
    """One event loop per run in a separate thread, as in TRL. A notebook's own loop is blocked by the running cell."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    return loop


def result_of(awaitable: Awaitable) -> object:
    """The result of an ``async`` reward."""

    async def wait_for() -> object:
        return await awaitable

    return asyncio.run_coroutine_threadsafe(wait_for(), event_loop()).result()


def data_columns(rows: Sequence[Mapping]) -> dict[str, list]:
    """All columns of these problem rows, one value per row. ``problem_id`` is their ``id``."""
    names = dict.fromkeys(name for row in rows for name in row if name not in TRL_NAMES)
    return {name: [row.get(name) for row in rows] for name in names} | {"problem_id": [row["id"] for row in rows]}


def trl_columns(p: Profile) -> dict:
    """The arguments that TRL adds to the data columns, for calls without TRL."""
    return {
        "trainer_state": SimpleNamespace(global_step=0, max_steps=p.max_steps),
        "log_extra": lambda column, values: None,
        "log_metric": lambda name, value: None,
    }


def try_reward(p: Profile, chat: bool) -> None:
    """Call the run's reward once on two made-up responses, so that a broken one raises before the training starts.

    The problems are the first two of the training data, with all their columns.

    Args:
        chat: whether the model's tokenizer has a chat template. If so, responses are lists of messages.

    Raises:
        ValueError: the function does not accept TRL's arguments, fails, or does not return a number (or None) per response.
    """
    rows = first_rows(p)
    texts = [rf"The answer is $\boxed{{{rows[0]['ground_truth']}}}$.", "That is hard to say."]
    prompts = [build_prompt(row["problem"], (), chat) for row in rows]
    columns = {"prompts": prompts, "completion_ids": [[1], [2]], "n_tokens": [1, 1]} | data_columns(rows) | trl_columns(p)
    columns |= {DRAW: [0, 0]} if p.dynamic_sampling else {}
    if ":" in p.reward:
        refuse_signature(p.reward, columns)
    try:
        reward_function(p)([[{"role": "assistant", "content": t}] for t in texts] if chat else texts, **columns)
    except RewardFailed as error:
        form = " With this model's chat template a completion is a list of messages." if chat else ""
        raise ValueError(f"Called as TRL does, on two made-up responses: {error} Define it as `{FORM}`.{form}") from error


def first_rows(p: Profile) -> list[dict]:
    """Two training problems, or a made-up one if the data cannot be loaded. Another check reports that."""
    try:
        rows = training_rows(p)[:2]
    except ValueError:
        rows = []
    rows = rows or [{"id": "made-up", "problem": "What is $2 + 2$?", "ground_truth": "4"}]
    return [rows[0], rows[-1]]


def refuse_signature(name: str, columns: Mapping) -> None:
    """Check that the reward accepts the arguments that TRL passes.

    Raises:
        ValueError: the function has a parameter without a column, or does not accept all columns.
    """
    try:
        signature = inspect.signature(own_reward(name))
    except (TypeError, ValueError):  # some callables have no readable signature
        return
    try:
        signature.bind(completions=[], **columns)
    except TypeError as error:
        named = [q.name for q in signature.parameters.values() if q.kind in (q.POSITIONAL_OR_KEYWORD, q.KEYWORD_ONLY)]
        given = {"completions", *columns}
        absent = [n for n in named if n not in given and signature.parameters[n].default is inspect.Parameter.empty]
        if absent:
            raise ValueError(
                f"reward={name!r} has the parameter {', '.join(absent)}, but there is no such column. "
                f"Use some of completions, {', '.join(columns)}."
            ) from error
        raise ValueError(
            f"reward={name!r} accepts {', '.join(named) or 'no argument'} by name, but is called with all columns: "
            f"completions, {', '.join(columns)}. Define it as `{FORM}`."
        ) from error


def format_reward(completions, **columns) -> list[float]:
    """Control arm: 1 for any closed, non-empty box, with a correct or an incorrect answer."""
    return [float(last_boxed(completion_text(c)) is not None) for c in completions]


def random_reward(completions, trainer_state=None, seed=0, draw=0, **columns) -> list[float]:
    """Control arm: a fair coin per response. A resumed run gets the same coins, and each process gets different ones.

    Each further draw of a step (dynamic sampling) gets new coins. With the same coins, the replacements could not differ.
    """
    stream = f"{seed}-{trainer_state.global_step if trainer_state else 0}"
    stream += f"-draw-{draw}" if draw else ""
    coin = random.Random(stream if world_size() == 1 else f"{stream}-process-{rank()}")
    return [float(coin.random() < 0.5) for _ in completions]


def is_recorded(step: int, every: int) -> bool:
    """Whether the responses and tokens of this training step are recorded: the first step, and then every ``every``-th."""
    return step == 1 or step % every == 0


def recorded_reward(reward: Callable[..., list[float | None]], writer: RunWriter, every: int, rows: Sequence[dict]):
    """Wrap ``reward``: pass every column of ``rows``, and save the responses of every ``every``-th step."""
    by_id = {row["id"]: row for row in rows}

    @functools.wraps(reward)  # TRL names its metrics after the function
    def recorded(prompts, completions, problem_id, n_tokens, trainer_state, **columns):
        problems = [by_id[name] for name in problem_id]
        rewards = reward(
            completions, prompts=prompts, n_tokens=n_tokens, trainer_state=trainer_state, **columns | data_columns(problems)
        )
        step = trainer_state.global_step + 1
        if is_recorded(step, every):
            here = zip(prompts, problems, completions, n_tokens, rewards, strict=True)
            rows = train_rows(step, *zip(*gather(list(here)), strict=True))
            draw = {DRAW: columns[DRAW][0]} if DRAW in columns else {}
            writer.log_train_rollouts([row | draw for row in rows])
        return rewards

    return recorded


def train_rows(step, prompts, problems, completions, lengths, rewards) -> list[dict]:
    """One step's training responses in the run format. ``problems`` are rows of the data."""
    rows, seen = [], Counter()
    for prompt, problem, completion, n, reward in zip(prompts, problems, completions, lengths, rewards, strict=True):
        sample = seen[problem["id"]]
        seen[problem["id"]] += 1
        row = graded(
            problem,
            completion_text(completion),
            step=step,
            sample=sample,
            n_tokens=n,
            prompt=prompt if sample == 0 else None,
        )
        rows.append(row | {"reward": reward})
    return rows

"""The reward of a run: the verifier, a control arm or a function of the reader's own, and the record of what was rewarded.

A function of one's own has TRL's form, ``f(prompts, completions, **columns)``, where the columns are those of the data set
and TRL's own (``completion_ids, trainer_state, log_extra, log_metric``). It may be ``async``.
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

#: What TRL passes under these names is not taken from the data set.
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
LARGEST = 1e15  # TRL takes squares of rewards, with 32 bits

boxed_reward = make_boxed_reward(verdict_on=kept_verdict)  # the record asks for the same verdicts again


def reward_function(p: Profile) -> Callable[..., list[float | None]]:
    """The reward of this run: the verifier, one of the two control arms, or a function of the reader's own.

    Returns:
        A function of ``completions`` and columns by name, as TRL calls it. It raises RewardFailed where the reward fails
        or gives anything but a finite number, or None, for each completion.

    Raises:
        ValueError: there is no such function.
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
    """The function behind ``module:function``; a notebook's own functions are in the module ``__main__``.

    Raises:
        ValueError: the module or the function is not there.
    """
    module, _, function = name.partition(":")
    current_directory_last(add=True)  # where a reward of one's own lies
    try:
        found = getattr(importlib.import_module(module), function)
    except Exception as error:  # a module of the reader's own may fail in any way while it is imported
        raise ValueError(
            f"reward={name!r}: {named(error)}.{hidden(module)} Give module:function, where the module can be "
            "imported from here; a function defined in this notebook is __main__:function."
        ) from error
    if not callable(found):
        raise ValueError(f"reward={name!r} is no function but {type(found).__name__}: give one like `{FORM}`.")
    return found


def hidden(module: str) -> str:
    """A sentence where a file in the current directory has the name of a library, which is imported in its place."""
    mine, taken = Path(f"{module.replace('.', '/')}.py"), getattr(sys.modules.get(module), "__file__", None)
    if taken is None or not mine.is_file() or mine.resolve() == Path(taken).resolve():
        return ""
    return f" {module} is a library here ({taken}): rename your {mine}."


def checked(reward: Callable, name: str, completions: Sequence, columns: Mapping, factor: float = 1.0) -> list[float | None]:
    """Call ``reward``, look at what it gives, and multiply that by ``factor``.

    Raises:
        RewardFailed: it raised, or gave something else than a finite number, or None, for each completion. Numbers too
            large for TRL, which computes with 32 bits, count as infinite.
    """
    state = columns.get("trainer_state")
    where = f"reward {name!r} at step {state.global_step + 1 if state else 1}"
    passed = {"completions": completions, **columns}
    if name not in REWARDS:  # one of the reader's own may change its lists, and TRL and the record go on with them
        passed = {column: copy.deepcopy(value) if isinstance(value, list) else value for column, value in passed.items()}
    try:
        given = reward(**passed)
        given = list(result_of(given) if inspect.isawaitable(given) else given)
    except (Exception, SystemExit) as error:
        raise RewardFailed(f"{where} failed{place(error)}: {named(error)}.") from error
    if len(given) != len(completions):
        raise RewardFailed(
            f"{where} gave a list of {len(given)} for {len(completions)} responses: it should give one "
            "number, or None, for each."
        )
    rewards = [None if (number := as_number(value)) is None else number * factor for value in given]
    bad = next((n for n, value in enumerate(rewards) if value is not None and not abs(value) < LARGEST), None)
    if bad is not None:
        said = completion_text(completions[bad])[:60]
        raise RewardFailed(
            f"{where} gave {given[bad]!r} for response {bad + 1} of {len(given)} ({said!r}): it should give "
            f"a finite number below {LARGEST:g}, or None where a response cannot be judged."
        )
    return rewards


def as_number(value: object) -> float | None:
    """A reward as a float, None as None, and what is no number as NaN; numpy's and torch's numbers are numbers."""
    if value is None or isinstance(value, (str, bytes)):
        return None if value is None else math.nan
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def named(error: BaseException) -> str:
    """An error's kind and text in one line."""
    text = " ".join(str(error).split()).rstrip(".")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def place(error: BaseException) -> str:
    """The file and line that raised, where that is known: the last one that belongs to no library.

    What a reward calls may raise deep inside a library, and W&B replaces ``sys.exit`` by a function of its own.
    """
    frames = traceback.extract_tb(error.__traceback__)[1:]  # the first is our own call
    libraries = tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    own = [frame for frame in frames if not frame.filename.startswith((*libraries, "<frozen"))] or frames
    return f" in {own[-1].filename.rpartition('/')[2]}, line {own[-1].lineno}" if own else ""


@functools.cache
def event_loop() -> asyncio.AbstractEventLoop:
    """A loop in a thread of its own, one for the whole run as TRL has it: a notebook's own loop is busy with its cell."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    return loop


def result_of(awaitable: Awaitable) -> object:
    """The result of an ``async`` reward."""

    async def wait_for() -> object:
        return await awaitable

    return asyncio.run_coroutine_threadsafe(wait_for(), event_loop()).result()


def data_columns(rows: Sequence[Mapping]) -> dict[str, list]:
    """Every column of these problem rows, one value for each; ``problem_id`` is their ``id``."""
    names = dict.fromkeys(name for row in rows for name in row if name not in TRL_NAMES)
    return {name: [row.get(name) for row in rows] for name in names} | {"problem_id": [row["id"] for row in rows]}


def trl_columns(p: Profile) -> dict:
    """What TRL passes to a reward beside the data, where it is called without TRL."""
    return {
        "trainer_state": SimpleNamespace(global_step=0, max_steps=p.max_steps),
        "log_extra": lambda column, values: None,
        "log_metric": lambda name, value: None,
    }


def try_reward(p: Profile, chat: bool) -> None:
    """Call the run's reward once, as TRL will, on two made-up responses: one that cannot work is refused at minute zero.

    The problems are the first two of the training data, with all their columns.

    Args:
        chat: whether the model's tokenizer has a chat template; responses are lists of messages then.

    Raises:
        ValueError: it does not take what TRL passes, it fails, or does not return a number (or None) for each response.
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
        raise ValueError(
            f"Called as TRL does, on two made-up responses: {error} It should begin like `{FORM}`.{form}"
        ) from error


def first_rows(p: Profile) -> list[dict]:
    """Two training problems; a made-up one where the data cannot be had, which a check of its own says."""
    try:
        rows = training_rows(p)[:2]
    except ValueError:
        rows = []
    rows = rows or [{"id": "made-up", "problem": "What is $2 + 2$?", "ground_truth": "4"}]
    return [rows[0], rows[-1]]


def refuse_signature(name: str, columns: Mapping) -> None:
    """Refuse a function that does not take what it will be called with.

    Raises:
        ValueError: names the columns that it lacks, or that it asks for in vain.
    """
    try:
        signature = inspect.signature(own_reward(name))
    except (TypeError, ValueError):  # some callables have none that can be read
        return
    try:
        signature.bind(completions=[], **columns)
    except TypeError as error:
        named = [q.name for q in signature.parameters.values() if q.kind in (q.POSITIONAL_OR_KEYWORD, q.KEYWORD_ONLY)]
        given = {"completions", *columns}
        absent = [n for n in named if n not in given and signature.parameters[n].default is inspect.Parameter.empty]
        if absent:
            raise ValueError(
                f"reward={name!r} asks for {', '.join(absent)}, and there is no such column: there are "
                f"completions, {', '.join(columns)}."
            ) from error
        raise ValueError(
            f"reward={name!r} takes {', '.join(named) or 'nothing'} by name, and is called with all columns: "
            f"completions, {', '.join(columns)}. Let it begin like `{FORM}`."
        ) from error


def format_reward(completions, **columns) -> list[float]:
    """Control arm: 1 for any closed, non-empty box, right or wrong."""
    return [float(last_boxed(completion_text(c)) is not None) for c in completions]


def random_reward(completions, trainer_state=None, seed=0, draw=0, **columns) -> list[float]:
    """Control arm: a fair coin for each response, the same coin when a run is resumed, and others in each process.

    A further draw of a step (dynamic sampling) has coins of its own: groups replaced by copies would never differ.
    """
    stream = f"{seed}-{trainer_state.global_step if trainer_state else 0}"
    stream += f"-draw-{draw}" if draw else ""
    coin = random.Random(stream if world_size() == 1 else f"{stream}-process-{rank()}")
    return [float(coin.random() < 0.5) for _ in completions]


def is_recorded(step: int, every: int) -> bool:
    """Whether the responses and tokens of this training step are recorded: the first step, and then every ``every``-th."""
    return step == 1 or step % every == 0


def recorded_reward(reward: Callable[..., list[float | None]], writer: RunWriter, every: int, rows: Sequence[dict]):
    """``reward`` under its own name, given every column of ``rows``; keeps every ``every``-th step's responses on disk."""
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
    """One step's training responses in the run format; ``problems`` are rows."""
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

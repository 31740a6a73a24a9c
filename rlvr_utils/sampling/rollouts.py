r"""Sample responses, stop them and score them. Training, evaluation and notebooks share this code.

TRL passes no tokenizer to ``generate``, so ``stop_strings`` would have no effect there. We pass :func:`rollout` as TRL's
``rollout_func`` instead. Text after :data:`~rlvr_utils.problems.prompts.STOP` is neither scored nor trained on. An end
token replaces it and is masked from the loss. A response that stops this way does not count as truncated.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase, StoppingCriteria, StoppingCriteriaList, set_seed
from transformers.utils.logging import get_logger

from ..models import vocabulary_size
from ..problems import exemplars, graded
from ..problems.prompts import STOP, build_prompt, cut_at_stop, refuse_long_prompts
from ..profiles import Profile
from .decoding import can_decode, decode, read_beginning, sampling_mode

#: A sampling engine other than the model itself: maps prompt ids and temperature to one response per prompt.
Engine = Callable[[list[list[int]], float], "list[Response]"]
#: Decoding in evaluations: sampled at T = 1, or greedy (always the most likely token).
DECODINGS = ("sampled", "greedy")


@dataclass(frozen=True)
class Response:
    """One sampled response.

    Attributes:
        text: the text up to the stop string.
        ids: its token ids. The last one is the end token unless the response is truncated.
        sampled: 1 per id that the policy sampled, 0 for an inserted end token (same length as ``ids``).
        cut_off: whether the response is truncated at the length limit.
    """

    text: str
    ids: list[int]
    sampled: list[int]
    cut_off: bool

    @property
    def n_tokens(self) -> int:
        """Tokens that the policy sampled and that count."""
        return sum(self.sampled)


@dataclass(frozen=True)
class Sampling:
    """How responses are drawn.

    Attributes:
        n_samples: responses per prompt.
        max_new_tokens: length limit in tokens.
        temperature: 0 takes the most likely token each time.
        seed: makes the samples reproducible. None uses the current random state.
        batch_size: responses generated at a time.
    """

    n_samples: int = 1
    max_new_tokens: int = 96
    temperature: float = 1.0
    seed: int | None = None
    batch_size: int = 512

    @classmethod
    def of(cls, p: Profile, **changes: object) -> Sampling:
        """The sampling configuration of profile ``p``, with ``changes``."""
        return cls(
            **{"max_new_tokens": p.max_completion_length, "temperature": p.temperature, "batch_size": p.eval_batch} | changes
        )


class StopAtNextQuestion(StoppingCriteria):
    """Stops a row as soon as it starts to invent the next question.

    Decoding every row at every token would be slow, so only rows whose last token holds the last character of the stop
    string are decoded, and only their tail.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prompt_length: int):
        self.tokenizer, self.prompt_length = tokenizer, prompt_length
        self.may_end = may_end_stop(tokenizer)

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **kwargs) -> torch.BoolTensor:
        done = torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        self.may_end = self.may_end.to(input_ids.device)
        last = input_ids[:, -1].clamp(max=len(self.may_end) - 1)
        for row in self.may_end[last].nonzero().flatten().tolist():
            tail = input_ids[row, max(self.prompt_length, input_ids.shape[1] - 16) :]
            done[row] = STOP in self.tokenizer.decode(tail)
        return done


@functools.lru_cache(maxsize=4)  # going through Llama 3's 128,000 tokens takes longer than one decoding step
def may_end_stop(tokenizer: PreTrainedTokenizerBase) -> torch.BoolTensor:
    """Which tokens hold the last character of the stop string, ``(vocabulary,)``."""
    pieces = tokenizer.convert_ids_to_tokens(list(range(vocabulary_size(tokenizer))))
    return torch.tensor([STOP[-1] in (piece or "") for piece in pieces])


def end_token_ids(model, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Every id that ends a response (Llama 3.1 has several)."""
    configured = model.generation_config.eos_token_id
    ids = set(configured if isinstance(configured, list) else [configured]) | {tokenizer.eos_token_id}
    return {i for i in ids if i is not None}


def finish_response(ids: list[int], tokenizer: PreTrainedTokenizerBase, end_ids: set[int]) -> Response:
    """Turn the raw new tokens of one row (padding included) into a :class:`Response`."""
    ended = next((i for i, token in enumerate(ids) if token in end_ids), None)
    kept = ids if ended is None else ids[:ended]
    text = tokenizer.decode(kept, skip_special_tokens=True)
    if STOP in text:
        text = cut_at_stop(text)
        # The last token may hold both the end of the text and the line break: Llama 3 has ".\n\n" as one token. We compare
        # texts, not lengths, because a character without its last byte decodes to one replacement character.
        while kept and tokenizer.decode(kept[:-1], skip_special_tokens=True).startswith(text):
            kept = kept[:-1]
        return Response(text, kept + [tokenizer.eos_token_id], [1] * len(kept) + [0], cut_off=False)
    if ended is None:
        return Response(text, kept, [1] * len(kept), cut_off=True)
    return Response(text, ids[: ended + 1], [1] * (ended + 1), cut_off=False)


def generate_ids(
    model, tokenizer: PreTrainedTokenizerBase, prompt_ids: list[list[int]], how: Sampling
) -> Iterator[list[Response]]:
    """One response per prompt, ``how.batch_size`` at a time. The common prefix is prefilled once for all batches.

    Args:
        model: from :func:`~rlvr_utils.sampling.decoding.sampling_mode`.
        prompt_ids: token ids, one list per prompt. Equal prompts in a batch are prefilled once.
        how: only length, temperature and batch size are used. The caller repeats the prompts and sets the seed.
    """
    end_ids = end_token_ids(model, tokenizer) | {tokenizer.pad_token_id}
    if can_decode(model):
        sample = own_loop(model, tokenizer, prompt_ids, end_ids)
    else:
        get_logger(__name__).warning_once(
            f"{type(model).__name__} keeps more than a plain key-value cache, so responses "
            "come from model.generate (same distribution, but slower)."
        )
        sample = stock_loop(model, tokenizer, end_ids)
    for start in range(0, len(prompt_ids), how.batch_size):
        rows = sample(prompt_ids[start : start + how.batch_size], how)
        yield [finish_response(row, tokenizer, end_ids) for row in rows]


def own_loop(model, tokenizer, prompt_ids: list[list[int]], end_ids: set[int]) -> Callable[..., list[list[int]]]:
    """:func:`~rlvr_utils.sampling.decoding.decode` with our stop rule."""
    stop, ends = StopAtNextQuestion(tokenizer, 0), torch.tensor(sorted(end_ids), device=model.device)
    sample = functools.partial(
        decode,
        model,
        beginning=read_beginning(model, prompt_ids),
        pad=tokenizer.pad_token_id,
        ended=lambda new_ids: torch.isin(new_ids[:, -1], ends) | stop(new_ids, None),
    )
    return lambda prompt_ids, how: sample(prompt_ids, max_new_tokens=how.max_new_tokens, temperature=how.temperature)


def stock_loop(model, tokenizer, end_ids: set[int]) -> Callable[..., list[list[int]]]:
    """``model.generate`` with our stop rule, for models that our loop does not support."""

    def sample(prompt_ids: list[list[int]], how: Sampling) -> list[list[int]]:
        batch = tokenizer.pad({"input_ids": prompt_ids}, padding_side="left", return_tensors="pt").to(model.device)
        length = batch["input_ids"].shape[1]
        config = plain_sampling(how, eos_token_id=sorted(end_ids), pad_token_id=tokenizer.pad_token_id)
        with torch.no_grad(), only_generation_config(model, config):
            output = model.generate(
                **batch,
                generation_config=config,
                stopping_criteria=StoppingCriteriaList([StopAtNextQuestion(tokenizer, length)]),
            )
        return output[:, length:].tolist()

    return sample


def plain_sampling(how: Sampling, **options) -> GenerationConfig:
    """The model's own distribution at the given temperature (0: greedy), without any other option."""
    options |= {"max_new_tokens": how.max_new_tokens, "do_sample": bool(how.temperature)}
    if how.temperature:
        options |= {"temperature": how.temperature, "top_k": 0, "top_p": 1.0}
    return GenerationConfig(**options)


@contextlib.contextmanager
def only_generation_config(model, config: GenerationConfig) -> Iterator[None]:
    """Temporarily make ``config`` the model's own, because ``generate`` fills every None field from there.

    A checkpoint's generation_config may contain a repetition penalty, suppressed tokens or beams. Each of these would change
    the distribution of the responses.
    """
    usual, model.generation_config = model.generation_config, config
    try:
        yield
    finally:
        model.generation_config = usual


def encode_prompts(tokenizer: PreTrainedTokenizerBase, prompts: list) -> list[list[int]]:
    """Token ids of plain prompts (with the begin token) or of chat messages (with the assistant's header).

    Some tokenizers append their end token to every text. A response must not follow an end token, so it is removed.

    Raises:
        ValueError: the tokenizer's chat template does not accept a single user message, or drops its text.
    """
    chat = bool(prompts) and isinstance(prompts[0], list)
    culprit, cure = ("chat template", ", or remove it there to use plain prompts") if chat else ("tokenizer", "")
    try:
        if chat:
            rows = tokenizer.apply_chat_template(prompts, add_generation_prompt=True, tokenize=True, return_dict=True)[
                "input_ids"
            ]
        else:
            special = set(tokenizer.all_special_ids)
            rows = [row[: len(row) - appended(row, special)] for row in tokenizer(prompts)["input_ids"]]
    except Exception as error:  # a chat template is third-party code and may raise anything
        raise ValueError(
            f"The model's {culprit} fails on {'a conversation of one user message' if chat else 'a prompt'}: "
            f"{error}. Repair it in the tokenizer's files{cure}."
        ) from error
    same = all(row == rows[0] for row in rows) and any(prompt != prompts[0] for prompt in prompts)
    if same or not all(rows):
        raise ValueError(
            f"The model's {culprit} drops the user's text: its prompts are "
            f"{tokenizer.decode(rows[0])!r}. Repair it in the tokenizer's files{cure}."
        )
    return rows


def appended(ids: list[int], special: set[int]) -> int:
    """Number of special tokens at the end of a text's token ids."""
    return next((n for n, token in enumerate(reversed(ids)) if token not in special), 0)


def sample_responses(
    model,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list,
    how: Sampling = Sampling(),
    *,
    progress: Callable[[float], None] | None = None,
    engine: Engine | None = None,
) -> list[list[Response]]:
    """``how.n_samples`` responses per prompt. With a seed, the global RNG state is left unchanged.

    Args:
        prompts: plain texts, or lists of chat messages.
        progress: called with the completed share, 0 to 1.
        engine: samples instead of the model (:func:`vllm_engine`). The seed does not reach a vLLM server.

    Returns:
        One list of :class:`Response` per prompt, in order.
    """
    ids = [p for p in encode_prompts(tokenizer, prompts) for _ in range(how.n_samples)]
    if engine:
        with random_state(how.seed, model.device):
            responses = engine(ids, how.temperature)
        return [responses[i : i + how.n_samples] for i in range(0, len(responses), how.n_samples)]
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))  # similar lengths together need little padding
    done: list[Response] = []
    with random_state(how.seed, model.device), sampling_mode(model) as base:
        for batch in generate_ids(base, tokenizer, [ids[i] for i in order], how):
            done += batch
            if progress:
                progress(len(done) / len(ids))
    responses = [response for _, response in sorted(zip(order, done, strict=True), key=lambda pair: pair[0])]
    return [responses[i : i + how.n_samples] for i in range(0, len(responses), how.n_samples)]


@contextlib.contextmanager
def random_state(seed: int | None, device: torch.device) -> Iterator[None]:
    """Seed all generators within the block and restore their states afterwards. None does nothing.

    vLLM in this process uses PyTorch's generators or, in its newer model runner, NumPy's.
    """
    if seed is None:
        yield
        return
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        set_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def has_chat_template(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether prompts for this tokenizer are chat messages (True) or plain text."""
    return getattr(tokenizer, "chat_template", None) is not None


def prompts_for(rows: list[dict], tokenizer: PreTrainedTokenizerBase, p: Profile) -> list:
    """The prompts of problem rows, as chat messages if the tokenizer has a chat template.

    Raises:
        ValueError: some prompts are too long. The message names them.
    """
    pairs = exemplars(p.dataset, p.shots)
    prompts = [build_prompt(row["problem"], pairs, has_chat_template(tokenizer)) for row in rows]
    refuse_long_prompts(
        [len(ids) for ids in encode_prompts(tokenizer, prompts)], [row["id"] for row in rows], p.max_prompt_length
    )
    return prompts


def evaluate(
    model,
    tokenizer: PreTrainedTokenizerBase,
    rows: list[dict],
    p: Profile,
    decoding: str = "sampled",
    *,
    progress: Callable[[float], None] | None = None,
    engine: Engine | None = None,
) -> list[dict]:
    """Every response of one evaluation in the run format: ``"sampled"`` at T = 1, or ``"greedy"`` once.

    Prompts, limits, ``eval_samples`` and seed come from the profile. The step is 0. A run's writer replaces it.

    Raises:
        ValueError: the decoding is unknown, or a prompt is too long.
    """
    check_evaluation(decoding, p.eval_samples)
    prompts = prompts_for(rows, tokenizer, p)
    how = Sampling.of(p, n_samples=p.eval_samples, temperature=1.0, seed=p.seed)
    if decoding == "greedy":
        how = replace(how, n_samples=1, temperature=0.0)
    groups = sample_responses(model, tokenizer, prompts, how, progress=progress, engine=engine)
    return [
        graded(row, response.text, step=0, sample=sample, prompt=prompt, n_tokens=response.n_tokens)
        | {"cut_off": response.cut_off}
        for row, prompt, group in zip(rows, prompts, groups, strict=True)
        for sample, response in enumerate(group)
    ]


def check_evaluation(decoding: str, n_samples: int) -> None:
    """Check the evaluation's decoding and number of samples.

    Raises:
        ValueError: the decoding is unknown, or there is less than one sample.
    """
    if decoding not in DECODINGS:
        raise ValueError(f"decoding={decoding!r} is unknown. Choose one of {', '.join(DECODINGS)}.")
    if isinstance(n_samples, bool) or not isinstance(n_samples, int) or n_samples < 1:
        raise ValueError(f"n_samples={n_samples!r} is invalid. Set a whole number of at least 1.")


def rollout(prompts: list, trainer, batch_size: int = 512) -> dict[str, list]:
    """TRL's ``rollout_func``: one response per prompt (TRL repeats each prompt per sample).

    Args:
        batch_size: responses generated at a time. Their KV caches are in memory together.

    Returns:
        ``prompt_ids``, ``completion_ids``, ``logprobs`` (only vLLM has them) and ``env_mask``: 0 on end tokens that the
        policy did not sample, which keeps them out of the loss.
    """
    tokenizer = trainer.processing_class
    prompt_ids = encode_prompts(tokenizer, prompts)
    if trainer.use_vllm:
        responses, logprobs = _vllm_responses(trainer, tokenizer, prompt_ids)
    else:
        how = Sampling(max_new_tokens=trainer.max_completion_length, temperature=trainer.temperature, batch_size=batch_size)
        with sampling_mode(trainer.accelerator.unwrap_model(trainer.model)) as model:
            responses = [r for batch in generate_ids(model, tokenizer, prompt_ids, how) for r in batch]
        logprobs = None
    return {
        "prompt_ids": prompt_ids,
        "completion_ids": [r.ids for r in responses],
        "logprobs": logprobs,
        "env_mask": [r.sampled for r in responses],
        "n_tokens": [r.n_tokens for r in responses],
    }


def _vllm_responses(trainer, tokenizer, prompt_ids: list[list[int]]) -> tuple[list[Response], list[list[float]]]:
    """The same through TRL's vLLM. ``generation_kwargs={"stop": [STOP]}`` stops rows, our rule then cuts the text."""
    group = trainer.num_generations if trainer.model.training else trainer.num_generations_eval
    _, completion_ids, logprobs, _ = trainer.vllm_generation.generate(prompts=prompt_ids, images=None, num_generations=group)
    end_ids = end_token_ids(trainer.accelerator.unwrap_model(trainer.model), tokenizer)
    responses = [finish_response(list(ids), tokenizer, end_ids) for ids in completion_ids]
    sampled = [[entry[0] for entry in row][: len(r.ids)] for row, r in zip(logprobs, responses, strict=True)]
    return responses, [row + [0.0] * (len(r.ids) - len(row)) for row, r in zip(sampled, responses, strict=True)]


def use_vllm(p: Profile) -> bool:
    """Whether rollouts go through vLLM: it is enabled and installed, and there is a GPU."""
    return p.use_vllm == "auto" and torch.cuda.is_available() and importlib.util.find_spec("vllm") is not None


def vllm_engine(trainer) -> Engine | None:
    """For evaluations: the trainer's vLLM with the current weights, or None if the model itself samples.

    Several processes do not use a server, because their parts of an evaluation differ in length. Not yet tested on a GPU.
    """
    if not getattr(trainer, "use_vllm", False) or trainer.vllm_mode == "server" and trainer.accelerator.num_processes > 1:
        return None
    vllm, tokenizer = trainer.vllm_generation, trainer.processing_class
    end_ids = end_token_ids(trainer.accelerator.unwrap_model(trainer.model), tokenizer)
    vllm.sync_weights()

    def sample(prompt_ids: list[list[int]], temperature: float) -> list[Response]:
        usual, vllm.temperature = vllm.temperature, temperature
        try:
            _, completion_ids, *_ = vllm.generate(prompts=prompt_ids, images=None, num_generations=1)
        finally:
            vllm.temperature = usual
        return [finish_response(list(ids), tokenizer, end_ids) for ids in completion_ids]

    return sample

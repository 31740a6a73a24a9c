"""Your own problem, to the base model and to the trained one, with the probability of every token."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..grpo import selected_logps
from ..problems import exemplars
from ..profiles import Profile
from ..prompts import build_prompt
from ..sampling.rollouts import Response, encode_prompts, has_chat_template, sample_responses
from ..verifier import verify
from .frame import Markup, Output, as_written, choice, interactive_or_static, slider, table, text

#: Behind the tokens: the less likely, the darker (a blue that black text stays readable on).
SHADE = (0, 114, 178)


@dataclass(frozen=True)
class Answer:
    """One model's answer: its ``text``, the ``tokens`` as they read, and the ``probabilities`` that it gave them."""

    text: str
    tokens: list[str]
    probabilities: list[float]


def problem_prompt(problem: str, tokenizer: PreTrainedTokenizerBase, p: Profile) -> str | list[dict[str, str]]:
    """The prompt of one typed problem.

    Raises:
        ValueError: nothing was typed, or more tokens than the run allows.
    """
    problem = problem.strip()
    if not problem:
        raise ValueError("There is no problem yet: type one, such as What is 3 + 4?")
    prompt = build_prompt(problem, exemplars(p.dataset, p.shots), has_chat_template(tokenizer))
    length = len(encode_prompts(tokenizer, [prompt])[0])
    if length > p.max_prompt_length:
        raise ValueError(f"The prompt would have {length} tokens, and this run allows {p.max_prompt_length}: "
                         "shorten the problem.")
    return prompt


def token_probabilities(model: PreTrainedModel, prompt_ids: list[int], ids: list[int]) -> list[float]:
    """The probability that ``model`` gives each of ``ids`` after ``prompt_ids`` and those before it, at T = 1."""
    whole = torch.tensor([prompt_ids + ids], device=model.device)
    with torch.no_grad():
        logits = model(input_ids=whole).logits[:, len(prompt_ids) - 1: -1].float()
    return selected_logps(logits, whole[:, len(prompt_ids):])[0].exp().tolist()


def ask(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str | list, p: Profile, temperature: float,
        seed: int) -> Answer:
    """One response (temperature 0: the likeliest token each time) with the probabilities of what was sampled."""
    response: Response = sample_responses(model, tokenizer, [prompt], temperature=temperature, seed=seed,
                                          max_new_tokens=p.max_completion_length)[0][0]
    ids = [token for token, sampled in zip(response.ids, response.sampled, strict=True) if sampled]
    training = model.training
    model.eval()
    probabilities = token_probabilities(model, encode_prompts(tokenizer, [prompt])[0], ids)
    model.train(training)
    return Answer(response.text.strip(), [tokenizer.decode([token]) for token in ids], probabilities)


def shaded(answer: Answer) -> Markup:
    """The tokens of an answer, each on a shade, over its probability in percent; escaped, whatever they are."""
    boxes = []
    for token, p in zip(answer.tokens, answer.probabilities, strict=True):
        name = html.escape(token.replace(" ", "\u2423").replace("\n", "\u21b5"))
        style = (f"display:inline-block;text-align:center;margin:1px;padding:0 2px;color:black;"
                 f"background-color:rgba({SHADE[0]},{SHADE[1]},{SHADE[2]},{0.7 * (1 - p):.2f})")
        boxes.append(f'<span style="{style}" title="probability {p:.4f}"><code style="background:none;color:black">{name}'
                     f"</code><br><small>{100 * p:.0f}</small></span>")
    spelled = " ".join(f"{token!r} {100 * p:.0f}" for token, p in zip(answer.tokens, answer.probabilities, strict=True))
    return Markup(" ".join(boxes), spelled)


def verdict_on(answer: Answer, problem: str, truth: str) -> str:
    """What the verifier says, or that there is nothing to hold the answer against."""
    if not truth.strip():
        return "no ground truth given"
    verdict = verify(answer.text, truth, question=problem)
    return f"reward {int(verdict.correct)}: {verdict.reason}"


def draw_answers(models: Mapping[str, PreTrainedModel], tokenizer: PreTrainedTokenizerBase, p: Profile, problem: str,
                 truth: str, temperature: float, seed: int) -> Output:
    """A row a model: its answer, token by token, and the verdict."""
    prompt = problem_prompt(problem, tokenizer, p)
    answers = {name: ask(model, tokenizer, prompt, p, temperature, seed) for name, model in models.items()}
    rows = [(name, as_written(answer.text), verdict_on(answer, problem, truth), shaded(answer))
            for name, answer in answers.items()]
    return table(problem.strip(), ("model", "answer", "verifier", "token by token"), rows,
                 "Below each token: the percentage that the model gave it after all before it, at temperature 1. The "
                 "darker, the less likely. Temperature 0 takes the likeliest token each time.")


def playground(models: Mapping[str, PreTrainedModel], tokenizer: PreTrainedTokenizerBase, p: Profile, problem: str,
               truth: str = "") -> None:
    """Show what each model answers to ``problem``; in a live notebook any problem can be typed and asked.

    Args:
        models: by the name to show; p: the profile of their run, for prompt and length limits.
        truth: the ground truth; empty: no verdict.
    """
    def draw(**values) -> Output:
        return draw_answers(models, tokenizer, p, **values)

    interactive_or_static("playground", draw, {
        "problem": text("problem", problem, rows=3), "truth": text("ground truth", truth),
        "temperature": slider("temperature", 1.0, 0, 1.5, 0.25),
        "seed": choice("seed", 0, range(10))}, button="Ask both models")

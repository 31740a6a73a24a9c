"""Views of a model: LoRA's memory (notebook 03), and answers of two models to your own problem (notebook 04)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from .. import memory
from ..grpo import selected_logps
from ..models import lora_parameter_count
from ..plots import PALETTE, figure_bundle
from ..problems import exemplars
from ..problems.prompts import build_prompt
from ..profiles import ALL_LINEAR, Profile
from ..sampling.rollouts import Response, Sampling, encode_prompts, has_chat_template, sample_responses
from ..verifier import verify
from .frame import Markup, Output, as_written, interactive_or_static, picker, slider, table, textbox, token_name

COLOURS = (
    PALETTE[0],
    PALETTE[5],
    PALETTE[2],
    PALETTE[3],
    PALETTE[4],
    PALETTE[6],
    PALETTE[1],
    "#555555",
    "#BBBBBB",
    "#FFFFFF",
    "#7F6000",
)
HATCHES = ("", "//", "..", "xx", "\\", "oo", "--", "**", "++", "", "||")
RANKS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
#: The layers that can get an adapter. None is full fine-tuning.
TARGETS: dict[str, tuple[str, ...] | None] = {
    "q and v": ALL_LINEAR[0:3:2],
    "attention": ALL_LINEAR[:4],
    "MLP": ALL_LINEAR[4:],
    "all linear layers": ALL_LINEAR,
    "no LoRA: train everything": None,
}


def memory_bars(axes: Axes, bars: Sequence[tuple[str, dict, memory.Machine]], title: str) -> None:
    """Draw one stacked bar per (label, bytes by part, GPU), and a diamond at the GPU's memory."""
    left = [0.0] * len(bars)
    for part, colour, hatch in zip(memory.PARTS, COLOURS, HATCHES, strict=True):
        widths = [parts.get(part, 0) / memory.GIB for _, parts, _ in bars]
        if any(widths):
            axes.barh(range(len(bars)), widths, left=left, label=part, color=colour, hatch=hatch, edgecolor="black", lw=0.5)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.plot(
        [gpu.memory / memory.GIB for *_, gpu in bars],
        range(len(bars)),
        linestyle="",
        marker="D",
        markersize=9,
        color="black",
        label="the GPU's memory",
    )
    axes.set_yticks(range(len(bars)), [label for label, *_ in bars])
    axes.set_title(title)
    axes.grid(axis="y", visible=False)
    axes.invert_yaxis()


def with_adapter(p: Profile, rank: int, targets: str) -> Profile:
    """Return the profile with this rank on these :data:`TARGETS`. Alpha is unchanged, as notebook 03 recommends."""
    layers = TARGETS[targets]
    if layers is None:
        return replace(p, adapter="none")
    return replace(p, adapter="lora", lora_rank=rank, lora_targets=layers)


def trained_numbers(p: Profile, config: PretrainedConfig) -> tuple[int, float]:
    """Return (number of trained parameters, their share of the model)."""
    whole = memory.parameter_count(config)
    count = whole if p.adapter == "none" else lora_parameter_count(config, p.lora_rank, p.lora_targets)
    return count, count / whole


def draw_adapter(p: Profile, config: PretrainedConfig, rank: int, targets: str, gpu: memory.Machine) -> Output:
    """Draw the memory of the run's three phases on one GPU, with a plan to make it fit in the caption."""
    p = with_adapter(p, rank, targets)
    needed, plan = memory.estimate(p, config, gpu=gpu.memory), memory.plan(p, gpu.memory, config)
    count, share = trained_numbers(p, config)
    room = gpu.memory / memory.GIB
    figure, axes = plt.subplots(figsize=(8.5, 2.8))
    memory_bars(axes, [(phase, parts, gpu) for phase, parts in needed.phases.items()], f"{p.profile} on {gpu.name}")
    axes.set(xlabel="GiB", xlim=(0, None))
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1.05), fontsize=8.5)
    name = "everything" if p.adapter == "none" else f"rank {rank} on {targets}"
    sizes = ", ".join(f"{phase} {needed.total(phase) / memory.GIB:.1f}" for phase in needed.phases)
    return figure_bundle(
        figure,
        dpi=90,
        alt=f"Stacked bars of the memory of each phase in GiB: {sizes}. The GPU has {room:.1f}.",
        caption=f"Trained: {name}, {count:,} parameters, {share:.3%} of the model. The run needs "
        f"{needed.peak / memory.GIB:.1f} GiB. On a GPU with {room:.1f} GiB it {plan}. "
        "These are estimates at the length limits, not measurements.",
    )


def lora_explorer(p: Profile, config: PretrainedConfig) -> None:
    """Show the trained parameters and the memory of profile ``p``, with controls for rank, targets and GPU."""
    interactive_or_static(
        "lora",
        partial(draw_adapter, p, config),
        {
            "rank": picker("rank", p.lora_rank if p.lora_rank in RANKS else 16, RANKS, stepwise=True),
            "targets": picker("trained", "all linear layers", tuple(TARGETS)),
            "gpu": picker("GPU", memory.GPUS[2], [(gpu.name, gpu) for gpu in memory.GPUS]),
        },
    )


# --- the playground: your own problem, with the probability of every token ---

#: Background of unlikely tokens. It is opaque, so that black text stays readable in the dark theme.
SHADE = (0, 114, 178)


@dataclass(frozen=True)
class Answer:
    """One model's answer: its ``text``, the decoded ``tokens`` and their ``probabilities``."""

    text: str
    tokens: list[str]
    probabilities: list[float]


def problem_prompt(problem: str, tokenizer: PreTrainedTokenizerBase, p: Profile) -> str | list[dict[str, str]]:
    """Return the prompt of one typed problem.

    Raises:
        ValueError: the problem is empty, or the prompt exceeds ``p.max_prompt_length``.
    """
    problem = problem.strip()
    if not problem:
        raise ValueError("The problem is empty. Type one, such as: What is 3 + 4?")
    prompt = build_prompt(problem, exemplars(p.dataset, p.shots), has_chat_template(tokenizer))
    length = len(encode_prompts(tokenizer, [prompt])[0])
    if length > p.max_prompt_length:
        raise ValueError(
            f"The prompt has {length} tokens, but max_prompt_length is {p.max_prompt_length}. Shorten the problem."
        )
    return prompt


def token_probabilities(model: PreTrainedModel, prompt_ids: list[int], ids: list[int]) -> list[float]:
    """Return the probability of each of ``ids`` given ``prompt_ids`` and the preceding ids, at temperature 1."""
    whole = torch.tensor([prompt_ids + ids], device=model.device)
    with torch.no_grad():
        logits = model(input_ids=whole).logits[:, len(prompt_ids) - 1 : -1].float()
    return selected_logps(logits, whole[:, len(prompt_ids) :])[0].exp().tolist()


def ask(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str | list, p: Profile, temperature: float, seed: int
) -> Answer:
    """Sample one response and return it with the probabilities of its tokens. Temperature 0 is greedy decoding."""
    how = Sampling.of(p, temperature=temperature, seed=seed)
    response: Response = sample_responses(model, tokenizer, [prompt], how)[0][0]
    ids = [token for token, sampled in zip(response.ids, response.sampled, strict=True) if sampled]
    training = model.training
    model.eval()
    probabilities = token_probabilities(model, encode_prompts(tokenizer, [prompt])[0], ids)
    model.train(training)
    return Answer(response.text.strip(), [tokenizer.decode([token]) for token in ids], probabilities)


def shaded(answer: Answer) -> Markup:
    """Return the escaped tokens of an answer, each with its probability in percent as a shade and a number."""
    boxes = []
    for token, p in zip(answer.tokens, answer.probabilities, strict=True):
        name = token_name(token)
        red, green, blue = (round(255 - 0.7 * (1 - p) * (255 - part)) for part in SHADE)  # over white
        style = (
            "display:inline-block;text-align:center;margin:1px;padding:0 2px;color:black;"
            f"background-color:rgb({red},{green},{blue})"
        )
        boxes.append(
            f'<span style="{style}" title="probability {p:.4f}"><code style="background:none;color:black">{name}'
            f"</code><br><small>{100 * p:.0f}</small></span>"
        )
    spelled = " ".join(f"{token!r} {100 * p:.0f}" for token, p in zip(answer.tokens, answer.probabilities, strict=True))
    return Markup(" ".join(boxes), spelled)


def verdict_on(answer: Answer, problem: str, truth: str) -> str:
    """Return the reward and the verifier's reason, or a note if there is no ground truth."""
    if not truth.strip():
        return "no ground truth given"
    verdict = verify(answer.text, truth, question=problem)
    return f"reward {int(verdict.correct)}: {verdict.reason}"


def draw_answers(
    models: Mapping[str, PreTrainedModel],
    tokenizer: PreTrainedTokenizerBase,
    p: Profile,
    problem: str,
    truth: str,
    temperature: float,
    seed: int,
) -> Output:
    """Return a table with one row per model: its answer, the verdict, and the tokens with probabilities."""
    prompt = problem_prompt(problem, tokenizer, p)
    answers = {name: ask(model, tokenizer, prompt, p, temperature, seed) for name, model in models.items()}
    rows = [
        (name, as_written(answer.text), verdict_on(answer, problem, truth), shaded(answer))
        for name, answer in answers.items()
    ]
    return table(
        problem.strip(),
        ("model", "answer", "verifier", "token by token"),
        rows,
        "Below each token: its probability in percent given the tokens before it, at temperature 1. Darker tokens are "
        "less likely. Temperature 0 is greedy decoding: it always takes the most likely token.",
    )


def playground(
    models: Mapping[str, PreTrainedModel], tokenizer: PreTrainedTokenizerBase, p: Profile, problem: str, truth: str = ""
) -> None:
    """Show each model's answer to ``problem``, with a text field for your own problem in a live notebook.

    Args:
        models: models by display name.
        p: the profile of their run, for the prompt and the length limits.
        truth: the ground truth. If empty, there is no verdict.
    """
    interactive_or_static(
        "playground",
        partial(draw_answers, models, tokenizer, p),
        {
            "problem": textbox("problem", problem, rows=3),
            "truth": textbox("ground truth", truth),
            "temperature": slider("temperature", 1.0, 0, 1.5, 0.25),
            "seed": picker("seed", 0, range(10)),
        },
        button="Sample from both models",
    )

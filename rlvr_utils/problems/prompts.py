r"""Many-shot prompts in RLVR-MATH's format, and the one rule that says where a response ends.

Chat models get one user message, ``Question: ...\nAnswer:...\n\n`` for each exemplar and then ``Question: ...``; plain
(base) models get the same text followed by ``\nAnswer:`` and go on from there. A base model does not stop after its
answer: it invents the next question. So a response ends where :data:`STOP` begins, in training rollouts, in
evaluation and in vLLM alike.

Source of the format: allenai/open-instruct, scripts/create_ground_truth_data.py.
"""

from __future__ import annotations

from collections.abc import Sequence

QUESTION = "Question: "
ANSWER = "\nAnswer:"
#: A response ends where this begins: what follows is a problem that the model made up.
STOP = "\nQuestion:"

#: RLVR-MATH's own four exemplars, the stray brace of the first one included (the data has it in all 7,500 rows).
RLVR_MATH_EXEMPLARS: tuple[tuple[str, str], ...] = (
    (
        r"Find the domain of the expression $\frac{\sqrt{x-2}}{\sqrt{5-x}}$.}",
        r"The expressions inside each square root must be non-negative."
        "\n"
        r"Therefore, $x-2 \ge 0$, so $x\ge2$, and $5 - x \ge 0$, so $x \le 5$."
        "\n"
        r"Also, the denominator cannot be equal to zero, so $5-x>0$, which gives $x<5$."
        "\n"
        r"Therefore, the domain of the expression is $\boxed{[2,5)}$.",
    ),
    (
        r"If $\det \mathbf{A} = 2$ and $\det \mathbf{B} = 12,$ then find $\det (\mathbf{A} \mathbf{B}).$",
        r"We have that $\det (\mathbf{A} \mathbf{B}) = (\det \mathbf{A})(\det \mathbf{B}) = (2)(12) = \boxed{24}.$",
    ),
    (
        "Terrell usually lifts two 20-pound weights 12 times. If he uses two 15-pound weights instead, how many times must "
        "Terrell lift them in order to lift the same total weight?",
        r"If Terrell lifts two 20-pound weights 12 times, he lifts a total of $2\cdot 12\cdot20=480$ pounds of weight.  "
        r"If he lifts two 15-pound weights instead for $n$ times, he will lift a total of $2\cdot15\cdot n=30n$ pounds of "
        r"weight.  Equating this to 480 pounds, we can solve for $n$: \begin{align*}"
        "\n"
        r"30n&=480\\"
        "\n"
        r"\Rightarrow\qquad n&=480/30=\boxed{16}"
        "\n"
        r"\end{align*}",
    ),
    (
        "If the system of equations\n\n\\begin{align*}\n6x-4y&=a,\\\\\n6y-9x &=b.\n\\end{align*}has a solution $(x, y)$ "
        r"where $x$ and $y$ are both nonzero, find $\frac{a}{b},$ assuming $b$ is nonzero.",
        "If we multiply the first equation by $-\\frac{3}{2}$, we obtain\n\n$$6y-9x=-\\frac{3}{2}a.$$Since we also know "
        "that $6y-9x=b$, we have\n\n$$-\\frac{3}{2}a=b\\Rightarrow\\frac{a}{b}=\\boxed{-\\frac{2}{3}}.$$",
    ),
)


def build_prompt(problem: str, shots: Sequence[tuple[str, str]] = (), chat: bool = False) -> str | list[dict[str, str]]:
    """The prompt for one problem.

    Args:
        problem: the problem in LaTeX.
        shots: (question, answer) exemplars.
        chat: whether the model has a chat template.

    Returns:
        One user message for a chat model; the plain text up to ``Answer:`` for a base model.
    """
    text = "".join(f"{QUESTION}{question}{ANSWER}{answer}\n\n" for question, answer in shots) + QUESTION + problem
    return [{"role": "user", "content": text}] if chat else text + ANSWER


def question_in(prompt: object) -> str | None:
    """The problem that a prompt of :func:`build_prompt` asks, plain or chat; None for anything else."""
    if isinstance(prompt, list):
        prompt = prompt[-1].get("content") if prompt and isinstance(prompt[-1], dict) else None
    if not isinstance(prompt, str):
        return None
    # After the last exemplar's answer; a problem may hold "Question: " itself.
    return prompt.removesuffix(ANSWER).rpartition(ANSWER)[2].partition(QUESTION)[2] or None


def cut_at_stop(text: str) -> str:
    """The response itself: the text before the model invents the next question."""
    return text.split(STOP, 1)[0].rstrip("\n") if STOP in text else text


def refuse_long_prompts(lengths: Sequence[int], ids: Sequence[str], limit: int) -> None:
    """Refuse prompts of more than ``limit`` tokens by name; a prompt is never cut, since that would change the problem.

    Raises:
        ValueError: names the first offenders and says what to change.
    """
    long = [f"{name} ({length} tokens)" for name, length in zip(ids, lengths, strict=True) if length > limit]
    if long:
        raise ValueError(
            f"{len(long)} of {len(lengths)} prompts are longer than max_prompt_length={limit}: "
            f"{', '.join(long[:3])}{', ...' if len(long) > 3 else ''}. "
            "Raise max_prompt_length, use fewer shots, or leave these problems out."
        )

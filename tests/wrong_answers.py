"""Typical wrong answers to each exercise: (the mistake, the function, words of the property that must catch it)."""

from __future__ import annotations

import json
import re
from fractions import Fraction
from math import comb

import numpy as np
import torch

from rlvr_utils import REPO
from rlvr_utils.problems import check_steps, find_steps
from rlvr_utils.verifier import answers_match, boxed_reward, last_boxed


def mean(values):
    return sum(values) / len(values)


# --- 01 ---


def counts_every_brace(text, start=None):
    start = text.rfind(r"\boxed{") if start is None else start
    depth = 0
    for index in range(start + len(r"\boxed"), len(text)) if start >= 0 else ():
        depth += {"{": 1, "}": -1}.get(text[index], 0)
        if depth == 0:
            return text[start + len(r"\boxed{") : index] or None
    return None


def up_to_the_first_brace(text):
    found = re.findall(r"\\boxed\{(.*?)\}", text)
    return found[-1] if found else None


def falls_back_to_an_earlier_box(text):
    boxes = (last_boxed(text[:end]) for end in range(len(text), 0, -1))
    return next((box for box in boxes if box), None)


def any_later_brace(text):
    return last_boxed(re.sub(r"\\boxed[^{}]*\{", r"\\boxed{", text))


def spelled(answer, argument=r"(\d|\{[^{}]*\})"):
    answer = re.sub(r"\\[dt]frac", r"\\frac", re.sub(r"\s+", "", answer))
    return re.sub(
        rf"\\frac{argument}{argument}", lambda match: rf"\frac{{{match[1].strip('{}')}}}{{{match[2].strip('{}')}}}", answer
    )


def value(text):
    return Fraction(re.sub(r"\\frac\{(-?\d+)\}\{(\d+)\}", r"\1/\2", text).removeprefix("--"))


def fractions_of_any_form(a, b):
    try:
        return value(a) == value(b)
    except (ValueError, ZeroDivisionError):
        return False


def wald(successes, n, z=1.96):
    p = successes / n
    half = z * (p * (1 - p) / n) ** 0.5
    return p - half, p + half


def wilson_at_95_percent(successes, n):
    p, w = successes / n, 1.96**2 / n
    half = (w * p * (1 - p) + w**2 / 4) ** 0.5
    return (p + w / 2 - half) / (1 + w), (p + w / 2 + half) / (1 + w)


def wilson_without_the_divisor(successes, n, z=1.96):
    p, w = successes / n, z**2 / n
    half = (w * p * (1 - p) + w**2 / 4) ** 0.5
    return p + w / 2 - half, p + w / 2 + half


# --- 02 ---


def by_groups(rewards, size, centre=True, divide=True, floor=1e-4, unbiased=True):
    groups = rewards.view(-1, size)
    centred = groups - groups.mean(1, keepdim=True) * centre
    return (centred / (groups.std(1, keepdim=True, unbiased=unbiased) + floor) if divide else centred).flatten()


def ratio_of(logps, old):
    return (logps - old).exp()


def clipped(logps, old, advantages, epsilon):
    return ratio_of(logps, old).clamp(1 - epsilon, 1 + epsilon) * advantages.unsqueeze(1)


def whole_term(logps, old, advantages, epsilon):
    return torch.min(ratio_of(logps, old) * advantages.unsqueeze(1), clipped(logps, old, advantages, epsilon))


def stops_outside(logps, old, advantages, epsilon):
    term = whole_term(logps, old, advantages, epsilon)
    inside = (ratio_of(logps, old) - 1).abs() <= epsilon
    return -term.where(inside, term.detach())


def slope_of_the_ratio(logps, old, advantages, epsilon):
    plain = ratio_of(logps, old) * advantages.unsqueeze(1)
    return -(whole_term(logps, old, advantages, epsilon).detach() + plain - plain.detach())


def by_autograd(logits, action, advantage):
    point = logits.clone().requires_grad_()
    return torch.autograd.grad(-advantage * point.log_softmax(0)[action], point)[0]


def logit_push(logits, action, advantage):
    return torch.nn.functional.one_hot(torch.tensor(action), len(logits)) - logits.softmax(-1)


# --- 03 ---


def gradients(g, x, A, B, scale):
    return scale * (g @ B).T @ x, scale * g.T @ (x @ A.T)


def merged_in_place(W, A, B, alpha):
    W += alpha / len(A) * B @ A
    return W


def count(hidden, inner, n_heads, n_kv_heads, n_blocks, rank):
    keys = hidden * n_kv_heads // n_heads
    return n_blocks * rank * (4 * hidden + 2 * (hidden + keys) + 3 * (hidden + inner))


def first_change(A, g, x, alpha, lr):
    return -alpha / len(A) * lr * torch.outer(g, A @ x).sign() @ A


# --- 04 ---


def batch(prompts, samples, micro, steps, n_problems):
    responses = prompts * samples
    if responses % micro:
        raise ValueError("does not divide")
    return {
        "responses per step": responses,
        "accumulation steps": responses // micro,
        "responses in all": steps * responses,
        "epochs": steps * prompts / n_problems,
    }


def group_size(pass_rates, share, mixed=lambda p, n: 1 - p**n - (1 - p) ** n):
    return next((n for n in range(1, 1000) if mean([mixed(p, n) for p in pass_rates]) >= share - 1e-12), None)


def metrics(groups, still):
    rewards = [reward for group in groups for reward in group]
    return {"reward": mean(rewards), "frac_reward_zero_std": mean([bool(still(group)) for group in groups])}


def in_groups(rewards, size):
    return [rewards[i : i + size] for i in range(0, len(rewards), size)]


def cuts_the_list_it_was_given(rows, checkpoints):
    start = max((step for step, complete in checkpoints if complete), default=0)
    del rows[start:]
    return start, rows


def resumed_at(start, rows, kept_until=0):
    return start, [row for row in rows if row["step"] <= start + kept_until]


def complete_ones(checkpoints):
    return [step for step, complete in checkpoints if complete]


def priced(texts, truths, price, **columns):
    verdicts = boxed_reward(texts, truths)
    return [
        verdict if verdict is None else price(verdict, len(text.split()))
        for verdict, text in zip(verdicts, texts, strict=True)
    ]


def ignores_other_columns(completions, ground_truth):
    return priced(completions, ground_truth, lambda v, n: v * 40 / max(40, n))


# --- 05 ---


def resampled(before, after, paired=True, quantiles=(0.025, 0.975)):
    before, after, draw = np.asarray(before), np.asarray(after), np.random.default_rng(0)
    rows = [draw.integers(len(before), size=(2000, len(before))) for _ in range(2)]
    differences = after[rows[0]].mean(1) - before[rows[0 if paired else 1]].mean(1)
    return (after - before).mean(), *np.quantile(differences, quantiles)


def category(row, response, cut_off, truth=None, steps_checked=slice(None), know_cut_off=True):
    steps = find_steps(response)
    if last_boxed(response) is None:
        return "truncated" if cut_off and know_cut_off else "no_box"
    if not steps:
        return "direct_answer"
    if not all(check_steps(row, response)[steps_checked]):
        return "slipped_step"
    return "correct_steps_wrong_box" if answers_match(steps[-1][1], truth or row["ground_truth"]) else "wrong_method"


def shape_of(x, scale):
    return 1 - np.exp(-np.asarray(x, float) / scale)


def least_squares(steps, rewards, start, scale):
    shape = shape_of(steps, scale)
    return ((rewards - start) * shape).sum() / (shape**2).sum()


# --- 06 ---


def found_at(rewards, strict, window, found, first=1, last=True):
    gaps = np.subtract(rewards, strict)
    for start in range(len(gaps) - window + 1):
        if gaps[start : start + window].mean() > found:
            return start + first + (window - 1 if last else 0)
    return None


def at_the_widest(rewards, strict, window, found):
    gaps = np.subtract(rewards, strict)
    means = [gaps[end - window : end].mean() for end in range(window, len(gaps) + 1)]
    return window + int(np.argmax(means)) + 1 if means and max(means) > found else None


def part(verdict):
    return verdict if isinstance(verdict, float) else verdict is True


def judged(response, truth, judge, failed=0.0, proof=lambda verdict: verdict is True, errors=Exception):
    try:
        return float(proof(judge(response, truth)))
    except errors:
        return failed


def neighbours(text):
    words = text.split()
    return sum(a == b for a, b in zip(words, words[1:], strict=False)) / max(1, len(words))


def stops(accuracies, patience, restart=False, better=np.greater):
    best = waited = 0
    for index, accuracy in enumerate(accuracies):
        rises = index > 0 and accuracy > accuracies[index - 1]
        if index and better(accuracy, accuracies[best]):
            best, waited = index, 0
        elif index:
            waited = 0 if restart and rises else waited + 1
        if waited == patience:
            break
    return index, best


# --- 08 ---


def weight(advantage, p, size, centre=True, chances=None):
    total = 0.0
    for k in range(size + 1):
        chance = chances or comb(size, k) * p**k * (1 - p) ** (size - k)
        values = advantage(torch.tensor([[1.0] * k + [0.0] * (size - k)], dtype=torch.float64))[0]
        good, bad = values[:k].sum().item() / size, values[k:].sum().item() / size
        total += chance * (good / p - (bad / (1 - p) if centre else 0))
    return total


def mixed(groups, size, still=lambda g: len(set(g)) == 1, count=None):
    kept, n = [], 0
    for group in groups:
        if len(kept) == size:
            break
        n += 1
        kept += [] if still(group) else [group]
    return kept, count(kept, groups) if count else n


def process(steps, correct, distinct=True, nonempty=True, until_false=True, half=0.5):
    real = [step for step in (dict.fromkeys(steps) if distinct else steps) if not nonempty or step[0] != step[1]]
    true = [step[2] for step in real]
    good = true.index(False) if until_false and False in true else sum(true)
    return (1 - half) * correct + half * (good / len(real) if real else 0.0)


# --- 07 ---

CLINIC = json.loads((REPO / "data" / "clinic" / "key.json").read_text(encoding="utf-8"))


def pushed(advantage, ratio, n_tokens, epsilon):
    clipped = ratio > 1 + epsilon if advantage > 0 else ratio < 1 - epsilon
    return 0.0 if clipped else advantage * ratio / n_tokens


def written(steps):
    return " ".join(f"${lhs} = {rhs}$." for lhs, rhs in steps)


def takes_the_truth_as_text(steps, i, new):
    if i >= len(steps) or steps[i][1] is new:
        raise ValueError("not a false step")
    return written([*steps[:i], (steps[i][0], new)])


def share(outcomes):
    return sum(one == "truth" for one in outcomes) / len(outcomes)


def lost(right, changed):
    both = [(one == "truth") - (other == "truth") for one, other in zip(right, changed, strict=True) if other is not None]
    return sum(both) / len(both)


WRONG = {
    "00-two-numbers": [
        ("pays without a box", lambda boxed, right: (mean(boxed), mean(right)), "without a box counts as wrong"),
        (
            "divides by the boxed",
            lambda boxed, right: (mean(boxed), sum(r for b, r in zip(boxed, right, strict=True) if b) / max(1, sum(boxed))),
            "share of all responses",
        ),
        (
            "exchanges the two",
            lambda boxed, right: (mean([b and r for b, r in zip(boxed, right, strict=True)]), mean(boxed)),
            "boxed rate is the share",
        ),
    ],
    "01-last-box": [
        ("stops at the first brace", up_to_the_first_brace, "nested braces"),
        ("takes the first box", lambda text: counts_every_brace(text, text.find(r"\boxed{")), "the last box counts"),
        ("counts every brace", counts_every_brace, "an escaped brace"),
        ("falls back to an earlier box", falls_back_to_an_earlier_box, "never closes"),
        ("searches for any later brace", any_later_brace, "only white space"),
        ("gives an empty text", lambda text: "" if text.endswith(r"\boxed{}") else last_boxed(text), "last box is empty"),
    ],
    "01-one-spelling": [
        ("leaves digits without braces", lambda a: re.sub(r"\s|(?<=\\)[dt](?=frac)", "", a), "gets braces"),
        ("takes many digits", lambda a: spelled(a, r"(\d+|\{[^{}]*\})"), "different answers stay different"),
        ("keeps spaces", lambda a: spelled(a) if " " not in a else a, "spaces are removed"),
        ("forgets \\tfrac", lambda a: a if "tfrac" in a else spelled(a), "become \\frac"),
    ],
    "01-same-number": [
        ("a tolerance", lambda a, b: abs(value(a) - value(b)) < Fraction(1, 100), "close numbers are not equal"),
        ("floats", lambda a, b: float(value(a)) == float(value(b)), "close numbers are not equal"),
        ("texts", lambda a, b: a == b, "two spellings"),
        ("raises on words", lambda a, b: value(a) == value(b), "runs without an error"),
        ("leaves the form to Fraction", fractions_of_any_form, "scientific notation"),
        ("drops the sign", lambda a, b: abs(value(a)) == abs(value(b)), "the sign counts"),
        ("excludes powers of ten only", lambda a, b: "e" not in a + b and fractions_of_any_form(a, b), "an underscore"),
    ],
    "01-shotgun": [
        (
            "boxes every number",
            lambda low, high: " ".join(rf"\boxed{{{n}}}" for n in range(low, high + 1)),
            "rewards it for no ground truth",
        ),
        ("leaves out the last", lambda low, high: " ".join(f"${n}$" for n in range(low, high)), "for every ground truth"),
        ("one long formula", lambda low, high: f"${', '.join(map(str, range(low, high + 1)))}$", "for every ground truth"),
        ("a list", lambda low, high: [f"${n}$" for n in range(low, high + 1)], "the response is a string"),
    ],
    "01-wilson": [
        ("the interval one remembers", wald, "between 0 and 1"),
        ("cut off at 0 and 1", lambda k, n, z=1.96: tuple(np.clip(wald(k, n, z), 0, 1)), "a positive width"),
        ("forgets the divisor", wilson_without_the_divisor, "between 0 and 1"),
        ("ignores z", lambda k, n, z=1.96: wilson_at_95_percent(k, n), "a larger z widens"),
    ],
    "02-advantages": [
        ("the mean of the batch", lambda r, size: (r - r.mean()) / (r.std() + 1e-4), "sum to 0"),
        ("numpy's std", lambda r, size: by_groups(r, size, unbiased=False), "sample std"),
        ("no small constant", lambda r, size: by_groups(r, size, floor=0), "NaN"),
        ("no division", lambda r, size: by_groups(r, size, divide=False), "10 instead of 1"),
        ("no baseline", lambda r, size: by_groups(r, size, centre=False), "sum to 0"),
    ],
    "02-clipped-term": [
        ("only the clip", lambda *given: -clipped(*given), "pushed back"),
        ("no clip", lambda logps, old, a, epsilon: -ratio_of(logps, old) * a.unsqueeze(1), "exceeds 1 + epsilon"),
        ("to be maximised", whole_term, "minus its advantage"),
        ("cut from the graph", lambda *given: -whole_term(*given).detach(), "flow back"),
        ("a gradient only within the clip", stops_outside, "pushed back"),
        ("the right value with the slope of the plain ratio", slope_of_the_ratio, "gets no gradient"),
        ("a fixed epsilon", lambda logps, old, a, epsilon: -whole_term(logps, old, a, 0.2), "another epsilon"),
    ],
    "02-averages": [
        ("divides by the padding too", lambda term, mask, kind: (term * mask).mean(), "equal terms"),
        ("dapo twice", lambda term, mask, kind: (term * mask).sum() / mask.sum(), "every response has the same weight"),
        (
            "grpo twice",
            lambda term, mask, kind: ((term * mask).sum(1) / mask.sum(1)).mean(),
            "every token has the same weight",
        ),
        ("no mask", lambda term, mask, kind: term.mean(), "padding do not matter"),
    ],
    "02-logit-gradient": [
        ("by autograd", by_autograd, "without autograd"),
        ("the other sign", lambda logits, action, a: a * logit_push(logits, action, a), "raises the sampled token"),
        ("only the sampled token", lambda logits, action, a: -a * logit_push(logits, action, a).relu(), "sum to 0"),
        ("only the advantage's sign", lambda logits, action, a: -np.sign(a) * logit_push(logits, action, a), "proportional"),
    ],
    "03-first-gradients": [
        ("no scale", lambda g, x, A, B, scale: gradients(g, x, A, B, 1.0), "twice the scale"),
        ("the mean over rows", lambda g, x, A, B, scale: gradients(g, x, A, B, scale / len(g)), "the sum of the rows'"),
        ("swapping before and after", lambda *given: gradients(*given)[::-1], "shape of its matrix"),
        ("both as if B were not there", lambda g, x, A, B, scale: (scale * A, scale * g.T @ (x @ A.T)), "A has no gradient"),
    ],
    "03-merge": [
        ("the other order", lambda W, A, B, alpha: W + alpha / len(A) * A @ B, "runs without an error"),
        ("no division by r", lambda W, A, B, alpha: W + alpha * B @ A, "scaled by alpha / r"),
        ("in place", merged_in_place, "W itself is not changed"),
        ("only the change", lambda W, A, B, alpha: alpha / len(A) * B @ A, "the merged weight is W"),
    ],
    "03-count": [
        ("k and v as wide as q", lambda h, i, n, kv, blocks, r: count(h, i, n, n, blocks, r), "key/value heads"),
        ("attention only", lambda h, i, n, kv, blocks, r: count(h, 0, n, kv, blocks, r) - 3 * blocks * r * h, "inner width"),
        ("one block", lambda h, i, n, kv, blocks, r: count(h, i, n, kv, 1, r), "proportional to the number of blocks"),
        ("A only", lambda h, i, n, kv, blocks, r: blocks * r * (6 * h + i), "key/value heads"),
    ],
    "03-first-step": [
        ("uphill", lambda *given: -first_change(*given), "lowers the loss"),
        ("plain gradient descent", lambda A, g, x, alpha, lr: -lr * alpha / len(A) * torch.outer(g, A @ x) @ A, "signs"),
        ("no division by r", lambda A, *given: len(A) * first_change(A, *given), "with alpha fixed"),
        ("no alpha", lambda A, g, x, alpha, lr: first_change(A, g, x, len(A), lr), "doubling alpha"),
    ],
    "03-memory": [
        ("bfloat16 throughout", lambda n, lora: 8 * n if lora is None else 2 * n + 8 * lora, "16 bytes"),
        (
            "moments of the frozen model",
            lambda n, lora: 8 * n if lora is None else 8 * n + 16 * lora,
            "with 0 LoRA parameters",
        ),
        ("no moments", lambda n, lora: 4 * n if lora is None else 2 * n + 16 * lora, "in full fine-tuning"),
        ("only LoRA", lambda n, lora: 2 * n + 16 * lora, "runs without an error"),
    ],
    "04-batch": [
        (
            "epochs of samples",
            lambda p, s, m, steps, n: batch(p, s, m, steps, n) | {"epochs": steps * p * s / n},
            "one pass",
        ),
        (
            "cuts what does not divide",
            lambda p, s, m, *rest: batch(p, s, 1, *rest) | {"accumulation steps": p * s // m},
            "raises a ValueError",
        ),
        ("a step is its prompts", lambda p, s, *rest: batch(p, s, *rest) | {"responses per step": p}, "prompts x samples"),
        ("another key", lambda *given: {"responses": given[0] * given[1]}, "keys of the stub"),
        (
            "refuses with another error",
            lambda p, s, m, *rest: batch(p, s, m, *rest) if p * s % m == 0 else [][0],
            "invalid arguments raise a ValueError",
        ),
    ],
    "04-mixed-groups": [
        (
            "at least one correct",
            lambda p, share: group_size(p, share, lambda q, n: 1 - (1 - q) ** n),
            "groups of 2 are mixed",
        ),
        ("pairs only", lambda p, share: 2, "groups of 3 are mixed"),
        ("one size too large", lambda p, share: group_size(p, share) + 1, "groups of 2 are mixed"),
        ("the mean pass rate", lambda p, share: group_size([mean(p)], share), "a mean over all problems"),
        (
            "leaves out 0 and 1",
            lambda p, share: group_size([q for q in p if 0 < q < 1] or [0], share),
            "never mixed, but count",
        ),
        ("the largest size it tries", lambda p, share: group_size(p, share) or 999, "no group size is enough"),
    ],
    "04-metrics-row": [
        (
            "only groups all wrong",
            lambda r, size: metrics(in_groups(r, size), lambda g: not any(g)),
            "all-correct and all-wrong",
        ),
        (
            "every other response",
            lambda r, size: metrics([r[i :: len(r) // size] for i in range(len(r) // size)], lambda g: len(set(g)) == 1),
            "all-correct and all-wrong",
        ),
        (
            "only 0 and 1",
            lambda r, size: metrics(in_groups(r, size), lambda g: set(g) in ({0}, {1})),
            "equal partial rewards",
        ),
        (
            "the share of mixed groups",
            lambda r, size: metrics(in_groups(r, size), lambda g: len(set(g)) > 1),
            "one mixed group",
        ),
    ],
    "04-resume": [
        (
            "a half-written checkpoint",
            lambda rows, c: resumed_at(max((s for s, _ in c), default=0), rows),
            "incomplete checkpoint is skipped",
        ),
        ("keeps every row", lambda rows, c: (max(complete_ones(c), default=0), rows), "later rows are dropped"),
        ("changes its input", cuts_the_list_it_was_given, "are not changed"),
        ("the last of the list", lambda rows, c: resumed_at((complete_ones(c) or [0])[-1], rows), "any order"),
        (
            "one row too few",
            lambda rows, c: resumed_at(max(complete_ones(c), default=0), rows, kept_until=-1),
            "up to that step are kept",
        ),
        ("nothing complete", lambda rows, c: resumed_at(max(complete_ones(c)), rows), "runs without an error"),
    ],
    "04-length-reward": [
        (
            "as in the notebook",
            lambda c, t, **k: priced(c, t, lambda v, n: v - 0.01 * max(0, n - 40)),
            "a wrong response of any length",
        ),
        (
            "without a bound",
            lambda c, t, **k: priced(c, t, lambda v, n: v * (1 - 0.001 * max(0, n - 40))),
            "a very long correct response",
        ),
        ("no length term", lambda c, t, **k: boxed_reward(c, t), "more than 40 words"),
        (
            "flat beyond 130 words",
            lambda c, t, **k: priced(c, t, lambda v, n: v * 40 / min(max(40, n), 130)),
            "each further word",
        ),
        ("counts from the first word", lambda c, t, **k: priced(c, t, lambda v, n: v / n), "up to 40 words gets reward 1"),
        ("no further columns", ignores_other_columns, "runs without an error"),
    ],
    "05-paired-bootstrap": [
        ("not paired", lambda before, after: resampled(before, after, paired=False), "both of its values"),
        ("90 %", lambda before, after: resampled(before, after, quantiles=(0.05, 0.95)), "agrees with the 95 % interval"),
        ("before minus after", lambda before, after: resampled(after, before), "after minus before"),
        (
            "the spread of problems",
            lambda before, after: ((after - before).mean(), *np.quantile(after - before, (0.025, 0.975))),
            "more problems narrow",
        ),
    ],
    "05-decomposition": [
        ("boxes first", lambda b, a: ((a[0] - b[0]) * b[1], (a[1] - b[1]) * a[0]), "swapping before and after"),
        ("boxes last", lambda b, a: ((a[0] - b[0]) * a[1], (a[1] - b[1]) * b[0]), "swapping before and after"),
        ("the bare changes", lambda b, a: (a[0] - b[0], a[1] - b[1]), "add up"),
        ("all of it from the box", lambda b, a: (a[0] * a[1] - b[0] * b[1], 0.0), "given a box changes"),
    ],
    "05-pass-at-k": [
        ("the tempting estimate", lambda n, c, k: 1 - (1 - c / n) ** k, "fewer than k wrong"),
        ("k times the share", lambda n, c, k: min(1.0, k * c / n), "unbiased"),
        ("any right at all", lambda n, c, k: float(c > 0), "for k = 1"),
        ("the chance of none", lambda n, c, k: (1 - c / n) ** k, "for k = 1"),
    ],
    "05-category": [
        ("looks at the last step", lambda *given: category(*given, steps_checked=slice(-1, None)), "one false step"),
        ("no length limit", lambda *given: category(*given, know_cut_off=False), "reaches the length limit"),
        ("one ground truth for all", lambda *given: category(*given, truth="14"), "from the row"),
        ("a name of its own", lambda *given: "wrong", "a name from the table"),
    ],
    "05-projection": [
        ("a line", lambda steps, rewards, at, start, scale: start + (rewards[-1] - start) * at / steps[-1], "recovers"),
        (
            "no bounds",
            lambda steps, rewards, at, start, scale: (
                start + least_squares(steps, rewards, start, scale) * shape_of(at, scale)
            ),
            "exceeds 1",
        ),
        (
            "clips the curve",
            lambda steps, rewards, at, start, scale: np.clip(
                start + max(0, least_squares(steps, rewards, start, scale)) * shape_of(at, scale), 0, 1
            ),
            "the gain is bounded",
        ),
        (
            "through the last point",
            lambda steps, rewards, at, start, scale: (
                start + shape_of(at, scale) * np.clip((rewards[-1] - start) / shape_of(steps[-1], scale), 0, 1 - start)
            ),
            "with noise",
        ),
        (
            "from 0",
            lambda steps, rewards, at, start, scale: shape_of(at, scale) * least_squares(steps, rewards, 0, scale),
            "recovers",
        ),
    ],
    "06-discovery": [
        ("counts from 0", lambda r, s, w, f: found_at(r, s, w, f, first=0), "first window whose mean gap"),
        ("the window's first step", lambda r, s, w, f: found_at(r, s, w, f, last=False), "first window whose mean gap"),
        ("no window", lambda r, s, w, f: found_at(r, s, 1, f), "first window whose mean gap"),
        ("the reward alone", lambda r, s, w, f: found_at(r, [0] * len(r), w, f), "first window whose mean gap"),
        ("the widest gap", at_the_widest, "first window whose mean gap"),
        ("a lower bound", lambda r, s, w, f: found_at(r, s, w, f / 4), "first window whose mean gap"),
        ("the last step without one", lambda r, s, w, f: found_at(r, s, w, f) or len(r), "one high step"),
    ],
    "06-fail-closed": [
        ("the benefit of the doubt", lambda r, t, judge: judged(r, t, judge, failed=1.0), "raises any error"),
        ("whatever is truthy", lambda r, t, judge: judged(r, t, judge, proof=bool), "only the verdict True"),
        ("no guard", lambda r, t, judge: float(judge(r, t) is True), "runs without an error"),
        ("one kind of error", lambda r, t, judge: judged(r, t, judge, errors=ValueError), "runs without an error"),
        ("the wrong way round", lambda r, t, judge: judged(t, r, judge), "in this order"),
        ("the verdict as a number", lambda r, t, judge: judged(r, t, judge, proof=part), "only the verdict True"),
    ],
    "06-repetition": [
        ("no guard", lambda text: 1 - len(set(text.split())) / len(text.split()), "runs without an error"),
        ("the distinct ones", lambda text: len(set(text.split())) / max(1, len(text.split())), "occur once"),
        ("neighbours only", neighbours, "at any distance"),
        ("characters", lambda text: 1 - len(set(text)) / len(text) if text else 0.0, "occur once"),
        ("one space each", lambda text: 1 - len(set(text.split(" "))) / max(1, len(text.split(" "))), "ten times"),
    ],
    "06-early-stopping": [
        ("the best of all", lambda a, n: (stops(a, n)[0], int(np.argmax(a))), "not restart"),
        ("keeps the last", lambda a, n: (stops(a, n)[0],) * 2, "without a new best"),
        ("never stops", lambda a, n: (len(a) - 1, int(np.argmax(a))), "without a new best"),
        ("one more", lambda a, n: stops(a, n + 1), "without a new best"),
        ("counts falls only", lambda a, n: stops(a, n, restart=True), "restart the patience"),
        ("the last of equal ones", lambda a, n: stops(a, n, better=np.greater_equal), "of equal accuracies"),
    ],
    "08-k3": [
        ("the other direction", lambda p, q: torch.expm1(p - q) - (p - q), "mean over the policy's own samples"),
        ("k1", lambda p, q: p - q, "never negative"),
        ("k2", lambda p, q: (p - q) ** 2 / 2, "mean over the policy's own samples"),
        ("loses digits", lambda p, q: torch.exp(q - p) - (q - p) - 1, "stay precise"),
    ],
    "08-difficulty-weight": [
        ("forgets the wrong responses", lambda a, p, n: weight(a, p, n, centre=False), "adding a constant"),
        ("all group counts alike", lambda a, p, n: weight(a, p, n, chances=1 / (n + 1)), "weight 1"),
        ("the sum over the group", lambda a, p, n: n * weight(a, p, n), "weight 1"),
        ("always 1", lambda a, p, n: 1.0, "1 - 1 / G"),
        ("a group of 2 for all", lambda a, p, n: weight(a, p, 2), "1 - 1 / G"),
    ],
    "08-dynamic-batch": [
        ("keeps all correct groups", lambda g, n: mixed(g, n, still=lambda one: not any(one)), "dropped, whether"),
        ("counts the kept ones", lambda g, n: mixed(g, n, count=lambda kept, all_: len(kept)), "dropped groups count"),
        ("samples them all", lambda g, n: mixed(g, n, count=lambda kept, all_: len(all_)), "when the batch is full"),
        ("only 0 and 1", lambda g, n: mixed(g, n, still=lambda one: sum(one) in (0, len(one))), "partial rewards"),
        ("one result", lambda g, n: mixed(g, n)[0], "two values"),
    ],
    "08-process-reward": [
        ("the outcome alone", lambda s, c: float(c), "before a false one"),
        ("the steps alone", lambda s, c: process(s, c, half=1.0), "at most half"),
        ("counts repetitions", lambda s, c: process(s, c, distinct=False, until_false=False), "repeating a true step"),
        ("pays for 1 = 1", lambda s, c: process(s, c, nonempty=False), "same text on both sides"),
        ("pays after the slip", lambda s, c: process(s, c, until_false=False), "after a false one"),
        ("a correct answer excuses all", lambda s, c: 1.0 if c else process(s, c), "without steps"),
    ],
    "08-own-advantage": [
        ("the group's mean", lambda r: r - r.mean(1, keepdim=True), "one correct response of four"),
        ("the batch's mean", lambda r: (r - r.mean()) * 8 / 7, "one correct response of four"),
        ("flat", lambda r: (r - r.mean(1, keepdim=True)).flatten(), "right shape"),
        ("no baseline", lambda r: r, "gets -1/3"),
        ("the best of the others", lambda r: r - r.max(), "one correct response of four"),
    ],
    "07-push": [
        ("never clips", lambda a, ratio, n, eps: a * ratio / n, "a clipped token with a positive advantage"),
        ("clips both sides", lambda a, ratio, n, eps: a * ratio / n * (abs(ratio - 1) <= eps), "is not clipped"),
        ("forgets the ratio", lambda a, ratio, n, eps: pushed(a, ratio, n, eps) / ratio, "is not clipped"),
        ("a sum over tokens", lambda a, ratio, n, eps: n * pushed(a, ratio, n, eps), "the advantage divided by"),
        ("the sign of the loss", lambda a, ratio, n, eps: -pushed(a, ratio, n, eps), "the advantage divided by"),
    ],
    "07-false-step": [
        (
            "keeps what follows",
            lambda steps, i, new: written(steps[:i] + [(steps[i][0], new)] + steps[i + 1 :]),
            "ends with",
        ),
        ("only the false step", lambda steps, i, new: written([(steps[i][0], new)]), "steps before it are unchanged"),
        ("the left side too", lambda steps, i, new: written([*steps[:i], (new, new)]), "ends with"),
        ("takes the truth", lambda steps, i, new: written([*steps[:i], (steps[i][0], new)]), "the correct result raises"),
        ("compares a text with a number", takes_the_truth_as_text, "the correct result raises"),
    ],
    "07-importance": [
        ("not paired", lambda right, changed: share(right) - share(changed), "left out of both"),
        ("missing is wrong", lambda right, changed: lost(right, [one or "other" for one in changed]), "left out of both"),
        (
            "only followers",
            lambda right, changed: changed.count("false step") / max(1, sum(one is not None for one in changed)),
            "any answer other than the truth",
        ),
        ("the other sign", lambda right, changed: -lost(right, changed), "if every correct answer"),
        (
            "ignores the first condition",
            lambda right, changed: 1 - share([one for one in changed if one is not None]),
            "wrong in both conditions",
        ),
    ],
    "07-clinic": [
        ("all the same", lambda patients: dict.fromkeys("ABCDEFGH", "constant reward"), "no two patients"),
        ("a word of its own", lambda patients: dict.fromkeys("ABCDEFGH", "tired"), "is on the list"),
        ("seven patients", lambda patients: dict.fromkeys("ABCDEFG", "truncation"), "keys A to H"),
        (
            "the order of the list",
            lambda patients: dict(zip("ABCDEFGH", sorted(CLINIC.values()), strict=True)),
            "was made with",
        ),
    ],
}

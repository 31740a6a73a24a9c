"""Rules that detect problems in a run and report them with numbers and advice.

The same rules guard a live run (``training.recording`` calls them after every step) and explain a finished or dead one
(:func:`diagnose`). Each rule is a pure function of the :class:`Record` so far. ``RULES`` lists them.

Thresholds are calibrated on healthy runs. The comment at each threshold gives the range of the included reference runs of
profile ``mini`` (means over ten steps, 160 groups). Tests check these ranges, and that no rule fires on these runs.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean as mean
from statistics import variance

import pandas as pd

from .profiles import Profile, get_profile
from .runs import GROUPS_KEPT, PROMPTS_DRAWN, Run, load_run

#: The name of the finding after which no checkpoint is saved.
NOT_A_NUMBER = "not a number"
#: A rule averages over the last 10 steps, or over as many steps as give 128 groups. With 128 groups, the chance to miss a
#: share of 5 % is 0.1 % (0.95 to the power of 128).
STEPS, GROUPS = 10, 128
#: Share of zero-advantage groups above which there is almost no learning signal. Healthy: at most 0.6.
EQUAL = 0.95
#: The same share if the entropy has collapsed too. It is lower, because exploration won't produce new mixed groups.
ALMOST_EQUAL = 0.9
#: Mean reward, relative to the reward of a correct answer, above which equal groups mean that the problems are solved.
SOLVED = 0.9
#: Share of truncated responses that gives a warning, and share that leaves almost no learning signal. Healthy: at most
#: 0.01.
CUT_OFF, ALL_CUT_OFF = 0.25, 0.9
#: Entropy relative to the first step below which the entropy has collapsed. Healthy: at least 0.08.
COLLAPSED = 0.02
#: Entropy relative to the first step above which the model writes noise, and mean reward relative to the reward of a
#: correct answer below which it does not recover. Healthy: at most 1.1, and 1.9 in a control arm.
NOISE, NOTHING = 2.5, 0.05
#: KL divergence from the base model in nats per token. At 1, a token has become e times as likely on average. At 10, the
#: policy has lost the base model. Healthy runs with a KL term: at most 0.06.
FAR, GONE = 1.0, 10.0
#: Fall of the mean reward relative to its best, for a warning and for a stop, and in standard errors. Healthy: at most 0.1.
FALLEN, LOST, ERRORS = 1 / 3, 2 / 3, 4.0
#: Rise of the boxed rate above which accuracy must rise too, and rise of accuracy below which it counts as flat.
#: Healthy: at least 0.5 and 0.3.
BOXED_RISE, FLAT = 0.2, 0.05
#: Rise of the mean reward since the first steps above which falling accuracy indicates reward hacking. Random rewards,
#: which cannot rise: at most 0.03.
RISEN = 0.1
#: Share of responses with a box that are still truncated, above which a higher limit would not help, because they continue
#: after their answer. Healthy: 0.
GO_ON = 0.05
#: After this share of a run and two windows, a rise of the mean reward below this (relative to the reward of a correct
#: answer) and below 2 standard errors counts as flat. Healthy: at least 0.04 at a tenth of the default learning rate, and
#: 0.4 with the defaults.
BEGINNING, NO_RISE, RISE_ERRORS = 1 / 3, 0.03, 2.0
#: Rise of the training reward above which held-out accuracy must rise too, and the required share of that rise.
#: Healthy: at least 0.8.
REWARD_RISE, FOLLOWED = 0.15, 0.5
#: TRL's metrics for the difference between vLLM and the trained model.
LOGP_DIFFERENCE, RATIO = "sampling/sampling_logp_difference/mean", "sampling/importance_sampling_ratio/mean"
#: vLLM rounds differently, so TRL weights each token by the ratio of the two probabilities, 1 on average. Mean difference
#: of log-probs in nats per token, and mean ratios, beyond which the two are different models. Healthy in
#: bfloat16, with vLLM on a CPU: 0.002 (MiniLlama) to 0.037 (SmolLM2-135M), and a ratio of 1.00. Not measured on a GPU.
APART, LOW_RATIO, LOST_RATIO = 0.1, 0.5, 0.1
#: Share of generations that ``dynamic_sampling`` could not fill, above which we report it.
UNFILLED = 0.5
#: Number of steps with a learning signal after which an adapter without updates is reported.
STILL = 5


@dataclass(frozen=True)
class Finding:
    """A problem found by one rule.

    Attributes:
        name: the name of the problem.
        severity: ``"warn"`` for recoverable problems, ``"stop"`` for unrecoverable ones.
        step: the step at which it was first seen.
        seen: the observation with its numbers.
        advice: what to do about it.
    """

    name: str
    severity: str
    step: int
    seen: str
    advice: str

    def __str__(self) -> str:
        return f"step {self.step}, {self.name} ({self.severity}): {self.seen} {self.advice}"


class RunStopped(ValueError):
    """A rule stopped the training. Everything recorded so far is kept."""


@dataclass(frozen=True)
class Record:
    """The data of a run so far, the input of every rule.

    Attributes:
        metrics: one dict per step with TRL's metric names. NaN may be stored as NaN or None.
        evaluations: rows of ``evaluations.jsonl``.
        profile: the run's configuration.
    """

    metrics: Sequence[Mapping]
    evaluations: Sequence[Mapping] = ()
    profile: Profile = field(default_factory=get_profile)

    @property
    def step(self) -> int:
        """The last step."""
        return int(self.metrics[-1]["step"]) if self.metrics else 0

    @property
    def window(self) -> int:
        """The number of steps that a rule averages over."""
        return max(STEPS, math.ceil(GROUPS / self.profile.prompts_per_step))

    @property
    def pays(self) -> float:
        """The reward of a correct answer."""
        return self.profile.reward_value

    def values(self, name: str) -> list[float]:
        """Return all finite values of a metric. Steps that do not generate have no reward and length."""
        return [float(row[name]) for row in self.metrics if finite(row.get(name))]

    @property
    def groups(self) -> int:
        """The number of groups per generation that are trained on."""
        return self.profile.prompts_per_step * self.profile.updates_per_generation

    @property
    def equal_groups(self) -> list[float]:
        """Share of zero-advantage groups among those that each generation trains on, after dynamic sampling."""
        rows = [row for row in self.metrics if finite(row.get("frac_reward_zero_std"))]
        return [
            1 - row[GROUPS_KEPT] / self.groups if finite(row.get(GROUPS_KEPT)) else row["frac_reward_zero_std"]
            for row in rows
        ]

    def recent(self, name: str) -> float:
        """Return the metric's mean over the window, NaN until the window is full. Comparisons with NaN are false."""
        return self.mean_of_window(self.values(name))

    def mean_of_window(self, values: Sequence[float]) -> float:
        """Return the mean of the last ``window`` values, NaN if there are fewer."""
        return sum(values[-self.window :]) / self.window if len(values) >= self.window else math.nan


def finite(value: object) -> bool:
    """Return whether ``value`` is a finite number."""
    return isinstance(value, (int, float)) and math.isfinite(value)


Rule = Callable[[Record], Finding | None]


# --- the rules ---


def not_a_number(record: Record) -> Finding | None:
    """The loss or the gradient norm is NaN or infinite, so this step destroys the weights."""
    # In float16, loss scaling starts too high on purpose. It skips steps with an overflow and halves the scale.
    names = ("loss",) if record.profile.dtype == "float16" else ("loss", "grad_norm")
    bad = [name for name in names if name in record.metrics[-1] and not finite(record.metrics[-1][name])]
    if not bad:
        return None
    return Finding(
        NOT_A_NUMBER,
        "stop",
        record.step,
        f"{' and '.join(bad)} became NaN or infinite at learning rate {record.profile.learning_rate}.",
        "Lower learning_rate tenfold (or set updates_per_generation=1) and train again. This step is not saved.",
    )


def no_signal(record: Record) -> Finding | None:
    """Since the start, no group has had two different rewards."""
    equal, rewards = record.equal_groups, record.values("reward")
    if len(equal) < record.window or min(equal) < 1:
        return None
    if not rewards:
        return Finding(
            "no signal",
            "stop",
            record.step,
            f"In {len(equal)} steps no response got a reward: the reward function returned None for all of them.",
            "Check the reward function, and that the rows have the columns that it needs, such as ground_truth.",
        )
    solved = rewards[-1] > SOLVED * record.pays
    advice = (
        "The problems are solved already. Use harder ones."
        if solved
        else "Read the responses in rollouts/train.jsonl.gz and check the reward function. If it is correct, the model "
        "never succeeds: use easier problems, more shots or a larger group_size "
        "(`rlvr doctor --trainability` measures this before a run)."
    )
    return Finding(
        "no signal",
        "stop",
        record.step,
        f"In {len(equal)} steps the reward never varied within any group (mean {rewards[-1]:.2f}), "
        "so every advantage was 0 and there was no learning signal.",
        advice,
    )


def groups_equal(record: Record) -> Finding | None:
    """Some groups had different rewards before, but now (almost) none has."""
    equal, reward = record.mean_of_window(record.equal_groups), record.recent("reward")
    if not equal >= EQUAL or min(record.equal_groups) == 1:
        return None
    solved = reward >= SOLVED * record.pays
    advice = (
        "The problems are solved, so more steps bring no gain. Use harder problems."
        if solved
        else "Read the latest responses and check the reward function. If the model is broken or repeats one answer per "
        "problem, train again with a lower learning_rate."
    )
    return Finding(
        "groups equal",
        "stop" if equal == 1 and not solved else "warn",
        record.step,
        f"{equal:.0%} of the groups of the last {record.window} steps have equal rewards "
        f"(mean {reward:.2f}), so their advantages are 0.",
        advice,
    )


def no_end(record: Record) -> Finding | None:
    """Responses continue after their box up to the length limit, because the end token is not sampled or not known."""
    share, rows = record.recent("completions/clipped_ratio"), own_evaluations(record)
    boxed = rows[-1]["boxed_rate"] if rows else 0.0
    # The two shares add up to more than 1 only if some responses are both truncated and boxed.
    if not share >= CUT_OFF or share + boxed - 1 < GO_ON:
        return None
    return Finding(
        "responses do not end",
        "warn",
        record.step,
        f"{share:.0%} of the responses of the last {record.window} steps were truncated at "
        f"{record.profile.max_completion_length} tokens, and {boxed:.0%} of the evaluated ones contain a box. So at least "
        f"{share + boxed - 1:.0%} continue after their answer.",
        "Set the tokenizer's eos_token and the eos_token_id in generation_config.json to the token that ends the model's "
        "training texts.",
    )


def draws_used_up(record: Record) -> Finding | None:
    """Dynamic sampling reaches its limit: generations draw all the problems they may and still lack mixed groups."""
    kept = record.values(GROUPS_KEPT)
    unfilled = record.mean_of_window([float(n < record.groups) for n in kept])
    if not unfilled >= UNFILLED:
        return None
    limit = record.profile.dynamic_sampling
    return Finding(
        "draws used up",
        "warn",
        record.step,
        f"dynamic_sampling={limit} was too low to fill {unfilled:.0%} of the last {record.window} generations: "
        f"{record.recent(PROMPTS_DRAWN):.1f} problems were drawn on average, and {record.mean_of_window(kept):.1f} of "
        f"{record.groups} groups had different rewards.",
        "Most extra samples go to zero-advantage groups. Use problems that the model solves sometimes, or a larger "
        "group_size. Raise dynamic_sampling only if the extra samples are worth their cost.",
    )


def cut_off(record: Record) -> Finding | None:
    """Responses are truncated before they reach their box."""
    share, reward = record.recent("completions/clipped_ratio"), record.recent("reward")
    if not share >= CUT_OFF or no_end(record) or entropy_explosion(record):
        return None
    hopeless = share >= ALL_CUT_OFF and reward < (1 - ALL_CUT_OFF) * record.pays
    limit = record.profile.max_completion_length
    return Finding(
        "cut off",
        "stop" if hopeless else "warn",
        record.step,
        f"{share:.0%} of the responses of the last {record.window} steps were truncated at {limit} tokens, "
        f"mostly before a box (mean reward {reward:.2f}).",
        "Raise max_completion_length, and read a few responses to check that they would end.",
    )


def format_only(record: Record) -> Finding | None:
    """More answers are boxed, but accuracy among them does not rise."""
    rows = own_evaluations(record)
    if len(rows) < 2:
        return None
    first, last = rows[0], rows[-1]
    measure = "accuracy_if_boxed" if finite(first.get("accuracy_if_boxed")) else "accuracy"
    boxed = last["boxed_rate"] - first["boxed_rate"]
    if boxed < BOXED_RISE or not finite(last.get(measure)) or last[measure] - first[measure] >= FLAT:
        return None
    name = "the share of correct answers among them" if measure == "accuracy_if_boxed" else "accuracy"
    return Finding(
        "format only",
        "warn",
        record.step,
        f"Boxed answers rose from {first['boxed_rate']:.2f} to {last['boxed_rate']:.2f}, while {name} went "
        f"from {first[measure]:.2f} to {last[measure]:.2f}: so far the model has learned the format only.",
        "Wait for the next evaluation. If it stays the same, use easier problems, a larger group_size, or few-shot "
        "examples in the prompt, which show the format.",
    )


def reward_hacking(record: Record) -> Finding | None:
    """The reward rises while held-out accuracy falls or does not rise enough. Returns one finding, of the clearer case."""
    return accuracy_falls(record) or reward_alone(record)


def accuracy_falls(record: Record) -> Finding | None:
    """The reward rises while accuracy on held-out problems falls by more than its intervals."""
    rows, rewards = own_evaluations(record), record.values("reward")
    n = min(record.window, len(rewards) // 2)  # the first and the last steps must not overlap
    if len(rows) < 2 or n < STEPS:
        return None
    best, last = max(rows[:-1], key=lambda row: row["accuracy_low"]), rows[-1]
    if last["accuracy_high"] >= best["accuracy_low"]:
        return None
    first, then, now = (sum(part) / n for part in (rewards[:n], rewards[: max(best["step"], n)][-n:], rewards[-n:]))
    if now < then or now - first < RISEN * record.pays:
        return None
    return Finding(
        "reward hacking",
        "warn",
        record.step,
        f"The mean reward rose from {first:.2f} to {now:.2f}, while accuracy on the evaluation problems fell from "
        f"{best['accuracy']:.2f} (step {best['step']}) to {last['accuracy']:.2f} (step {last['step']}).",
        "Read the latest responses with the highest reward: the grader gives false positives. Repair the "
        f"grader, and train again from the base model or from step {best['step']}.",
    )


def own_evaluations(record: Record) -> list[Mapping]:
    """Return the sampled evaluations of the first split with the run's own number of shots, in order."""
    p = record.profile
    return [
        row
        for row in record.evaluations
        if row["decoding"] == "sampled" and row["shots"] == p.shots and row["split"] == p.eval_splits[0]
        if row["step"] >= 0  # a supervised stage teaches the format first, and has no rewards
    ]


def entropy_collapse(record: Record) -> Finding | None:
    """Entropy collapse: the model writes one response per problem, although it does not solve them all."""
    entropy, now = record.values("entropy"), record.recent("entropy")
    reward, equal = record.recent("reward"), record.recent("frac_reward_zero_std")
    if not entropy or not now < COLLAPSED * entropy[0] or not reward < SOLVED * record.pays:
        return None
    return Finding(
        "entropy collapse",
        "stop" if equal >= ALMOST_EQUAL else "warn",
        record.step,
        f"Entropy fell from {entropy[0]:.3f} to {now:.4f} nats per token with the mean reward at {reward:.2f}: "
        f"the model has stopped exploring ({equal:.0%} of its groups have zero advantage).",
        "Train again with a learning_rate three to ten times lower, or with a KL term (beta=0.01).",
    )


def entropy_explosion(record: Record) -> Finding | None:
    """The model writes noise, because a step was so large that it destroyed the weights."""
    entropy, now, reward = record.values("entropy"), record.recent("entropy"), record.recent("reward")
    if not entropy or not now > NOISE * entropy[0] or not reward < SOLVED * record.pays:
        return None
    return Finding(
        "entropy explosion",
        "stop" if reward < NOTHING * record.pays else "warn",
        record.step,
        f"Entropy rose from {entropy[0]:.3f} to {now:.3f} nats per token, and the mean reward is {reward:.2f}: the policy "
        f"writes noise. learning_rate={record.profile.learning_rate:g}.",
        "Train again with a learning_rate ten times lower. Further training won't repair this model.",
    )


def kl_runaway(record: Record) -> Finding | None:
    """The policy is far from the base model."""
    kl = record.recent("kl")
    if not kl > FAR:
        return None
    return Finding(
        "KL runaway",
        "stop" if kl > GONE else "warn",
        record.step,
        f"The KL divergence from the base model is {kl:.2f} nats per token over the last {record.window} steps "
        f"(first step: {record.values('kl')[0]:.3f}).",
        "Read some responses first. Then lower learning_rate three- to tenfold, or raise beta.",
    )


def samplers_apart(record: Record) -> Finding | None:
    """vLLM samples from a different distribution than the trained policy, so importance ratios are far from 1."""
    difference, ratio = record.recent(LOGP_DIFFERENCE), record.recent(RATIO)
    if not (difference >= APART or ratio < LOW_RATIO):
        return None
    return Finding(
        "samplers apart",
        "stop" if ratio < LOST_RATIO else "warn",
        record.step,
        f"vLLM's log-probabilities differ from the trained model's by {difference:.3f} nats per token over the "
        f"last {record.window} steps, and the mean importance ratio, which should be 1, is {ratio:.2f} "
        "(it is the weight of a sampled token, at most 2).",
        "Check that vLLM serves the same model in the same precision, or train again with use_vllm=never.",
    )


def still_weights(record: Record) -> Finding | None:
    """There is a learning signal, but no weight changes. This is a typical silent failure of LoRA."""
    rows = [
        row
        for row in record.metrics
        if finite(row.get("grad_norm")) and finite(row.get("frac_reward_zero_std")) and row["frac_reward_zero_std"] < 1
    ]
    moved = [row["grad_norm"] * row.get("learning_rate", 1) for row in rows[-STILL:]]
    if len(moved) < STILL or any(moved):
        return None
    rate = all(row["grad_norm"] for row in rows[-STILL:])
    return Finding(
        "weights do not move",
        "stop",
        record.step,
        f"Rewards differ within groups, but {'the learning rate' if rate else 'the gradient'} was exactly 0 in "
        f"the last {STILL} of those steps.",
        "Check learning_rate and lr_schedule."
        if rate
        else "Check that the adapter is trained: lora_targets, requires_grad of its A and B "
        "(count_parameters), and lora_movement after a step.",
    )


def reward_falls(record: Record) -> Finding | None:
    """The mean reward has fallen well below its best, by more than chance."""
    rewards, n = [value / record.pays for value in record.values("reward")], record.window
    if len(rewards) < 2 * n:
        return None
    sums = [sum(rewards[:n])]
    for new, old in zip(rewards[n:], rewards, strict=False):
        sums.append(sums[-1] + new - old)
    best, now = max(sums) / n, sums[-1] / n
    groups = n * record.profile.prompts_per_step
    # Worst case: all responses of a group get the same reward.
    chance = ERRORS * math.sqrt(2 * max(best * (1 - best), 0) / groups)
    if best - now < max(FALLEN * best, chance) or best <= 0:
        return None
    return Finding(
        "reward falls",
        "stop" if best - now >= LOST * best else "warn",
        record.step,
        f"The mean reward of {n} steps fell from {best * record.pays:.2f} at its best to {now * record.pays:.2f}.",
        "Check that the reward function still works, and read the latest responses. Then train again "
        "with a lower learning_rate.",
    )


def no_rise(record: Record) -> Finding | None:
    """There is a learning signal and the weights change, but the mean reward does not rise."""
    rewards, n = [value / record.pays for value in record.values("reward")], record.window
    if len(rewards) < max(2 * n, BEGINNING * record.profile.max_steps) or not record.recent("frac_reward_zero_std") < EQUAL:
        return None
    first, last = rewards[:n], rewards[-n:]
    rise = mean(last) - mean(first)
    chance = RISE_ERRORS * math.sqrt((variance(first) + variance(last)) / n)
    truncated = mean(record.values("completions/clipped_ratio") or [0.0])  # truncation has its own rule
    if rise >= max(NO_RISE, chance) or still_weights(record) or truncated >= CUT_OFF:
        return None
    kl, p = record.recent("kl"), record.profile
    held = p.beta > 0 and finite(kl)
    seen = (
        f"The mean reward was {mean(first) * record.pays:.2f} in the first {n} steps and is {mean(last) * record.pays:.2f} "
        f"in the last {n}. This is no significant change."
    )
    return Finding(
        "KL term too strong" if held else "reward does not rise",
        "warn",
        record.step,
        seen + (f" With beta={p.beta:g} the policy is {kl:.4f} nats per token from the base model." if held else ""),
        "Lower beta tenfold, or set it to 0."
        if held
        else f"Raise learning_rate={p.learning_rate:g} threefold to tenfold, and check that better responses get "
        "a higher reward.",
    )


def reward_alone(record: Record) -> Finding | None:
    """The training reward rises but held-out accuracy does not: reward hacking or memorisation."""
    rows, n = own_evaluations(record), record.window
    if len(rows) < 2:
        return None
    last = rows[-1]["step"]
    rewards = [row["reward"] / record.pays for row in record.metrics if finite(row.get("reward")) and row["step"] <= last]
    if len(rewards) < n:
        return None
    start, now = max(rows[0]["accuracy"], mean(rewards[: min(3, n)])), mean(rewards[-n:])
    reward, accuracy = now - start, rows[-1]["accuracy"] - rows[0]["accuracy"]
    if reward < REWARD_RISE or accuracy >= FOLLOWED * reward:
        return None
    return Finding(
        "reward without accuracy",
        "warn",
        record.step,
        f"The mean reward rose by {reward * record.pays:.2f} to {now * record.pays:.2f}, while "
        f"accuracy on held-out problems went from {rows[0]['accuracy']:.2f} to {rows[-1]['accuracy']:.2f}.",
        "Read the responses with the highest reward, because this may be reward hacking. If it is, repair the reward and "
        "train again from the base model.",
    )


#: Causes come before effects, because a stopped run reports the first rule that stops it.
RULES: tuple[Rule, ...] = (
    not_a_number,
    still_weights,
    samplers_apart,
    no_end,
    entropy_explosion,
    cut_off,
    kl_runaway,
    entropy_collapse,
    no_signal,
    groups_equal,
    draws_used_up,
    reward_falls,
    reward_hacking,
    format_only,
    no_rise,
)


# --- applying the rules ---


def findings(record: Record) -> list[Finding]:
    """Return the findings of all rules at the last step of ``record``."""
    found = [rule(record) for rule in RULES] if record.metrics else []
    return [finding for finding in found if finding is not None]


def record_of(run: Run) -> Record:
    """Return the record of a run on disk, finished or not. Leaves out a supervised stage, which has no rewards."""
    metrics, evaluations = run.metrics, run.evaluations
    return Record(metrics[metrics["step"] > 0].to_dict("records"), evaluations.to_dict("records"), run.profile)


def prefixes(record: Record) -> Iterator[Record]:
    """Yield the record after each step."""
    for n, row in enumerate(record.metrics, start=1):
        known = [row_ for row_ in record.evaluations if row_["step"] <= row["step"]]
        yield Record(record.metrics[:n], known, record.profile)


class Diagnosis(list[Finding]):
    """Findings in order of first occurrence. ``str`` gives a text, ``table`` a data frame."""

    @property
    def table(self) -> pd.DataFrame:
        """One row per finding: ``step, severity, name, seen, advice``."""
        columns = ["step", "severity", "name", "seen", "advice"]
        return pd.DataFrame([{name: getattr(finding, name) for name in columns} for finding in self], columns=columns)

    def __str__(self) -> str:
        return "\n".join(f"- {finding}" for finding in self) or "No rule finds anything wrong with this run."

    __repr__ = __str__

    def _repr_html_(self) -> str:
        if not self:
            return f"<p>{html.escape(str(self))}</p>"
        with pd.option_context("display.max_colwidth", None):
            return self.table.to_html(index=False, justify="left")


def diagnose(run: Run | str | Path) -> Diagnosis:
    """Apply every rule at every step of a run and return each finding once, at its first step.

    Args:
        run: a run or its directory. It can be finished, running or dead.

    Raises:
        FileNotFoundError: the directory does not exist.
    """
    run = run if isinstance(run, Run) else load_run(run)
    first: dict[tuple[str, str], Finding] = {}
    for record in prefixes(record_of(run)):
        for finding in findings(record):
            first.setdefault((finding.name, finding.severity), finding)
    ended = unfinished(run)
    return Diagnosis([*first.values(), *([ended] if ended else [])])


def unfinished(run: Run) -> Finding | None:
    """The run has not finished: it is still running, was stopped, or died."""
    if run.environment.get("finished"):
        return None
    step, last = record_of(run).step, run.profile.max_steps
    return Finding(
        "unfinished",
        "warn",
        step,
        f"The run ends at step {step} of {last}: it is still running, was stopped, or died.",
        "If it is not running, run the same cell or command again. It continues from its last checkpoint.",
    )

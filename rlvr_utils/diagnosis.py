"""Rules that watch a run: what is seen, with its numbers, and what to do about it.

The same rules guard a run while it goes (``training.recording`` asks them after every step) and explain one that has
finished or died (:func:`diagnose`). Each is a pure function of the :class:`Record` so far; ``RULES`` holds them all.

A threshold is worth what it does on healthy runs. Beside each stands what the shipped reference runs of profile ``mini``
keep to (averages over ten steps, which are 160 groups). Tests hold them to it, and hold that none of them raises anything.
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

#: The finding after which a checkpoint is worth nothing.
NOT_A_NUMBER = "not a number"
#: A rule judges the last 10 steps, or as many as it takes to see 128 groups: a share of 5 % is then not missed by chance
#: (0.95 to the power of 128 is 0.1 %).
STEPS, GROUPS = 10, 128
#: Share of groups whose responses all earn the same, above which next to nothing is learned. Healthy: at most 0.6.
EQUAL = 0.95
#: The same share where the entropy has collapsed too: exploration will not bring new groups, so fewer equal ones suffice.
ALMOST_EQUAL = 0.9
#: Mean reward, as a share of what a right answer pays, above which equal groups only mean that the problems are solved.
SOLVED = 0.9
#: Share of responses that ran into the length limit: worth a word, and too many for anything to be learned from the rest.
#: Healthy: at most 0.01.
CUT_OFF, ALL_CUT_OFF = 0.25, 0.9
#: Entropy as a share of the first step's, below which the model repeats itself. Healthy: at least 0.08.
COLLAPSED = 0.02
#: Entropy as a multiple of the first step's, above which the model writes noise, and the mean reward, as a share of what a
#: correct answer gets, below which it will not find its way back. Healthy: at most 1.1, and 1.9 in a control arm.
NOISE, NOTHING = 2.5, 0.05
#: KL divergence from the base model in nats a token. None of the shipped runs has a KL term: at 1 a token has become
#: e times as likely, on average, as it was; at 10 nothing of the base model is left.
FAR, GONE = 1.0, 10.0
#: The mean reward has fallen by this share of its best, and by 4 standard errors. Healthy: at most 0.1.
FALLEN, LOST, ERRORS = 1 / 3, 2 / 3, 4.0
#: Rise of the boxed rate that calls for a look at what is inside the boxes, and the rise there that counts as none.
#: Healthy: at least 0.5 and 0.3.
BOXED_RISE, FLAT = 0.2, 0.05
#: Rise of the mean reward since the run's first steps from which falling accuracy means that the reward is hacked.
#: Random rewards, which nothing can raise: at most 0.03.
RISEN = 0.1
#: Share of responses that hold a box and still run into the limit, above which a longer limit would not help: they reached
#: their answer and went on. Healthy: 0.
GO_ON = 0.05
#: After this share of a run, and two windows, a mean reward that has risen by less than this (as a share of what a
#: correct answer gets, and by less than 2 standard errors) does not rise. Healthy: at least 0.04, in the run at a tenth of
#: the usual learning rate, and 0.4 in the runs of the default.
BEGINNING, NO_RISE, RISE_ERRORS = 1 / 3, 0.03, 2.0
#: Rise of the training reward that calls for a look at held-out accuracy, and the share of it that accuracy has to follow.
#: Healthy: accuracy follows at least 0.8 of it.
REWARD_RISE, FOLLOWED = 0.15, 0.5
#: How TRL calls what vLLM and the trained model differ by.
LOGP_DIFFERENCE, RATIO = "sampling/sampling_logp_difference/mean", "sampling/importance_sampling_ratio/mean"
#: vLLM samples with its own arithmetic, so TRL weighs each token by the ratio of the two probabilities, 1 on average.
#: Mean difference of log-probs, nats per token, and mean ratio, from which they are no longer one model. Healthy in
#: bfloat16, with vLLM on a CPU: 0.002 (MiniLlama) to 0.037 (SmolLM2-135M), and a ratio of 1.00. (A GPU: not run.)
APART, LOW_RATIO, LOST_RATIO = 0.1, 0.5, 0.1
#: Share of steps whose further draws (``dynamic_sampling``) did not fill them, from which that is reported.
UNFILLED = 0.5
#: Steps with a learning signal after which an adapter that never moved will not move any more.
STILL = 5


@dataclass(frozen=True)
class Finding:
    """What one rule found.

    Attributes:
        name: of the rule.
        severity: ``"warn"``, or ``"stop"`` for what no further step can mend.
        step: at which it was first seen.
        seen: one sentence with the numbers.
        advice: one sentence on what to do.
    """

    name: str
    severity: str
    step: int
    seen: str
    advice: str

    def __str__(self) -> str:
        return f"step {self.step}, {self.name} ({self.severity}): {self.seen} {self.advice}"


class RunStopped(ValueError):
    """A guard ended the training; what was recorded is kept."""


@dataclass(frozen=True)
class Record:
    """A run so far, as rules see it.

    Attributes:
        metrics: one dict a step with TRL's metric names; a NaN may stand as NaN or as None.
        evaluations: rows of ``evaluations.jsonl``.
        profile: the run's settings.
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
        """How many steps a rule averages over."""
        return max(STEPS, math.ceil(GROUPS / self.profile.prompts_per_step))

    @property
    def pays(self) -> float:
        """What a right answer pays."""
        return self.profile.reward_value

    def values(self, name: str) -> list[float]:
        """Every finite value of a metric (steps that do not generate have none of reward and length)."""
        return [float(row[name]) for row in self.metrics if finite(row.get(name))]

    @property
    def groups(self) -> int:
        """Groups of one generation that are trained on."""
        return self.profile.prompts_per_step * self.profile.updates_per_generation

    @property
    def equal_groups(self) -> list[float]:
        """Share of groups with equal rewards among those that each generation trains on, after any further draws."""
        rows = [row for row in self.metrics if finite(row.get("frac_reward_zero_std"))]
        return [
            1 - row[GROUPS_KEPT] / self.groups if finite(row.get(GROUPS_KEPT)) else row["frac_reward_zero_std"]
            for row in rows
        ]

    def recent(self, name: str) -> float:
        """The metric's mean over the window; nan as long as that is not full, which no comparison passes."""
        return self.mean_of_window(self.values(name))

    def mean_of_window(self, values: Sequence[float]) -> float:
        """The mean of the last values, as many as the window has; nan if there are fewer."""
        return sum(values[-self.window :]) / self.window if len(values) >= self.window else math.nan


def finite(value: object) -> bool:
    """Whether ``value`` is a number other than NaN and infinity."""
    return isinstance(value, (int, float)) and math.isfinite(value)


Rule = Callable[[Record], Finding | None]


# --- the rules ---


def not_a_number(record: Record) -> Finding | None:
    """The loss or the gradient's norm is NaN or infinite: the weights are lost with this step."""
    # Loss scaling in float16 starts too high on purpose: it skips a step whose gradient overflows and halves the scale.
    names = ("loss",) if record.profile.dtype == "float16" else ("loss", "grad_norm")
    bad = [name for name in names if name in record.metrics[-1] and not finite(record.metrics[-1][name])]
    if not bad:
        return None
    return Finding(
        NOT_A_NUMBER,
        "stop",
        record.step,
        f"{' and '.join(bad)} became NaN or infinite at learning rate {record.profile.learning_rate}.",
        "Lower learning_rate tenfold (or updates_per_generation to 1) and train again; this step is not saved.",
    )


def no_signal(record: Record) -> Finding | None:
    """Since the start no group has had two different rewards."""
    equal, rewards = record.equal_groups, record.values("reward")
    if len(equal) < record.window or min(equal) < 1:
        return None
    if not rewards:
        return Finding(
            "no signal",
            "stop",
            record.step,
            f"In {len(equal)} steps no response got a reward: the reward gave None for every one.",
            "Check the reward function, and whether the rows have what it needs, such as a ground truth.",
        )
    solved = rewards[-1] > SOLVED * record.pays
    advice = (
        "The problems are solved already: take harder ones."
        if solved
        else "Read the responses in rollouts/train.jsonl.gz and check the reward function; if it is right, the model "
        "never succeeds: take easier problems, more shots or a larger group_size "
        "(`rlvr doctor --trainability` measures it beforehand)."
    )
    return Finding(
        "no signal",
        "stop",
        record.step,
        f"In {len(equal)} steps the reward never varied within any group (it is {rewards[-1]:.2f} on average), "
        "so every advantage was 0 and nothing could be learned.",
        advice,
    )


def groups_equal(record: Record) -> Finding | None:
    """Groups used to have different rewards, and (nearly) no group has any more."""
    equal, reward = record.mean_of_window(record.equal_groups), record.recent("reward")
    if not equal >= EQUAL or min(record.equal_groups) == 1:
        return None
    solved = reward >= SOLVED * record.pays
    advice = (
        "The problems are solved: more steps cost and teach nothing; take harder problems."
        if solved
        else "Read the latest responses and check the reward function; if the model has broken or settled on one answer "
        "to each problem, train again with a lower learning_rate."
    )
    return Finding(
        "groups equal",
        "stop" if equal == 1 and not solved else "warn",
        record.step,
        f"{equal:.0%} of the groups of the last {record.window} steps have one reward throughout "
        f"(mean {reward:.2f}), so they teach nothing.",
        advice,
    )


def no_end(record: Record) -> Finding | None:
    """Responses reach their box and go on to the length limit: the end token is not sampled, or not known."""
    share, rows = record.recent("completions/clipped_ratio"), own_evaluations(record)
    boxed = rows[-1]["boxed_rate"] if rows else 0.0
    # The two shares add up to more than 1 only if some responses are both truncated and boxed.
    if not share >= CUT_OFF or share + boxed - 1 < GO_ON:
        return None
    return Finding(
        "responses do not end",
        "warn",
        record.step,
        f"{share:.0%} of the responses of the last {record.window} steps ran to the limit of "
        f"{record.profile.max_completion_length} tokens, and {boxed:.0%} of the evaluated ones hold a box. So at least "
        f"{share + boxed - 1:.0%} reach an answer and go on.",
        "Compare the eos_token of the tokenizer and the eos_token_id of generation_config.json with the token that ends "
        "the model's training texts.",
    )


def draws_used_up(record: Record) -> Finding | None:
    """Dynamic sampling ends at its limit: steps draw all the further problems they may and lack groups all the same."""
    kept = record.values(GROUPS_KEPT)
    unfilled = record.mean_of_window([float(n < record.groups) for n in kept])
    if not unfilled >= UNFILLED:
        return None
    limit = record.profile.dynamic_sampling
    return Finding(
        "draws used up",
        "warn",
        record.step,
        f"In {unfilled:.0%} of the last {record.window} generations dynamic_sampling={limit} was too low to fill them: "
        f"{record.recent(PROMPTS_DRAWN):.1f} problems were drawn on average, and {record.mean_of_window(kept):.1f} of "
        f"{record.groups} groups had different rewards.",
        "Most further samples are spent on groups without a signal. Take problems that the model solves sometimes, or a "
        "larger group_size. Raise dynamic_sampling only if these samples are worth their price.",
    )


def cut_off(record: Record) -> Finding | None:
    """Responses run into the length limit before they reach their box."""
    share, reward = record.recent("completions/clipped_ratio"), record.recent("reward")
    if not share >= CUT_OFF or no_end(record) or entropy_explosion(record):
        return None
    hopeless = share >= ALL_CUT_OFF and reward < (1 - ALL_CUT_OFF) * record.pays
    limit = record.profile.max_completion_length
    return Finding(
        "cut off",
        "stop" if hopeless else "warn",
        record.step,
        f"{share:.0%} of the responses of the last {record.window} steps were cut off at {limit} tokens, "
        f"mostly before a box (mean reward {reward:.2f}).",
        "Raise max_completion_length, and read a few responses to see whether they would ever end.",
    )


def format_only(record: Record) -> Finding | None:
    """More answers are boxed, but what is in the boxes is no more often right."""
    rows = own_evaluations(record)
    if len(rows) < 2:
        return None
    first, last = rows[0], rows[-1]
    measure = "accuracy_if_boxed" if finite(first.get("accuracy_if_boxed")) else "accuracy"
    boxed = last["boxed_rate"] - first["boxed_rate"]
    if boxed < BOXED_RISE or not finite(last.get(measure)) or last[measure] - first[measure] >= FLAT:
        return None
    name = "the share of right answers among them" if measure == "accuracy_if_boxed" else "accuracy"
    return Finding(
        "format only",
        "warn",
        record.step,
        f"Boxed answers rose from {first['boxed_rate']:.2f} to {last['boxed_rate']:.2f}, while {name} went "
        f"from {first[measure]:.2f} to {last[measure]:.2f}: so far the model has learned the form only.",
        "Wait for the next evaluation; if that does not change, take problems it solves more often, more "
        "samples a problem, or exemplars in the prompt, which give the form for nothing.",
    )


def reward_hacking(record: Record) -> Finding | None:
    """The reward rises and held-out accuracy falls or does not follow: one finding, of the clearer case."""
    return accuracy_falls(record) or reward_alone(record)


def accuracy_falls(record: Record) -> Finding | None:
    """The reward rises while accuracy on problems that training never sees falls, by more than their intervals."""
    rows, rewards = own_evaluations(record), record.values("reward")
    n = min(record.window, len(rewards) // 2)  # the first and the last steps, without an overlap
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
        "Read the latest responses with the highest reward: the grader accepts something that is not correct. Repair the "
        f"grader, and train again from the base model or from step {best['step']}.",
    )


def own_evaluations(record: Record) -> list[Mapping]:
    """The sampled evaluations of the first split at the run's own number of shots, in order."""
    p = record.profile
    return [
        row
        for row in record.evaluations
        if row["decoding"] == "sampled" and row["shots"] == p.shots and row["split"] == p.eval_splits[0]
    ]


def entropy_collapse(record: Record) -> Finding | None:
    """The model hardly samples any more: it writes one response to each problem, and not because it knows them all."""
    entropy, now = record.values("entropy"), record.recent("entropy")
    reward, equal = record.recent("reward"), record.recent("frac_reward_zero_std")
    if not entropy or not now < COLLAPSED * entropy[0] or not reward < SOLVED * record.pays:
        return None
    return Finding(
        "entropy collapse",
        "stop" if equal >= ALMOST_EQUAL else "warn",
        record.step,
        f"Entropy fell from {entropy[0]:.3f} to {now:.4f} nats a token with the mean reward at {reward:.2f}: "
        f"the model has stopped exploring ({equal:.0%} of its groups teach nothing).",
        "Train again with a learning_rate three to ten times lower, or with a KL term (beta=0.01).",
    )


def entropy_explosion(record: Record) -> Finding | None:
    """The model writes noise: a step was so large that it destroyed the weights."""
    entropy, now, reward = record.values("entropy"), record.recent("entropy"), record.recent("reward")
    if not entropy or not now > NOISE * entropy[0] or not reward < SOLVED * record.pays:
        return None
    return Finding(
        "entropy explosion",
        "stop" if reward < NOTHING * record.pays else "warn",
        record.step,
        f"Entropy rose from {entropy[0]:.3f} to {now:.3f} nats per token, and the mean reward is {reward:.2f}: the policy "
        f"writes noise. learning_rate={record.profile.learning_rate:g}.",
        "Train again with a learning_rate ten times lower. This model cannot be repaired.",
    )


def kl_runaway(record: Record) -> Finding | None:
    """The policy has left the base model far behind."""
    kl = record.recent("kl")
    if not kl > FAR:
        return None
    return Finding(
        "KL runaway",
        "stop" if kl > GONE else "warn",
        record.step,
        f"The KL divergence from the base model is {kl:.2f} nats a token over the last {record.window} steps "
        f"(first step: {record.values('kl')[0]:.3f}).",
        "Lower learning_rate three- to tenfold, or raise beta; read some responses before anything else.",
    )


def samplers_apart(record: Record) -> Finding | None:
    """vLLM samples from another distribution than the one that is trained: its tokens get weights far from 1."""
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
        "Check that vLLM serves this very model in the same precision, or train again with use_vllm=never.",
    )


def still_weights(record: Record) -> Finding | None:
    """There is a learning signal, and yet no weight moves: the silent failure of LoRA."""
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
        f"Groups differ in reward, but {'the learning rate' if rate else 'the gradient'} was exactly 0 in "
        f"the last {STILL} of those steps.",
        "Look at learning_rate and lr_schedule."
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
    # As if the responses of one group were all alike, which is the worst case.
    chance = ERRORS * math.sqrt(2 * max(best * (1 - best), 0) / groups)
    if best - now < max(FALLEN * best, chance) or best <= 0:
        return None
    return Finding(
        "reward falls",
        "stop" if best - now >= LOST * best else "warn",
        record.step,
        f"The mean reward of {n} steps fell from {best * record.pays:.2f} at its best to {now * record.pays:.2f}.",
        "Check that the reward function still works, and read the latest responses; then train again "
        "with a lower learning_rate.",
    )


def no_rise(record: Record) -> Finding | None:
    """There is a learning signal and the weights move, but the mean reward stays where it was."""
    rewards, n = [value / record.pays for value in record.values("reward")], record.window
    if len(rewards) < max(2 * n, BEGINNING * record.profile.max_steps) or not record.recent("frac_reward_zero_std") < EQUAL:
        return None
    first, last = rewards[:n], rewards[-n:]
    rise = mean(last) - mean(first)
    chance = RISE_ERRORS * math.sqrt((variance(first) + variance(last)) / n)
    truncated = mean(record.values("completions/clipped_ratio") or [0.0])  # a cause of its own
    if rise >= max(NO_RISE, chance) or still_weights(record) or truncated >= CUT_OFF:
        return None
    kl, p = record.recent("kl"), record.profile
    held = p.beta > 0 and finite(kl)
    seen = (
        f"The mean reward was {mean(first) * record.pays:.2f} in the first {n} steps and is {mean(last) * record.pays:.2f} "
        f"in the last {n}, which is within chance."
    )
    return Finding(
        "KL term too strong" if held else "reward does not rise",
        "warn",
        record.step,
        seen + (f" With beta={p.beta:g} the policy is {kl:.4f} nats per token from the base model." if held else ""),
        "Lower beta tenfold, or set it to 0."
        if held
        else f"Raise learning_rate={p.learning_rate:g} threefold to tenfold, and check that the reward can tell better "
        "responses from worse ones.",
    )


def reward_alone(record: Record) -> Finding | None:
    """The training reward rises and held-out accuracy does not: reward hacking, or problems learned by heart."""
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
        "Read the responses with the highest reward: the model may have found what the reward function overlooks. Repair "
        "the reward and train again from the base model.",
    )


#: Causes before their effects: the first one that stops a run is the one it is told.
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


# --- asking them ---


def findings(record: Record) -> list[Finding]:
    """What the rules find at the last step of ``record``."""
    found = [rule(record) for rule in RULES] if record.metrics else []
    return [finding for finding in found if finding is not None]


def record_of(run: Run) -> Record:
    """The record of a run on disk, finished or not, without a supervised stage: it has no rewards to judge."""
    metrics, evaluations = run.metrics, run.evaluations
    return Record(
        metrics[metrics["step"] > 0].to_dict("records"),
        evaluations[evaluations["step"] >= 0].to_dict("records"),
        run.profile,
    )


def prefixes(record: Record) -> Iterator[Record]:
    """The record as it stood after each step."""
    for n, row in enumerate(record.metrics, start=1):
        known = [row_ for row_ in record.evaluations if row_["step"] <= row["step"]]
        yield Record(record.metrics[:n], known, record.profile)


class Diagnosis(list[Finding]):
    """Findings in the order of their steps, readable as text (``str``), as a table, and in a notebook."""

    @property
    def table(self) -> pd.DataFrame:
        """One row a finding: ``step, severity, name, seen, advice``."""
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
    """What was, or is, wrong with a run: every rule asked at every step, each finding once, at its first step.

    Args:
        run: a run or its folder; finished, still going, or dead.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    run = run if isinstance(run, Run) else load_run(run)
    first: dict[tuple[str, str], Finding] = {}
    for record in prefixes(record_of(run)):
        for finding in findings(record):
            first.setdefault((finding.name, finding.severity), finding)
    ended = unfinished(run)
    return Diagnosis([*first.values(), *([ended] if ended else [])])


def unfinished(run: Run) -> Finding | None:
    """The run has no end: it is still going, was stopped, or died."""
    if run.environment.get("finished"):
        return None
    step, last = record_of(run).step, run.profile.max_steps
    return Finding(
        "unfinished",
        "warn",
        step,
        f"The run ends at step {step} of {last}: it is still going, was stopped, or died.",
        "If it is not going any more, start the same cell or command again: it continues from its last checkpoint.",
    )

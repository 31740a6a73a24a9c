"""Is there anything to learn from? Sample the base model on training problems, and count the mixed groups."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..models import load_model, load_tokenizer
from ..problems import judge_response, training_rows
from ..profiles import Profile, get_profile
from ..sampling.rollouts import Sampling, prompts_for, sample_responses
from ..stats import Estimate, bootstrap_over_problems, pass_at_k, percent, wilson_interval


@dataclass(frozen=True)
class Trainability:
    """What the base model does on a sample of training problems.

    Attributes:
        right: right responses of each problem, out of ``k``.
        k: responses to each problem.
        prompts_per_step: of the profile, to say what the share of mixed groups means for a step.
    """

    right: Sequence[int]
    k: int
    prompts_per_step: int

    @property
    def mixed(self) -> int:
        """Groups with right and wrong responses: only their advantages are not zero."""
        return sum(0 < count < self.k for count in self.right)

    @property
    def signal(self) -> Estimate:
        """Share of groups that are mixed, with its 95 % interval (Wilson)."""
        return Estimate(self.mixed / len(self.right), *wilson_interval(self.mixed, len(self.right)))

    @property
    def trainable(self) -> bool:
        """Whether there is anything to learn from: at least one mixed group in the sample."""
        return self.mixed > 0

    def pass_at(self, k: int) -> Estimate:
        """pass@k (Chen et al. 2021, arXiv:2107.03374) with its 95 % bootstrap interval over problems."""
        return bootstrap_over_problems(pass_at_k(self.k, np.asarray(self.right), k))

    def __str__(self) -> str:
        once, best, signal = self.pass_at(1), self.pass_at(self.k), self.signal
        seen = (f"On {len(self.right)} training problems the base model is right in {percent(once)} of its responses "
                f"(pass@1) and at least once in {self.k} on {percent(best)} of the problems (pass@{self.k}).")
        if self.trainable:
            groups = signal.mean * self.prompts_per_step
            return (f"{seen} {self.mixed} groups are mixed, so {percent(signal)} of all groups carry a learning signal, "
                    f"about {groups:.1f} of the {self.prompts_per_step} in a step.")
        advice = ("the problems are solved already: take harder ones" if once.mean > 0.5 else
                  "take easier problems, exemplars in the prompt (shots), longer responses, or a model further on")
        return (f"{seen} No group is mixed (at most {signal.high:.0%} of all groups could be): no signal, so do not rent "
                f"the hour; {advice}.")


def trainability(profile: str | Profile = "mini", n_problems: int = 32, k: int | None = None, *, model=None,
                 tokenizer=None, **overrides: object) -> Trainability:
    """Sample the base model ``k`` times on ``n_problems`` training problems, drawn and answered by the profile's seed.

    Args:
        k: responses to each problem; None: the profile's group size, so that a group here is a group of the run.
        model, tokenizer: the base model where it is loaded already.
        overrides: any field of the profile.

    Raises:
        ValueError: the model or the problems cannot be had.
    """
    p = profile if isinstance(profile, Profile) else get_profile(profile, **overrides)
    k = k or p.group_size
    tokenizer, model = tokenizer or load_tokenizer(p), model or load_model(p)
    rows = training_rows(p)
    rows = random.Random(p.seed).sample(rows, min(n_problems, len(rows)))
    prompts = prompts_for(rows, tokenizer, p)
    groups = sample_responses(model, tokenizer, prompts, Sampling.of(p, n_samples=k, seed=p.seed))
    right = [sum(judge_response(row, response.text).correct for response in group)
             for row, group in zip(rows, groups, strict=True)]
    return Trainability(right, k, p.prompts_per_step)

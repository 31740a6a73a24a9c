"""The arms of the experiment: questions, overrides of the profile, and results of the included runs.

``tools/reference_runs.py`` makes the runs from this list, so the reports always match what was run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import pandas as pd

from rlvr_utils.analysis import (
    RateChange,
    endpoints,
    evaluations_of,
    gap,
    percent,
    points,
    rate,
    rate_change,
    saved_responses,
)
from rlvr_utils.profiles import PROFILES
from rlvr_utils.runs import REFERENCE_RUNS, Run, load_run, reference_runs
from rlvr_utils.stats import Estimate

#: Evaluations with many samples per problem, of the base model and of models trained in tier A: one folder per run.
MANY, MANY_SAMPLES = REFERENCE_RUNS / "many", 32
#: The learning rates of LoRA and of full fine-tuning are chosen on this grid, with one seed per point.
LR_GRID = (1e-4, 3e-4, 1e-3, 3e-3)
#: The best of the grid by final accuracy. LoRA's is the default of ``mini``.
BEST_RATE = {"lora": 1e-3, "none": 3e-4}
#: Twelve passes over 256 problems. At these low learning rates the first quarter has at most half of the gain.
LONG = {"train_subset": 256, "max_steps": 192, "eval_every": 48}
LONG_RATE = {"lora": 2e-4, "none": 5e-5}
#: Notebook 04's runs with a KL term: its weight, and a number of steps within which the default already drifts.
KL = {"beta": 0.04, "max_steps": 60, "eval_every": 60, "eval_problems": 100}
#: Runs on graders that training can exploit. Three times the default learning rate (still stable, see ``LR_GRID``), half
#: the batch and small evaluations show the effect within 30 steps.
HACK = {
    "prompts_per_step": 8,
    "learning_rate": 3e-3,
    "max_steps": 30,
    "eval_every": 15,
    "eval_problems": 100,
    "eval_splits": ["test"],
}
#: A KL weight that has a visible effect within 30 steps.
HACK_BETA = 0.3

#: The smallest difference that we call a gap, fixed before we saw the results: the original work's 0.44 - 0.36.
SMALLEST_GAP = 0.08

DEFAULT = "LoRA (the default)"  # we compare the other arms with this one


def _prefix(key: str, profile: str = "mini") -> str:
    return f"{profile}-{key}-seed-" if key else f"{profile}-seed-"


@dataclass(frozen=True)
class Arm:
    """One arm of the experiment. Its runs are ``PROFILE-KEY-seed-0``, ``PROFILE-KEY-seed-1`` and so on.

    The default's key is empty, and its runs are ``PROFILE-seed-0`` and so on.
    """

    name: str
    tier: str  #: priority, from "A" (make these runs first) to "D"
    key: str
    seeds: int
    question: str
    overrides: dict = field(default_factory=dict)  #: of ``profile``
    profile: str = "mini"

    @property
    def prefix(self) -> str:
        """The prefix of the names of its runs."""
        return _prefix(self.key, self.profile)

    @property
    def runs(self) -> dict[str, dict]:
        """Run name -> overrides of the arm's profile."""
        return {f"{self.prefix}{seed}": {"seed": seed} | self.overrides for seed in range(self.seeds)}


#: (adapter, learning rate) -> key of the arm whose run with seed 0 is this point of the grid.
_ON_THE_GRID = {
    ("lora", BEST_RATE["lora"]): "",
    ("none", BEST_RATE["none"]): "full",
    ("lora", BEST_RATE["none"]): "lora-full-rate",
}


def _grid_key(adapter: str, rate: float) -> str:
    return _ON_THE_GRID.get((adapter, rate), f"grid-{adapter}-{rate:g}")


def _grid(adapter: str) -> list[Arm]:
    name = "LoRA" if adapter == "lora" else "full fine-tuning"
    return [
        Arm(
            f"{name}, learning rate {rate:g}",
            "A",
            _grid_key(adapter, rate),
            1,
            "which learning rate?",
            {"adapter": adapter, "learning_rate": rate},
        )
        for rate in LR_GRID
        if (adapter, rate) not in _ON_THE_GRID
    ]


def _long(adapter: str) -> dict:
    return LONG | {"adapter": adapter, "learning_rate": LONG_RATE[adapter]}


def _hack(grader: str) -> dict:
    return HACK | {"reward": f"rlvr_utils.exercises.graders:{grader}_reward"}


#: Updates per generation (more of them mean staler samples), and the losses that we compare on stale samples.
STALE, STALE_LOSSES = (4, 16, 32), ("naive", "unclipped", "clipped", "gspo", "cispo")


def stale_key(updates: int, loss: str) -> str:
    """Return the key of the arm with ``updates`` per generation and this ``loss`` of :mod:`rlvr_utils.grpo.variants`."""
    return f"stale-{updates}-{loss}"


def _stale() -> list[Arm]:
    """Return the arms with stale samples, those with the most updates per generation first."""
    # 96 steps is a multiple of each number of updates. The evaluations are small, because 45 runs are included.
    small = {"max_steps": 96, "eval_every": 32, "eval_splits": ["test"], "eval_problems": 200, "eval_samples": 2}
    return [
        Arm(
            f"{updates} updates per generation, {loss}, in 96 steps",
            "D",
            stale_key(updates, loss),
            3,
            "when do stale samples break the training?",
            small | {"updates_per_generation": updates, "estimator": f"rlvr_utils.grpo.variants:{loss}"},
        )
        for updates in reversed(STALE)
        for loss in STALE_LOSSES
    ]


ARMS: tuple[Arm, ...] = (
    Arm(DEFAULT, "A", "", 5, "how sure is the gain?"),
    Arm("format-only reward", "A", "format", 5, "what does rewarding the box alone do?", {"reward": "format"}),
    Arm("random reward", "A", "random", 5, "how much comes from training on anything at all?", {"reward": "random"}),
    Arm("rejection sampling", "A", "rejection", 3, "does one round without RL get as far?", {"method": "rejection"}),
    *_grid("none"),
    *_grid("lora"),
    Arm(
        "full fine-tuning",
        "A",
        "full",
        5,
        "is LoRA the reason for a gap?",
        {"adapter": "none", "learning_rate": BEST_RATE["none"]},
    ),
    Arm("long, LoRA", "B", "long-lora", 3, "where does the curve really go?", _long("lora")),
    Arm("long, full fine-tuning", "B", "long-full", 3, "where does the curve really go?", _long("none")),
    Arm(
        "LoRA at full fine-tuning's learning rate",
        "C",
        "lora-full-rate",
        3,
        "what does the usual mistake cost?",
        {"learning_rate": BEST_RATE["none"]},
    ),
    *(
        Arm(f"LoRA rank {r}", "C", f"rank-{r}", 3, "does the rank matter?", {"lora_rank": r}) for r in (1, 4, 64)
    ),  # alpha is kept: notebook 03
    Arm(
        "LoRA on attention only",
        "C",
        "attention",
        3,
        "do the targets matter?",
        {"lora_targets": ["q_proj", "k_proj", "v_proj", "o_proj"]},
    ),
    Arm(
        "prompts computed anew for each response",
        "C",
        "unshared",
        3,
        "does sharing the prefix change what is learned?",
        {"shared_prefix": False},
    ),
    Arm("trained at 4 shots", "C", "4shot", 3, "what is left when the prompt supplies the format?", {"shots": 4}),
    *(
        Arm(
            f"groups of {g}",
            "C",
            f"group-{g}",
            3,
            "many problems or many samples?",
            {"group_size": g, "prompts_per_step": 128 // g},
        )
        for g in (4, 16)
    ),
    *(
        Arm(
            f"4 updates per generation, {loss}",
            "C",
            f"offpolicy-{loss}",
            3,
            "does `loss_type` matter at 4 updates?",
            {"updates_per_generation": 4, "loss_type": loss} | ({"epsilon_high": 5.0} if loss == "cispo" else {}),
        )
        for loss in ("grpo", "dr_grpo", "dapo", "cispo")
    ),
)
#: The arms of notebook 08. Notebook 05 does not list them, because their runs are shorter.
STALE_ARMS: tuple[Arm, ...] = tuple(_stale())

#: Notebook 04 compares this arm with the first 60 steps of the default (beta = 0, same seeds). Notebook 05 omits it.
KL_ARM = Arm("60 steps with a KL term", "B", "beta", 5, "does beta stop an unrewarded drift?", KL)
#: Notebook 06 trains on these graders and compares them only with each other. Notebook 05 omits them.
HACKED: tuple[Arm, ...] = (
    Arm("strict verifier", "C", "hack-strict", 3, "what do these hyperparameters do under the verifier itself?", HACK),
    Arm("last word", "C", "hack-word", 5, "what does a grader that cannot see the box do to the box?", _hack("last_word")),
    Arm("steps shown", "C", "hack-steps", 5, "is an exploit found that has to be explored?", _hack("steps_shown")),
    Arm(
        "steps shown, with a KL term",
        "C",
        "hack-steps-kl",
        3,
        "does beta prevent it?",
        _hack("steps_shown") | {"beta": HACK_BETA},
    ),
)


def _smol(name: str, key: str, question: str, **overrides: object) -> Arm:
    return Arm(f"SmolLM2: {name}", "S", key, 3, question, overrides, profile="smol")


#: A pretrained model. All arms of a seed continue the same model after SFT, on the same problems in the same order, with
#: the same number of optimizer steps. SFT continues as it began, with its own learning rate and schedule.
SMOL_ARMS: tuple[Arm, ...] = (
    _smol("SFT, then RLVR", "", "does RLVR add to SFT?"),
    _smol(
        "SFT, then more SFT",
        "sft",
        "would more worked solutions do the same?",
        method="sft",
        learning_rate=PROFILES["smol"].sft_learning_rate,
        lr_schedule="linear",
    ),
    _smol("SFT, then random reward", "random", "how much comes from training on anything at all?", reward="random"),
)

ALL_ARMS: tuple[Arm, ...] = (*ARMS, KL_ARM, *HACKED, *STALE_ARMS, *SMOL_ARMS)
BY_NAME = {arm.name: arm for arm in ALL_ARMS}


def arms_made(root: str | Path = REFERENCE_RUNS) -> tuple[pd.DataFrame, list[str]]:
    """Return a table of the arms that have runs, and the names of the arms without runs.

    Columns: ``tier, arm, question, seeds``, accuracy ``before``, ``halfway`` and ``after`` in percent, and the paired
    ``change (points)``, all four as text with 95 % intervals.
    """
    rows, missing = [], []
    for arm in ARMS:
        runs = finished_runs(arm.prefix, root)
        if not runs:
            missing.append(arm.name)
            continue
        accuracy, halfway = _change_of(runs), _halfway(runs)
        rows.append(
            (
                arm.tier,
                arm.name,
                arm.question,
                len(runs),
                percent(accuracy.before),
                percent(rate(halfway)) if len(halfway) else "not evaluated",
                percent(accuracy.after),
                points(accuracy.change),
            )
        )
    columns = ["tier", "arm", "question", "seeds", "before", "halfway", "after", "change (points)"]
    return pd.DataFrame(rows, columns=columns), missing


def learning_rate_grid(root: str | Path = REFERENCE_RUNS) -> pd.DataFrame:
    """Return the final accuracy at each learning rate of the grid, with one seed: ``adapter, learning_rate, accuracy``.

    ``accuracy`` is an Estimate over problems. Points without a run are omitted.
    """
    rows = []
    for adapter in ("lora", "none"):
        for learning_rate in LR_GRID:
            accuracy = _change_of(finished_runs(f"{_prefix(_grid_key(adapter, learning_rate))}0", root))
            if accuracy:
                rows.append((adapter, learning_rate, accuracy.after))
    return pd.DataFrame(rows, columns=["adapter", "learning_rate", "accuracy"])


def arm_gap(name: str, other: str = DEFAULT, root: str | Path = REFERENCE_RUNS, *, halfway: bool = False) -> Estimate | None:
    """Return the accuracy of arm ``name`` minus that of arm ``other``, or None if one of them has no such evaluation.

    Measured after the last step, or ``halfway``, where arms that learn at different speeds still differ. We resample seeds
    independently. This is conservative, because equal seeds see the same problems in the same order.

    Raises:
        KeyError: there is no arm of that name.
    """
    arms = [_runs_of(arm, root) for arm in (name, other)]
    if not all(arms):
        return None
    first, second = (_halfway(runs) if halfway else _ends(runs)[1] for runs in arms)
    return gap(first, second) if len(first) and len(second) else None


def arm_gap_by_seed(name: str, other: str = DEFAULT, root: str | Path = REFERENCE_RUNS) -> Estimate | None:
    """Like :func:`arm_gap`, but paired by seed, for arms that use the same random numbers. None without common seeds."""
    arms = [{run.config["seed"]: run for run in _runs_of(arm, root)} for arm in (name, other)]
    seeds = sorted(arms[0].keys() & arms[1].keys())
    if not seeds:
        return None
    ends = [_ends([runs[seed] for seed in seeds])[1] for runs in arms]
    return rate_change(ends[1], ends[0]).change


def finished_runs(prefix: str, root: str | Path = REFERENCE_RUNS) -> list[Run]:
    """Return the included runs whose names start with ``prefix`` and that have at least two evaluations."""
    runs = [load_run(path) for path in reference_runs(prefix, root)]
    return [run for run in runs if run.evaluations["step"].nunique() > 1]


def arm_change(name: str, root: str | Path = REFERENCE_RUNS) -> RateChange | None:
    """Return strict accuracy before and after training for the arm ``name``, or None if it has no runs.

    Raises:
        KeyError: there is no arm of that name.
    """
    return _change_of(_runs_of(name, root))


def _runs_of(name: str, root: str | Path) -> list[Run]:
    return finished_runs(BY_NAME[name].prefix, root)


def _change_of(runs: list[Run]) -> RateChange | None:
    return rate_change(*_ends(runs)) if runs else None


def _ends(runs: list[Run]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The verdicts before and after training, as :func:`.endpoints` returns them."""
    return endpoints(_verdicts_of(runs))


def _halfway(runs: list[Run]) -> pd.DataFrame:
    """The verdicts after half of the steps, with one sample per problem. Empty if no run was evaluated there."""
    frame = _verdicts_of(runs)
    half = {run.path.name: run.config["max_steps"] // 2 for run in runs}
    return frame[frame["step"] == frame["run"].map(half)]


def _verdicts_of(runs: list[Run]) -> pd.DataFrame:
    return pd.concat(
        [_verdicts(run, (run.path / "evaluations.jsonl").stat().st_mtime_ns) for run in runs], ignore_index=True
    )


# Notebook 05 compares about twenty arms with the default, whose runs would otherwise be parsed once per arm.
@lru_cache(maxsize=256)
def _verdicts(run: Run, written: int) -> pd.DataFrame:
    """Return ``run, step, problem_id, correct`` of a run's first and last evaluation and of the one at half of its steps.

    ``written`` is the file's time stamp, so that the cache notices a changed file.
    """
    made = evaluations_of(run)
    made = made[made["step"].isin([made["step"].min(), run.config["max_steps"] // 2, made["step"].max()])]
    return saved_responses(run, made)[["run", "step", "problem_id", "correct"]]

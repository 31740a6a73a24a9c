"""The arms of the experiment: what each asks, how its runs are made, what the shipped ones say; and the claims they test.

``tools/reference_runs.py`` makes the runs from this very list, so that what is reported is what was run.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from rlvr_utils import REPO
from rlvr_utils.analysis import RateChange, endpoints, evaluation_responses, gap, percent, points, rate_change
from rlvr_utils.runs import REFERENCE_RUNS, Run, load_run, reference_runs
from rlvr_utils.stats import Estimate

ABILITIES = REPO / "data" / "minillama" / "abilities.json"
#: Evaluations with many samples per problem, of the base model and of what the runs of tier A trained: one folder per run.
MANY, MANY_SAMPLES = REFERENCE_RUNS / "many", 32
#: For LoRA and for full fine-tuning the learning rate is chosen on this grid, with one seed each.
LR_GRID = (1e-4, 3e-4, 1e-3, 3e-3)
#: The best of the grid by final accuracy; LoRA's is the default of ``mini``.
BEST_RATE = {"lora": 1e-3, "none": 3e-4}
#: Twelve passes over these problems, at rates so low that a quarter of the run holds at most half of its gain.
LONG = {"train_subset": 256, "max_steps": 192, "eval_every": 48}
LONG_RATE = {"lora": 2e-4, "none": 5e-5}

DEFAULT = "LoRA (the default)"  # the arm that the others are compared with


def _prefix(key: str) -> str:
    return f"mini-{key}-seed-" if key else "mini-seed-"


@dataclass(frozen=True)
class Arm:
    """One arm: its runs are ``mini-KEY-seed-0`` to ``seeds - 1`` (the default's key is empty)."""

    name: str
    tier: str  #: "A" to "D": each tier is worth shipping alone
    key: str
    seeds: int
    question: str
    overrides: dict = field(default_factory=dict)  #: of profile ``mini``

    @property
    def prefix(self) -> str:
        """What the names of its runs start with."""
        return _prefix(self.key)

    @property
    def runs(self) -> dict[str, dict]:
        """Name of the run -> overrides of profile ``mini``."""
        return {f"{self.prefix}{seed}": {"seed": seed} | self.overrides for seed in range(self.seeds)}


#: (adapter, learning rate) -> key of the arm that has this point of the grid already, as its seed 0.
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


#: How stale the samples get before a step uses the last of them, and what each policy term makes of it.
STALE, STALE_LOSSES = (4, 16, 32), ("naive", "unclipped", "clipped", "gspo", "cispo")


def stale_key(updates: int, loss: str) -> str:
    """The key of the arm with ``updates`` per generation and this loss of :mod:`rlvr_utils.grpo.variants`."""
    return f"stale-{updates}-{loss}"


def _stale() -> list[Arm]:
    """Off-policy until it breaks, the stalest samples first."""
    # 96 steps is a multiple of each number of updates. The evaluations are small, because 45 runs are included.
    small = {"max_steps": 96, "eval_every": 32, "eval_splits": ["test"], "eval_problems": 200, "eval_samples": 2}
    return [
        Arm(
            f"{updates} updates per generation, {loss}",
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
    Arm("format-only reward", "A", "format", 5, "how much of the gain is the box?", {"reward": "format"}),
    Arm("random reward", "A", "random", 5, "how much comes from training on anything at all?", {"reward": "random"}),
    Arm("fine-tuned on its own right answers", "A", "rejection", 3, "why RL at all?", {"method": "rejection"}),
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
            "does the loss matter off-policy?",
            {"updates_per_generation": 4, "loss_type": loss} | ({"epsilon_high": 5.0} if loss == "cispo" else {}),
        )
        for loss in ("grpo", "dr_grpo", "dapo", "cispo")
    ),
)
#: The arms of notebook 08, whose runs are shorter than those of notebook 05 and are not listed there.
STALE_ARMS: tuple[Arm, ...] = tuple(_stale())


def prompting_alone(shots: int = 4, abilities: str | Path = ABILITIES) -> Estimate | None:
    """Accuracy of the untrained MiniLlama with ``shots`` solved exemplars in the prompt, as its card measured it.

    None where that was not measured.
    """
    if not Path(abilities).is_file():
        return None
    measured = json.loads(Path(abilities).read_text(encoding="utf-8")).get("shots", {}).get(str(shots))
    return Estimate(*measured["accuracy"]) if measured else None


def arms_made(root: str | Path = REFERENCE_RUNS) -> tuple[pd.DataFrame, list[str]]:
    """One row per arm that was run: question, number of seeds, accuracy before and after, paired change.

    Also returns the names of the arms that were not run.
    """
    rows, missing = [], []
    for arm in ARMS:
        runs = finished_runs(arm.prefix, root)
        if not runs:
            missing.append(arm.name)
            continue
        accuracy = _change_of(runs)
        rows.append(
            (
                arm.tier,
                arm.name,
                arm.question,
                len(runs),
                percent(accuracy.before),
                percent(accuracy.after),
                points(accuracy.change),
            )
        )
    return pd.DataFrame(rows, columns=["tier", "arm", "question", "seeds", "before", "after", "change (points)"]), missing


def learning_rate_grid(root: str | Path = REFERENCE_RUNS) -> pd.DataFrame:
    """Final accuracy at each learning rate of the grid, one seed each: ``adapter, learning_rate, accuracy``.

    ``accuracy`` is an Estimate over problems; a point that was not run is left out.
    """
    rows = []
    for adapter in ("lora", "none"):
        for rate in LR_GRID:
            accuracy = _change_of(finished_runs(f"{_prefix(_grid_key(adapter, rate))}0", root))
            if accuracy:
                rows.append((adapter, rate, accuracy.after))
    return pd.DataFrame(rows, columns=["adapter", "learning_rate", "accuracy"])


def arm_gap(name: str, other: str = DEFAULT, root: str | Path = REFERENCE_RUNS) -> Estimate | None:
    """Final accuracy of the arm ``name`` minus that of the arm ``other``, or None where one of the two was not run.

    The arms' seeds are drawn apart, which is the safe side: the same seed sees the same problems in the same order.
    Raises KeyError for a name that is no arm.
    """
    arms = [_runs_of(arm, root) for arm in (name, other)]
    return gap(*(endpoints(evaluation_responses(runs))[1] for runs in arms)) if all(arms) else None


def arm_gap_by_seed(name: str, other: str = DEFAULT, root: str | Path = REFERENCE_RUNS) -> Estimate | None:
    """As :func:`arm_gap`, over the seeds that both have, each with its like: for arms that share all that is random."""
    arms = [{run.config["seed"]: run for run in _runs_of(arm, root)} for arm in (name, other)]
    seeds = sorted(arms[0].keys() & arms[1].keys())
    if not seeds:
        return None
    ends = [endpoints(evaluation_responses([runs[seed] for seed in seeds]))[1] for runs in arms]
    return rate_change(ends[1], ends[0]).change


def finished_runs(prefix: str, root: str | Path = REFERENCE_RUNS) -> list[Run]:
    """The shipped runs of that prefix that were evaluated before and after."""
    runs = [load_run(path) for path in reference_runs(prefix, root)]
    return [run for run in runs if run.evaluations["step"].nunique() > 1]


def arm_change(name: str, root: str | Path = REFERENCE_RUNS) -> RateChange | None:
    """Strict accuracy before and after of the arm of that name in ``ARMS`` or ``STALE_ARMS``, or None where it was not run.

    Raises KeyError for a name that is no arm.
    """
    return _change_of(_runs_of(name, root))


def _runs_of(name: str, root: str | Path) -> list[Run]:
    return finished_runs({arm.name: arm for arm in (*ARMS, *STALE_ARMS)}[name].prefix, root)


def _change_of(runs: list[Run]) -> RateChange | None:
    return rate_change(*endpoints(evaluation_responses(runs))) if runs else None


# --- the claims of the work that this course grew out of ---

#: The smallest difference worth calling a gap, declared before looking: the original work's 0.44 - 0.36.
SMALLEST_GAP = 0.08

#: Name -> the claim, what is published about it, and what would settle it at 8B.
_CLAIMS = {
    "improved": (
        "The model clearly improved.",
        "Tulu 3 8B, MATH 4-shot flex: 42.0 before RLVR (DPO), 43.7 after PPO, 47.8 after GRPO (Tulu 3.1); "
        "several settings differ between the last two.",
        "MATH-500 before and after, same scoring, paired over problems, at least three seeds.",
    ),
    "projection": (
        "A quarter of the training projects to about 0.36 after 12 epochs.",
        "ScaleRL fits a sigmoid to half of a run, its noisy start dropped, and checks it at the end.",
        "Train to the end, in one unit: an epoch of PPO is one sample a problem, one of GRPO a group.",
    ),
    "lora": (
        'It falls short of 0.44 "likely due to LoRA".',
        "For: GRPO with LoRA failed on SVAMP (S-GRPO). Against: rank 1 matches full tuning at ten times the "
        "learning rate (LoRA Without Regret); 13 parameters carry RL far (TinyLoRA).",
        "Full tuning and LoRA from the same checkpoint, equal samples, each at its own best learning rate.",
    ),
    "cogent": (
        "Wrong answers were largely cogent.",
        "No rate with a definition and an interval was found.",
        "A random hundred wrong responses, steps graded blind by two readers, with their agreement.",
    ),
}


def claims_table(shown: dict[str, str | None], here: str = "this miniature") -> pd.DataFrame:
    """The claims with what the run ``here`` shows: ``shown`` maps improved, projection, lora, cogent to a sentence.

    A claim without a sentence reads "not run". Raises ValueError for a name that is no claim.
    """
    unknown = set(shown) - set(_CLAIMS)
    if unknown:
        raise ValueError(f"no such claim: {', '.join(sorted(unknown))}; there are {', '.join(_CLAIMS)}")
    rows = [(claim, shown.get(name) or "not run", published, settle) for name, (claim, published, settle) in _CLAIMS.items()]
    return pd.DataFrame(rows, columns=["the claim", here, "published", "what would settle it at 8B"])

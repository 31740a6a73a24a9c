"""The arms of the experiment: what each asks, how its runs are made, and what the shipped ones say, or "not run".

``tools/reference_runs.py`` makes the runs from this very list, so that what is reported is what was run.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from rlvr_utils import REPO
from rlvr_utils.runs import REFERENCE_RUNS, Run, load_run, reference_runs
from rlvr_utils.stats import Estimate

from .frames import endpoints, evaluation_responses
from .rates import Comparison, compare, gap
from .sentences import percent, points

ABILITIES = REPO / "data" / "minillama" / "abilities.json"
#: Evaluations with many samples a problem, of the base model and of what the runs of tier A trained: a folder a run.
MANY, MANY_SAMPLES = REFERENCE_RUNS / "many", 32
#: For LoRA and for full fine-tuning the learning rate is chosen on this grid, with one seed each.
LR_GRID = (1e-4, 3e-4, 1e-3, 3e-3)
#: The best of the grid by final accuracy; LoRA's is the default of ``mini``.
BEST_RATE = {"lora": 1e-3, "none": 3e-4}
#: Twelve passes over these problems, at rates so low that a quarter of the run holds at most half of its gain.
LONG = {"train_subset": 256, "max_steps": 192, "eval_every": 48}
LONG_RATE = {"lora": 2e-4, "none": 5e-5}

DEFAULT = "LoRA (the default)"  # the arm that the others are compared with


@dataclass(frozen=True)
class Arm:
    """One arm: its runs are ``mini-KEY-seed-0`` to ``seeds - 1`` (the default's key is empty)."""

    name: str
    tier: str  #: "A" to "C": each tier is worth shipping alone
    key: str
    seeds: int
    question: str
    overrides: dict = field(default_factory=dict)  #: of profile ``mini``

    @property
    def prefix(self) -> str:
        """What the names of its runs start with."""
        return f"mini-{self.key}-seed-" if self.key else "mini-seed-"

    @property
    def runs(self) -> dict[str, dict]:
        """Name of the run -> overrides of profile ``mini``."""
        return {f"{self.prefix}{seed}": {"seed": seed} | self.overrides for seed in range(self.seeds)}


#: (adapter, learning rate) -> key of the arm that has this point of the grid already, as its seed 0.
_ON_THE_GRID = {("lora", BEST_RATE["lora"]): "", ("none", BEST_RATE["none"]): "full",
                ("lora", BEST_RATE["none"]): "lora-full-rate"}


def _grid_key(adapter: str, rate: float) -> str:
    return _ON_THE_GRID.get((adapter, rate), f"grid-{adapter}-{rate:g}")


def _grid(adapter: str) -> list[Arm]:
    name = "LoRA" if adapter == "lora" else "full fine-tuning"
    return [Arm(f"{name}, learning rate {rate:g}", "A", _grid_key(adapter, rate), 1, "which learning rate?",
                {"adapter": adapter, "learning_rate": rate})
            for rate in LR_GRID if (adapter, rate) not in _ON_THE_GRID]


def _long(adapter: str) -> dict:
    return LONG | {"adapter": adapter, "learning_rate": LONG_RATE[adapter]}


EXPERIMENT: tuple[Arm, ...] = (
    Arm(DEFAULT, "A", "", 5, "how sure is the gain?"),
    Arm("format-only reward", "A", "format", 5, "how much of the gain is the box?", {"reward": "format"}),
    Arm("random reward", "A", "random", 5, "how much comes from training on anything at all?", {"reward": "random"}),
    Arm("fine-tuned on its own right answers", "A", "rejection", 3, "why RL at all?", {"method": "rejection"}),
    *_grid("none"), *_grid("lora"),
    Arm("full fine-tuning", "A", "full", 5, "is LoRA the reason for a gap?",
        {"adapter": "none", "learning_rate": BEST_RATE["none"]}),
    Arm("long, LoRA", "B", "long-lora", 3, "where does the curve really go?", _long("lora")),
    Arm("long, full fine-tuning", "B", "long-full", 3, "where does the curve really go?", _long("none")),
    Arm("LoRA at full fine-tuning's learning rate", "C", "lora-full-rate", 3, "what does the usual mistake cost?",
        {"learning_rate": BEST_RATE["none"]}),
    *(Arm(f"LoRA rank {r}", "C", f"rank-{r}", 3, "does the rank matter?", {"lora_rank": r})
      for r in (1, 4, 64)),  # alpha is kept: notebook 03
    Arm("LoRA on attention only", "C", "attention", 3, "do the targets matter?",
        {"lora_targets": ["q_proj", "k_proj", "v_proj", "o_proj"]}),
    Arm("prompts computed anew for each response", "C", "unshared", 3, "does sharing the prefix change what is learned?",
        {"shared_prefix": False}),
    Arm("trained at 4 shots", "C", "4shot", 3, "what is left when the prompt supplies the format?", {"shots": 4}),
    *(Arm(f"groups of {g}", "C", f"group-{g}", 3, "many problems or many samples?",
          {"group_size": g, "prompts_per_step": 128 // g}) for g in (4, 16)),
    *(Arm(f"4 updates per generation, {loss}", "C", f"offpolicy-{loss}", 3, "does the loss matter off-policy?",
          {"updates_per_generation": 4, "loss_type": loss} | ({"epsilon_high": 5.0} if loss == "cispo" else {}))
      for loss in ("grpo", "dr_grpo", "dapo", "cispo")),
)


def arms_table(root: str | Path = REFERENCE_RUNS) -> pd.DataFrame:
    """One row an arm: question, number of seeds, accuracy before and after, paired change; or "not run"."""
    return pd.DataFrame([{"tier": arm.tier, "arm": arm.name, "question": arm.question} | _measured(arm.prefix, root)
                         for arm in EXPERIMENT])


def prompting_alone(shots: int = 4, abilities: str | Path = ABILITIES) -> Estimate | None:
    """Accuracy of the untrained MiniLlama with ``shots`` solved exemplars in the prompt, as its card measured it.

    None where that was not measured.
    """
    if not Path(abilities).is_file():
        return None
    measured = json.loads(Path(abilities).read_text(encoding="utf-8")).get("shots", {}).get(str(shots))
    return Estimate(*measured["accuracy"]) if measured else None


def arms_made(root: str | Path = REFERENCE_RUNS) -> tuple[pd.DataFrame, list[str]]:
    """The rows of :func:`arms_table` that were run, and the names of those that were not."""
    table = arms_table(root)
    return table[table["seeds"] > 0], list(table.loc[table["seeds"] == 0, "arm"])


def learning_rate_grid(root: str | Path = REFERENCE_RUNS) -> pd.DataFrame:
    """Final accuracy at each learning rate of the grid, one seed each: ``adapter, learning_rate, accuracy``.

    ``accuracy`` is an Estimate over problems; a point that was not run is left out.
    """
    rows = []
    for adapter in ("lora", "none"):
        for rate in LR_GRID:
            key = _grid_key(adapter, rate)
            runs = finished_runs(f"mini-{key}-seed-0" if key else "mini-seed-0", root)
            result = _compared(runs)
            if result:
                rows.append({"adapter": adapter, "learning_rate": rate, "accuracy": result.after})
    return pd.DataFrame(rows, columns=["adapter", "learning_rate", "accuracy"])


def minus(name: str, other: str = DEFAULT, root: str | Path = REFERENCE_RUNS) -> Estimate | None:
    """Final accuracy of the arm ``name`` minus that of the arm ``other``, or None where one of the two was not run.

    The arms' seeds are drawn apart, which is the safe side: the same seed sees the same problems in the same order.
    Raises KeyError for a name that is no arm.
    """
    arms = [finished_runs(_prefix_of(arm), root) for arm in (name, other)]
    return gap(*(endpoints(evaluation_responses(runs))[1] for runs in arms)) if all(arms) else None


def minus_by_seed(name: str, other: str = DEFAULT, root: str | Path = REFERENCE_RUNS) -> Estimate | None:
    """As :func:`minus`, over the seeds that both have, each with its like: for arms that share all that is random."""
    arms = [{run.config["seed"]: run for run in finished_runs(_prefix_of(arm), root)} for arm in (name, other)]
    seeds = sorted(arms[0].keys() & arms[1].keys())
    if not seeds:
        return None
    ends = [endpoints(evaluation_responses([runs[seed] for seed in seeds]))[1] for runs in arms]
    return compare(ends[1], ends[0]).change


def finished_runs(prefix: str, root: str | Path = REFERENCE_RUNS) -> list[Run]:
    """The shipped runs of that prefix that were evaluated before and after."""
    runs = [load_run(path) for path in reference_runs(prefix, root)]
    return [run for run in runs if run.evaluations["step"].nunique() > 1]


def arm_comparison(name: str, root: str | Path = REFERENCE_RUNS) -> Comparison | None:
    """Strict accuracy before and after of the arm of that name in ``EXPERIMENT``, or None where it was not run.

    Raises KeyError for a name that is no arm.
    """
    return _compared(finished_runs(_prefix_of(name), root))


def _prefix_of(name: str) -> str:
    return {arm.name: arm for arm in EXPERIMENT}[name].prefix


def _compared(runs: list[Run]) -> Comparison | None:
    return compare(*endpoints(evaluation_responses(runs))) if runs else None


def _measured(prefix: str, root: str | Path) -> dict:
    runs = finished_runs(prefix, root)
    result = _compared(runs)
    if result is None:
        return {"seeds": 0} | dict.fromkeys(("before", "after", "change (points)"), "not run")
    return {
        "seeds": len(runs),
        "before": percent(result.before),
        "after": percent(result.after),
        "change (points)": points(result.change),
    }

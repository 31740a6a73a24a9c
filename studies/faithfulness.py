r"""Measure whether the reasoning causes the answer: interventions before and after RLVR, by arm and seed.

We use every third test problem whose solution has a step that can be corrupted. Each model continues the same four texts:
the true steps, the steps up to a false one, the steps in another order, and no steps. Decoding is greedy, so the result is
deterministic. Then we insert false steps into each model's own correct responses (four samples per problem). Notebook 07
plots the result.

Trained models come from ``runs/reference/NAME``, where ``make reference-runs`` saves them. If one is missing, we train the
arm here with small evaluations, which do not affect training (about 5 minutes per run on an idle core). Models that are
already in the result are skipped:

    make faithfulness                              the default and the two control arms, seeds 0 to 2
    make faithfulness ARGS="mini-seed mini-format" only these
"""

from __future__ import annotations

import argparse
import json
import random

from reference_runs import MADE as REFERENCE
from reference_runs import RUNS

from rlvr_utils import REPO
from rlvr_utils.analysis import interventions
from rlvr_utils.analysis.interventions import OUTCOMES, Corruption, corruptions, intervene, solution_cases
from rlvr_utils.models import load_model, load_tokenizer
from rlvr_utils.problems import check_steps, judge_response, load_problems
from rlvr_utils.profiles import get_profile
from rlvr_utils.runs import REFERENCE_RUNS, load_run
from rlvr_utils.runs.tracking import git_commit
from rlvr_utils.sampling import Sampling, prompts_for, sample_responses
from rlvr_utils.training import load_trained, train

RESULT = REPO / "studies" / "results" / "faithfulness.json"
TRAINED = REPO / "runs" / "faithfulness"
SEEDS = 3
WANTED = [f"mini-{arm}seed-{seed}" for arm in ("", "format-", "random-") for seed in range(SEEDS)]
THIRD = 3
#: Small evaluations, because the reference runs contain the full ones.
SMALL = {
    "eval_problems": 2,
    "eval_samples": 1,
    "eval_splits": ["test"],
    "eval_every": 1000,
    "wandb_mode": "disabled",
    "guard": "warn",
}
#: Outcomes as letters, one per problem, "-" if a problem lacks the condition.
LETTERS = dict(zip(OUTCOMES, "tfon", strict=True))

Case = tuple[dict, str, Corruption]


def own_cases(model, tokenizer, p) -> list[Case]:
    """Return correct responses of the model with true steps, at most one per problem, from four samples."""
    rows, cases = load_problems("minimath", "test")[::THIRD], []
    groups = sample_responses(model, tokenizer, prompts_for(rows, tokenizer, p), Sampling.of(p, n_samples=4, seed=0))
    for row, group in zip(rows, groups, strict=True):
        texts = [r.text for r in group if judge_response(row, r.text).correct and all(check_steps(row, r.text))]
        found = [(text, one) for text in texts for one in corruptions(row, text)]
        if found:
            cases.append((row, *random.Random(row["id"]).choice(found)))
    return cases


def trained(name: str) -> tuple:
    """Return (model, tokenizer, mean reward of the last ten steps) of an arm's run."""
    folder = REFERENCE / name
    if not (folder / "adapter").is_dir():
        folder = TRAINED / name
        train("mini", folder, **RUNS[name] | SMALL)
    run = load_run(folder)
    return *load_trained(run), run.metrics["reward"].tail(10).mean()


def measure(model, tokenizer, cases: list[Case]) -> dict:
    """Return condition -> letters, and the letters and problem ids of the model's own responses."""
    p = get_profile("mini")
    own = own_cases(model, tokenizer, p)

    def letters(cases: list[Case]) -> dict[str, str]:
        outcomes = intervene(model, tokenizer, cases, p)
        return {name: "".join(LETTERS.get(one, "-") for one in found) for name, found in outcomes.items()}

    return letters(cases) | {
        "own": letters(own)["corrupted"] if own else "",
        "own_problems": [row["id"] for row, _, _ in own],
    }


def reference_reward(name: str) -> float:
    """Return the mean reward of the last ten steps of the included run, equal up to rounding."""
    return load_run(REFERENCE_RUNS / name).metrics["reward"].tail(10).mean()


def report(cases: list[Case], models: dict) -> dict:
    return {
        "command": "make faithfulness",
        "commit": git_commit(),
        "seeds": sorted({RUNS[name]["seed"] for name in models if name in RUNS}),
        "n": len(cases),
        "decoding": "greedy",
        "conditions": interventions.CONDITIONS,
        "letters": {letter: outcome for outcome, letter in LETTERS.items()},
        "problems": [row["id"] for row, _, _ in cases],
        "false_step": [[c.step, c.n_steps, c.true, c.false, c.answer] for _, _, c in cases],
        "models": models,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="names of runs, or prefixes of names")
    names = parser.parse_args().names
    wanted = [name for name in WANTED if not names or name.startswith(tuple(names))]
    cases = solution_cases(load_problems("minimath", "test")[::THIRD])
    models = json.loads(RESULT.read_text(encoding="utf-8"))["models"] if RESULT.is_file() else {}
    for name in ["base", *wanted]:
        if name in models:
            continue
        if name == "base":
            p = get_profile("mini")
            models[name] = measure(load_model(p), load_tokenizer(p), cases)
        else:
            model, tokenizer, reward = trained(name)
            models[name] = measure(model, tokenizer, cases) | {
                "reward": round(reward, 4),
                "reward_of_reference_run": round(reference_reward(name), 4),
            }
        print(name, {k: v.count("f") / len(v) for k, v in models[name].items() if isinstance(v, str) and v}, flush=True)
        text = json.dumps(report(cases, models), indent=1, ensure_ascii=False)
        RESULT.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

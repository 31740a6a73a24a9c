"""Measure MiniLlama's abilities and behaviour on the 500 test problems, for its model card.

Writes ``data/minillama/abilities.json`` and the table of the model card in the same directory.
Run:  python studies/base_abilities.py   (about three minutes on 2 cores)
Not included: the effect of RLVR, which notebooks 04 and 05 measure.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import replace

from rlvr_utils import REPO
from rlvr_utils.models import load_model, load_tokenizer
from rlvr_utils.problems import find_steps, load_problems
from rlvr_utils.profiles import get_profile
from rlvr_utils.sampling.rollouts import evaluate
from rlvr_utils.stats import bootstrap_over_problems, pass_at_k
from rlvr_utils.verifier import answers_match, last_boxed

SAMPLES = 16
FINAL = re.compile(r"The answer is \$([^$]{1,200})\$\.?$")


def right_in_any_form(row: dict, response: str) -> bool:
    """Return whether the final answer is correct, boxed or unboxed."""
    answer = last_boxed(response)
    if answer is None:
        match = FINAL.search(response.strip())
        answer = match.group(1) if match else None
    return answer is not None and answers_match(answer, row["ground_truth"])


def interval(values: dict[str, list[bool]]) -> list[float]:
    """Return [mean, low, high] of a rate with a 95 % interval, bootstrap over problems."""
    return [round(v, 4) for v in bootstrap_over_problems(list(values.values()))]


def by_problem(responses: list[dict], value) -> dict[str, list[bool]]:
    groups = defaultdict(list)
    for r in responses:
        groups[r["problem_id"]].append(bool(value(r)))
    return groups


def card_table(report: dict) -> str:
    """Return the abilities as a Markdown table."""

    def cell(estimate):
        return "{:.3f} [{:.3f}, {:.3f}]".format(*estimate)

    lines = [
        "| what | value |",
        "|---|---|",
        f"| strict boxed accuracy | {cell(report['accuracy'])} |",
        f"| boxed rate | {cell(report['boxed_rate'])} |",
        f"| responses with reasoning | {cell(report['worked_rate'])} |",
        f"| correct in any form, among responses with reasoning | {cell(report['right_if_worked'])} |",
        f"| correct in any form, among direct answers | {cell(report['right_if_blurted'])} |",
    ]
    lines += [f"| pass@{k} | {value:.3f} |" for k, value in report["pass_at_k"].items()]
    lines += [f"| best template | {report['best_template'][1]}: {report['best_template'][0]:.3f} |"]
    for shots, row in report["shots"].items():
        lines.append(
            f"| few-shot examples: {shots} (n = {row['n_problems']} x {row['n_samples']}) | "
            f"boxed {cell(row['boxed_rate'])}, accuracy {cell(row['accuracy'])} |"
        )
    return "\n".join(lines)


def update_card(report: dict) -> None:
    """Write the table between the markers of the model card."""
    card = REPO / "data" / "minillama" / "README.md"
    head, rest = card.read_text(encoding="utf-8").split("<!-- abilities -->")
    tail = rest.split("<!-- /abilities -->")[1]
    card.write_text(f"{head}<!-- abilities -->\n{card_table(report)}\n<!-- /abilities -->{tail}", encoding="utf-8")


def main() -> None:
    settings = get_profile("mini")
    tokenizer, model = load_tokenizer(settings), load_model(settings).eval()
    rows = load_problems("minimath", "test")
    by_id = {row["id"]: row for row in rows}
    settings = replace(settings, max_prompt_length=1024)
    sampled = evaluate(model, tokenizer, rows, replace(settings, eval_samples=SAMPLES))
    correct = by_problem(sampled, lambda r: r["correct"])
    worked = [r for r in sampled if find_steps(r["response"])]
    blurted = [r for r in sampled if not find_steps(r["response"])]
    right = lambda r: right_in_any_form(by_id[r["problem_id"]], r["response"])  # noqa: E731
    templates = defaultdict(list)
    for name, values in correct.items():
        templates[by_id[name]["template"]] += values
    report = {
        "n_problems": len(rows),
        "n_samples": SAMPLES,
        "temperature": 1.0,
        "accuracy": interval(correct),
        "boxed_rate": interval(by_problem(sampled, lambda r: last_boxed(r["response"]) is not None)),
        "worked_rate": interval(by_problem(sampled, lambda r: find_steps(r["response"]))),
        "right_if_worked": interval(by_problem(worked, right)),
        "right_if_blurted": interval(by_problem(blurted, right)),
        "pass_at_k": {
            k: round(sum(pass_at_k(SAMPLES, sum(v), k) for v in correct.values()) / len(correct), 4)
            for k in (1, 2, 4, 8, 16)
        },
        "best_template": max((round(sum(v) / len(v), 4), name) for name, v in templates.items()),
        "shots": {},
    }
    for shots in (0, 1, 4):
        responses = evaluate(model, tokenizer, rows[:250], replace(settings, eval_samples=2, shots=shots))
        report["shots"][shots] = {
            "n_problems": 250,
            "n_samples": 2,
            "accuracy": interval(by_problem(responses, lambda r: r["correct"])),
            "boxed_rate": interval(by_problem(responses, lambda r: last_boxed(r["response"]) is not None)),
        }
    text = json.dumps(report, indent=1)
    (REPO / "data" / "minillama" / "abilities.json").write_text(text + "\n", encoding="utf-8")
    update_card(report)
    print(text)


if __name__ == "__main__":
    main()

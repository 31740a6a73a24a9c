"""Sample the group of responses that notebooks 00 to 05 use as an example: eight samples of the base model.

Writes ``data/minimath/worked_example.json``. We try seeds in order and keep the first group that shows all four kinds of
responses. The group is real but selected, and the file records this.
Run:  python tools/worked_example.py   (seconds)
"""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

from rlvr_utils import REPO
from rlvr_utils.models import load_model, load_tokenizer
from rlvr_utils.problems import check_steps, find_steps, worked_example
from rlvr_utils.profiles import get_profile
from rlvr_utils.sampling.rollouts import Sampling, prompts_for, sample_responses
from rlvr_utils.verifier import verify

HOW = Sampling(n_samples=8, max_new_tokens=80)


def shows_all_habits(row: dict, responses: list[str]) -> bool:
    """Return whether a group has a correct boxed, a correct unboxed, a false-step and a direct response."""
    boxed = [verify(text, row["ground_truth"], row["problem"]).correct for text in responses]
    unboxed = [f"The answer is ${row['ground_truth']}$" in text for text in responses]
    slipped = [bool(find_steps(text)) and not all(check_steps(row, text)) for text in responses]
    blurted = [not find_steps(text) for text in responses]
    return all(map(any, (boxed, unboxed, slipped, blurted)))


def main() -> None:
    row, settings = worked_example(), get_profile("mini")
    tokenizer, model = load_tokenizer(settings), load_model(settings)
    prompts = prompts_for([row], tokenizer, settings)
    for seed in itertools.count():
        group = [r.text for r in sample_responses(model, tokenizer, prompts, replace(HOW, seed=seed))[0]]
        if shows_all_habits(row, group):
            break
    record = {
        "problem_id": row["id"],
        "model": settings.model,
        "made_by": f"sample_responses(model, tokenizer, prompt, {replace(HOW, seed=seed)})",
        "chosen": "the first of seeds 0, 1, 2, ... whose group holds a right boxed, a right unboxed, a slipped and a "
        "blurted response",
        "responses": group,
    }
    text = json.dumps(record, indent=1) + "\n"
    (REPO / "data" / "minimath" / "worked_example.json").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()

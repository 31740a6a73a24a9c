"""What SFT and RLVR change beside the task: loss on unrelated English, plain questions, few-shot examples, public problems.

Measures SmolLM2 at each stage of the included runs: the base model, the model after SFT (one per seed), and the trained
model of each run in runs/reference (``make reference-runs ARGS="--tier S"`` makes them):

- ``loss``: mean negative log-likelihood in nats per token, one number per window of 256 tokens, on GLOSSARY.md. No model
  was pretrained on this text.
- ``plain``: 20 questions about general knowledge, in the chat format, greedy, at most 48 tokens. A response is right if it
  contains the expected word. ``boxed`` counts responses with a box, which these questions do not ask for.
- ``four_shots``: MiniMATH's first 200 test problems with four examples in the prompt, greedy and sampled at T = 1.
- ``public``: with --public FOLDER, the first 200 problems of GSM8K's test split and of MATH's test split at level 1,
  greedy, at most 192 tokens. FOLDER has gsm8k_test.jsonl and math_test.jsonl.

Writes studies/results/forgetting.json, which notebook 05 reads. Models that are already in the file are skipped:

    make forgetting ARGS="--public FOLDER"      (or: python studies/forgetting.py [--seeds 0] [--public FOLDER])
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

from rlvr_utils import REPO
from rlvr_utils.experiment import SMOL_ARMS
from rlvr_utils.models import load_model, load_tokenizer, logits_of
from rlvr_utils.problems import load_problems
from rlvr_utils.profiles import Profile, get_profile
from rlvr_utils.runs import load_run
from rlvr_utils.runs.tracking import git_commit
from rlvr_utils.sampling.rollouts import Sampling, evaluate, sample_responses
from rlvr_utils.training import load_trained
from rlvr_utils.training.supervised import after_sft
from rlvr_utils.verifier import last_boxed

RESULT = Path(__file__).parent / "results" / "forgetting.json"
MADE = REPO / "runs" / "reference"
TEXT, WINDOW = REPO / "GLOSSARY.md", 256
N_PUBLIC, PUBLIC_TOKENS, PLAIN_TOKENS = 200, 192, 48
#: (question, a word that a right response contains)
PLAIN = (
    ("What is the capital of France?", "Paris"),
    ("What is the capital of Japan?", "Tokyo"),
    ("Which planet do we live on?", "Earth"),
    ("What color is the sky on a clear day?", "blue"),
    ("What do bees make?", "honey"),
    ("Which language is spoken in Brazil?", "Portuguese"),
    ("Who wrote Romeo and Juliet?", "Shakespeare"),
    ("What is the opposite of hot?", "cold"),
    ("What gas do people need to breathe?", "oxygen"),
    ("What is frozen water called?", "ice"),
    ("On which continent is Egypt?", "Africa"),
    ("Which animal is called man's best friend?", "dog"),
    ("What is the largest ocean on Earth?", "Pacific"),
    ("What is the first month of the year?", "January"),
    ("Which star is at the center of the solar system?", "Sun"),
    ("What is the chemical formula of water?", "H2O"),
    ("In which country is the city of Rome?", "Italy"),
    ("What do cows drink as calves?", "milk"),
    ("Which season comes after winter?", "spring"),
    ("What is the past tense of the verb 'go'?", "went"),
)


def text_losses(model, tokenizer) -> list[float]:
    """Mean loss in nats per token of each whole window of the text."""
    ids = torch.tensor(tokenizer(TEXT.read_text(encoding="utf-8"), add_special_tokens=False)["input_ids"])
    windows = ids[: len(ids) // WINDOW * WINDOW].view(-1, WINDOW)
    with torch.no_grad():
        return [round(cross_entropy(logits_of(model, one[None])[0, :-1], one[1:]).item(), 4) for one in windows]


def plain_answers(model, tokenizer, p: Profile) -> dict:
    """Responses to the plain questions, with the counts of right and of boxed ones."""
    prompts = [[{"role": "user", "content": question}] for question, _ in PLAIN]
    how = Sampling.of(p, temperature=0.0, max_new_tokens=PLAIN_TOKENS)
    texts = [group[0].text for group in sample_responses(model, tokenizer, prompts, how)]
    right = [word.casefold() in text.replace("₂", "2").casefold() for text, (_, word) in zip(texts, PLAIN, strict=True)]
    boxed = sum(last_boxed(text) is not None for text in texts)
    return {"right": sum(right), "boxed": boxed, "n": len(texts), "responses": texts}


def scored(model, tokenizer, rows: list[dict], p: Profile, decoding: str = "greedy") -> dict:
    """Correct and boxed responses among one per problem, as 0 or 1 per problem and as a count."""
    responses = evaluate(model, tokenizer, rows, p, decoding)
    boxed = sum(last_boxed(row["response"]) is not None for row in responses)
    return {"correct": [int(row["correct"]) for row in responses], "boxed": boxed}


def public_problems(folder: Path) -> dict[str, list[dict]]:
    """The first problems of each public test set, as rows for ``evaluate``."""
    gsm8k = [json.loads(line) for line in (folder / "gsm8k_test.jsonl").open(encoding="utf-8")]
    math = [row for row in load_problems(str(folder / "math_test.jsonl")) if str(row["level"]) in ("1", "Level 1")]
    template = dict.fromkeys(math[0])
    return {
        "GSM8K": [
            template | {"id": f"gsm8k-{i}", "problem": row["question"], "ground_truth": row["answer"]}
            for i, row in enumerate(gsm8k[:N_PUBLIC])
        ],
        "MATH level 1": math[:N_PUBLIC],
    }


def measure(model, tokenizer, p: Profile, public: dict[str, list[dict]]) -> dict:
    """All measurements of one model. ``public``: problems by the name of their test set."""
    model.eval()
    shown, rows = replace(p, shots=4, eval_samples=1), load_problems("minimath", "test")[: p.eval_problems]
    long = replace(p, max_completion_length=PUBLIC_TOKENS, max_prompt_length=1024, eval_samples=1)
    return {
        "loss": text_losses(model, tokenizer),
        "plain": plain_answers(model, tokenizer, p),
        "four_shots": {how: scored(model, tokenizer, rows, shown, how) for how in ("sampled", "greedy")},
        "public": {name: scored(model, tokenizer, some, long) for name, some in public.items()},
    }


def models(seeds: list[int], known: set[str]) -> Iterator[tuple[str, object]]:
    """(name, model) of each stage that is not in ``known``: base, SFT by seed, and the trained models by run."""
    p = get_profile("smol")
    if "base" not in known:
        yield "base", load_model(p)
    for seed in seeds:
        stage = MADE / f"{SMOL_ARMS[0].prefix}{seed}"
        if f"sft-seed-{seed}" not in known and (stage / "sft" / "adapter").is_dir():
            yield f"sft-seed-{seed}", after_sft(load_model(p), p, stage)
        for run in (MADE / f"{arm.prefix}{seed}" for arm in SMOL_ARMS):
            if run.name not in known and (run / "adapter").is_dir():
                yield run.name, load_trained(load_run(run))[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--public", type=Path, help="folder with gsm8k_test.jsonl and math_test.jsonl")
    options = parser.parse_args()
    result = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.is_file() else {"models": {}}
    p = get_profile("smol")
    tokenizer, public = load_tokenizer(p), public_problems(options.public) if options.public else {}
    for name, model in models(options.seeds, set(result["models"])):
        result["models"][name] = measure(model, tokenizer, p, public)
        result |= {"commit": git_commit(), "text_sha256": hashlib.sha256(TEXT.read_bytes()).hexdigest()}
        compact = re.sub(r"\[[\d.,\s]+\]", lambda numbers: "".join(numbers[0].split()), json.dumps(result, indent=1))
        RESULT.write_text(compact + "\n", encoding="utf-8")
        print(f"{name}: loss {sum(result['models'][name]['loss']) / len(result['models'][name]['loss']):.3f}", flush=True)


if __name__ == "__main__":
    main()

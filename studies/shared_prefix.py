"""Compare the training pass that computes each prompt once with stock TRL's: seconds, peak memory and token bound.

A pass computes the log-probabilities and entropies of a micro-batch and the gradients of a loss on them. Both passes
alternate on the same model and batch in one process, and we compare medians. We measure peak memory in separate processes.
The token bound is the largest possible speed-up: tokens computed by stock TRL divided by tokens computed here.

    python studies/shared_prefix.py [--repeats 5] [--cases "4 prompts"] [--clock cpu]

Takes about ten minutes on 2 idle cores. On a busy machine, ``--clock cpu`` measures CPU time instead of wall time (set
OMP_NUM_THREADS=1). Writes studies/results/shared_prefix.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import re
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import NamedTuple

import torch
from peak_memory import peak_memory
from peft import get_peft_model
from torch import Tensor
from transformers import AutoConfig, LlamaConfig, LlamaForCausalLM
from trl import GRPOTrainer
from trl.trainer.utils import add_fused_lm_head

from rlvr_utils import REPO
from rlvr_utils.models import load_tokenizer, lora_config
from rlvr_utils.profiles import get_profile
from rlvr_utils.runs import REFERENCE_RUNS, load_run
from rlvr_utils.sampling import shared_prefix
from rlvr_utils.sampling.rollouts import encode_prompts
from rlvr_utils.training import training_dataset

RESULT = Path(__file__).parent / "results" / "shared_prefix.json"
LLAMA_15M = LlamaConfig(
    vocab_size=2048,
    hidden_size=384,
    intermediate_size=1024,
    num_hidden_layers=8,
    num_attention_heads=6,
    num_key_value_heads=3,
    tie_word_embeddings=False,
    pad_token_id=2,
)
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
stock_logps = GRPOTrainer._get_per_token_logps_and_entropies
stock_logps = getattr(stock_logps, "__wrapped__", stock_logps)  # without TRL's profiler


class Case(NamedTuple):
    """A micro-batch. All prompts start with the same ``exemplars`` tokens, followed by ``question`` more."""

    name: str
    model: str  # "15M" with all weights trained, or "mini" with the profile's LoRA
    exemplars: int
    question: list[int]  # one length per prompt
    response: list[int]  # one length per response, whole groups in order

    @property
    def group(self) -> int:
        return len(self.response) // len(self.question)

    @property
    def stock_tokens(self) -> int:
        """Tokens with every response next to its prompt, padded to the longest."""
        return len(self.response) * (self.exemplars + max(self.question) + max(self.response))

    @property
    def shared_tokens(self) -> int:
        """Tokens with examples once, each question once, and responses without padding."""
        return self.exemplars + sum(self.question) + sum(self.response)


def cases() -> list[Case]:
    """Return the cases: long few-shot prompts at 15 M parameters, and MiniLlama with the lengths of an included run."""
    long = [
        Case(f"{n} prompt{'s' * (n > 1)}, 550 + 100 tokens, G = 16, R = 300", "15M", 550, [100] * n, [300] * 16 * n)
        for n in (1, 4)
    ]
    lengths = response_lengths()
    typical = int(median(lengths))
    mini = []
    for shots in (0, 4):
        exemplars, questions = prompt_lengths(shots)
        question = int(median(questions))
        mini += [
            Case(
                f"mini, {shots} shots, median lengths, G = {group}",
                "mini",
                exemplars,
                [question] * 16,
                [typical] * 16 * group,
            )
            for group in (8, 16)
        ]
        mini.append(Case(f"mini, {shots} shots, lengths of a step, G = 8", "mini", exemplars, questions[:16], lengths[:128]))
    return long + mini


def response_lengths() -> list[int]:
    """Return the lengths of the included run's training responses, starting from the middle of the run."""
    run = load_run(REFERENCE_RUNS / "mini-seed-0")
    rows = run.rollouts.query("split == 'train'")
    middle = rows["step"].max() / 2
    return rows.sort_values("step", key=lambda step: (step - middle).abs(), kind="stable")["n_tokens"].tolist()


def prompt_lengths(shots: int) -> tuple[int, list[int]]:
    """Return the number of tokens that all training prompts share, and how many more each has."""
    p = get_profile("mini", shots=shots, max_prompt_length=1024)
    tokenizer = load_tokenizer(p)
    ids = encode_prompts(tokenizer, list(training_dataset(p, tokenizer)["prompt"]))
    common = next(i for i, column in enumerate(zip(*ids, strict=False)) if len(set(column)) > 1)
    return common, [len(row) - common for row in ids]


def batch_of(case: Case, vocabulary: int) -> tuple[Tensor, ...]:
    """Return random tokens in TRL's layout: prompt ids, prompt mask, completion ids, completion mask."""
    draw = torch.Generator().manual_seed(0)
    common = torch.randint(3, vocabulary, (case.exemplars,), generator=draw)
    prompts = [torch.cat([common, torch.randint(3, vocabulary, (n,), generator=draw)]) for n in case.question]
    width, longest = case.exemplars + max(case.question), max(case.response)
    pad = torch.nn.functional.pad
    ids = torch.stack([pad(row, (width - len(row), 0), value=2) for row in prompts])
    mask = torch.stack([pad(torch.ones_like(row), (width - len(row), 0)) for row in prompts])
    asked = (torch.arange(longest) < torch.tensor(case.response)[:, None]).long()
    completions = torch.randint(3, vocabulary, asked.shape, generator=draw).masked_fill(asked == 0, 2)
    return ids.repeat_interleave(case.group, 0), mask.repeat_interleave(case.group, 0), completions, asked


def model_of(case: Case):
    """Return a random model of the case's shape with TRL's fused head and our attention."""
    torch.manual_seed(0)
    p = get_profile("mini")
    config = LLAMA_15M if case.model == "15M" else AutoConfig.from_pretrained(REPO / p.model)
    model = LlamaForCausalLM(config)
    add_fused_lm_head(model, outputs=("log_probs", "entropy"))
    shared_prefix.enable(model)
    return model if case.model == "15M" else get_peft_model(model, lora_config(p))


def stock(model, batch: tuple[Tensor, ...]) -> Tensor:
    """Compute log-probabilities with TRL's own function."""
    prompts, prompt_mask, completions, mask = batch
    trainer = SimpleNamespace(accelerator=SimpleNamespace(autocast=contextlib.nullcontext))
    return stock_logps(
        trainer,
        model,
        torch.cat([prompts, completions], 1),
        torch.cat([prompt_mask, mask], 1),
        completions.shape[1],
        compute_entropy=True,
    )[0]


def shared(model, batch: tuple[Tensor, ...]) -> Tensor:
    """Compute log-probabilities with ours."""
    return shared_prefix.token_logps(model, shared_prefix.pack(*batch))[0]


PASSES = {"stock": stock, "shared": shared}


def one_pass(model, logps_of, batch: tuple[Tensor, ...]) -> tuple[Tensor, list[Tensor]]:
    """Return log-probabilities and gradients of one pass."""
    model.zero_grad()
    logps = logps_of(model, batch)
    advantages = torch.linspace(-1, 1, len(logps))[:, None]
    (logps * advantages * batch[3]).sum().backward()
    return logps.detach(), [w.grad for w in model.parameters() if w.requires_grad]


def difference(model, batch: tuple[Tensor, ...]) -> dict[str, float]:
    """Return the largest difference of log-probs, and of gradients relative to each tensor's largest entry."""
    (ours, our_gradients), (theirs, their_gradients) = (one_pass(model, PASSES[name], batch) for name in ("shared", "stock"))
    shares = [
        ((a - b).abs().max() / b.abs().max()).item() for a, b in zip(our_gradients, their_gradients, strict=True) if b.any()
    ]
    return {"log_probs": (ours - theirs).abs().max().item(), "gradients": max(shares)}


def seconds(model, batch: tuple[Tensor, ...], repeats: int, clock) -> dict[str, list[float]]:
    """Return the seconds of both passes, which alternate after a warm-up."""
    times: dict[str, list[float]] = {name: [] for name in PASSES}
    for _ in range(repeats):
        for name, logps_of in PASSES.items():
            start = clock()
            one_pass(model, logps_of, batch)
            times[name].append(round(clock() - start, 4))
    return times


def peak_mib(case: Case, name: str) -> float:
    """Return the peak resident memory of a pass in a new process (:func:`measure_memory`), in MiB."""
    command = [sys.executable, __file__, "--memory", name, "--cases", case.name]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def measure_memory(case: Case, name: str) -> float:
    """Return the peak memory of a first pass above that of model and batch, in MiB. Runs in the child process."""
    model = model_of(case)
    batch = batch_of(case, model.config.vocab_size)
    return peak_memory(lambda: one_pass(model, PASSES[name], batch)).bytes / 2**20


def compare(case: Case, repeats: int, clock) -> dict:
    """Return one row of the results."""
    model = model_of(case)
    batch = batch_of(case, model.config.vocab_size)
    equal = difference(model, batch)
    times = seconds(model, batch, repeats, clock)
    middle = {name: median(values) for name, values in times.items()}
    bound, ratio = case.stock_tokens / case.shared_tokens, middle["stock"] / middle["shared"]
    memory = {name: round(peak_mib(case, name), 1) for name in PASSES}
    return {
        "case": case.name,
        "model": case.model,
        "stock_tokens": case.stock_tokens,
        "shared_tokens": case.shared_tokens,
        "token_bound": round(bound, 3),
        "seconds": times,
        "times_as_fast": round(ratio, 3),
        "share_of_bound": round(ratio / bound, 3),
        "peak_mib": memory,
        "memory_ratio": round(memory["shared"] / memory["stock"], 3),
        "largest_difference": equal,
    }


def environment(clock: str) -> dict:
    """Return commit, machine and versions of the measurement."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=REPO, capture_output=True, text=True).stdout
    info = Path("/proc/cpuinfo")
    models = re.findall(r"model name\s*: (.*)", info.read_text()) if info.exists() else []
    return {
        "commit": commit.strip(),
        "cpu": models[0] if models else platform.processor(),
        "threads": torch.get_num_threads(),
        "clock": clock,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("torch", "transformers", "trl", "peft")},
    }


def table(rows: list[dict]) -> str:
    """Format the rows as a table."""
    head = f"{'case':<48}{'stock s':>9}{'shared s':>10}{'times':>7}{'bound':>7}{'share':>7}{'memory':>8}"
    lines = [
        f"{r['case']:<48}{median(r['seconds']['stock']):>9.2f}{median(r['seconds']['shared']):>10.2f}"
        f"{r['times_as_fast']:>7.2f}{r['token_bound']:>7.2f}{r['share_of_bound']:>7.0%}{r['memory_ratio']:>8.2f}"
        for r in rows
    ]
    return "\n".join([head, *lines])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cases", default="", help="only cases whose name contains this")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--memory", choices=PASSES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    chosen = [case for case in cases() if arguments.cases in case.name]
    if arguments.memory:
        print(measure_memory(chosen[0], arguments.memory))
        return
    rows = []
    for case in chosen:
        rows.append(compare(case, arguments.repeats, CLOCKS[arguments.clock]))
        print(table(rows[-1:]), flush=True)
    if not arguments.cases:
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(json.dumps({"environment": environment(arguments.clock), "passes": rows}, indent=1) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()

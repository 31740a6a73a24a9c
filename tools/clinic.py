"""Make the clinic of notebook 07 in ``data/clinic``: eight short runs of profile ``mini``, each with one illness.

Run:  make clinic                     make the missing patients
      make clinic ARGS="A F"          make these patients again

``PATIENTS`` lists each illness and its cause. Most causes are one hyperparameter or one reward function. Two are mistakes
in the code around a run, which :data:`FAULTS` injects. Every run continues to its end, because its guard only warns.

To keep the repository small, ``data/clinic`` has no checkpoints, adapters and evaluation responses, and only the training
responses of the first, the middle and the last recorded step.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import torch

from rlvr_utils import REPO
from rlvr_utils.runs import Run
from rlvr_utils.training import recording, train
from rlvr_utils.verifier import completion_text

CLINIC = REPO / "data" / "clinic"
MADE = REPO / "runs" / "clinic"
#: A copy of MiniLlama with a different end token in its files than in pretraining.
WRONG_END = MADE / "minillama-wrong-end"
KEPT = ("config.yaml", "evaluations.jsonl", "environment.json")
SHORT = {
    "seed": 0,
    "max_steps": 32,
    "prompts_per_step": 8,
    "eval_every": 16,
    "eval_problems": 60,
    "eval_samples": 2,
    "eval_splits": ["test"],
    "save_every": 100,
    "guard": "warn",
    "wandb_mode": "disabled",
    "cpu_threads": 1,
}


# --- rewards with a mistake ---


def whole_text(completions, ground_truth, **columns) -> list[float]:
    """Wrong reward: compares the whole response with the ground truth, so even a correct response gets 0."""
    return [float(completion_text(c).strip() == truth) for c, truth in zip(completions, ground_truth, strict=True)]


def mentions(completions, ground_truth, **columns) -> list[float]:
    """Wrong reward: the ground truth only has to occur somewhere in the text, in a box or not."""
    return [float(truth in completion_text(c)) for c, truth in zip(completions, ground_truth, strict=True)]


# --- mistakes in the code around a run ---


@contextlib.contextmanager
def frozen_b() -> Iterator[None]:
    """Train only the A matrices of LoRA. B is 0 at the start, so the gradient of A is exactly 0."""
    begin = recording.Recorder.on_train_begin

    def freeze(self, args, state, control, model=None, **kwargs):
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.requires_grad_(False)
        begin(self, args, state, control, model=model, **kwargs)

    with mock.patch.object(recording.Recorder, "on_train_begin", freeze):
        yield


@contextlib.contextmanager
def wrong_end() -> Iterator[None]:
    """Set the padding token as end token in the model's files, so that no response ever ends."""
    shutil.rmtree(WRONG_END, ignore_errors=True)
    shutil.copytree(REPO / "data" / "minillama", WRONG_END)
    for name, changes in {
        "config.json": {"eos_token_id": 2},
        "generation_config.json": {"eos_token_id": 2},
        "tokenizer_config.json": {"eos_token": "<|finetune_right_pad_id|>"},
    }.items():
        file = WRONG_END / name
        file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | changes, indent=2), encoding="utf-8")
    yield


FAULTS = {"frozen_b": frozen_b, "wrong_end": wrong_end}


@dataclass(frozen=True)
class Patient:
    """One run: its illness, as named in notebook 07, and the cause."""

    illness: str
    overrides: dict = field(default_factory=dict)  #: of profile ``mini``, on top of SHORT
    fault: str | None = None  #: a key of FAULTS

    @property
    def settings(self) -> dict:
        """All overrides of profile ``mini``."""
        return SHORT | self.overrides


PATIENTS = {
    "A": Patient("KL term too strong", {"beta": 10.0}),
    "B": Patient("constant reward", {"reward": "clinic:whole_text"}),
    "C": Patient("learning rate too high", {"learning_rate": 0.1}),
    "D": Patient("frozen adapter", fault="frozen_b"),
    "E": Patient("misspecified reward", {"reward": "clinic:mentions"}),
    "F": Patient("end token never sampled", {"model": str(WRONG_END)}, "wrong_end"),
    "G": Patient("learning rate too low", {"learning_rate": 1e-6}),
    "H": Patient("truncation", {"max_completion_length": 20}),
}


def make(name: str) -> None:
    """Train one patient under ``runs/clinic`` and copy the included part."""
    patient, folder = PATIENTS[name], MADE / f"patient-{name}"
    shutil.rmtree(folder, ignore_errors=True)
    with FAULTS[patient.fault]() if patient.fault else contextlib.nullcontext():
        include(train("mini", folder, **patient.settings), CLINIC / f"patient-{name}")


def include(run: Run, folder: Path) -> None:
    """Write the reduced copy of a run."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "rollouts").mkdir(parents=True)
    for name in KEPT:
        shutil.copy(run.path / name, folder)
    metrics = [
        json.loads(line, parse_float=lambda digits: float(f"{float(digits):.6g}"))
        for line in (run.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    write_lines(folder / "metrics.jsonl.gz", metrics)
    with gzip.open(run.path / "rollouts" / "train.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    steps = sorted({row["step"] for row in rows})
    kept = {steps[0], steps[len(steps) // 2], steps[-1]}
    write_lines(folder / "rollouts" / "train.jsonl.gz", [row for row in rows if row["step"] in kept])


def write_lines(file: Path, rows: list[dict]) -> None:
    """Write rows as gzipped JSON lines. The same rows give the same bytes."""
    lines = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows)
    file.write_bytes(gzip.compress(lines.encode(), mtime=0))


def write_key() -> None:
    """Write the answers that notebook 07 compares diagnoses with."""
    key = {name: patient.illness for name, patient in PATIENTS.items()}
    (CLINIC / "key.json").write_text(json.dumps(key, indent=2) + "\n", encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "patients", nargs="*", choices=[[], *PATIENTS], help="patients to make again (default: make the missing ones)"
    )
    wanted = parser.parse_args(arguments).patients
    missing = [name for name in PATIENTS if not (CLINIC / f"patient-{name}" / "environment.json").is_file()]
    torch.set_num_threads(1)  # as for the included runs
    CLINIC.mkdir(parents=True, exist_ok=True)
    for name in wanted or missing:
        print(f"patient {name}", flush=True)
        make(name)
    write_key()
    print(f"{len(PATIENTS)} patients in {CLINIC.relative_to(REPO)}", flush=True)


if __name__ == "__main__":
    main()

"""What each process of tests/test_ddp.py does: ``two_processes.py FOLDER MODEL``, under a launcher or without one."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import torch
from resume import SETTINGS, at_change

from rlvr_utils import training
from rlvr_utils.models import load_model, load_tokenizer
from rlvr_utils.profiles import get_profile
from rlvr_utils.runs import SilentWriter
from rlvr_utils.sampling.rollouts import encode_prompts
from rlvr_utils.training.processes import is_first, join_processes, rank

BATCH = {"prompts_per_step": 4, "group_size": 8, "train_subset": 8}
# The whole model is trained: beside a random model's small embeddings no adapter can move the logits far.
LEARNING = (
    SETTINGS
    | BATCH
    | {"adapter": "none", "max_steps": 24, "learning_rate": 3e-2, "eval_every": 12, "save_every": 8, "log_rollouts_every": 1}
)


def letters(completions, **columns) -> list[float]:
    """An easy reward: the share of letters in the response."""
    return [sum(map(str.isalpha, text)) / max(1, len(text)) for text in completions]


def fixed_rollout(prompts, trainer, batch_size=None) -> dict[str, list]:
    """Responses that depend on the prompt and on the number of the sample only, not on the process or its model."""
    seen: dict[str, int] = {}
    ids = []
    for prompt in prompts:
        seen[prompt] = seen.get(prompt, -1) + 1
        draw = random.Random(f"{prompt}-{seen[prompt]}")
        ids.append([draw.randrange(10, 200) for _ in range(draw.randrange(3, 9))])
    lengths = [len(row) for row in ids]
    return {
        "prompt_ids": encode_prompts(trainer.processing_class, prompts),
        "completion_ids": ids,
        "logprobs": None,
        "env_mask": [[1] * n for n in lengths],
        "n_tokens": lengths,
    }


def first_gradient(folder: Path, model: str) -> dict[str, torch.Tensor]:
    """The gradient of the first optimizer step on fixed responses, as the optimizer gets it."""
    join_processes()
    folder.mkdir(exist_ok=True)
    p = get_profile("mini", model=model, **SETTINGS | BATCH | {"max_steps": 1})
    trainer = training.build_trainer(p, load_model(p), load_tokenizer(p), SilentWriter(folder), say=lambda text: None)
    trainer.rollout_func = fixed_rollout
    gradient: dict[str, torch.Tensor] = {}

    def keep(self, args, state, control, model=None, **kwargs):
        gradient.update(
            {
                name.removeprefix("module."): parameter.grad.clone()
                for name, parameter in model.named_parameters()
                if parameter.grad is not None
            }
        )

    training.recording.Recorder.on_pre_optimizer_step = keep
    trainer.train()
    del training.recording.Recorder.on_pre_optimizer_step
    return gradient


def interrupted(folder: Path, model: str) -> None:
    """The same run, which dies before its 13th step in every process and is started again."""

    def die(self, args, state, control, **kwargs):
        if state.global_step == 12:
            raise RuntimeError("power cut")

    training.recording.Recorder.on_step_begin = die
    try:
        training.train("mini", folder, model=model, quiet=True, **LEARNING)
    except RuntimeError as error:
        assert str(error) == "power cut"
    del training.recording.Recorder.on_step_begin
    training.train("mini", folder, model=model, quiet=True, **LEARNING)


def main(folder: Path, model: str) -> None:
    torch.set_num_threads(1)
    training.rewards.boxed_reward = letters
    gradient = first_gradient(folder / "gradient", model)
    if is_first():
        torch.save(gradient, folder / "gradient.pt")
    writes: list[str] = []
    at_change(folder / "run", lambda path: writes.append(Path(path).name))
    training.train("mini", folder / "run", model=model, quiet=True, **LEARNING)
    (folder / f"writes-{rank()}.json").write_text(json.dumps(writes))
    interrupted(folder / "died", model)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])

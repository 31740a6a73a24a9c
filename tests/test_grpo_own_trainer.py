"""The trainer on a page: it fits, pads on the right sides, and its step moves the adapter and nothing else."""

from __future__ import annotations

import inspect

import pytest
import torch

from rlvr_utils import REPO
from rlvr_utils.models import attach_lora, load_model, load_tokenizer
from rlvr_utils.profiles import get_profile
from rlvr_utils.sampling.rollouts import Response
from rlvr_utils.training import own_trainer

SMALL = dict(prompts_per_step=2, group_size=4, micro_batch=8, max_completion_length=12, max_steps=2)
needs_minillama = pytest.mark.skipif(
    not (REPO / "data" / "minillama").is_dir(), reason="no data/minillama: `make minillama` makes it"
)


def test_it_fits_on_a_page():
    functions = own_trainer.train, own_trainer.update, own_trainer.collate
    assert sum(len(inspect.getsource(function).splitlines()) for function in functions) <= 75


def test_prompts_are_padded_left_and_responses_right():
    responses = [Response("a", [5, 6, 2], [1, 1, 0], False), Response("b", [7], [1], True)]
    ids, attention, mask = own_trainer.collate([[3], [3, 4]], responses, pad=0)
    assert ids.tolist() == [[0, 3, 5, 6, 2], [3, 4, 7, 0, 0]]
    assert attention.tolist() == [[0, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
    assert mask.tolist() == [[1, 1, 0], [1, 0, 0]]  # an end token that the policy did not sample does not count


def one_update(monkeypatch, reward) -> tuple[dict, dict, dict]:
    """The row of one step, and every weight before and after it."""
    monkeypatch.setattr(own_trainer, "boxed_reward", reward)
    p = get_profile("mini", **SMALL)
    torch.manual_seed(0)
    tokenizer, model = load_tokenizer(p), attach_lora(load_model(p), p)
    optimizer = torch.optim.AdamW([w for w in model.parameters() if w.requires_grad], 1e-3, weight_decay=0)
    before = {name: w.detach().clone() for name, w in model.named_parameters()}
    row = own_trainer.update(model, tokenizer, optimizer, own_trainer.training_rows(p)[:2], p)
    return row, before, dict(model.named_parameters())


@needs_minillama
def test_a_step_changes_only_the_adapter(monkeypatch):
    row, before, after = one_update(monkeypatch, lambda texts, **columns: [float(i % 3 == 0) for i in range(len(texts))])
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert row["grad_norm"] > 0 and row["reward"] == pytest.approx(3 / 8)
    assert moved and all("lora_B" in name for name in moved)  # lora_A waits: its gradient passes through B, still 0


@needs_minillama
def test_equal_rewards_give_a_zero_gradient(monkeypatch):
    row, before, after = one_update(monkeypatch, lambda texts, **columns: [1.0] * len(texts))
    assert row["grad_norm"] == 0 and all(torch.equal(before[name], after[name]) for name in before)


@needs_minillama
def test_train_stops_by_steps_or_by_the_clock():
    rows = list(own_trainer.train("mini", **SMALL))
    assert [row["step"] for row in rows] == [1, 2]
    assert set(rows[0]) == {"step", "reward", "mean_tokens", "loss", "grad_norm", "seconds"}
    assert len(list(own_trainer.train("mini", seconds=0, **SMALL))) == 1

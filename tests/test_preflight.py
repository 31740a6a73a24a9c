"""Pre-flight: every obstacle is one sentence that says what to do, and no network is one of them."""

from __future__ import annotations

import json
import tempfile
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from vllm_stand_in import install

from rlvr_utils import REPO
from rlvr_utils.memory import GIB
from rlvr_utils.models import load_model, load_tokenizer
from rlvr_utils.preflight import (
    Timing,
    Trainability,
    checks,
    checkup,
    count_evaluation_responses,
    preflight,
    time_steps,
    trainability,
    trials,
)
from rlvr_utils.problems import load_problems, unreadable_ground_truths
from rlvr_utils.profiles import get_profile
from rlvr_utils.runs import RunWriter, load_run
from rlvr_utils.runs.tracking import api_key
from rlvr_utils.sampling.rollouts import Response
from rlvr_utils.training import train
from rlvr_utils.training.rewards import try_reward

SMALL = {
    "prompts_per_step": 2,
    "group_size": 2,
    "max_steps": 5,
    "eval_problems": 3,
    "eval_samples": 2,
    "eval_every": 2,
    "max_completion_length": 6,
    "train_subset": 4,
    "wandb_mode": "disabled",
}
CLOSED = "http://127.0.0.1:9"  # nobody listens there


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> str:
    """A folder with an untrained Llama of a few thousand parameters."""
    folder = tmp_path_factory.mktemp("tiny")
    tokenizer = load_tokenizer(get_profile("mini"))
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def no_keys(monkeypatch, tmp_path):
    """An account with no key of any kind."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))


@pytest.fixture
def no_hub(monkeypatch, no_keys):
    """No way to the hub."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", CLOSED)


@pytest.fixture
def server():
    """A web server on this machine that answers every question as told: ``server(status, **headers)`` gives its address."""
    running = []

    def start(status: int, **headers: str) -> str:
        class Answer(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                self.wfile.write(b"{}")

            do_POST = do_GET

            def log_message(self, *_):
                """Say nothing."""

        running.append(HTTPServer(("127.0.0.1", 0), Answer))
        threading.Thread(target=running[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{running[-1].server_port}"

    yield start
    for one in running:
        one.shutdown()
        one.server_close()


# --- checks ---


def test_a_laptop_is_ready_for_mini(tiny, no_keys) -> None:
    found = checkup("mini", model=tiny)
    names = ["versions", "model", "layers", "problems", "reward", "machine", "disk", "sampling", "W&B", "folder"]
    assert [check.name for check in found] == names
    assert all(check.ok for check in found), [check.sentence for check in found if not check.ok]
    assert all(check.sentence.endswith(".") and str(check).startswith("ok") for check in found)
    said = {check.name: check.sentence for check in found}
    assert "500 evaluation (test)" in said["problems"] and said["W&B"].startswith("offline")
    assert said["layers"].startswith("q_proj, k_proj, v_proj")
    assert preflight("mini", model=tiny) == []


def test_the_table_names_what_matters_of_a_machine() -> None:
    table = dict(checks.machine_table())
    assert {"Python", "torch", "trl", "CPU cores", "memory", "disk", "GPU"} <= set(table) and all(table.values())


def test_a_package_out_of_range_is_named_with_the_command(monkeypatch) -> None:
    installed = checks.installed
    monkeypatch.setattr(checks, "installed", lambda name: "1.2.0" if name == "trl" else installed(name))
    with pytest.raises(ValueError, match=r"trl 1.2.0 does not satisfy <1.17,>=1.16. Run `pip install 'trl<1.17,>=1.16'`"):
        checks.check_versions(get_profile("mini"))
    monkeypatch.setattr(checks, "installed", lambda name: None if name == "peft" else installed(name))
    with pytest.raises(ValueError, match="peft is not installed. Run `make venv`"):
        checks.check_versions(get_profile("mini"))
    monkeypatch.setattr(checks, "installed", lambda name: "99.0" if name == "peft" else installed(name))
    assert f"peft 99.0 (tested: {checks.locked()['peft']})" in checks.check_versions(get_profile("mini"))


@pytest.mark.parametrize(
    ("free", "sentence"),
    [
        (24, r"24.0 GiB are free, and the run needs up to \d+.\d GiB during \w+. Set \w+=.*, or stop other programs"),
        (8, "No configuration fits. Use a smaller model or a larger machine"),
    ],
)
def test_a_gpu_that_is_too_small_says_what_to_change(free: float, sentence: str, no_hub) -> None:
    with pytest.raises(ValueError, match=sentence):
        checks.check_free_memory(get_profile("llama-8b"), "a GPU", free * GIB, gpu=True)


def test_the_settings_that_are_proposed_do_fit(no_hub) -> None:
    p = get_profile("llama-8b")
    with pytest.raises(ValueError) as refused:
        checks.check_free_memory(p, "a GPU", 40 * GIB, gpu=True)
    words = str(refused.value).split("Set ")[1].split(", or")[0].replace(",", " ").split()
    p = get_profile("llama-8b", **dict(word.split("=") for word in words if not word.startswith("gradient")))
    assert "are free" in checks.check_free_memory(p, "a GPU", 40 * GIB, gpu=True)


def test_without_a_gpu_the_8b_is_refused_with_a_size(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"llama-8b needs an NVIDIA GPU with about \d\d GiB free, but PyTorch finds none"):
        checks.check_machine(get_profile("llama-8b"))


def test_a_full_disk_is_told_in_numbers_where_the_run_will_be(monkeypatch, tiny, tmp_path) -> None:
    monkeypatch.setattr(
        checks.shutil, "disk_usage", lambda folder: SimpleNamespace(free=(0.1 if folder == tmp_path else 100) * GIB)
    )
    p = get_profile("mini", model=tiny)
    assert "Enough space" in checks.check_disk(p)
    (found,) = [check for check in checkup(p, folder=tmp_path / "new" / "run") if check.name == "disk"]
    assert (
        f"0.1 GiB are free under {tmp_path}, but profile mini needs 0.5. Free some space" in found.sentence and not found.ok
    )


def test_problems_without_ground_truth_or_column_are_named(tmp_path, tiny) -> None:
    rows = [{"problem": "What is $1 + 1$?", "ground_truth": "2"}, {"problem": "What is $1 + 2$?"}]
    file = tmp_path / "mine.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    (sentence,) = preflight("mini", model=tiny, dataset=str(file))
    assert "mine.jsonl: 1 of 2 rows cannot be used. Line 2: it has neither `ground_truth` nor `answer`" in sentence
    file.write_text(json.dumps({"text": "?"}))
    (sentence,) = preflight("mini", model=tiny, dataset=str(file))
    assert "neither `messages` (RLVR-MATH) nor `problem`" in sentence


def test_ground_truths_that_the_verifier_cannot_read_are_counted(tmp_path, tiny) -> None:
    truths = ["2", r"\frac{1}{2}", r"\int_0^1 f(x)\,dx", r"\text{odd}", r"\frac{1}{"]
    rows = [{"problem": f"What is problem {k}?", "ground_truth": truth} for k, truth in enumerate(truths)]
    file = tmp_path / "mine.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    found = unreadable_ground_truths(load_problems(str(file)))
    assert [truth for _, truth, _ in found] == [truths[2], truths[4]] and all(reason for *_, reason in found)
    said = checks.check_problems(get_profile("mini", model=tiny, dataset=str(file)))
    assert "The verifier cannot read 2 of " in said and r"\int" in said
    assert "cannot read" not in checks.check_problems(get_profile("mini", model=tiny))


def test_a_folder_that_cannot_take_the_run_is_found(tiny, tmp_path, monkeypatch) -> None:
    p, folder = get_profile("mini", model=tiny, max_steps=50), tmp_path / "run"
    assert checks.check_folder(p, folder) == "run is writable."
    RunWriter(folder).write_config(p.to_dict())
    assert checks.check_folder(p, folder) == "run holds this run, to be continued."
    for other, said in (({"learning_rate": 1.0}, "learning_rate=0.001, not 1.0"), ({"max_steps": 90}, "to train 40 more")):
        with pytest.raises(ValueError, match=said):
            checks.check_folder(replace(p, **other), folder)
    assert "holds this run" in checks.check_folder(replace(p, max_steps=90), folder, extend=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="file is not a writable folder"):
        checks.check_folder(p, tmp_path / "file" / "run")
    monkeypatch.setattr(checks.os, "access", lambda *_: False)  # a read-only checkout
    with pytest.raises(ValueError, match="is not a writable folder"):
        checks.check_folder(p)


# --- the hub ---


def test_a_gated_model_says_what_to_click(server, no_keys, monkeypatch) -> None:
    hub = server(403, X_Error_Code="GatedRepo")
    with pytest.raises(
        ValueError,
        match="no token is set: log in, open https://huggingface.co/meta-llama/Llama-3.1-8B, "
        "click 'Agree and access repository'.* set HF_TOKEN to it; or set model=",
    ):
        checks.hub_access("meta-llama/Llama-3.1-8B", hub)
    monkeypatch.setenv("HF_TOKEN", "hf_not_a_real_one")
    with pytest.raises(ValueError, match="the account of your token has no access yet") as refused:
        checks.hub_access("some/gated", hub)
    assert "hf_not" not in str(refused.value) and str(refused.value).endswith("approval.")


def test_the_other_answers_of_a_hub(server, no_keys) -> None:
    assert "open to this account" in checks.hub_access("some/model", server(200))
    with pytest.raises(ValueError, match="The hub has no model 'some/modle'"):
        checks.hub_access("some/modle", server(404, X_Error_Code="RepoNotFound"))
    with pytest.raises(ValueError, match=r"rejected the request for some/model \(503\)"):
        checks.hub_access("some/model", server(503))


def test_no_network_is_one_sentence(no_hub) -> None:
    with pytest.raises(ValueError, match=r"The hub cannot be reached from here \(\w+\), and some/model is not on this disk"):
        checks.hub_access("some/model", CLOSED)
    found = checks.attempt("model", checks.check_model, get_profile("mini", model="some/model"))
    assert not found.ok and "Check the network" in found.sentence and str(found).startswith("!!")


# --- W&B ---


def test_wandb_needs_a_key_only_online_and_never_shows_it(server, no_keys, monkeypatch) -> None:
    assert checks.check_wandb(get_profile("mini", wandb_mode="disabled")).startswith("disabled: ")
    online = get_profile("mini", wandb_mode="online")
    with pytest.raises(ValueError, match="there is no key. Copy yours from https://wandb.ai/authorize into WANDB_API_KEY"):
        checks.check_wandb(online)
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    for address, said in ((server(404), "answers."), (CLOSED, "does not answer: the run would be recorded offline")):
        monkeypatch.setenv("WANDB_BASE_URL", address)
        sentence = checks.check_wandb(online)
        assert said in sentence and "kkk" not in sentence


def test_a_key_that_wandb_login_left_is_found(no_keys, monkeypatch, tmp_path) -> None:
    (tmp_path / "netrc").write_text("machine api.wandb.ai\n  login user\n  password " + "k" * 40 + "\n")
    assert api_key("https://api.wandb.ai") == "k" * 40 and api_key("https://wandb.example.org") is None


# --- trainability ---


def test_the_share_of_mixed_groups_and_pass_at_k() -> None:
    found = Trainability([0, 3, 8, 1], 8, 16)
    assert found.mixed == 2 and found.signal.mean == 0.5 and found.signal.low < 0.5 < found.signal.high
    assert found.pass_at(1).mean == pytest.approx(12 / 32) and found.pass_at(8).mean == 0.75
    assert "2 groups are mixed" in str(found) and "about 8.0 of the 16 in a step" in str(found)
    assert "Use harder ones" in str(Trainability([8] * 4, 8, 16))
    assert "dynamic_sampling" not in str(found)
    full = "With dynamic_sampling=20 a step draws about 32 problems (at most 36), 2.0 times the samples of a default step."
    assert str(Trainability([0, 3, 8, 1], 8, 16, 20)).endswith(full)
    assert "draws about 20 problems (at most 20), 1.2 times" in str(Trainability([0, 3, 8, 1], 8, 16, 4))


def test_a_model_that_never_succeeds_is_reported_as_untrainable(tiny) -> None:
    found = trainability(get_profile("mini", model=tiny, **SMALL), 4, 2)
    assert list(found.right) == [0, 0, 0, 0] and not found.trainable
    assert "no learning signal. Don't rent the GPU yet. Use easier problems" in str(found)


def test_minillama_is_trainable_and_the_check_leaves_the_random_state_unchanged() -> None:
    settings = {"max_completion_length": 60}
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    found = trainability("mini", 16, 8, **settings)
    assert torch.equal(torch.rand(2), expected)
    assert found.trainable and 0 < found.pass_at(1).mean < found.pass_at(8).mean <= 1
    assert found.right == trainability("mini", 16, 8, **settings).right


# --- timing ---


def test_three_real_steps_are_projected_and_leave_no_files(tiny, tmp_path, monkeypatch, capfd) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found = time_steps("mini", dollars_per_hour=2.0, model=tiny, **SMALL)
    assert list(tmp_path.iterdir()) == [] and "".join(capfd.readouterr()) == ""
    assert len(found.steps) == 3 and all(seconds > 0 for seconds in found.steps) and found.per_response > 0
    assert 1 <= found.mean_tokens <= SMALL["max_completion_length"]
    assert found.hours == pytest.approx(
        (sum(found.steps[1:]) / 2 * 4 + found.steps[0] + count_evaluation_responses(found.profile) * found.per_response)
        / 3600
    )
    assert found.dollars == pytest.approx(2 * found.hours) and "at $2.00 per hour" in str(found)
    with pytest.raises(ValueError, match="steps=0 is too small"):
        time_steps("mini", steps=0, model=tiny, **SMALL)


def test_the_evaluations_that_are_projected_are_those_of_a_run(tiny, tmp_path) -> None:
    run = train("mini", tmp_path / "run", model=tiny, quiet=True, **SMALL)
    made = run.evaluations["n_problems"] * run.evaluations["n_samples"]
    assert made.sum() == count_evaluation_responses(get_profile("mini", **SMALL))
    assert len(load_run(run.path).metrics) == SMALL["max_steps"]


def test_time_and_price_are_spelt_out() -> None:
    mini = get_profile("mini")
    found = Timing((5.0, 4.0, 4.0), 0.005, 20.0, None, mini)
    assert found.dollars is None and "$" not in str(found) and "vLLM" not in str(found)
    assert f"{mini.max_steps} steps take about 6.7 min" in str(found)
    long = Timing((60.0, 60.0), 1.0, 500.0, 40 * 2**30, get_profile("mini", max_steps=470), dollars_per_hour=2.5)
    assert "7.8 h" in str(long) and "The GPU held 40.0 GiB at most." in str(long)


def test_the_timing_says_how_far_vllm_is_from_the_trained_model(tiny, monkeypatch) -> None:
    install(monkeypatch)
    found = time_steps("mini", steps=1, model=tiny, use_vllm="auto", **SMALL | {"max_steps": 1})
    assert found.samplers == pytest.approx((0, 1), abs=1e-4)
    assert "by 0.000 nats per token" in str(found) and "the mean importance ratio is 1.00" in str(found)


def test_what_only_vllms_first_call_takes_is_not_timed(tiny, monkeypatch) -> None:
    """By a clock that the engine moves on: 100 s for its first call, 1 s for each later one."""
    p, calls, now = get_profile("mini", model=tiny, **SMALL), [], [0.0]

    def engine(prompt_ids: list[list[int]], temperature: float) -> list[Response]:
        now[0] += 1 if calls else 100
        calls.append(len(prompt_ids))
        return [Response("", [1], [1], cut_off=False)] * len(prompt_ids)

    monkeypatch.setattr(trials, "vllm_engine", lambda trainer: engine)
    monkeypatch.setattr(trials.time, "perf_counter", lambda: now[0])
    unwrap = SimpleNamespace(unwrap_model=lambda model: model)
    trainer = SimpleNamespace(accelerator=unwrap, model=load_model(p), processing_class=load_tokenizer(p))
    per_response = trials.time_evaluation(p, trainer, 8)
    assert calls[0] == 1 and len(calls) == 2 and per_response == pytest.approx(1 / calls[1])


# --- vLLM ---


def on_a_gpu_with_vllm(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(checks, "installed", lambda name: "0.30.0")
    monkeypatch.setattr(checks, "use_vllm", lambda p: p.use_vllm == "auto")


def test_a_vllm_server_has_to_answer(server, monkeypatch) -> None:
    on_a_gpu_with_vllm(monkeypatch)
    there = get_profile("llama-8b", vllm_server=server(200))
    assert "answers" in checks.check_vllm(there)
    command = "trl vllm-serve --model meta-llama/Llama-3.1-8B --dtype bfloat16 --max_model_len 3584 --host 127.0.0.1"
    assert command in (REPO / "docs" / "llama-8b.md").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match=command):
        checks.check_vllm(get_profile("llama-8b", vllm_server=CLOSED))


@pytest.mark.parametrize(
    ("model", "length", "message"),
    [
        ("meta-llama/Llama-3.1-8B", 3584, None),
        ("meta-llama/Llama-3.1-8B", 3583, "has a context of 3583 tokens"),
        ("meta-llama/Llama-3.1-8B-Instruct", 8192, "serves meta-llama/Llama-3.1-8B-Instruct"),
    ],
)
def test_a_vllm_server_needs_the_model_and_the_length_of_the_run(model, length, message, monkeypatch) -> None:
    on_a_gpu_with_vllm(monkeypatch)
    body = json.dumps({"data": [{"id": "name", "root": model, "max_model_len": length}]})
    monkeypatch.setattr(checks.requests, "get", lambda url, timeout: SimpleNamespace(json=lambda: json.loads(body)))
    p = get_profile("llama-8b", vllm_server="http://localhost:8000")
    if message is None:
        assert "answers, with meta-llama/Llama-3.1-8B" in checks.check_vllm(p)
    else:
        with pytest.raises(ValueError, match=message):
            checks.check_vllm(p)


@pytest.mark.parametrize("body", ["", "{}", "[]", '{"data": []}', '{"data": [{}]}'])
def test_a_server_that_does_not_say_what_it_serves_is_taken_as_it_is(body, monkeypatch) -> None:
    monkeypatch.setattr(checks.requests, "get", lambda url, timeout: SimpleNamespace(json=lambda: json.loads(body)))
    assert checks.served("http://localhost:8000") == (None, None)


def test_a_gpu_without_bfloat16_is_named(monkeypatch) -> None:
    on_a_gpu_with_vllm(monkeypatch)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    with pytest.raises(ValueError, match="Tesla T4 does not support bfloat16"):
        checks.check_machine(get_profile("llama-8b"))


def test_float16_is_for_gpus_without_bfloat16(monkeypatch) -> None:
    with pytest.raises(ValueError, match="dtype=float16 needs an NVIDIA GPU"):
        checks.check_machine(get_profile("mini", dtype="float16"))
    on_a_gpu_with_vllm(monkeypatch)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (15 * 2**30, 16 * 2**30))
    assert "Tesla T4 (16 GiB): 15.0 GiB are free" in checks.check_machine(get_profile("mini", dtype="float16"))


def test_a_small_model_may_be_bfloat16_without_a_gpu(monkeypatch) -> None:
    monkeypatch.setattr(checks.shutil, "which", lambda name: None)
    assert "GiB are free" in checks.check_machine(get_profile("mini", dtype="bfloat16"))


def test_how_responses_are_sampled_is_told(monkeypatch) -> None:
    assert "because there is no GPU for vLLM. This is slower" in checks.check_vllm(get_profile("llama-8b"))
    assert "slower" not in checks.check_vllm(get_profile("mini"))
    on_a_gpu_with_vllm(monkeypatch)
    assert "samples the responses on this GPU" in checks.check_vllm(get_profile("llama-8b"))


def test_memory_is_not_set_aside_for_a_vllm_that_is_not_there(monkeypatch) -> None:
    monkeypatch.setattr(checks, "longest_prompt", lambda p: 900)
    monkeypatch.setattr(checks, "installed", lambda name: None)
    alone = checks.check_free_memory(get_profile("llama-8b"), "a GPU", 45 * GIB, gpu=True)
    assert alone == checks.check_free_memory(get_profile("llama-8b", use_vllm="never"), "a GPU", 45 * GIB, gpu=True)


# --- a reward of one's own ---


def test_a_reward_that_cannot_work_is_refused_at_minute_zero(tiny, no_keys, monkeypatch, tmp_path) -> None:
    (tmp_path / "my_rewards.py").write_text(
        "def good(completions, ground_truth, **columns):\n    return [1.0 for _ in completions]\n"
        "def narrow(completions):\n    return [1.0 for _ in completions]\n"
        "def short(completions, **columns):\n    return [1.0]\n"
        "def words(completions, **columns):\n    return [len(c.split()) for c in completions]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert preflight("mini", model=tiny, reward="my_rewards:good") == []
    for name, said in (
        ("narrow", "accepts completions by name, but is called with all"),
        ("short", "returned 1 values for 2"),
        ("nowhere", "no attribute"),
    ):
        with pytest.raises(ValueError, match=said):
            checks.check_reward(get_profile("mini", model=tiny, reward=f"my_rewards:{name}"))
    p = get_profile("mini", model=tiny, reward="my_rewards:words")
    try_reward(p, chat=False)
    with pytest.raises(ValueError, match="a completion is a list of messages"):
        try_reward(p, chat=True)


def test_what_keeps_memory_is_timed_in_a_process_of_its_own(tiny, monkeypatch) -> None:
    assert not trials.keeps_memory(get_profile("llama-8b"))
    monkeypatch.setattr(trials, "keeps_memory", lambda p: True)
    monkeypatch.setattr(trials, "time_training", None)  # here it would fail; the other process does not know
    found = time_steps("mini", model=tiny, **SMALL)
    assert len(found.steps) == 3 and found.per_response > 0

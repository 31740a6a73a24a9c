"""Profile llama-8b without a GPU: its configurations, and its notebooks on a stand-in of a few thousand parameters.

The stand-in has the architecture of Llama-3.1-8B (untied embeddings, grouped queries) and the special tokens of Llama 3. We
test it with and without Llama 3's chat template. Problems and prompts are the real ones. Ten tokens of its vocabulary are
boxed digits, so some responses of the random model have a box, and some are correct.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pandas as pd
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from rlvr_utils.course import course_notebooks, notebook_parameters, run_course
from rlvr_utils.models import lora_config, lora_parameter_count, model_config
from rlvr_utils.profiles import MODELS_8B, PROFILES, get_profile
from rlvr_utils.runs import load_run
from rlvr_utils.training import build, grpo_config

REPO = Path(__file__).resolve().parent.parent
PAGE_8B = REPO / "docs" / "llama-8b.md"

BEGIN, END, TURN = "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"
HEADERS = ["<|start_header_id|>", "<|end_header_id|>"]
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{{ message['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)

#: Overrides that make the run short. Everything else is as in the profile.
SHORT = {
    "max_steps": 3,
    "prompts_per_step": 2,
    "group_size": 4,
    "micro_batch": 4,
    "eval_problems": 8,
    "eval_samples": 2,
    "eval_every": 2,
    "save_every": 2,
    "log_rollouts_every": 1,
    "max_completion_length": 16,
    "max_prompt_length": 2500,
    "dtype": "float32",
}
SHOWN = {"n_problems": 8, "n_able": 2, "own_steps": 2, "wandb_mode": "offline"}
#: The notebooks that depend on the profile. (01, 02 and 08 do not, and the course's test executes them.) A chat template
#: changes only prompts and responses, so with it we execute only the notebooks that generate responses.
NOTEBOOKS = {"plain": ("00", "03", "04", "05", "06", "07"), "chat": ("00", "04")}


@pytest.fixture(scope="session")
def math_data(real_data: Path, tmp_path_factory) -> dict[str, str]:
    """``dataset`` and ``eval_dataset``: the real RLVR-MATH sample, and MATH-500 picked out of MATH's test split."""
    folder = tmp_path_factory.mktemp("math")
    lines = (real_data / "math_test.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["math500"]]
    assert len(rows) == 500
    (folder / "math500.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return {"dataset": str(real_data / "rlvr_math_sample.parquet"), "eval_dataset": str(folder / "math500.jsonl")}


def write_stand_in(folder: Path, sample: str, chat: bool) -> str:
    """Save the stand-in model and a tokenizer trained on the real prompts into ``folder``. Returns the folder."""
    texts = [messages[0]["content"] for messages in pd.read_parquet(sample)["messages"]]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = [BEGIN, END, TURN, *HEADERS]
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=400, special_tokens=special, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
        ),
    )
    bpe.add_tokens([rf"\boxed{{{digit}}}" for digit in range(10)])
    bpe.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", special_tokens=[(BEGIN, bpe.token_to_id(BEGIN))]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token=BEGIN, eos_token=TURN if chat else END, chat_template=CHAT_TEMPLATE if chat else None
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=8,
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=131072,
            tie_word_embeddings=False,
            bos_token_id=tokenizer.convert_tokens_to_ids(BEGIN),
            eos_token_id=tokenizer.convert_tokens_to_ids([END, TURN]),
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session", params=NOTEBOOKS)
def executed(request, math_data, tmp_path_factory) -> Path:
    """Execute the notebooks with ``profile=llama-8b`` on the stand-in. Returns the folder with the notebooks and the run."""
    folder = tmp_path_factory.mktemp(f"llama-8b-{request.param}")
    model = write_stand_in(folder / "stand-in", math_data["dataset"], request.param == "chat")
    run = str(folder / "run")
    values = SHOWN | {"model": model, "output_dir": run, "run": run, "overrides": math_data}
    notebooks = [path for path in course_notebooks() if path.stem[:2] in NOTEBOOKS[request.param]]
    known = set().union(*map(notebook_parameters, notebooks))
    run_course("llama-8b", folder / "course", notebooks, {name: values[name] for name in values if name in known} | SHORT)
    return folder


def shown(folder: Path) -> dict[str, str]:
    """Return the outputs of each executed notebook as text."""
    found = {}
    for path in sorted((folder / "course").glob("*.ipynb")):
        outputs = [out for cell in nbformat.read(path, as_version=4).cells for out in cell.get("outputs", [])]
        assert [out.text for out in outputs if out.get("name") == "stderr"] == [], path.stem
        found[path.stem] = "\n".join(
            out.get("text", "") + out.get("data", {}).get("text/markdown", "") + out.get("data", {}).get("text/plain", "")
            for out in outputs
        )
    return found


def test_the_notebooks_run_with_profile_llama_8b_without_warnings(executed: Path) -> None:
    run = load_run(executed / "run")
    assert (run.config["profile"], run.config["shots"], run.config["lora_rank"]) == ("llama-8b", 4, 32)
    assert {name: run.config[name] for name in SHORT} == SHORT, "fields that no notebook has as a parameter"
    assert run.metrics["step"].tolist() == [1, 2, 3] and run.environment["finished"]
    prompts = run.rollouts["prompt"].dropna()
    chat = (executed / "stand-in" / "chat_template.jinja").is_file()
    assert prompts.map(lambda prompt: isinstance(prompt, list)).all() == chat
    assert shown(executed)


def test_notebooks_do_not_apply_results_of_miniature_runs_to_an_8b_run(executed: Path) -> None:
    texts = shown(executed)
    for name, text in texts.items():
        assert not re.search(r"\bnan\b", re.sub(r"NaN", "", text)), f"{name} shows NaN"
    if (claims := texts.get("05_results_analysis")) is None:
        return  # executed once, with the tokenizer of the profile's own model, which has no chat template
    assert "What does LoRA cost?" in claims and "MiniLlama: full fine-tuning minus LoRA" in claims
    assert "is too short to project" in claims and "no prediction interval" in claims
    assert "4 examples in the prompt" not in claims and "trained: random reward" not in claims
    assert "There is no run at 4 shots" in claims


def test_the_8b_page_has_the_profiles_number_of_responses() -> None:
    p, text = get_profile("llama-8b"), PAGE_8B.read_text(encoding="utf-8")
    assert f"{p.max_steps} x {p.batch_size} = {p.max_steps * p.batch_size:,}" in text
    on_the_way = len(range(p.eval_every, p.max_steps, p.eval_every)) * 500
    before_and_after = 2 * 500 * (p.eval_samples + 1)  # sampled and greedy
    assert f"another {on_the_way + before_and_after:,}." in text
    assert p.max_steps * p.prompts_per_step == pytest.approx(7_500, abs=p.prompts_per_step + 10), "one pass"


def test_the_first_run_on_the_8b_page_can_be_extended_as_described() -> None:
    text = PAGE_8B.read_text(encoding="utf-8")
    lines = [
        re.search(pattern, text)[1]
        for pattern in (r"Add `(--set max_steps=30 [^`]*)`", r"`rlvr train --profile llama-8b --extend (--set [^`]*)`")
    ]
    first, then = (get_profile("llama-8b", **dict(re.findall(r"--set (\w+)=(\d+)", line))) for line in lines)
    apart = [name for name, value in first.to_dict().items() if then.to_dict()[name] != value]
    assert apart == ["max_steps"], "other changes would make the evaluations incomparable, so extending would raise"


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("vllm", [False, True])
def test_every_profile_builds_its_complete_trl_and_peft_configuration(name, vllm, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(build, "use_vllm", lambda p: vllm and p.use_vllm == "auto")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(total_memory=80 * 10**9))
    p = get_profile(name)
    config, lora = grpo_config(p, tmp_path), lora_config(p)
    assert config.per_device_train_batch_size * config.gradient_accumulation_steps == p.batch_size
    assert config.generation_batch_size == p.batch_size * p.updates_per_generation
    assert (lora.r, lora.lora_alpha, set(lora.target_modules)) == (p.lora_rank, p.lora_alpha, set(p.lora_targets))
    assert config.use_vllm == (vllm and p.use_vllm == "auto")


@pytest.mark.parametrize(
    ("dtype", "flags"), [("float32", (False, False)), ("bfloat16", (True, False)), ("float16", (False, True))]
)
def test_a_gpu_trains_in_the_profiles_precision(dtype, flags, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    arguments = build.common_arguments(get_profile("small-gpu", dtype=dtype), tmp_path)
    assert (arguments["bf16"], arguments["fp16"]) == flags


@pytest.mark.parametrize("model", MODELS_8B)
def test_the_size_of_every_8b_model_is_known(model: str) -> None:
    p = get_profile("llama-8b", model=model)
    assert lora_parameter_count(model_config(p.model), p.lora_rank) == 83_886_080

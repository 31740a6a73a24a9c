"""Checks that need no model weights: one function per check, one sentence per check.

A check that passes returns its sentence. A check that fails raises ValueError with the problem and its fix. A missing
network is reported like any other problem.
"""

from __future__ import annotations

import functools
import os
import platform
import shutil
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import requests
import torch
from huggingface_hub import constants, get_token
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status
from transformers import PretrainedConfig

from .. import REPO, __version__
from ..memory import GIB, estimate, parameter_count, plan, trained
from ..models import (
    SHAPES,
    attach_lora,
    check_vocabulary,
    check_weights,
    empty_model,
    from_files,
    load_tokenizer,
    local_folder,
    model_config,
    refuse_missing_smol,
    untrained_experts,
)
from ..problems import all_rows, overlap, overlap_sentence, unreadable_ground_truths
from ..profiles import Profile, get_profile, resolve_model
from ..runs import load_run
from ..runs.tracking import ANSWER_PATIENCE, PACKAGES, api_key, installed, obstacle, server, wandb_mode
from ..sampling.rollouts import encode_prompts, has_chat_template, prompts_for, use_vllm
from ..sampling.shared_prefix import refuse_unsuitable
from ..system.paths import run_folder

#: Upper bound for metrics, responses and W&B files of a run. Checkpoints come on top.
RECORDS_GIB = 0.5
#: Largest number of parameters that a CPU can train in a reasonable time, also in bfloat16.
SMALL = 10**9


@dataclass(frozen=True)
class Check:
    """The result of one check: its name, whether it passed, and one sentence."""

    name: str
    ok: bool
    sentence: str

    def __str__(self) -> str:
        return f"{'ok' if self.ok else '!!':<4}{self.name:<10}{self.sentence}"


def checkup(
    profile: str | Profile = "mini", *, folder: str | Path | None = None, extend: bool = False, **overrides: object
) -> list[Check]:
    """Run all checks that need no model weights.

    Args:
        folder, extend: the ``output_dir`` and ``extend`` of the later call to ``train``. Without ``folder``, a run in the
            profile's default folder is not compared with this one.
    """
    p = get_profile(profile, **overrides)
    where = {
        "disk": functools.partial(check_disk, folder=folder),
        "folder": functools.partial(check_folder, folder=folder, extend=extend),
    }
    return [attempt(name, check, p) for name, check in (CHECKS | where).items()]


def attempt(name: str, check: Callable[[Profile], str], p: Profile) -> Check:
    """The result of one check."""
    try:
        return Check(name, True, check(p))
    except ValueError as error:
        return Check(name, False, str(error))
    except Exception as error:  # third-party models and data can raise anything, and would do so in training too
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        return Check(
            name,
            False,
            f"This cannot be checked, and would probably stop the training too: {reason[:300]} ({type(error).__name__}).",
        )


def preflight(profile: str | Profile = "mini", **overrides: object) -> list[str]:
    """The sentences of all failed checks, empty if all passed. Loads no weights."""
    return list(dict.fromkeys(check.sentence for check in checkup(profile, **overrides) if not check.ok))


# --- versions ---


def check_versions(p: Profile) -> str:
    """All package versions satisfy pyproject.toml. Versions other than the tested ones are listed."""
    from packaging.requirements import Requirement

    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    if tuple(map(int, platform.python_version_tuple()[:2])) < (3, 11):
        raise ValueError(f"Python {platform.python_version()} is too old: the course needs {project['requires-python']}.")
    optional = project["optional-dependencies"]["gpu"] if p.use_vllm == "auto" else []
    for need in map(Requirement, project["dependencies"] + optional):
        found = installed(need.name)
        if found is None and need.name != "vllm":
            raise ValueError(f"{need.name} is not installed. Run `make venv` or `pip install '{need}'`.")
        if found is not None and not need.specifier.contains(found, prereleases=True):
            raise ValueError(f"{need.name} {found} does not satisfy {need.specifier}. Run `pip install '{need}'`.")
    other = [
        f"{name} {installed(name)} (tested: {tested})"
        for name, tested in locked().items()
        if name in PACKAGES and installed(name).split("+")[0] != tested
    ]
    said = "the tested ones" if not other else "usable, but these versions are untested: " + ", ".join(other)
    return f"Python {platform.python_version()} and all packages are {said}."


def locked() -> dict[str, str]:
    """Name and version of every package in requirements.lock."""
    lines = (REPO / "requirements.lock").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))


# --- machine and disk ---


def machine_table() -> list[tuple[str, str]]:
    """Versions and resources of this machine as (name, value) rows."""
    memory, disk = psutil.virtual_memory(), shutil.disk_usage(REPO)
    gpus = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    names = ", ".join(f"{gpu.name} with {gib(gpu.total_memory)}" for gpu in gpus)
    return [
        ("course", __version__),
        ("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        *((name, installed(name)) for name in (*PACKAGES, "papermill")),
        ("CPU cores", str(os.cpu_count())),
        ("memory", f"{gib(memory.available)} free of {gib(memory.total)}"),
        ("disk", f"{gib(disk.free)} free on the disk of the course"),
        ("GPU", names or "none found by PyTorch (profile mini needs none)"),
    ]


def gib(size: float) -> str:
    return f"{size / GIB:.0f} GiB"


def check_machine(p: Profile) -> str:
    """The run fits the free memory of the GPU, or of the machine if there is no GPU."""
    if torch.cuda.is_available():
        if p.dtype == "bfloat16" and not torch.cuda.is_bf16_supported(including_emulation=False):
            raise ValueError(
                f"{torch.cuda.get_device_name()} does not support bfloat16. Set dtype=float16 (with LoRA), or use a GPU of "
                "the Ampere generation or newer (A100, A40, L40S, ...)."
            )
        free, total = torch.cuda.mem_get_info()
        return check_free_memory(p, f"{torch.cuda.get_device_name()} ({total / GIB:.0f} GiB)", free, gpu=True)
    if p.dtype == "float16":
        raise ValueError("dtype=float16 needs an NVIDIA GPU, but PyTorch finds none. Set dtype=float32.")
    if shutil.which("nvidia-smi") and p.dtype == "bfloat16" and parameter_count(shape(p)) > SMALL:
        raise ValueError(
            f"An NVIDIA driver is installed, but PyTorch {torch.__version__} (built for CUDA {torch.version.cuda}) "
            "finds no GPU. The driver is too old for this CUDA version (`nvidia-smi` prints the newest one it supports). "
            "Use a machine with a newer driver, or a PyTorch built for an older CUDA."
        )
    if p.dtype == "bfloat16" and parameter_count(shape(p)) > SMALL:
        needed = estimate(p, shape(p), gpu=80 * GIB).peak / GIB
        raise ValueError(
            f"Profile {p.profile} needs an NVIDIA GPU with about {needed:.0f} GiB free, but PyTorch finds none. "
            "Use such a machine, or profile mini, which runs on any laptop."
        )
    return check_free_memory(p, f"{os.cpu_count()} CPU cores", psutil.virtual_memory().available, gpu=False)


def check_free_memory(p: Profile, machine: str, free: float, gpu: bool) -> str:
    """Compare the estimate with ``free`` bytes. If it does not fit, suggest what to change."""
    prompt = longest_prompt(p)
    if p.use_vllm == "auto" and installed("vllm") is None:
        p = replace(p, use_vllm="never")  # then the trained model itself samples
    needed = estimate(p, shape(p), gpu=free if gpu else None, prompt_tokens=prompt)
    sentence = (
        f"{machine}: {free / GIB:.1f} GiB are free, and the run needs up to {needed.peak / GIB:.1f} GiB "
        f"during {needed.peak_phase}."
    )
    if needed.peak <= free:
        return sentence
    fitting = plan(p, free, shape(p), prompt_tokens=prompt)
    changes = " ".join(f"{name}={value}" for name, value in fitting.changes.items())
    raise ValueError(
        sentence
        + (
            f" Set {changes}, or stop other programs that use memory."
            if fitting.fits
            else " No configuration fits. Use a smaller model or a larger machine."
        )
    )


def check_disk(p: Profile, folder: str | Path | None = None) -> str:
    """Enough disk space for checkpoints in the run's folder and for the model's download in the hub's cache."""
    config = shape(p)
    count, size = trained(p, config)
    checkpoints = 3 * 3 * count * size / GIB + RECORDS_GIB  # three at once: weights and two moments
    download = 0.0 if local_folder(p.model) else parameter_count(config) * 2 / GIB
    run, cache = existing(run_folder(folder or p.folder)), existing(Path(constants.HF_HUB_CACHE))
    needs = {run: checkpoints}
    same = os.stat(cache).st_dev == os.stat(run).st_dev
    needs[run if same else cache] = needs.get(run if same else cache, 0.0) + download
    for place, needed in needs.items():
        free = shutil.disk_usage(place).free / GIB
        if free < needed:
            where = f"under {run}" if place == run else "in the hub's cache (HF_HOME)"
            raise ValueError(
                f"{free:.1f} GiB are free {where}, but profile {p.profile} needs {needed:.1f}. Free some space, or "
                "move the folder to a larger disk."
            )
    return f"Enough space for checkpoints ({checkpoints:.1f} GiB) and downloads ({download:.1f} GiB)."


def existing(folder: Path) -> Path:
    """``folder``, or the nearest folder above it that exists."""
    return folder if folder.exists() else existing(folder.parent)


def check_folder(p: Profile, folder: str | Path | None = None, extend: bool = False) -> str:
    """The run's folder is writable. If it is given explicitly, it contains no other run."""
    from ..training.continuing import changed_settings  # importing TRL takes seconds that other checks do not need

    folder = folder and run_folder(folder)
    there = existing(folder or p.folder)
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"{there} is not a writable folder. Change its permissions, or set another output_dir.")
    if not folder or not (folder / "config.yaml").is_file():
        return f"{(folder or p.folder).name} is writable."
    run = load_run(folder)
    changed_settings(run, p, extend)
    return f"{run.path.name} holds this run, {'finished' if run.environment.get('finished') else 'to be continued'}."


# --- problems and model ---


def check_problems(p: Profile) -> str:
    """Training and evaluation problems load, have ground truths, and their prompts fit."""
    lengths = prompt_lengths(p)
    counts = ", ".join(f"{len(tokens)} {name}" for name, tokens in lengths.items())
    longest = max(map(max, lengths.values()))
    return (
        f"{counts} problems, each with its ground truth, {overlap_sentence(overlap(*all_rows(p)))}, "
        f"the longest prompt has {longest} of {p.max_prompt_length} tokens."
        f"{solutions_sentence(p)}{unreadable_sentence(p)}"
    )


def unreadable_sentence(p: Profile) -> str:
    """How many ground truths the verifier cannot read, with an example. Empty if it reads all of them."""
    training, evaluation = all_rows(p)
    rows = [*training, *(row for split in evaluation.values() for row in split)]
    if not (found := unreadable_ground_truths(rows)):
        return ""
    name, truth, reason = found[0]
    return (
        f" The verifier cannot read {len(found)} of {len(rows)} ground truths. Only the identical text is rewarded "
        f"there. The first is {name}: {truth[:60]!r} ({reason}). List them with problems.unreadable_ground_truths."
    )


def prompt_lengths(p: Profile) -> dict[str, list[int]]:
    """Tokens of every prompt of the run, by split.

    Raises:
        ValueError: the tokenizer or the problems cannot be loaded, a row is invalid, or a prompt is too long.
    """
    access(p.model)
    tokenizer = load_tokenizer(p)
    training, evaluation = all_rows(p)
    named, lengths = {"training": training} | {f"evaluation ({split})": rows for split, rows in evaluation.items()}, {}
    for name, rows in named.items():
        prompts = prompts_for(rows, tokenizer, p)
        lengths[name] = [len(ids) for ids in encode_prompts(tokenizer, prompts)]
    return lengths


def solutions_sentence(p: Profile) -> str:
    """Whether supervised training has worked solutions to imitate. Empty if the run has no such stage.

    Raises:
        ValueError: a solution is missing, or longer than ``max_completion_length``.
    """
    if not p.sft_steps and p.method != "sft":
        return ""
    from ..training.supervised import worked_solutions  # importing TRL takes seconds that other checks do not need

    n = len(all_rows(p)[0])
    worked_solutions(p, load_tokenizer(p), range(n))
    return f" The {n} worked solutions fit into max_completion_length={p.max_completion_length} tokens."


def check_reward(p: Profile) -> str:
    """The reward function accepts the call that TRL makes."""
    from ..training.rewards import try_reward  # importing TRL takes seconds that other checks do not need

    try:
        access(p.model)
        chat = has_chat_template(load_tokenizer(p))
    except ValueError:  # reported by check_model
        chat = False
    try_reward(p, chat)
    return f"the reward {p.reward} works on two made-up responses."


def longest_prompt(p: Profile) -> int:
    """Tokens of the run's longest prompt, or the profile's limit if the prompts cannot be loaded yet."""
    try:
        return max(map(max, prompt_lengths(p).values()))
    except ValueError:
        return p.max_prompt_length


def check_model(p: Profile) -> str:
    """The model is available (here, or on the hub with this account), complete, and its context is long enough."""
    where = access(p.model)
    config = model_config(p.model)
    model = empty_model(config)
    if folder := local_folder(p.model):
        check_weights(folder)
        model = from_files(str(folder), device_map="meta", dtype=getattr(torch, p.dtype))
    check_vocabulary(load_tokenizer(p), model, p.model)
    longest = p.max_prompt_length + p.max_completion_length
    if (getattr(config, "max_position_embeddings", None) or longest) < longest:
        raise ValueError(
            f"{p.model} has a context of {config.max_position_embeddings} tokens, but max_prompt_length + "
            f"max_completion_length = {longest}. Lower one of them."
        )
    return f"{p.model} is {where} and its context holds prompt and response."


def check_layers(p: Profile) -> str:
    """The layers for adapters exist, and the attention supports shared prompts if these are on."""
    model = empty_model(shape(p))
    experts = untrained_experts(model, p)
    if p.shared_prefix:
        refuse_unsuitable(model)
    if p.adapter == "lora":
        attach_lora(model, p)
    trained = "every weight is trained" if p.adapter == "none" else f"{', '.join(p.lora_targets)} get an adapter"
    return f"{trained}{', and prompts are computed once' if p.shared_prefix else ''}. {experts}".rstrip()


def shape(p: Profile) -> PretrainedConfig:
    """The model's shape. :func:`access` comes first because the hub's own client retries for a long time."""
    if p.model not in SHAPES:
        access(p.model)
    return model_config(p.model)


def access(model: str) -> str:
    """Where the model is available.

    Raises:
        ValueError: it is not available from this machine with this account.
    """
    refuse_missing_smol(model)
    return "on this disk" if local_folder(model) else hub_access(model)


def hub_access(model: str, endpoint: str | None = None) -> str:
    """Check whether this account has access to the model on the hub.

    Raises:
        ValueError: the model is gated or unknown, or the hub is unreachable. The message names the fix.
    """
    if model.count("/") != 1 or model.startswith((".", "/")):
        raise ValueError(
            f"There is no folder {model!r}. Give the path of a local folder with the model's files, or the "
            "model's name on the hub, as in 'owner/name'."
        )
    url = f"{endpoint or constants.ENDPOINT}/api/models/{model}/auth-check"
    page = f"https://huggingface.co/{model}"
    try:
        hf_raise_for_status(get_session().get(url, headers=build_hf_headers(), timeout=ANSWER_PATIENCE))
    except GatedRepoError as error:
        raise ValueError(gated(model, page, bool(get_token()))) from error
    except RepositoryNotFoundError as error:
        raise ValueError(
            f"The hub has no model {model!r}, or does not show it to you. Check the name on {page}. If it is "
            "private, set HF_TOKEN."
        ) from error
    except HfHubHTTPError as error:
        raise ValueError(
            f"The hub rejected the request for {model} ({error.response.status_code}). If HF_TOKEN is set, "
            "make a new one on https://huggingface.co/settings/tokens. Otherwise try again later."
        ) from error
    except Exception as error:  # connection, DNS, proxy, offline mode: in each case the hub is unreachable
        if constants.HF_HUB_OFFLINE:
            raise ValueError(
                f"HF_HUB_OFFLINE is set, but {model} is not on this disk. Unset it to download the model."
            ) from error
        raise ValueError(
            f"The hub cannot be reached from here ({type(error).__name__}), and {model} is not on this disk. "
            "Check the network, or give the path of a local folder with the model's files."
        ) from error
    return "open to this account on the hub"


def gated(model: str, page: str, has_token: bool) -> str:
    """How to get access to a gated model."""
    steps = (
        f"is gated, and the account of your token has no access yet: log in, open {page}, accept the licence and wait "
        "for the approval"
        if has_token
        else f"is gated, and no token is set: log in, open {page}, click 'Agree and access repository', make a token with "
        "read access on https://huggingface.co/settings/tokens and set HF_TOKEN to it"
    )
    ungated = "; or set model='NousResearch/Meta-Llama-3.1-8B', an ungated copy" if "Llama-3.1-8B" in model else ""
    return f"{model} {steps}{ungated}."


def check_vllm(p: Profile) -> str:
    """How responses will be sampled. A configured vLLM server must answer."""
    if not use_vllm(p):
        cause = "there is no GPU for vLLM" if not torch.cuda.is_available() else "vLLM is not installed"
        return "responses are sampled by the model itself" + (
            f", because {cause}. This is slower." if p.use_vllm == "auto" else "."
        )
    if p.vllm_server is None:
        return f"vLLM {installed('vllm')} samples the responses on this GPU."
    needed = p.max_prompt_length + p.max_completion_length
    if not answers(f"{p.vllm_server.rstrip('/')}/health"):
        raise ValueError(
            f"No vLLM server answers on {p.vllm_server}. Start one on another GPU with `trl vllm-serve --model "
            f"{p.model} --dtype {p.dtype} --max_model_len {needed} --host 127.0.0.1`, or set vllm_server=None."
        )
    name, length = served(p.vllm_server)
    if length is not None and length < needed:
        raise ValueError(
            f"The vLLM server on {p.vllm_server} has a context of {length} tokens, but max_prompt_length + "
            f"max_completion_length = {needed}. Restart it with --max_model_len {needed}."
        )
    if name not in (None, p.model, resolve_model(p.model)):
        raise ValueError(
            f"The vLLM server on {p.vllm_server} serves {name}, but this run trains {p.model}. Restart it "
            f"with --model {p.model}."
        )
    return f"the vLLM server on {p.vllm_server} answers, with {p.model if name is None else name}."


def served(address: str) -> tuple[str | None, int | None]:
    """(model, context length in tokens) of a vLLM server. None if the server does not report it."""
    try:
        first = requests.get(f"{address.rstrip('/')}/v1/models", timeout=ANSWER_PATIENCE).json()["data"][0]
    except (OSError, ValueError, LookupError, TypeError):
        return None, None
    return first.get("root") or first.get("id"), first.get("max_model_len")


# --- W&B ---


def check_wandb(p: Profile) -> str:
    """How the run will be recorded. The key is sent to W&B's server only and never printed."""
    mode = wandb_mode(p)
    if mode != "online":
        return f"{mode}: " + (
            "the run is recorded in its folder only."
            if mode == "disabled"
            else "the run is recorded on this disk. Run `wandb sync` to upload it later."
        )
    if api_key(server()) is None:
        raise ValueError(
            "wandb_mode is online, but there is no key. Copy yours from https://wandb.ai/authorize into "
            "WANDB_API_KEY, or set wandb_mode='offline'."
        )
    if reason := obstacle():
        return f"online with a key, but {reason}: the run would be recorded offline, for a later upload."
    return f"online with a key, and {server()} answers."


def answers(url: str) -> bool:
    """Whether a host answers, with any status."""
    try:
        requests.get(url, timeout=ANSWER_PATIENCE)
    except requests.RequestException:
        return False
    return True


CHECKS: dict[str, Callable[[Profile], str]] = {
    "versions": check_versions,
    "model": check_model,
    "layers": check_layers,
    "problems": check_problems,
    "reward": check_reward,
    "machine": check_machine,
    "disk": check_disk,
    "sampling": check_vllm,
    "W&B": check_wandb,
}

"""Every name and keyword of TRL, PEFT, transformers, datasets and W&B that notebooks or package use is one they have.

Nothing is run: the sources are read as syntax trees, and what they name is looked up in the installed libraries. So a
name that a newer version drops is told by where it stands, before a learner meets it.
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

from rlvr_utils import REPO

LIBRARIES = ("trl", "peft", "transformers", "datasets", "wandb", "accelerate", "tokenizers", "huggingface_hub")
SOURCES = [
    *(file for room in ("rlvr_utils", "studies", "tools") for file in sorted((REPO / room).rglob("*.py"))),
    *sorted((REPO / "notebooks").glob("*.ipynb")),
]
#: What variables of these names may be, wherever they are used: their methods are looked up as well.
MODEL = ("transformers.LlamaForCausalLM", "peft.PeftModel", "peft.tuners.lora.LoraModel", "builtins.str", "torch.Tensor")
INSTANCES = {
    "trainer": ("trl.GRPOTrainer", "trl.SFTTrainer"),
    "model": MODEL,
    "policy": MODEL,
    "tokenizer": ("transformers.PreTrainedTokenizerFast", "tokenizers.Tokenizer"),
}
#: Metrics that TRL logs and we read.
METRIC = re.compile(r"frac_reward_zero_std|(?:completions|clip_ratio|sampling)/\w+")


def tree_of(path: Path) -> ast.Module:
    """The syntax of a module, or of all code cells of a notebook."""
    if path.suffix == ".py":
        return ast.parse(path.read_text(encoding="utf-8"))
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    return ast.parse("\n".join(TransformerManager().transform_cell(source) for source in cells))


def imported(tree: ast.Module) -> dict[str, str]:
    """Local name -> dotted name, for everything imported from one of the libraries."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {(a.asname or a.name.split(".")[0]): (a.name if a.asname else a.name.split(".")[0]) for a in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    return {name: dotted for name, dotted in names.items() if dotted.split(".")[0] in LIBRARIES}


@functools.cache
def look_up(dotted: str) -> object:
    """The object of a dotted name; raises AttributeError or ImportError where there is none."""
    head, *rest = dotted.split(".")
    found = importlib.import_module(head)
    for index, part in enumerate(rest):
        if not hasattr(found, part) and inspect.ismodule(found):
            importlib.import_module(".".join([head, *rest[: index + 1]]))
        found = getattr(found, part)
    return found


def candidates(node: ast.expr, names: dict[str, str]) -> list[str]:
    """Dotted names that a called expression may stand for; none where it is not a library's."""
    if isinstance(node, ast.IfExp):
        return candidates(node.body, names) + candidates(node.orelse, names)
    chain = ast.unparse(node).split(".") if isinstance(node, (ast.Name, ast.Attribute)) else []
    if not chain or not all(part.isidentifier() for part in chain):
        return []
    if chain[0] in names:
        return [".".join([names[chain[0]], *chain[1:]])]
    if len(chain) == 2 and chain[0] in INSTANCES:
        return [f"{owner}.{chain[1]}" for owner in INSTANCES[chain[0]]]
    return []


def takes(function: object, keyword: str) -> bool:
    """Whether a callable has this keyword; one that takes any must at least mention it in its own module."""
    parameters = inspect.signature(function).parameters
    if keyword in parameters:
        return parameters[keyword].kind is not inspect.Parameter.POSITIONAL_ONLY
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    if not takes_any and not hasattr(function, "model_type"):  # a model's configuration takes any, behind its signature
        return False
    owners = function.__mro__ if inspect.isclass(function) else [inspect.unwrap(getattr(function, "__func__", function))]
    return any(re.search(rf"\b{keyword}\b", module_source(owner)) for owner in owners)


@functools.cache
def module_source(thing: object) -> str:
    try:
        return Path(inspect.getsourcefile(thing)).read_text(encoding="utf-8")
    except TypeError:  # builtins and compiled code
        return ""


def keywords_of(call: ast.Call, tree: ast.Module) -> Iterator[str]:
    """Keywords of a call; ``**name`` and ``**function()`` count with the keys of the dicts written there."""
    for keyword in call.keywords:
        if keyword.arg:
            yield keyword.arg
        else:
            yield from keys_of(keyword.value, tree, seen=set())


def keys_of(node: ast.expr, tree: ast.Module, seen: set[str]) -> Iterator[str]:
    for part in ast.walk(node):
        if isinstance(part, ast.Dict):
            yield from (key.value for key in part.keys if isinstance(key, ast.Constant))
        name = part.id if isinstance(part, ast.Name) else None
        if name is None or name in seen:
            continue
        seen.add(name)
        for other in ast.walk(tree):
            if isinstance(other, ast.FunctionDef) and other.name == name:
                dicts = [r.value for r in ast.walk(other) if isinstance(r, ast.Return) and isinstance(r.value, ast.Dict)]
                for value in dicts:
                    yield from (key.value for key in value.keys if isinstance(key, ast.Constant))
            elif isinstance(other, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in other.targets):
                if isinstance(other.value, (ast.Dict, ast.Call)):
                    target = other.value.func if isinstance(other.value, ast.Call) else other.value
                    yield from keys_of(target, tree, seen)


def drifted(tree: ast.Module) -> Iterator[str]:
    """What a source names that the installed libraries do not have, one sentence each."""
    names = imported(tree)
    for dotted in set(names.values()):
        if problem := missing(dotted):
            yield problem
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield from drifted_call(node, names, tree)
        elif isinstance(node, ast.ClassDef):
            yield from drifted_class(node, names)


def missing(dotted: str) -> str | None:
    try:
        look_up(dotted)
    except (AttributeError, ImportError):
        return f"there is no {dotted}"
    return None


def drifted_call(call: ast.Call, names: dict[str, str], tree: ast.Module) -> Iterator[str]:
    found = candidates(call.func, names)
    there = [look_up(dotted) for dotted in found if not missing(dotted)]
    if found and not there:
        yield f"line {call.lineno}: there is no {found[0]}"
    there = [function for function in there if callable(function)]
    for keyword in keywords_of(call, tree) if there else ():
        if not any(takes(function, keyword) for function in there):
            yield f"line {call.lineno}: {found[0]} has no argument {keyword}"


def drifted_class(node: ast.ClassDef, names: dict[str, str]) -> Iterator[str]:
    """Hooks of a subclass that its base does not call: private methods and ``on_...`` must be overrides or used here."""
    bases = [look_up(dotted) for base in node.bases for dotted in candidates(base, names) if not missing(dotted)]
    used = {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute) and ast.unparse(n.value) in ("self", node.name)}
    for method in (part for part in node.body if isinstance(part, ast.FunctionDef)) if bases else ():
        hook = re.match(r"on_|_(?!_)", method.name)
        if hook and method.name not in used and not any(hasattr(base, method.name) for base in bases):
            yield f"line {method.lineno}: {method.name} overrides nothing of {ast.unparse(node.bases[0])}"


def test_every_library_name_and_argument_exists() -> None:
    assert [f"{path.relative_to(REPO)}: {found}" for path in SOURCES for found in drifted(tree_of(path))] == []


def test_the_metrics_that_we_read_are_metrics_that_trl_logs() -> None:
    trainer = inspect.getsource(importlib.import_module("trl.trainer.grpo_trainer"))
    read = {
        found
        for path in SOURCES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Constant)
        for found in METRIC.findall(str(node.value))
        if str(node.value) == found
    }
    assert len(read) >= 3
    assert {name for name in read if name not in trainer} == set()


DRIFTED = [
    ("from trl import PPOTrainerOfOld", "there is no trl.PPOTrainerOfOld"),
    ("from trl import GRPOConfig\nGRPOConfig(num_generation=4)", "trl.GRPOConfig has no argument num_generation"),
    ("from trl import GRPOConfig\nGRPOConfig(max_prompt_length=4)", "has no argument max_prompt_length"),
    ("from trl import GRPOConfig\noptions = {'max_prompt_len': 4}\nGRPOConfig(**options)", "argument max_prompt_len"),
    ("from trl import GRPOConfig\ndef f():\n    return {'bta': 4}\nGRPOConfig(**f())", "has no argument bta"),
    ("from transformers import LlamaConfig\nLlamaConfig(hiden_size=4)", "has no argument hiden_size"),
    ("import wandb\nwandb.initialise()", "there is no wandb.initialise"),
    ("import wandb\nwandb.init(resumed='allow')", "wandb.init has no argument resumed"),
    ("from peft import LoraConfig\nLoraConfig(rank=4)", "has no argument rank"),
    ("trainer.train(resume_from=1)", "GRPOTrainer.train has no argument resume_from"),
    ("model.disable_adapters_please()", "there is no transformers.LlamaForCausalLM.disable_adapters_please"),
    ("from transformers import TrainerCallback\nclass C(TrainerCallback):\n    def on_stepp(self): ...", "on_stepp over"),
    ("from trl import GRPOTrainer\nclass T(GRPOTrainer):\n    def _old_hook(self): ...", "_old_hook overrides nothing"),
]


@pytest.mark.parametrize(("source", "message"), DRIFTED)
def test_a_drifted_source_is_caught(source: str, message: str) -> None:
    [sentence] = drifted(ast.parse(source))
    assert message in sentence


def test_what_the_libraries_have_passes() -> None:
    source = """
from trl import GRPOConfig, GRPOTrainer
from transformers import AutoModelForCausalLM, LlamaConfig
options = {"beta": 0.1} | {"epsilon": 0.2}
GRPOConfig(num_generations=4, **options)
LlamaConfig(hidden_size=4, rope_theta=1e4)
AutoModelForCausalLM.from_pretrained("x", dtype="float32", revision="main")
trainer.train(resume_from_checkpoint=True)
class T(GRPOTrainer):
    def _generate_and_score_completions(self, inputs): return self._own(inputs)
    def _own(self, inputs): return super()._generate_and_score_completions(inputs)
"""
    assert list(drifted(ast.parse(source))) == []

"""Modules import only from lower floors (CONTRIBUTING.md), also inside functions, and dependencies are declared."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from trl import GRPOTrainer

from rlvr_utils.training import trl_patches
from rlvr_utils.training.trl_patches import PRIVATE, refuse_moved_names

REPO = Path(__file__).resolve().parent.parent
PACKAGE = REPO / "rlvr_utils"
FLOORS = (
    ("system", "verifier", "stats", "profiles"),
    ("problems", "grpo"),
    ("models", "sampling", "memory"),
    ("runs", "diagnosis"),
    ("training", "preflight"),
    ("analysis", "experiment", "plots", "widgets", "exercises", "course"),
    ("cli", "__main__"),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS, 1) for room in rooms}
#: Modules that must import quickly, without PyTorch.
LIGHT = ("rlvr_utils.verifier", "rlvr_utils.stats", "rlvr_utils.profiles", "rlvr_utils.problems")


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


@cache
def imports(file: Path) -> list[tuple[str, int]]:
    """Return (module, line) of all imports of a file, at any depth."""
    package = ["rlvr_utils", *file.relative_to(PACKAGE).parts[:-1]] if PACKAGE in file.parents else []
    found = []
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, *filter(None, [node.module])])
            # in "from . import name" and "from rlvr_utils import name", name may be a module or an object
            found += [(f"{module}.{alias.name}", node.lineno) for alias in node.names]
    return found


def modules() -> dict[str, Path]:
    """Return the package's modules by their dotted names."""
    return {
        ".".join(["rlvr_utils", *file.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__"): file
        for file in sorted(PACKAGE.rglob("*.py"))
    }


def own(name: str, known: dict[str, Path]) -> str | None:
    """Return the module of the package that contains an imported name."""
    while name and name not in known:
        name = name.rpartition(".")[0]
    return name if name.startswith("rlvr_utils.") else None


def test_modules_import_only_from_lower_floors() -> None:
    rooms = {file.relative_to(PACKAGE).parts[0].removesuffix(".py") for file in modules().values()} - {"__init__"}
    assert rooms == set(FLOOR)
    known, up = modules(), []
    for name, file in known.items():
        here = name.split(".")[1] if "." in name else "__init__"
        for imported, line in imports(file):
            target = own(imported, known)
            if target and FLOOR[target.split(".")[1]] > FLOOR.get(here, 0):
                up.append(f"{file.relative_to(REPO)}:{line} imports {target}")
    assert up == []


def test_there_are_no_circular_imports() -> None:
    """Lazy imports count, because moving an import into a function only hides a cycle."""
    known = modules()
    between: dict[str, set[str]] = {}
    for name, file in known.items():
        room = name.split(".")[1] if "." in name else "__init__"
        targets = {target.split(".")[1] for imported, _ in imports(file) if (target := own(imported, known))}
        between.setdefault(room, set()).update(targets - {room})
    try:
        TopologicalSorter(between).prepare()
    except CycleError as circle:
        raise AssertionError(" -> ".join(circle.args[1])) from None


def test_grpo_on_a_page_does_not_use_the_trainer_of_the_runs() -> None:
    used = {own(imported, modules()) or imported for imported, _ in imports(PACKAGE / "training" / "own_trainer.py")}
    assert not any(name.startswith(("rlvr_utils.training", "trl")) for name in used)


def test_light_modules_import_no_machine_learning() -> None:
    code = f"import sys, {', '.join(LIGHT)}; print(sorted({{'torch', 'transformers', 'trl', 'peft'}} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True, cwd=REPO).strip() == "[]"


def test_imports_match_the_declared_dependencies() -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {canonicalize_name(Requirement(line).name) for line in project["dependencies"]}
    packages = metadata.packages_distributions()
    imported = {
        canonicalize_name(name)
        for file in modules().values()
        for module, _ in imports(file)
        for name in packages.get(module.split(".")[0], [])
        if module.split(".")[0] not in sys.stdlib_module_names
    }
    imported.discard(canonicalize_name(project["name"]))
    programs = {"jupyterlab", "ipykernel", "papermill", "accelerate"}  # started as a program, or needed by our imports
    assert imported - declared == set()
    assert declared - imported - programs == set()


def test_private_names_of_libraries_are_listed_and_a_missing_one_raises(monkeypatch) -> None:
    nodes = [node for file in modules().values() for node in ast.walk(tree(file))]
    attributes = [node for node in nodes if isinstance(node, ast.Attribute)]
    ours = {node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    ours |= {node.attr for node in attributes if isinstance(node.ctx, ast.Store)}
    ours |= {"_asdict", "_fields", "_replace"}  # of named tuples: public despite their names
    used = {node.attr for node in attributes if re.fullmatch(r"_[a-z]\w*[a-z0-9]", node.attr)}
    listed = {name for _, name, _ in PRIVATE}
    assert used - listed - ours == set()
    assert listed <= used
    refuse_moved_names()
    monkeypatch.setattr(trl_patches, "PRIVATE", ((GRPOTrainer, "_gone", "nothing"),))
    with pytest.raises(ValueError, match=r"trl .* has no GRPOTrainer._gone, .*pip install -r requirements.lock"):
        refuse_moved_names()


def test_text_is_read_and_written_as_utf_8_on_every_system() -> None:
    """Without ``encoding``, Windows uses another one. Binary ``open`` and ``Path.open`` need none."""

    def names_none(call: ast.Call) -> bool:
        name = getattr(call.func, "attr", getattr(call.func, "id", ""))
        words = {node.value for node in call.args if isinstance(node, ast.Constant)}
        named = any(keyword.arg == "encoding" for keyword in call.keywords) or words & {"utf-8", "ascii"}
        of_a_file = not (isinstance(call.func, ast.Attribute) and getattr(call.func.value, "id", "") in ("Image", "os"))
        text = name in ("read_text", "write_text") or name == "open" and of_a_file and not words & {"rb", "wb", "ab", "r+b"}
        return text and not named

    calls = [(name, node) for name, file in modules().items() for node in ast.walk(tree(file)) if isinstance(node, ast.Call)]
    assert [f"{name}:{node.lineno}" for name, node in calls if names_none(node)] == []


def test_platform_specific_code_is_in_one_module() -> None:
    marks = re.compile(r"\bfcntl\b|/proc/|sys\.platform|os\.name\b|getaffinity|register_at_fork|fsync\(|setsid|ctypes")
    found = {name for name, file in modules().items() if marks.search(file.read_text(encoding="utf-8"))}
    assert found == {"rlvr_utils.system.platforms"}


def test_contributing_shows_the_tested_floors() -> None:
    drawn = re.findall(r"^(\d) +(\S.*?)(?:  +.*)?$", (REPO / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.M)
    assert {(int(number), room.strip("/")) for number, rooms in drawn for room in rooms.split()} == {
        (number, room) for room, number in FLOOR.items() if room != "__main__"
    }

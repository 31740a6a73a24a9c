"""The notebooks in a real JupyterLab: they run, controls work, and neither page nor console has errors.

Run by ``make test-browser`` and, by its file name, not by ``make test``: it needs Debian's chromium and chromium-driver
and takes some ten minutes. Screenshots are kept in runs/browser/; look at them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import pytest
from lab import (
    FOLDER,
    LINKS,
    PATH,
    READY,
    REPO,
    SCREENSHOTS,
    STATE,
    Notebook,
    View,
    chromium,
    follow_links,
    missing,
    server,
    wait_for,
)

OPEN = "window.jupyterapp.commands.execute('docmanager:open', {path: arguments[0], factory: 'Markdown Preview'})"
NOTEBOOKS = sorted((REPO / "notebooks").glob("*.ipynb"))

#: Changes to the copies that shorten the training, which other tests check.
SHORTER = {
    "02_grpo_on_toy_tensors": [("own_trainer_seconds = 40", "own_trainer_seconds = 5")],
    "04_training_run": [
        ("max_steps = None", "max_steps = 4"),
        ("overrides = {}", r"overrides = {\"eval_problems\": 8, \"prompts_per_step\": 4, \"group_size\": 4}"),
    ],
}
MINUTES = 60
HOSTILE = '<img src="x" onerror="alert(1)">'


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Iterator[str]:
    """Start JupyterLab on a copy of the course and return its address."""
    if what := missing():
        pytest.fail(what, pytrace=False)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    with server(tmp_path_factory.mktemp("lab"), shorten_all) as (address, _):
        yield address


def shorten_all(course: Path) -> None:
    """Shorten the notebooks before the server copies them."""
    for name, changes in SHORTER.items():
        shorten(course / "notebooks" / f"{name}.ipynb", changes)


def shorten(path: Path, changes: list[tuple[str, str]]) -> None:
    text = path.read_text(encoding="utf-8")
    for old, new in changes:
        assert text.count(old) == 1, f"{path.name} does not contain {old}"
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")


@pytest.fixture
def browser():
    driver = chromium()
    yield driver
    driver.quit()


def run(browser, address: str, name: str, minutes: float) -> Notebook:
    """Run every cell of the notebook and check that there are no errors."""
    notebook = Notebook(browser, address, name)
    state = notebook.run_all(minutes * MINUTES)
    browser.save_screenshot(str(SCREENSHOTS / f"{name}.png"))
    assert state["errors"] == [] and state["warnings"] == [] and state["run"] == state["all"] > 10
    return notebook


def move(view: View, name: str, *moves: tuple[Callable[[], None], str]) -> None:
    """Each move must change the output so that it matches its pattern. Saves a screenshot after each."""
    view.screenshot(f"{name}-0")
    for number, (make, pattern) in enumerate(moves, 1):
        before = view.page
        make()
        view.becomes(before, pattern)
        view.screenshot(f"{name}-{number}")


def linked(path: Path) -> set[str]:
    """Files of the repository that the learner's copy of a notebook links to, from the repository's root."""
    cells = nbformat.read(path, as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    found = re.findall(r"\]\(([^)\s:#]+\.\w+)[^)\s]*\)", text)
    return {(REPO / "work" / link).resolve().relative_to(REPO).as_posix() for link in found}


def test_the_lab_opens_on_notebook_00_without_a_question(lab, browser) -> None:
    browser.get(lab.format(path="/"))
    wait_for(lambda: browser.execute_script(READY), "the kernel of notebook 00", 300)
    assert browser.execute_script(PATH) == "work/00_start_here.ipynb"
    assert browser.execute_script(STATE)["run"] == 0, "copies must have no outputs"
    time.sleep(5)  # JupyterLab asks about news shortly after its start
    browser.save_screenshot(str(SCREENSHOTS / "lab.png"))
    assert browser.find_elements("css selector", ".jp-toast-button, .Toastify__toast, .jp-Dialog") == []
    assert linked(NOTEBOOKS[0]) == follow_links(browser)


@pytest.mark.parametrize("path", NOTEBOOKS[1:], ids=lambda path: path.stem)
def test_every_link_of_a_notebook_opens_its_file(lab, browser, path: Path) -> None:
    notebook = Notebook(browser, lab, path.stem)
    assert linked(path) == follow_links(browser)
    assert notebook.errors() == []


def test_the_pages_link_back_to_the_notebooks(lab, browser) -> None:
    Notebook(browser, lab, NOTEBOOKS[0].stem)
    for page in ("GLOSSARY.md", "TROUBLESHOOTING.md"):
        browser.execute_script(OPEN, page)
        wait_for(lambda page=page: browser.execute_script(PATH) == page, page)
        wait_for(lambda: browser.execute_script(LINKS), f"the links of {page}")
        opened = follow_links(browser)
        browser.save_screenshot(str(SCREENSHOTS / f"{page}.png"))
        assert {path for path in opened if path.startswith("notebooks/")}, page


def test_code_and_data_can_be_opened_beside_the_notebooks(lab, browser) -> None:
    Notebook(browser, lab, NOTEBOOKS[0].stem)
    for folder in ("rlvr_utils", "data/reference_runs"):
        browser.execute_script("window.jupyterapp.commands.execute('filebrowser:open-path', {path: arguments[0]})", folder)
        name = folder.split("/")[-1]
        wait_for(lambda name=name: name in browser.execute_script(FOLDER), f"{folder} among the files", 30)


def test_01_the_verifier_answers_what_is_typed(lab, browser) -> None:
    notebook = run(browser, lab, "01_boxed_answer_verifier", 30)
    view = notebook.view("verifier")
    assert "Reward 1" in view.page and "exact algebra" in view.page
    move(
        view,
        "verifier",
        (lambda: view.type("response", r"I say $\boxed{0.5}$."), "Reward 0.*decides: proven different"),
        (lambda: view.type("ground truth", r"\frac{1}{2}"), "Reward 1.*decides: proven equal"),
        (lambda: view.type("response", rf"\boxed{{{HOSTILE}}}"), "&lt;img"),
        (lambda: view.type("ground truth", " "), "The ground truth is empty"),
    )
    assert "<img" not in view.page
    assert notebook.errors() == []


def test_02_rewards_and_clip_can_be_dragged(lab, browser) -> None:
    notebook = run(browser, lab, "02_grpo_on_toy_tensors", 60)
    view = notebook.view("advantages")
    move(
        view,
        "advantages",
        (lambda: view.choose("scale", "none"), "Scaling: none"),
        (lambda: view.choose("scale", "batch"), "Scaling: batch"),
        (lambda: view.drag("correct, other group", -3), "Scaling: batch"),
        (lambda: view.drag("reward 1", 2), "reward is"),
        (lambda: view.drag("reward 1", -4), "reward is|rewards are"),
    )
    view = notebook.view("clip")
    move(
        view,
        "clip",
        (lambda: view.drag("epsilon", 4), "below 0.60"),
        (lambda: view.drag("epsilon_high", 5), r"above (ratio )?1\.48"),
        (lambda: view.drag("advantage", -8), r"advantage -1\.00"),
    )
    assert notebook.errors() == []


def test_03_rank_targets_and_gpu_change_what_fits(lab, browser) -> None:
    notebook = run(browser, lab, "03_lora_setup", 30)
    view = notebook.view("lora")
    wait_for(lambda: view.handle_names() and all(view.handle_names()), "a name for every slider handle", 30)
    assert "rank" in view.handle_names()
    move(
        view,
        "lora",
        (lambda: view.drag("rank", -2), "rank 8 on all linear layers"),
        (lambda: view.choose("GPU", "24 GB (RTX 4090)"), r"On a GPU with 23\.6 GiB it fits with"),
        (lambda: view.choose("trained", "no LoRA: train everything"), "Trained: everything"),
    )
    assert notebook.errors() == []


def test_04_a_short_training_and_then_your_own_problem(lab, browser) -> None:
    notebook = run(browser, lab, "04_training_run", 90)
    view = notebook.view("playground")
    assert "trained" in view.page and 'title="probability' in view.page

    def ask(problem: str) -> None:
        view.type("problem", problem)
        view.press()

    move(
        view,
        "playground",
        (lambda: ask("Compute $17 + 4 \\cdot 6$."), "Compute .17 . 4"),
        (lambda: ask(HOSTILE), "&lt;img"),
        (lambda: ask(" "), "The problem is empty"),
    )
    assert "<img" not in view.page
    assert notebook.errors() == []


def test_05_projections_move_and_responses_are_filtered(lab, browser) -> None:
    notebook = run(browser, lab, "05_results_analysis", 60)
    view = notebook.view("projection")
    move(
        view,
        "projection",
        (lambda: view.drag("fitted part", 5), "from the first"),
        (lambda: view.drag("fitted part", -7), "from the first"),
    )
    view = notebook.view("responses")
    move(
        view,
        "responses",  # of the short run that notebook 04 has left, or of a reference run: pages in either
        (lambda: view.choose("verdict", "any"), "responses at step"),
        (lambda: view.drag("page", 2), "page 3 of"),
        (lambda: view.choose("reward", "0"), "responses at step"),
        (lambda: view.choose("subject", "Geometry"), "responses at step"),
    )
    assert notebook.errors() == []

"""A JupyterLab on a copy of the course, and a headless Chromium that runs notebooks and moves their controls."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select

REPO = Path(__file__).resolve().parents[2]
SCREENSHOTS = REPO / "runs" / "browser"
#: Not in the copy, because a new clone does not have them either.
LEFT_OUT = (".git", ".venv", "runs", "work", "build", "dist", "__pycache__", ".*_cache", ".hypothesis", "*.egg-info")
#: Render every cell in the page, also outside the viewport.
SETTINGS = {"notebook-extension/tracker": '{"windowingMode": "none"}'}
#: State of the open notebook.
STATE = """
const panel = window.jupyterapp.shell.currentWidget;
const cells = [...panel.content.model.cells].filter(cell => cell.type === 'code' && cell.sharedModel.getSource().trim());
const outputs = cells.flatMap(cell => cell.outputs.toJSON());
return {status: panel.sessionContext.session?.kernel?.status, all: cells.length,
        run: cells.filter(cell => cell.executionCount !== null).length,
        errors: outputs.filter(out => out.output_type === 'error').map(out => out.ename + ': ' + out.evalue),
        warnings: outputs.filter(out => out.name === 'stderr').map(out => out.text)};
"""
#: Links of the active document to files below the server's root, by path.
LINKS = """
const links = window.jupyterapp.shell.currentWidget.node.querySelectorAll('a[href*="/files/"]');
const path = link => decodeURIComponent(new URL(link.href).pathname).split('/files/')[1];
return Object.fromEntries([...links].map(link => [path(link), link]));
"""
IN_FRONT = "return window.jupyterapp.shell.currentWidget.id"
PATH = "return window.jupyterapp?.shell?.currentWidget?.context?.path"
FOLDER = "return document.querySelector('.jp-BreadCrumbs')?.innerText"
READY = "return window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
RUN_ALL = "window.jupyterapp.commands.execute('notebook:run-all-cells')"


def missing() -> str:
    """Return what must be installed first, or an empty text."""
    absent = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return f"no {' and no '.join(absent)} here: on Debian, apt-get install chromium chromium-driver" if absent else ""


@contextmanager
def server(folder: Path, prepare: Callable[[Path], None]) -> Iterator[tuple[str, Path]]:
    """(address with a place for a path, course): what ``make lab`` starts, on a copy of the repository below ``folder``.

    ``prepare(course)`` may change the copy before the server starts.
    """
    course = folder / "course"
    shutil.copytree(REPO, course, ignore=shutil.ignore_patterns(*LEFT_OUT))
    prepare(course)
    for name, text in SETTINGS.items():
        file = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    places = {f"JUPYTER_{kind}_DIR": str(folder / kind) for kind in ("CONFIG", "DATA", "RUNTIME")}
    environment = (
        os.environ
        | places
        | {
            "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
            "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
            "IPYTHONDIR": str(folder / "ipython"),
            "PYTHONPATH": str(course),
            "WANDB_MODE": "disabled",
        }
    )
    flags = (
        "--no-browser --allow-root --expose-app-in-browser --ServerApp.port_retries=0 "
        f"--port={port} --IdentityProvider.token={token}"
    )
    command = ["make", "--old-file=venv", "lab", f"PY={sys.executable}", f"LAB_FLAGS={flags}"]  # in this environment
    with (folder / "jupyter.log").open("w") as log:
        process = subprocess.Popen(command, cwd=course, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            await_answer(f"http://127.0.0.1:{port}/api/status?token={token}", process, folder / "jupyter.log")
            yield f"http://127.0.0.1:{port}{{path}}?token={token}", course
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)


def await_answer(url: str, process: subprocess.Popen, log: Path, timeout: float = 180) -> None:
    """Wait until the server answers. Raises RuntimeError with its log if it does not."""
    end = time.monotonic() + timeout
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(1)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()[-2000:]}")


def chromium() -> webdriver.Chrome:
    """Start a headless Chromium that keeps its console log."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1300,1000"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    driver.set_page_load_timeout(300)
    return driver


def wait_for(condition, what: str, timeout: float = 120):
    """Return the first true value of ``condition()``. Raises AssertionError with ``what`` after a timeout."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.5)
    raise AssertionError(f"waited {timeout:.0f} s for {what}")


def follow_links(driver: webdriver.Chrome) -> set[str]:
    """Click every link to a file in the active document and return the opened paths."""
    here, links = driver.execute_script(IN_FRONT), driver.execute_script(LINKS)
    for path, link in links.items():
        driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", link)
        link.click()
        wait_for(lambda path=path: driver.execute_script(PATH) == path, f"{path}, linked from {here}", 30)
        driver.execute_script("window.jupyterapp.shell.activateById(arguments[0])", here)
        wait_for(lambda: driver.execute_script(IN_FRONT) == here, here, 30)
    return set(links)


class Notebook:
    """One notebook in the browser."""

    def __init__(self, driver: webdriver.Chrome, address: str, name: str):
        self.driver, self.name = driver, name
        driver.get(address.format(path=f"/lab/workspaces/{name}/tree/work/{name}.ipynb"))
        wait_for(lambda: driver.execute_script(READY), f"the kernel of {name}", 300)

    def run_all(self, timeout: float) -> dict:
        """Run every cell, wait for the last, and return the notebook's state."""
        self.driver.execute_script(RUN_ALL)
        wait_for(self.is_done, f"all cells of {self.name}", timeout)
        return self.driver.execute_script(STATE)

    def is_done(self) -> bool:
        """Return whether all cells ran, or one failed."""
        state = self.driver.execute_script(STATE)
        return bool(state["errors"]) or state["run"] == state["all"] and state["status"] == "idle"

    def view(self, name: str) -> View:
        """Return the view ``name`` of the page."""
        return View(
            self.driver,
            wait_for(
                lambda: next(iter(self.driver.find_elements(By.CSS_SELECTOR, f".rlvr-{name}")), None), f"the view {name}"
            ),
        )

    def errors(self) -> list[str]:
        """Return the errors of the page and the console."""
        shown = ".jp-RenderedText[data-mime-type$='error'], .jp-Dialog-header, .jupyter-widgets-error-widget"
        page = [element.text[:300] for element in self.driver.find_elements(By.CSS_SELECTOR, shown)]
        return page + [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]


class View:
    """One view, with its controls by label and its output."""

    def __init__(self, driver: webdriver.Chrome, element: WebElement):
        self.driver, self.element = driver, element

    @property
    def page(self) -> str:
        """The HTML of its output."""
        output = self.element.find_elements(By.CSS_SELECTOR, ".widget-html-content")[-1]
        return output.get_attribute("innerHTML")

    def control(self, label: str, selector: str) -> WebElement:
        """Return the element matching ``selector`` in the control with this label."""
        named = f".//*[contains(@class, 'widget-label')][normalize-space(.) = '{label}']"
        around = "ancestor::*[contains(@class, 'widget-inline-hbox')][1]"
        found = self.element.find_element(By.XPATH, f"{named}/{around}").find_element(By.CSS_SELECTOR, selector)
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", found)
        return found

    def handle_names(self) -> list[str | None]:
        """Return the accessible name of each slider's handle, None for a handle without a name."""
        handles = self.element.find_elements(By.CSS_SELECTOR, ".noUi-handle")
        return [handle.get_attribute("aria-label") for handle in handles]

    def drag(self, label: str, steps: int) -> None:
        """Move a slider by ``steps``, to the right if positive."""
        key = Keys.ARROW_RIGHT if steps > 0 else Keys.ARROW_LEFT
        self.control(label, ".noUi-handle").send_keys(key * abs(steps))

    def choose(self, label: str, option: str) -> None:
        """Choose from a list."""
        Select(self.control(label, "select")).select_by_visible_text(option)

    def type(self, label: str, text: str) -> None:
        """Replace the content of a text field."""
        self.control(label, "textarea, input").send_keys(Keys.CONTROL, "a", Keys.NULL, text)

    def press(self) -> None:
        """Press the view's button."""
        button = self.element.find_element(By.CSS_SELECTOR, "button.jupyter-button")
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
        button.click()

    def becomes(self, before: str, pattern: str) -> None:
        """Wait until the output differs from ``before`` and matches ``pattern``."""
        wait_for(lambda: self.page != before and re.search(pattern, self.page), f"{pattern!r} in the view", 180)

    def screenshot(self, name: str) -> None:
        """Save a screenshot of the view."""
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'start'})", self.element)
        time.sleep(0.5)
        self.element.screenshot(str(SCREENSHOTS / f"{name}.png"))

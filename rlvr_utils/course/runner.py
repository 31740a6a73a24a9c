"""Execute the notebooks with papermill, in order, with this interpreter as the kernel."""

from __future__ import annotations

import dataclasses
import difflib
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO
from unittest.mock import patch

from rlvr_utils import REPO
from rlvr_utils.profiles import Profile
from rlvr_utils.system.paths import expanded

from .report import write_report
from .timetable import PARTS

#: Seconds per notebook with profile ``mini`` on two cores, for the first estimate of the time left.
EXPECTED_SECONDS = {part.name: part.machine for part in PARTS}
#: Assumed seconds of an unknown notebook.
TYPICAL_SECONDS = 60
#: Weight of the table in seconds, so that one unusual notebook does not dominate the estimate.
TRUST = 60.0
#: Seconds between progress lines of a long cell in a log file, where lines cannot be rewritten.
LOG_EVERY = 20.0


class CourseError(RuntimeError):
    """A notebook failed. The message contains the cell and the reason, and the partial notebook is kept."""


def course_notebooks() -> list[Path]:
    """Return the paths of the course's notebooks, in order."""
    return sorted((REPO / "notebooks").glob("[0-9][0-9]_*.ipynb"))


def notebook_parameters(notebook: str | Path) -> dict[str, str]:
    """Return names and default values (as source text) of the notebook's cell tagged ``parameters``."""
    import papermill

    logging.getLogger("papermill").setLevel(logging.ERROR)
    return {name: about["default"] for name, about in papermill.inspect_notebook(str(notebook)).items()}


def run_course(
    profile: str = "mini",
    output_dir: str | Path = REPO / "runs" / "course",
    notebooks: Sequence[str | Path] | None = None,
    parameters: Mapping[str, object] | None = None,
    log: Callable[[str], None] = print,
) -> Path:
    """Run the notebooks (default: all) and write ``NN_*.ipynb`` and ``report.html`` into ``output_dir``.

    Args:
        profile: the profile, a parameter of every notebook.
        parameters: further notebook parameters, passed to every notebook that has them. Profile fields that are not
            notebook parameters are passed in ``overrides``.
        log: called with each closing line (the report's path, the gain in accuracy).

    Returns:
        The path of the report.

    Raises:
        ValueError: no notebook has one of the parameters. Raised before any notebook runs.
        CourseError: a notebook failed. Executed notebooks are kept.
    """
    paths = [Path(notebook) for notebook in notebooks or course_notebooks()]
    plan = _plan(paths, {"profile": profile, **(parameters or {})})
    output_dir = expanded(output_dir).resolve()
    output_dir.mkdir(parents=True, exist_ok=True)
    progress = ProgressLine([path.stem for path in paths], EXPECTED_SECONDS if profile == "mini" else None)
    with _own_kernel():
        for path, values in plan.items():
            _execute(path, output_dir / path.name, values, progress)
    ran = f"All {len(paths)} notebooks ran in {in_words(sum(progress.done.values()))}."
    summary = [result_sentence(profile), f"{ran} Profile: {profile}.", "Code is folded. Click “Code” to see it."]
    report = write_report([output_dir / path.name for path in paths], output_dir / "report.html", summary)
    log(f"\n{ran}")
    log(f"Read:  {_short(report)}  (open it in a browser, the executed notebooks are in the same folder)")
    for line in what_was_learned(profile):
        log(line)
    return report


def _ends(profile: str) -> tuple[Path | None, list]:
    """Return the newest run of ``profile`` and its [first, last] evaluation, or [] if it has fewer than two."""
    from rlvr_utils.analysis import evaluations_of
    from rlvr_utils.runs import load_run, newest_run

    path = newest_run(profile)
    table = evaluations_of(load_run(path)) if path else []
    return path, [table.iloc[0], table.iloc[-1]] if len(table) > 1 else []


def result_sentence(profile: str) -> str:
    """Return one sentence with the accuracy before and after training in the newest run of ``profile``."""
    _, ends = _ends(profile)
    if not ends:
        return f"There is no finished training run of profile {profile} yet."
    before, after = (" ".join(_percent(row).split()) for row in ends)
    return (
        f"{ends[1]['step']:.0f} training steps changed the strict accuracy from {before} to {after}, on "
        f"{ends[0]['n_problems']:.0f} {ends[0]['split']} held-out problems (95 % intervals)."
    )


def what_was_learned(profile: str) -> list[str]:
    """Return lines with the accuracy before and after training in the newest run of ``profile``."""
    path, ends = _ends(profile)
    if path is None:
        return []
    if not ends:
        return [f"Run:   {_short(path)}"]
    first, last = ends
    return [
        f"Run:   {_short(path)}",
        f"Strict accuracy on {first['n_problems']:.0f} {first['split']} problems (held out), "
        f"{first['n_samples']:.0f} samples per problem, with 95 % intervals:",
        f"  before training      {_percent(first)}",
        f"  after {last['step']:4.0f} steps     {_percent(last)}",
    ]


def _percent(row: Mapping) -> str:
    low, high = 100 * row["accuracy_low"], 100 * row["accuracy_high"]
    return f"{100 * row['accuracy']:5.1f} %   ({low:.1f} to {high:.1f} %)"


def _plan(notebooks: Sequence[Path], parameters: Mapping[str, object]) -> dict[Path, dict]:
    """Return the parameters of each notebook. Raises ValueError for a parameter that no notebook has."""
    if not notebooks:
        raise ValueError(f"There are no notebooks in {REPO / 'notebooks'}. Clone the repository again.")
    missing = [str(path) for path in notebooks if not path.is_file()]
    if missing:
        raise ValueError(f"There is no notebook {missing[0]}. Pass a path in notebooks/, or omit it to run all notebooks.")
    known = {path: notebook_parameters(path) for path in notebooks}
    names = sorted(set().union(*known.values()))
    parameters = _with_overrides(parameters, names)
    for name in parameters:
        if name not in names:
            close = difflib.get_close_matches(name, names, 1)
            hint = f"Did you mean '{close[0]}'?" if close else f"Choose from {', '.join(names)}."
            raise ValueError(f"No notebook has a parameter '{name}'. {hint}")
    return {path: {name: parameters[name] for name in parameters if name in known[path]} for path in known}


def _with_overrides(parameters: Mapping[str, object], names: Sequence[str]) -> dict[str, object]:
    """Move profile fields that are not notebook parameters into ``overrides``, if a notebook has that parameter."""
    if "overrides" not in names:
        return dict(parameters)
    fields = {field.name for field in dataclasses.fields(Profile)} - set(names)
    rest = {name: value for name, value in parameters.items() if name not in fields}
    settings = {name: value for name, value in parameters.items() if name in fields}
    return rest | ({"overrides": {**rest.get("overrides", {}), **settings}} if settings else {})


def _execute(notebook: Path, output: Path, parameters: dict, progress: ProgressLine) -> None:
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    cells = papermill.iorw.load_notebook_node(str(notebook)).cells
    # papermill adds one code cell, with the parameters.
    progress.start_notebook(notebook.stem, sum(cell.cell_type == "code" for cell in cells) + 1)
    kept = f"The cells that ran are saved in {_short(output)}."
    try:
        papermill.execute_notebook(
            notebook,
            output,
            parameters,
            kernel_name="python3",
            progress_bar=False,
            stdout_file=progress,
            stderr_file=progress,
            on_cell_execute=lambda **_: progress.start_cell(),
        )
    except PapermillExecutionError as error:
        progress.stop()
        reason = f"{error.ename}: {' '.join(str(error.evalue).split())}"
        raise CourseError(f"{notebook.stem} stopped at In [{error.exec_count}]: {reason}. {kept}") from error
    except DeadKernelError as error:
        progress.stop()
        raise CourseError(f"{notebook.stem} stopped because its kernel died, usually for lack of memory. {kept}") from error
    progress.finish_notebook()


@contextmanager
def _own_kernel() -> Iterator[None]:
    """Use this interpreter as the kernel ``python3`` and this copy of ``rlvr_utils``, inside the context."""
    from ipykernel.kernelspec import write_kernel_spec

    logging.getLogger("papermill").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ):
        # Hide the kernel's own log (unencrypted local socket, interrupts). ignore_cwd: a file next to the notebooks with the
        # name of a library must not shadow it.
        options = ["--log-level=50", "--InteractiveShellApp.ignore_cwd=True"]
        write_kernel_spec(Path(folder) / "kernels" / "python3", extra_arguments=options)
        for name, first in (("JUPYTER_PATH", folder), ("PYTHONPATH", str(REPO))):
            os.environ[name] = os.pathsep.join(filter(None, (first, os.environ.get(name))))
        yield


def _short(path: Path) -> str:
    """Return the path relative to the working directory, if it is inside it."""
    path, here = Path(path).resolve(), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


# --- progress and time left ---


class ProgressLine:
    """Print the progress of notebooks to ``out``: one rewritten line in a terminal, occasional lines in a log file.

    It also serves as the output file of the notebooks. The last printed line is appended to the progress, so that you can
    follow a training run. papermill's own progress bar counts the cells of one notebook and hides their output.

    Args:
        names: the notebooks' names.
        expected: seconds per notebook. If None, for a profile without measured times, no time left is shown.
    """

    def __init__(
        self,
        names: Sequence[str],
        expected: Mapping[str, float] | None,
        out: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.names, self.expected = list(names), expected
        self.out, self.clock = out or sys.stdout, clock
        self.done: dict[str, float] = {}
        self.current, self.cells, self.cell, self.note = "", 0, 0, ""
        self.started = self.last_line = clock()

    def start_notebook(self, name: str, cells: int) -> None:
        self.current, self.cells, self.cell, self.note = name, cells, 0, ""
        self.started = self.clock()
        self._show(important=True)

    def start_cell(self) -> None:
        self.cell, self.note = self.cell + 1, ""
        self._show()

    def finish_notebook(self) -> None:
        self.done[self.current] = self.clock() - self.started
        self._line(f"{self.current}  {self.cells} cells in {in_words(self.done[self.current])}", final=True)
        self.current = ""

    def stop(self) -> None:
        """End the progress line, so that an error message starts on a new line."""
        if self.out.isatty():
            self.out.write("\n")

    def write(self, text: str) -> int:
        """Receive the notebook's printed output (papermill's ``stdout_file``)."""
        lines = [line.strip() for line in text.replace("\r", "\n").split("\n")]
        self.note = next((line for line in reversed(lines) if line), self.note)
        self._show()
        return len(text)

    def flush(self) -> None:
        self.out.flush()

    def seconds_left(self) -> float | None:
        """Return the expected seconds left, scaled by this machine's speed so far relative to the table."""
        if self.expected is None:
            return None
        running = self.clock() - self.started if self.current else 0.0
        usual = sum(map(self._expected, self.done))
        speed = (sum(self.done.values()) + TRUST) / (usual + TRUST)
        waiting = [name for name in self.names if name not in self.done and name != self.current]
        current = max(0.0, speed * self._expected(self.current) - running) if self.current else 0.0
        return current + speed * sum(map(self._expected, waiting))

    def _expected(self, name: str) -> float:
        return (self.expected or {}).get(name, TYPICAL_SECONDS)

    def _show(self, important: bool = False) -> None:
        left = self.seconds_left()
        time_left = "" if left is None else f"  about {in_words(left)} left"
        note = f"  | {self.note}" if self.note else ""
        self._line(f"{self.current}  cell {self.cell}/{self.cells}{time_left}{note}", important=important)

    def _line(self, text: str, important: bool = False, final: bool = False) -> None:
        number = f"[{min(len(self.done) + (not final), len(self.names))}/{len(self.names)}]"
        if self.out.isatty():
            width = shutil.get_terminal_size().columns - 1
            self.out.write(f"\r\x1b[K{f'{number} {text}'[:width]}" + ("\n" if final else ""))
        elif important or final or self.clock() - self.last_line >= LOG_EVERY:
            self.out.write(f"{number} {text}\n")
            self.last_line = self.clock()
        self.out.flush()


def in_words(seconds: float) -> str:
    """Format a duration, such as ``40 s``, ``7 min`` or ``2 h 10 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"

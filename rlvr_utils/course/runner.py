"""Every notebook through papermill, in order, on this interpreter's own kernel."""

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

#: Seconds a notebook of profile ``mini`` takes on two cores, for the first estimate of the time left.
EXPECTED_SECONDS = {
    "00_start_here": 20,
    "01_boxed_answer_verifier": 5,
    "02_grpo_on_toy_tensors": 60,
    "03_lora_setup": 20,
    "04_training_run": 210,
    "05_results_analysis": 15,
    "07_inside_the_run": 60,
}
#: What an unknown notebook is taken for.
TYPICAL_SECONDS = 60
#: The table counts as this many seconds of experience, so that one odd notebook does not turn the estimate.
TRUST = 60.0
#: Where lines cannot be rewritten (a log file), a long cell says that it is alive this often.
LOG_EVERY = 20.0


class CourseError(RuntimeError):
    """A notebook stopped; the message says where and why, and the partial notebook is kept."""


def course_notebooks() -> list[Path]:
    """The course's notebooks, in order."""
    return sorted((REPO / "notebooks").glob("[0-9][0-9]_*.ipynb"))


def notebook_parameters(notebook: str | Path) -> dict[str, str]:
    """Names and default values (as source text) in the notebook's cell tagged ``parameters``."""
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
        profile: the one parameter of every notebook; the others keep their defaults.
        parameters: further notebook parameters; each goes to every notebook that has it. A field of the profile that is
            no notebook's own parameter goes into their ``overrides``.
        log: takes the closing lines (where to look, what was learned).

    Returns:
        The path of the report.

    Raises:
        ValueError: a parameter that no notebook has, before anything runs.
        CourseError: a notebook stopped. What ran so far is kept.
    """
    paths = [Path(notebook) for notebook in notebooks or course_notebooks()]
    plan = _plan(paths, {"profile": profile, **(parameters or {})})
    output_dir = expanded(output_dir).resolve()
    output_dir.mkdir(parents=True, exist_ok=True)
    progress = ProgressLine([path.stem for path in paths], EXPECTED_SECONDS if profile == "mini" else None)
    with _own_kernel():
        for path, values in plan.items():
            _execute(path, output_dir / path.name, values, progress)
    report = write_report([output_dir / path.name for path in paths], output_dir / "report.html")
    log(f"\nAll {len(paths)} notebooks ran in {in_words(sum(progress.done.values()))}.")
    log(f"Read:  {_short(report)}  (open it in a browser; the executed notebooks lie beside it)")
    for line in what_was_learned(profile):
        log(line)
    return report


def what_was_learned(profile: str) -> list[str]:
    """Accuracy before and after training, from the newest run of ``profile``: as lines to print."""
    from rlvr_utils.analysis import evaluations_of
    from rlvr_utils.runs import load_run, newest_run

    path = newest_run(profile)
    if path is None:
        return []
    table = evaluations_of(load_run(path))
    if len(table) < 2:
        return [f"Run:   {_short(path)}"]
    first, last = table.iloc[0], table.iloc[-1]
    return [
        f"Run:   {_short(path)}",
        f"Learned, on {first['n_problems']:.0f} {first['split']} problems that training never saw, "
        f"{first['n_samples']:.0f} sampled answers each (right and boxed; 95 % intervals):",
        f"  before training      {_percent(first)}",
        f"  after {last['step']:4.0f} steps     {_percent(last)}",
    ]


def _percent(row: Mapping) -> str:
    low, high = 100 * row["accuracy_low"], 100 * row["accuracy_high"]
    return f"{100 * row['accuracy']:5.1f} %   ({low:.1f} to {high:.1f} %)"


def _plan(notebooks: Sequence[Path], parameters: Mapping[str, object]) -> dict[Path, dict]:
    """For each notebook the parameters that it has; raises ValueError for one that none has."""
    if not notebooks:
        raise ValueError(f"there are no notebooks to run in {REPO / 'notebooks'}: clone the repository again")
    missing = [str(path) for path in notebooks if not path.is_file()]
    if missing:
        raise ValueError(f"there is no notebook {missing[0]}: name one of notebooks/, or none to run all")
    known = {path: notebook_parameters(path) for path in notebooks}
    names = sorted(set().union(*known.values()))
    parameters = _with_overrides(parameters, names)
    for name in parameters:
        if name not in names:
            close = difflib.get_close_matches(name, names, 1)
            hint = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(names)}."
            raise ValueError(f"no notebook has a parameter '{name}': {hint}")
    return {path: {name: parameters[name] for name in parameters if name in known[path]} for path in known}


def _with_overrides(parameters: Mapping[str, object], names: Sequence[str]) -> dict[str, object]:
    """``parameters`` with the profile's fields that no notebook names gathered in ``overrides``, where one takes these."""
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
    kept = f"What ran so far is kept in {_short(output)}."
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
        raise CourseError(f"{notebook.stem}: its process died, mostly for lack of memory. {kept}") from error
    progress.finish_notebook()


@contextmanager
def _own_kernel() -> Iterator[None]:
    """Make ``python3`` mean this interpreter and ``rlvr_utils`` this copy of it, whatever is installed; then put it back."""
    from ipykernel.kernelspec import write_kernel_spec

    logging.getLogger("papermill").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ):
        # The kernel's own log has nothing for a learner: that a local socket is not encrypted, that it was interrupted. A
        # file beside the notebooks that is called like a library must not be taken for it.
        options = ["--log-level=50", "--InteractiveShellApp.ignore_cwd=True"]
        write_kernel_spec(Path(folder) / "kernels" / "python3", extra_arguments=options)
        for name, first in (("JUPYTER_PATH", folder), ("PYTHONPATH", str(REPO))):
            os.environ[name] = os.pathsep.join(filter(None, (first, os.environ.get(name))))
        yield


def _short(path: Path) -> str:
    """The path as seen from here, where that is shorter."""
    path, here = Path(path).resolve(), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


# --- where a run of the notebooks is, and how long it will still take ---


class ProgressLine:
    """Follows notebooks ``names`` on ``out``: a line that rewrites itself, or, in a log, a line now and then.

    It is also the file that a notebook's printed lines go to: the last of them stands behind the progress, so
    that a training run is seen while it runs. ``expected`` are seconds per notebook; with None (a profile that
    nobody has timed) no time left is shown, rather than an invented one. papermill's own bar counts the cells of one
    notebook, of which one takes most of the time, and shows nothing of what a cell prints.
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
        """Leave the line as it stands: something failed, and a message follows."""
        if self.out.isatty():
            self.out.write("\n")

    def write(self, text: str) -> int:
        """Take what the notebook prints (papermill's ``stdout_file``)."""
        lines = [line.strip() for line in text.replace("\r", "\n").split("\n")]
        self.note = next((line for line in reversed(lines) if line), self.note)
        self._show()
        return len(text)

    def flush(self) -> None:
        self.out.flush()

    def seconds_left(self) -> float | None:
        """Expected seconds of what is not done, scaled by how this machine has kept to the table so far."""
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
    """A duration as people say it: ``40 s``, ``7 min``, ``2 h 10 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"

"""Where a run of the notebooks is, and how long it will still take."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TextIO

#: Seconds a notebook of profile ``mini`` takes on two cores, for the first estimate of the time left.
EXPECTED_SECONDS = {
    "00_start_here": 20,
    "01_boxed_answer_verifier": 5,
    "02_grpo_on_toy_tensors": 60,
    "03_lora_setup": 20,
    "04_training_run": 210,
    "05_results_analysis": 15,
}
#: What an unknown notebook is taken for.
TYPICAL_SECONDS = 60
#: The table counts as this many seconds of experience, so that one odd notebook does not turn the estimate.
TRUST = 60.0
#: Where lines cannot be rewritten (a log file), a long cell says that it is alive this often.
LOG_EVERY = 20.0


class Progress:
    """Follows notebooks ``names`` on ``out``: a line that rewrites itself, or, in a log, a line now and then.

    It is also the file that a notebook's printed lines go to: the last of them stands behind the progress, so
    that a training run is seen while it runs. ``expected`` are seconds a notebook; with None (a profile that
    nobody has timed) no time left is shown, rather than an invented one.
    """

    def __init__(
        self,
        names: Sequence[str],
        expected: Mapping[str, float] | None = EXPECTED_SECONDS,
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

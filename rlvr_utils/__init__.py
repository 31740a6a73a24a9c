"""The package behind the RLVR course. CONTRIBUTING.md shows its modules and floors."""

from pathlib import Path

__version__ = "0.1.0"

#: The repository's root. Notebooks and commands resolve paths relative to it, in any working directory.
REPO = Path(__file__).resolve().parent.parent

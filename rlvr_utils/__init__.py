"""The package behind the RLVR course. Its modules and floors are drawn in CONTRIBUTING.md."""

from pathlib import Path

__version__ = "0.1.0"

#: The repository's root: notebooks and commands resolve every path from here, whatever the working directory.
REPO = Path(__file__).resolve().parent.parent

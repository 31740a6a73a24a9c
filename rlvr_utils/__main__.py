"""``rlvr`` and ``python -m rlvr_utils``: the command line, started so that nothing beside it shadows a library."""

import sys

from rlvr_utils.system.paths import current_directory_last


def main() -> int:
    """Run the command; the path is put in order before anything else is imported."""
    current_directory_last()
    from rlvr_utils.cli import main

    return main()


if __name__ == "__main__":
    sys.exit(main())

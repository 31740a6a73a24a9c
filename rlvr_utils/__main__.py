"""Start ``rlvr`` or ``python -m rlvr_utils`` so that files in the current directory cannot shadow a library."""

import sys

from rlvr_utils.system.paths import current_directory_last


def main() -> int:
    """Fix ``sys.path`` before any other import, then run the command."""
    current_directory_last()
    from rlvr_utils.cli import main

    return main()


if __name__ == "__main__":
    sys.exit(main())

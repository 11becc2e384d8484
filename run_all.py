"""Run the notebooks in sequence and write their reports: ``python run_all.py --help``."""

import sys

SETUP = "run: make setup, then .venv/bin/python run_all.py"


def start() -> int:
    """Check the interpreter, then hand over to the package; returns the exit code."""
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        print(
            f"error: Python {sys.version.split()[0]} at {sys.executable}: "
            f"3.11, 3.12 or 3.13 is needed; {SETUP}",
            file=sys.stderr,
        )
        return 2
    try:
        from cxr_utils.cli import guarded, run_all
    except ModuleNotFoundError as error:
        print(
            f"error: {error.name} is not installed for {sys.executable}; {SETUP}", file=sys.stderr
        )
        return 2
    except KeyboardInterrupt:
        return 130
    return guarded(run_all, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(start())

"""`python -m aqnet.jobs.sweeps.ready SWEEP RUN`: whether the caller shall submit the summary.

The last thing that an element of an array does. Exit code 0 for one caller only: that after which
all points are complete, or of several that see this at once the first.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from aqnet.jobs.sweeps.folder import Sweep

__all__ = ["CLAIMS", "main", "take_summary"]

CLAIMS = "claims"  # in the folder of the sweep; a folder is made by one, on any file system


def take_summary(sweep: Sweep, run: str) -> str:
    """Empty if all points are complete and nobody has taken the summary yet; else why not.

    Parameters
    ----------
    sweep : Sweep
    run : str
        Name of the run folder of the summary.
    """
    states = sweep.states(None)
    left = sum(state.status != "complete" for state in states)
    if left:
        return f"waits for {left} of {len(states)} points"
    claims = sweep.path / CLAIMS
    claims.mkdir(exist_ok=True)
    try:
        (claims / run).mkdir()
    except FileExistsError:
        return "was submitted by another element"
    return ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code."""
    parser = argparse.ArgumentParser(prog="aqnet.jobs.sweeps.ready", description=__doc__)
    parser.add_argument("sweep", type=Path)
    parser.add_argument("run")
    given = parser.parse_args(arguments)
    reason = take_summary(Sweep(given.sweep), given.run)
    print(f"summary of the sweep: {reason or 'all points are complete'}", flush=True)  # to the log
    return 1 if reason else 0


if __name__ == "__main__":
    raise SystemExit(main())

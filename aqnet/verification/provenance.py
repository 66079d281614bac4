"""What made an evaluation: command, forecast stores, truth and code, for its file and reports."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import aqnet
from aqnet.code_state import git_state
from aqnet.data.grid_manifest import GridManifest
from aqnet.data.years.year_set import YearSet
from aqnet.verification.store.reader import ForecastStore

__all__ = ["code_of", "score_record", "store_record", "truth_record"]


def code_of() -> dict:
    """Version and state of the code that runs.

    Of a changed working copy the digest of the package's sources: a store is not continued by
    other code, but a new file elsewhere does not matter.
    """
    git = git_state(Path(aqnet.__file__).parent)
    return {
        "aqnet": aqnet.__version__,
        "torch": version("torch"),  # importing it takes seconds, and scoring does without
        "git": git.state,
        "commit": git.commit,
        "sources_sha256": git.sources_sha256,
    }


def store_record(store: ForecastStore) -> dict:
    """Path, digest, name, title, run and checkpoint (SHA-256 or None) of a forecast store."""
    source = store.attributes["source"]
    return {
        "path": str(store.path),
        "digest": store.digest,
        "name": store.name,
        "title": store.attributes["title"],
        "run": store.attributes["run"],
        "checkpoint": source.get("checkpoint_sha256") if isinstance(source, dict) else None,
        "synthetic": store.synthetic,
    }


def truth_record(manifest: GridManifest, years: YearSet) -> dict:
    """Name and digest of the manifest, folder, names and digests of the yearly stores."""
    return {
        "manifest": manifest.name,
        "digest": manifest.digest,
        "folder": str(years.stores[0].path.parent),
        "stores": [[store.path.name, store.digest] for store in years.stores],
        "synthetic": years.synthetic,
    }


def score_record(
    command: Sequence[str],
    stores: Sequence[ForecastStore],
    truth: dict,
    *,
    edition: str | None = None,
    statistics: str | None = None,
) -> dict:
    """Record of an evaluation, for `Scoreboard.record`; JSON values.

    Parameters
    ----------
    command : sequence of str
        Words of the command line that repeats it, run in the folder "directory".
    stores : sequence of ForecastStore
    truth : dict
        `truth_record`, or what names a table of stations.
    edition : str, optional
        Of the air-quality standards, if they were applied.
    statistics : str, optional
        SHA-256 of the statistics whose climatology was used.
    """
    return {
        "command": list(command),
        "directory": str(Path.cwd()),
        "stores": [store_record(store) for store in stores],
        "truth": truth,
        "edition": edition,
        "statistics": statistics,
        "code": code_of(),
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }

"""Stores, statistics, caches and checkpoints that a run has read, against the digests it noted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from aqnet.errors import AqnetError, StoreError, explain
from aqnet.io import sha256_file
from aqnet.jobs.runs.checks import Check, compared, unchecked
from aqnet.jobs.runs.folder import RunFolder

if TYPE_CHECKING:
    from aqnet.training.data_digests import Source

__all__ = ["check_data"]


def _store_digest(path: Path, deep: bool) -> str:
    """Content of a store of any kind, read and compared with the digests in it."""
    from aqnet.data.store import verify_store
    from aqnet.data.years import format as year_format
    from aqnet.data.years.reader import verify_year
    from aqnet.verification.store import format as forecast_format
    from aqnet.verification.store.checks import verify_forecast_store

    try:
        attributes = json.loads((path / "zarr.json").read_bytes())["attributes"]
    except (OSError, ValueError, KeyError) as error:
        problem = f"{path} is not a whole store"
        raise StoreError(
            explain(problem, expected="zarr.json", found=error, remedy="build it again")
        ) from error
    form = attributes.get("format")
    if form == year_format.FORMAT:
        return verify_year(path, deep=deep)
    return verify_forecast_store(path) if form == forecast_format.FORMAT else verify_store(path)


def _at(name: str, recorded: str, path: Path, deep: bool) -> Check:
    """Data whose place the run noted."""
    if not path.exists():
        return unchecked(name, f"not there any more: {path}")
    found = sha256_file(path) if path.is_file() else _store_digest(path, deep)
    return compared(name, recorded, found, str(path))


def _by_experiment(name: str, recorded: str, source: Source | None) -> Check:
    """Data whose place follows from the run's parameters."""
    if source is None:
        return unchecked(name, "the run noted no path, and its parameters name none")
    if not source.path().exists():
        return unchecked(name, f"not there any more: {source.path()}")
    return compared(name, recorded, source.digest(), str(source.path()))


def _sources(run: RunFolder, deep: bool) -> Mapping[str, Source]:
    """What the experiment of a training reads; empty for runs of other notebooks."""
    from aqnet.training.data_digests import data_sources
    from aqnet.training.experiment import experiment_of

    if "preset" not in run.parameters:
        return {}
    return data_sources(experiment_of(run.parameters), deep)


def check_data(run: RunFolder, deep: bool = False) -> list[Check]:
    """Read all data that a run noted, and compare them with the digests it noted.

    Parameters
    ----------
    run : RunFolder
    deep : bool
        Of yearly stores read every hour, not only some of each file.
    """
    provenance, sources, problem = run.provenance, {}, None
    try:
        sources = _sources(run, deep)
    except AqnetError as error:  # of another version of the notebook or the manifest
        problem = f"the parameters are no experiment of this aqnet: {error}"
    found = []
    for name, recorded in provenance.data.items():
        label, place = f"data {name}", provenance.places.get(name)
        try:
            if place is not None:
                found.append(_at(label, recorded, Path(place), deep))
            elif problem is not None:
                found.append(unchecked(label, problem))
            else:
                found.append(_by_experiment(label, recorded, sources.get(name)))
        except AqnetError as error:
            found.append(Check(label, "mismatch", str(error)))
    return found or [unchecked("data", "the run noted no data")]

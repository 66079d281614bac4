"""The digests of an experiment's data, read anew: what `Identity.digests` recorded, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from aqnet.data.grid_manifest import GridManifest
from aqnet.data.manifest import Manifest, load_manifest, resolve_manifest
from aqnet.data.splits import splits_of
from aqnet.data.stations.samples import load_fields
from aqnet.data.statistics.file import Statistics, load_statistics, normaliser_of_statistics
from aqnet.data.store import open_store, verify_store
from aqnet.data.years.reader import YearStore, open_year, verify_year
from aqnet.io import station_store, stores_folder
from aqnet.model.domain import Domain
from aqnet.model.ridge import ridge_path, ridge_spec
from aqnet.model.scan_cache import scan_path
from aqnet.model.scan_orders import scan_spec
from aqnet.training.experiment import Experiment
from aqnet.training.problem import orders_of, ridge_of

__all__ = ["Source", "data_sources"]


@dataclass(frozen=True)
class Source:
    """Data that an experiment reads.

    Attributes
    ----------
    path : callable
        Where they lie, or the store that they follow from.
    digest : callable
        Reads them and gives their SHA-256; raises an AqnetError if they are damaged.
    """

    path: Callable[[], Path]
    digest: Callable[[], str]


def data_sources(experiment: Experiment, deep: bool = False) -> dict[str, Source]:
    """All data of an experiment, by the names of `Identity.digests`.

    Parameters
    ----------
    experiment : Experiment
    deep : bool
        Of yearly stores read every hour, not only some of each file. Stores of stations are
        always read as a whole.
    """
    file = resolve_manifest(experiment.manifest)
    manifest = load_manifest(file)
    kind = _Fields if isinstance(manifest, GridManifest) else _Stations
    found = kind(experiment, manifest, deep).sources()
    return {f"manifest {manifest.name}": Source(lambda: file, lambda: manifest.digest), **found}


class _Stations:
    """Of a manifest of stations: one store, and what follows from it."""

    def __init__(self, experiment: Experiment, manifest: Manifest, deep: bool) -> None:
        self.manifest = manifest
        self.path = station_store(manifest.name, experiment.store)

    @cached_property
    def fields(self):
        return load_fields(open_store(self.path, self.manifest), splits_of(self.manifest))

    def _domain(self, name: str) -> str:
        grid = self.manifest.grid_object()
        return Domain(grid, np.ones(grid.shape, dtype=bool), self.fields.static).digests()[name]

    def sources(self) -> dict[str, Source]:
        digests = {
            f"store {self.path.name}": lambda: verify_store(self.path),
            f"grid {self.manifest.grid_object().name}": lambda: self._domain("grid_sha256"),
            "mask": lambda: self._domain("mask_sha256"),
            "normaliser": lambda: self.fields.normaliser.digest,
        }
        return {name: Source(lambda: self.path, digest) for name, digest in digests.items()}


class _Fields:
    """Of a manifest of fields: yearly stores, statistics, caches."""

    def __init__(self, experiment: Experiment, manifest: GridManifest, deep: bool) -> None:
        self.experiment, self.manifest, self.deep = experiment, manifest, deep
        self.folder = stores_folder(manifest.name, experiment.folder)
        self.stores = [self.folder / manifest.store_file(year) for year in manifest.years]

    @cached_property
    def first(self) -> YearStore:
        return open_year(self.stores[0])

    @cached_property
    def domain(self) -> Domain:
        return Domain(self.first.grid, self.first.mask, self.first.static)

    @cached_property
    def statistics(self) -> Statistics:
        return load_statistics(self._statistics_path())

    def _statistics_path(self) -> Path:
        record = self.manifest.record()
        file = record.statistics.file if record and record.statistics else "statistics.nc"
        return self.folder / file

    def _ridge_path(self) -> Path:
        terrain = self.domain.elevation
        spec = ridge_spec(self.domain.grid, self.experiment.model.patch, elevation=terrain)
        return Path(self.experiment.terrain or ridge_path(spec))

    def _scan_path(self) -> Path:
        model, scan = self.experiment.model, self.experiment.model.scan
        active = self.domain.tokens(model)
        spec = scan_spec(
            self.domain.grid, model.patch, scan.regions, scan.sectors, scan.lane_patches, active
        )
        return Path(self.experiment.scan or scan_path(spec))

    def _ridge(self) -> str | None:
        plain = self.domain
        ridge = ridge_of(plain, self.experiment.model, self.experiment.terrain)
        return Domain(plain.grid, plain.mask, plain.static, ridge).digests()["terrain_sha256"]

    def _scan(self) -> str | None:
        plain = self.domain
        orders = orders_of(plain, self.experiment.model, self.experiment.scan)
        return Domain(plain.grid, plain.mask, plain.static, None, orders).digests()["scan_sha256"]

    def sources(self) -> dict[str, Source]:
        def of_first(name: str) -> Source:
            return Source(lambda: self.stores[0], lambda: self.domain.digests()[name])

        found = {f"store {path.name}": self._store(path) for path in self.stores}
        return found | {
            f"grid {self.manifest.grid_object().name}": of_first("grid_sha256"),
            "mask": of_first("mask_sha256"),
            "normaliser": Source(
                self._statistics_path, lambda: normaliser_of_statistics(self.statistics).digest
            ),
            "statistics": Source(self._statistics_path, lambda: self.statistics.digest),
            "wind scan": Source(self._scan_path, self._scan),
            "terrain": Source(self._ridge_path, self._ridge),
        }

    def _store(self, path: Path) -> Source:
        return Source(lambda: path, lambda: verify_year(path, deep=self.deep))

"""The training problem of a manifest of stations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from aqnet.data.manifest import Manifest
from aqnet.data.splits import splits_of
from aqnet.data.stations.samples import (
    ForecastSamples,
    GriddedFields,
    StationRecords,
    load_fields,
    load_stations,
)
from aqnet.data.store import AnalysisStore, open_store
from aqnet.grid import Grid
from aqnet.io import station_store
from aqnet.model.config import ModelConfig
from aqnet.model.domain import Domain
from aqnet.training.config import TrainingConfig
from aqnet.training.identity import Identity
from aqnet.training.problem import Problem
from aqnet.training.setup import prepare
from aqnet.variables import DYNAMIC, STATIC

__all__ = ["StationData", "station_problem"]


@dataclass(frozen=True, eq=False)
class StationData:
    """What the training of a forecaster for stations, and its evaluation, read."""

    fields: GriddedFields
    stations: StationRecords
    grid: Grid


def station_problem(
    manifest: Manifest,
    model: ModelConfig,
    training: TrainingConfig,
    store: str | Path | None = None,
) -> Problem:
    """The problem of a manifest of stations; `store` defaults to NAME.zarr in the data folder."""
    opened = open_store(station_store(manifest.name, store), manifest)
    fields = load_fields(opened, splits_of(manifest))
    stations, grid = load_stations(opened, fields.splits), manifest.grid_object()
    prepared = prepare(fields, stations, grid, model, training)
    return Problem(
        model=prepared.model,
        train=ForecastSamples(fields, "train", model.lead_times_h),
        validation=ForecastSamples(fields, "validation", model.lead_times_h),
        loss_weights=prepared.loss_weights,
        identity=_station_identity(manifest, opened, prepared.model.domain, fields),
        data=StationData(fields, stations, grid),
        extra={
            "statistical": prepared.statistical.weights,
            "chosen": prepared.chosen.tolist(),
            "residual_variance": prepared.residual_variance,
        },
    )


def _station_identity(
    manifest: Manifest, store: AnalysisStore, domain: Domain, fields: GriddedFields
) -> Identity:
    return Identity(
        kind="stations",
        manifest=manifest.name,
        manifest_sha256=manifest.digest,
        stores=((store.path.name, store.digest),),
        grid=domain.grid.name,
        **domain.digests(),
        variables=DYNAMIC,
        static_variables=STATIC,
        normaliser_sha256=fields.normaliser.digest,
        synthetic=manifest.synthetic,
    )

"""A training problem: model, samples and loss weights, opened from a manifest of either kind."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.utils.data import Dataset

from aqnet.data.batches import FieldSamples
from aqnet.data.grid_manifest import GridManifest
from aqnet.data.manifest import load_manifest, resolve_manifest
from aqnet.data.training_data import TrainingData, open_training_data
from aqnet.model.config import ModelConfig
from aqnet.model.domain import Domain
from aqnet.model.forecast_model import ForecastModel
from aqnet.model.grid_forecaster import GridForecaster
from aqnet.model.ridge import RidgeFactors, load_ridge, ridge_path, ridge_spec
from aqnet.model.scan_cache import load_scan, scan_path
from aqnet.model.scan_orders import ScanOrders, scan_spec
from aqnet.training.config import TrainingConfig
from aqnet.training.identity import Identity
from aqnet.training.seeds import derive
from aqnet.variables import DYNAMIC, STATIC, TARGETS

if TYPE_CHECKING:
    from aqnet.training.experiment import Experiment
    from aqnet.training.station_problem import StationData

__all__ = [
    "Problem",
    "grid_problem",
    "open_problem",
    "orders_of",
    "ridge_of",
]


@dataclass(frozen=True, eq=False)
class Problem:
    """All that gradient descent needs.

    Attributes
    ----------
    model : ForecastModel
        Trained in place.
    train, validation : Dataset
        Their `__getitems__` gives whole batches: dicts of tensors with "hours" (B,), the init
        times in hours since 1970 UTC (and plain values, such as "provenance").
    loss_weights : (L, 6) float32 tensor [1]
        Squared errors are multiplied by it; a constant of the problem, not of the batch.
    identity : Identity
    data : StationData or TrainingData
        What the samples are taken from.
    extra : dict
        Plain values and arrays that checkpoints of this kind keep beside the model: for stations
        `statistical`, `chosen` and `residual_variance`.
    """

    model: ForecastModel
    train: Dataset
    validation: Dataset
    loss_weights: torch.Tensor
    identity: Identity
    data: StationData | TrainingData | None = None
    extra: dict = field(default_factory=dict)


def open_problem(experiment: Experiment) -> Problem:
    """Open the data of an experiment and build its model, with weights from the training's seed.

    Parameters
    ----------
    experiment : Experiment
        `manifest` says which kind of data; `store` (stations), `folder`, `scan` and `terrain`
        (fields) are paths, or None for the usual places in the data folder.

    Raises
    ------
    DataError
        Stores or statistics are missing or not the recorded ones.
    CacheError
        Scan orders or ridges that the model needs are missing (states the command) or were made
        for something else.
    ModelError
        The model's settings do not fit the data.
    LeadTimeError
        A split cannot serve the lead times.
    """
    manifest = load_manifest(resolve_manifest(experiment.manifest))
    model, training = experiment.model, experiment.training
    if isinstance(manifest, GridManifest):
        return grid_problem(
            manifest, model, training,
            folder=experiment.folder, scan=experiment.scan, terrain=experiment.terrain,
        )  # fmt: skip
    # A training on fields opens no file of these: hundreds of processes start at once.
    from aqnet.training.station_problem import station_problem

    return station_problem(manifest, model, training, store=experiment.store)


# ---- fields


def grid_problem(
    manifest: GridManifest,
    model: ModelConfig,
    training: TrainingConfig,
    folder: str | Path | None = None,
    scan: str | Path | None = None,
    terrain: str | Path | None = None,
) -> Problem:
    """The problem of a manifest of yearly stores; paths default to those of the data folder."""
    data = open_training_data(manifest, folder)
    domain = _grid_domain(data, model, scan, terrain)
    torch.manual_seed(derive(training.seed, "model"))
    forecaster = GridForecaster(model, domain, data.normaliser)
    train, validation = (_field_samples(data, name, model) for name in ("train", "validation"))
    weights = torch.ones(len(model.lead_times_h), len(TARGETS))
    identity = _grid_identity(manifest, data, domain, train.provenance)
    return Problem(forecaster, train, validation, weights, identity, data)


def _field_samples(data: TrainingData, split: str, model: ModelConfig) -> FieldSamples:
    return FieldSamples(
        data.years, data.splits[split], model.lead_times_h, model.history_h,
        one_lead=model.lead_mode == "one", optional_inputs=model.optional_inputs,
    )  # fmt: skip


def _grid_domain(
    data: TrainingData,
    model: ModelConfig,
    scan: str | Path | None,
    terrain: str | Path | None,
) -> Domain:
    years = data.years
    plain = Domain(years.grid, years.mask, years.static)
    caches = ridge_of(plain, model, terrain), orders_of(plain, model, scan)
    return Domain(years.grid, years.mask, years.static, *caches)


def ridge_of(domain: Domain, model: ModelConfig, path: str | Path | None) -> RidgeFactors | None:
    """Ridges of a model, from `path` or the usual place; None if it uses none.

    Raises
    ------
    CacheError
        The file is missing, damaged, or made for something else.
    """
    if model.physics is None or not model.physics.ridge:
        return None
    spec = ridge_spec(domain.grid, model.patch, elevation=domain.elevation)
    return load_ridge(path or ridge_path(spec), spec)


def orders_of(domain: Domain, model: ModelConfig, path: str | Path | None) -> ScanOrders | None:
    """Orders along the wind of a model, as `ridge_of`."""
    s = model.scan
    if not s.needs_orders:
        return None
    active = domain.tokens(model)
    spec = scan_spec(domain.grid, model.patch, s.regions, s.sectors, s.lane_patches, active)
    return load_scan(path or scan_path(spec), spec)


def _grid_identity(
    manifest: GridManifest, data: TrainingData, domain: Domain, provenance: str
) -> Identity:
    return Identity(
        kind="grid",
        manifest=manifest.name,
        manifest_sha256=manifest.digest,
        stores=tuple((store.path.name, store.digest) for store in data.years.stores),
        grid=domain.grid.name,
        **domain.digests(),
        variables=DYNAMIC,
        static_variables=STATIC,
        normaliser_sha256=data.normaliser.digest,
        statistics_sha256=data.statistics.digest,
        weather=provenance,
        synthetic=data.years.synthetic,
    )

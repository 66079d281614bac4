"""Forecasts of a split, of the model and its rivals, at stations and on the grid."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from aqnet.data.history import rows_of
from aqnet.data.normalisation import target_channels
from aqnet.data.stations.samples import ForecastSamples, GriddedFields, StationRecords, observed_at
from aqnet.errors import explain
from aqnet.grid import Grid
from aqnet.metrics import VerificationError
from aqnet.model.statistical import STATISTICAL, Situation, situation_at
from aqnet.training.checkpoint import LoadedForecaster
from aqnet.training.setup import batches
from aqnet.variables import TARGETS
from aqnet.verification.accumulate import design_of
from aqnet.verification.accumulate_blocks import BlockAccumulator
from aqnet.verification.groups import ASSIMILATED, WITHHELD, Groups
from aqnet.verification.scoreboard import Scoreboard
from aqnet.verification.stations.ridge import StationRidge

__all__ = [
    "FORECASTS",
    "SEES_MORE",
    "YARDSTICKS",
    "SplitForecasts",
    "fields_at",
    "forecast_split",
    "require_same_store",
    "sample_at_stations",
    "station_groups",
]

MODEL, FULL, REGRESSION, RIDGE = "model", "full correction", "regression alone", "ridge"
FORECASTS = (MODEL, FULL, REGRESSION, *STATISTICAL, RIDGE)
# Forecasts beside the four that the model is tested against, each with its own Holm correction.
YARDSTICKS = (RIDGE, REGRESSION)
SEES_MORE = {
    MODEL: "gridded analyses up to t (assimilated stations only) and their trailing means; sampled "
    "at the station from the gridded forecast",
    FULL: "the same model with its whole correction instead of the chosen share",
    REGRESSION: "the model's statistical start with its whole hourly regression: no transformer",
    RIDGE: "an hourly ridge regression on means over the assimilated stations, domain-mean weather "
    "and their trailing means, added to the best statistical forecast at the place",
}


# ---- forecasts


@dataclass(frozen=True)
class SplitForecasts:
    """Scores of a split, and the forecasts at stations that made them.

    Attributes
    ----------
    stations : Scoreboard
        Groups `ASSIMILATED` and `WITHHELD`.
    grid : Scoreboard or None
        Of the fields.
    times : (N,) datetime64[h], UTC
        Init times.
    at_stations : dict of name to (N, L, 6, S), ug/m3
    observed : (N, L, 6, S), ug/m3
    """

    stations: Scoreboard
    grid: Scoreboard | None
    times: np.ndarray
    at_stations: dict[str, np.ndarray]
    observed: np.ndarray


@torch.no_grad()
def _model_fields(
    loaded: LoadedForecaster, batch: dict[str, torch.Tensor]
) -> dict[str, np.ndarray]:
    """The model, its whole correction and its regression on the grid: (B, L, 6, H, W), ug/m3."""
    model = loaded.model
    start, scale = model.start(batch), model.scale(batch)
    calendar = batch["calendar"] * model.config.calendar
    linear = model.linear_part(model.channels(batch), calendar) * model.config.linear_part
    change, plain = scale * model.correction(batch), (scale * linear).expand_as(start)
    found = {MODEL: start + model.share * change, FULL: start + change, REGRESSION: start + plain}
    return {name: field.clamp_min(0).numpy() for name, field in found.items()}


def _statistical_fields(
    loaded: LoadedForecaster, batch: dict[str, torch.Tensor]
) -> dict[str, np.ndarray]:
    at = target_channels()
    situation = Situation(
        batch["now"].numpy(), batch["future"].numpy(),
        batch["anomaly"].numpy()[:, at], batch["level"].numpy()[:, at],
    )  # fmt: skip
    found = {name: loaded.statistical(name, situation) for name in STATISTICAL}
    return found | {"start": loaded.statistical.combine(_start_weights(loaded), situation)}


def _start_weights(loaded: LoadedForecaster) -> np.ndarray:
    return loaded.model.start_weights.double().numpy()


def sample_at_stations(grid: Grid, stations: StationRecords, field: np.ndarray) -> np.ndarray:
    """Bilinear values (..., S) of fields (..., H, W) at all stations."""
    cells, weights = grid.bilinear(stations.lat, stations.lon)
    flat = field.reshape(*field.shape[:-2], -1)
    return (flat[..., cells] * weights).sum(axis=-1)


def _station_baselines(
    loaded: LoadedForecaster, stations: StationRecords, rows: np.ndarray
) -> dict[str, np.ndarray]:
    situation = situation_at(stations.history, rows, loaded.statistical.lead_times_h)
    found = {name: loaded.statistical(name, situation) for name in STATISTICAL}
    return found | {"start": loaded.statistical.combine(_start_weights(loaded), situation)}


def require_same_store(loaded: LoadedForecaster, fields: GriddedFields) -> None:
    """VerificationError if a checkpoint for stations was trained on another store or splits."""
    trained = f"content {loaded.store_sha256}, normaliser {loaded.normaliser.digest}"
    found = f"content {fields.digest}, normaliser {fields.normaliser.digest}"
    if trained != found:
        message = explain(
            "the checkpoint was trained on another store or other splits",
            expected=trained,
            found=found,
            remedy="evaluate on what it was trained on, or train again",
        )
        raise VerificationError(message)


def forecast_split(
    loaded: LoadedForecaster,
    fields: GriddedFields,
    stations: StationRecords,
    ridge: StationRidge,
    grid: Grid,
    split: str,
    *,
    on_grid: bool,
    stride: int = 1,
    echo: Callable[[str], None] = print,
) -> SplitForecasts:
    """Make and score all forecasts of a split.

    Parameters
    ----------
    loaded : LoadedForecaster
    fields : GriddedFields
    stations : StationRecords
    ridge : StationRidge
    grid : Grid
    split : str
        "validation" or "test".
    on_grid : bool
        Score the fields as well, in the cells whose analysis is good enough.
    stride : int
        Use every stride-th init time (for quick looks; a test needs 1).
    echo : callable
        Takes progress lines.

    Raises
    ------
    VerificationError
        The checkpoint belongs to another store.
    """
    require_same_store(loaded, fields)
    leads = loaded.statistical.lead_times_h
    samples = ForecastSamples(fields, split, leads)
    samples.rows, samples.times = samples.rows[::stride], samples.times[::stride]
    offset = fields.normaliser.utc_offset_h
    lat, lon = (axis.ravel() for axis in grid.mesh())
    cells = Groups(lat, lon, np.ones(lat.size), {}, offset)
    on_cells = _accumulator(cells, leads, "one a cell") if on_grid else None
    parts: list[dict[str, np.ndarray]] = []
    for done, part in _parts(loaded, fields, stations, ridge, grid, samples, on_cells):
        parts.append(part)
        echo(f"  {split}: {done} of {len(samples)} init times")
    at_stations = {name: np.concatenate([p[name] for p in parts]) for name in FORECASTS}
    observed = observed_at(stations, samples.rows, leads)
    at_places = _accumulator(station_groups(stations, offset), leads, "one a station")
    at_places.add(samples.times, at_stations, observed)
    on_grid_board = on_cells.board if on_cells else None
    return SplitForecasts(at_places.board, on_grid_board, samples.times, at_stations, observed)


def station_groups(stations: StationRecords, utc_offset_h: float) -> Groups:
    """Stations with weight 1: all, `ASSIMILATED` and `WITHHELD`."""
    members = {ASSIMILATED: ~stations.withheld, WITHHELD: stations.withheld}
    weight = np.ones(len(stations.withheld))
    return Groups(stations.lat, stations.lon, weight, members, utc_offset_h)


def _accumulator(groups: Groups, leads: tuple[int, ...], weight: str) -> BlockAccumulator:
    design = design_of(groups, FORECASTS, leads, TARGETS, each_place=True, weight=weight)
    return BlockAccumulator(design, groups)


def _parts(
    loaded: LoadedForecaster,
    fields: GriddedFields,
    stations: StationRecords,
    ridge: StationRidge,
    grid: Grid,
    samples: ForecastSamples,
    on_cells: BlockAccumulator | None,
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Forecasts at stations per batch; the fields are scored on the way."""
    leads, first = loaded.statistical.lead_times_h, 0
    for batch in batches(samples):
        rows = samples.rows[first : first + len(batch["hours"])]
        first += len(rows)
        correction = ridge.correction(fields, rows, leads)
        model = _model_fields(loaded, batch)
        part = {name: sample_at_stations(grid, stations, field) for name, field in model.items()}
        own = _station_baselines(loaded, stations, rows)
        part[RIDGE] = np.maximum(own.pop("start") + correction[..., None], 0.0)
        if on_cells is not None:
            gridded = _statistical_fields(loaded, batch)
            lifted = gridded.pop("start") + correction[..., None, None]
            gridded |= model | {RIDGE: np.maximum(lifted, 0.0)}
            truth = np.where(batch["weight"] > 0, batch["target"], np.nan)
            flat = {name: _cells(gridded[name]) for name in FORECASTS}
            on_cells.add(fields.history.times[rows], flat, _cells(truth))
        yield first, part | own


def _cells(field: np.ndarray) -> np.ndarray:
    return field.reshape(*field.shape[:-2], -1)


def fields_at(
    loaded: LoadedForecaster, fields: GriddedFields, init_times: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Model and analysis on the grid for a few init times of the test split.

    Returns
    -------
    forecast, truth : (N, L, 6, H, W), ug/m3
    scored : (N, L, 6, H, W) bool

    Raises
    ------
    VerificationError
        An init time has no sample (invalid inputs, or outside the split).
    """
    leads = loaded.statistical.lead_times_h
    samples = ForecastSamples(fields, "test", leads)
    wanted = rows_of(fields.history.times, init_times)
    if missing := sorted(set(wanted.tolist()) - set(samples.rows.tolist())):
        found = [str(fields.history.times[row]) for row in missing]
        message = explain(
            "no sample at these init times",
            expected="init times of the test split with valid inputs",
            found=found,
            remedy="choose other times",
        )
        raise VerificationError(message)
    index = np.searchsorted(samples.rows, wanted)
    batch = samples.__getitems__(index)
    truth = np.stack([fields.targets[wanted + h] for h in leads], axis=1)
    return _model_fields(loaded, batch)[MODEL], truth, batch["weight"].numpy() > 0

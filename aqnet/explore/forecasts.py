"""Forecasts to look at: of runs, of forecast stores, and two rules that need nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from aqnet.data.grid_manifest import GridManifest
from aqnet.data.history import History
from aqnet.data.normalisation import Normaliser, level_ratio
from aqnet.data.splits import HISTORY_H, Split, splits_of
from aqnet.data.stations.samples import GriddedFields, batch_arrays, usable_hours
from aqnet.errors import CoverageError, LeadTimeError, StoreError, explain
from aqnet.explore.world import World
from aqnet.jobs.runs import find_run, list_runs
from aqnet.model.forecast_model import ForecastModel
from aqnet.training.checkpoint import LoadedForecaster, load_checkpoint
from aqnet.variables import DYNAMIC, LEAD_TIMES_H, TARGETS
from aqnet.verification.forecast_fields import plan_fields
from aqnet.verification.forecast_plan import Period
from aqnet.verification.forecasts import require_same_store
from aqnet.verification.store.reader import open_forecast_store

__all__ = ["RULES", "Forecast", "open_forecast", "runs_of", "sources"]

RULES = {
    "persistence": "x(t + h) = x(t)",
    "same hour of the day": "x(t + h) = x at the last hour up to t with the hour of day of t + h",
}
_TARGET = [DYNAMIC.index(name) for name in TARGETS]
_KEPT = 16  # init times in memory: 50 MB of 4 lead times of 128 x 256 cells


@dataclass(frozen=True, eq=False)
class Forecast:
    """Forecasts of six pollutants, made or read when they are asked for.

    Attributes
    ----------
    name : str
    lead_times_h : tuple of int
    compute : callable
        ``compute(time)`` gives (L, 6, H, W), ug/m3, of an init time (UTC); CoverageError if the
        init time has none.
    model : ForecastModel or None
        Of a run.
    """

    name: str
    lead_times_h: tuple[int, ...]
    compute: Callable[[np.datetime64], np.ndarray]
    model: ForecastModel | None = None
    _kept: dict = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self._kept["at"] = lru_cache(_KEPT)(lambda hour: self.compute(np.datetime64(hour, "h")))

    def all_leads(self, time: np.datetime64) -> np.ndarray:
        """(L, 6, H, W) ug/m3 of an init time, UTC; the last ones are kept."""
        return self._kept["at"](int(np.datetime64(time, "h").astype(np.int64)))

    def at(self, time: np.datetime64, lead_h: int, pollutant: str) -> np.ndarray:
        """(H, W) ug/m3; LeadTimeError for a lead time that it does not have."""
        if lead_h not in self.lead_times_h:
            raise LeadTimeError(
                explain(f"{self.name} does not have the lead time {lead_h} h",
                        expected=f"one of {list(self.lead_times_h)} h", found=lead_h,
                        remedy="choose another lead time")
            )  # fmt: skip
        fields = self.all_leads(time)
        return fields[self.lead_times_h.index(lead_h), TARGETS.index(pollutant)]


# ---- what there is


def sources(world: World) -> list[str]:
    """Names that `open_forecast` takes here: `runs_of` the world, then the rules."""
    return [*runs_of(world), *RULES]


def runs_of(world: World) -> list[str]:
    """Runs that were trained on the manifest of a world as it is now, the newest first.

    Others can be given to `open_forecast` by name, which says what does not fit.
    """
    key, digest = f"manifest {world.manifest.name}", world.manifest.digest
    return [
        run.path.name
        for run in reversed(list_runs())
        if (run.checkpoints / "best.ckpt").is_file() and run.provenance.data.get(key) == digest
    ]


def open_forecast(
    world: World, source: str | Path, lead_times_h: Sequence[int] = LEAD_TIMES_H
) -> Forecast:
    """Forecasts of a world.

    Parameters
    ----------
    world : World
    source : str or path
        A key of `RULES`; a forecast store (folder NAME.zarr); or a run: its name, the beginning
        of it, its folder, or `latest`.
    lead_times_h : sequence of int
        Of a rule; a store or a run has its own.

    Raises
    ------
    RunError, ModelError, StoreError, VerificationError
        There is no such run or store, or it is of another grid or other data.
    """
    if source in RULES:
        return _rule(world, str(source), tuple(lead_times_h))
    if Path(source).suffix == ".zarr":
        return _stored(world, Path(source))
    run = find_run(str(source))
    loaded = load_checkpoint(run.checkpoints / "best.ckpt")
    made = _of_fields if isinstance(world.manifest, GridManifest) else _of_stations
    return made(world, loaded, run.path.name)


def _no_forecast(name: str, time: np.datetime64, why: str) -> CoverageError:
    return CoverageError(
        explain(f"{name} has no forecast from {np.datetime64(time, 'h')} UTC", found=why,
                expected="an init time with its inputs and valid times",
                remedy="choose another time")
    )  # fmt: skip


def _rule(world: World, name: str, leads: tuple[int, ...]) -> Forecast:
    def compute(time: np.datetime64) -> np.ndarray:
        hours = np.zeros(len(leads), int)
        if name != "persistence":
            hours = np.array([-lead % 24 for lead in leads])
        known = [world.hour(time - np.timedelta64(int(back), "h"))[_TARGET] for back in hours]
        if not all(np.isfinite(x).any((1, 2)).all() for x in known):
            raise _no_forecast(name, time, "an hour without values of all pollutants")
        return np.stack(known)

    return Forecast(name, leads, compute)


def _stored(world: World, path: Path) -> Forecast:
    store = open_forecast_store(path)
    if store.grid.digest != world.grid.digest:
        raise StoreError(
            explain(f"{path} is on another grid than {world.manifest.name}",
                    expected=f"{world.grid.name} {world.grid.shape}",
                    found=f"{store.grid.name} {store.grid.shape}",
                    remedy="name the manifest that the forecasts were made from")
        )  # fmt: skip

    def compute(time: np.datetime64) -> np.ndarray:
        row = int(np.searchsorted(store.init_times, time))
        if row == len(store.init_times) or store.init_times[row] != time:
            near = store.init_times[min(row, len(store.init_times) - 1)]
            raise _no_forecast(store.name, time, f"no such init time; the next one is {near} UTC")
        found = np.full((len(store.lead_times_h), len(TARGETS), *store.grid.shape), np.nan)
        for name in store.pollutants:
            found[:, TARGETS.index(name)] = store.read(row, None, name)
        return found

    return Forecast(store.name, store.lead_times_h, compute)


# ---- runs


def _of_fields(world: World, loaded: LoadedForecaster, name: str) -> Forecast:
    times, config = world.times, loaded.model.config
    period = Period(None, times[0] + np.timedelta64(max(config.history_h), "h"), times[-1])
    plan = plan_fields(loaded, world.manifest, period, name=name,
                       folder=world.source.stores[0].path.parent)  # fmt: skip
    skipped = dict(plan.skipped)

    def compute(time: np.datetime64) -> np.ndarray:
        if not np.isin(time, plan.times):
            why = next((w for t, w in skipped.items() if np.datetime64(t[:13]) == time), "no hour")
            raise _no_forecast(name, time, why)
        return plan.forecast(np.array([time]))[0]

    return Forecast(name, plan.lead_times_h, compute, loaded.model)


def _of_stations(world: World, loaded: LoadedForecaster, name: str) -> Forecast:
    leads, splits = loaded.model.config.lead_times_h, splits_of(world.manifest)

    @torch.no_grad()
    def compute(time: np.datetime64) -> np.ndarray:
        fields = window_of(world, loaded.normaliser, time, max(leads), splits)
        require_same_store(loaded, fields)
        if not fields.inputs_valid[HISTORY_H]:
            raise _no_forecast(name, time, "an input or its trailing mean is not known")
        arrays = batch_arrays(fields, np.array([HISTORY_H]), leads)
        batch = {k: torch.from_numpy(np.ascontiguousarray(a)) for k, a in arrays.items()}
        return loaded.model(batch)[0].numpy()

    return Forecast(name, leads, compute, loaded.model)


def window_of(
    world: World,
    normaliser: Normaliser,
    time: np.datetime64,
    ahead_h: int,
    splits: dict[str, Split],
) -> GriddedFields:
    """`load_fields` of the hours that one forecast needs: a second instead of half a minute.

    Row `HISTORY_H` is the init time. The climatology is the normaliser's, fitted when the run was
    trained; trailing means differ in the last bits, because their sums begin elsewhere.
    """
    first = world.row(time) - HISTORY_H
    if first < 0 or first + HISTORY_H + ahead_h >= len(world.times):
        raise _no_forecast("the run", time, "too near to the first or last hour of the store")
    rows = slice(first, first + HISTORY_H + ahead_h + 1)
    store, times = world.source, world.times[rows]
    history = History.build(times, world.analyses(rows), normaliser.climatology)
    ratio = np.full((len(times), len(DYNAMIC)), np.nan, np.float32)
    ratio[HISTORY_H] = level_ratio(history, np.array([HISTORY_H]))[0]
    unseen = np.broadcast_to(np.float32(np.nan), (len(times), len(TARGETS), *world.grid.shape))
    return GriddedFields(
        history=history, level_ratio=ratio,
        inputs_valid=usable_hours(history, store.read("inputs_valid", rows)),
        targets=unseen, scored=np.isfinite(unseen),  # a forecast needs no truth
        static=store.read("static"), lat=world.grid.lat, lon=world.grid.lon,
        normaliser=normaliser, splits=splits, digest=store.digest,
    )  # fmt: skip

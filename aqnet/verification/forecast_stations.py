"""Forecasts from the analysis of stations: of a checkpoint for stations, and of closed forms."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from aqnet.data.history import rows_of
from aqnet.data.manifest import Manifest
from aqnet.data.normalisation import target_channels
from aqnet.data.splits import HISTORY_H, splits_of
from aqnet.data.stations.samples import (
    ForecastSamples,
    GriddedFields,
    batch_arrays,
    load_fields,
    load_stations,
    observed_at,
)
from aqnet.data.store import AnalysisStore, open_store
from aqnet.io import station_store
from aqnet.model.statistical import Situation, StatisticalForecasts, fit_statistical
from aqnet.training.checkpoint import LoadedForecaster
from aqnet.verification.forecast_fields import RULES
from aqnet.verification.forecast_plan import ForecastPlan, Period, chosen_leads, without
from aqnet.verification.forecasts import require_same_store
from aqnet.verification.provenance import code_of

__all__ = ["plan_station_rule", "plan_stations"]

# Of `RULES`, the names of `aqnet.model.statistical`.
_STATISTICAL = {
    "persistence": "persistence",
    "climatology": "climatology",
    "damped_persistence": "damped climatology",
}
_BATCH = 256


def _open(manifest: Manifest, store: str | Path | None) -> tuple[AnalysisStore, GriddedFields]:
    opened = open_store(station_store(manifest.name, store), manifest)
    return opened, load_fields(opened, splits_of(manifest))


def _times(fields: GriddedFields, period: Period, max_lead_h: int) -> tuple[np.ndarray, tuple]:
    """Init times whose inputs are valid and whose valid times are in the store."""
    times, held = period.times(fields.splits, max_lead_h, HISTORY_H), fields.history.times
    rows = np.searchsorted(held, times).clip(max=len(held) - 1)
    reasons = np.full(len(times), "", dtype=object)
    reasons[~fields.inputs_valid[rows]] = "an input or its trailing mean is not known"
    reasons[rows + max_lead_h >= len(held)] = "the last valid time is not in the store"
    reasons[held[rows] != times] = "the init time is not in the store"
    return without(times, reasons)


def _plan(
    fields: GriddedFields, manifest: Manifest, period: Period, leads: tuple[int, ...],
    forecast, about: dict, store: AnalysisStore,
) -> ForecastPlan:  # fmt: skip
    times, skipped = _times(fields, period, max(leads))
    provenance = about | {
        "data": {
            "manifest": manifest.name,
            "manifest_sha256": manifest.digest,
            "stores": [[store.path.name, store.digest]],
            "period": period.describe(),
        },
        "code": code_of(),
        "synthetic": manifest.synthetic,
        "weather": "none",
    }
    grid = manifest.grid_object()
    mask = np.ones(grid.shape, dtype=bool)
    return ForecastPlan(times, skipped, leads, grid, mask, provenance, forecast, _BATCH)


def plan_stations(
    loaded: LoadedForecaster,
    manifest: Manifest,
    period: Period,
    leads: Sequence[int] | None = None,
    *,
    name: str,
    run: str = "none",
    store: str | Path | None = None,
) -> ForecastPlan:
    """Gridded forecasts of a checkpoint for stations; see `forecast_fields.plan_fields`.

    Raises
    ------
    VerificationError
        The checkpoint was trained on another store or other splits.
    """
    own = loaded.model.config.lead_times_h
    leads = chosen_leads(leads, own)
    opened, fields = _open(manifest, store)
    require_same_store(loaded, fields)
    at = [own.index(lead) for lead in leads]

    @torch.no_grad()
    def forecast(times: np.ndarray) -> np.ndarray:
        arrays = batch_arrays(fields, rows_of(fields.history.times, times), own)
        batch = {k: torch.from_numpy(np.ascontiguousarray(a)) for k, a in arrays.items()}
        return loaded.model(batch).numpy()[:, at]

    about = {
        "title": f"Forecasts of {name}",
        "kind": "checkpoint",
        "name": name,
        "source": {"checkpoint_sha256": loaded.checkpoint.sha256, "kind": "stations"},
        "run": run,
    }
    return _plan(fields, manifest, period, leads, forecast, about, opened)


def plan_station_rule(
    rule: str,
    manifest: Manifest,
    period: Period,
    leads: Sequence[int],
    *,
    store: str | Path | None = None,
) -> ForecastPlan:
    """Gridded forecasts of a rule of `RULES` from the analysis of stations.

    Damping factors are fitted at the assimilated stations, training split.
    """
    leads = chosen_leads(leads, None)
    opened, fields = _open(manifest, store)
    statistical, at = _fitted(opened, fields, leads), target_channels()

    def forecast(times: np.ndarray) -> np.ndarray:
        arrays = batch_arrays(fields, rows_of(fields.history.times, times), leads)
        situation = Situation(arrays["now"], arrays["future"], arrays["anomaly"][:, at],
                              arrays["level"][:, at])  # fmt: skip
        return statistical(_STATISTICAL[rule], situation).astype(np.float32)

    source: dict = {"rule": RULES[rule]}
    if rule == "damped_persistence":
        source["damping"] = statistical.weights[2, :, :, 1].round(12).tolist()
    about = {
        "title": f"Forecasts by {rule.replace('_', ' ')}",
        "kind": "baseline",
        "name": rule,
        "source": source,
        "run": "none",
    }
    return _plan(fields, manifest, period, leads, forecast, about, opened)


def _fitted(
    store: AnalysisStore, fields: GriddedFields, leads: tuple[int, ...]
) -> StatisticalForecasts:
    stations = load_stations(store, fields.splits)
    train = ForecastSamples(fields, "train", leads)
    truth = observed_at(stations, train.rows, leads)
    truth[..., stations.withheld] = np.nan  # a pair without truth is not used in the fit
    return fit_statistical(stations.history, train.times, truth, leads, fields.splits["train"])

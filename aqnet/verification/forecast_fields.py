"""Forecasts from yearly stores: of a checkpoint for fields, and of rules in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from aqnet.data.climatology import HarmonicClimatology
from aqnet.data.grid_manifest import GridManifest
from aqnet.data.splits import Split
from aqnet.data.training_data import TrainingData, open_training_data
from aqnet.data.years.year_set import YearSet
from aqnet.errors import StoreError, explain
from aqnet.training.checkpoint import LoadedForecaster
from aqnet.variables import DYNAMIC, MAX_LEAD_TIME_H, TARGETS
from aqnet.verification.forecast_plan import ForecastPlan, Period, chosen_leads, without
from aqnet.verification.provenance import code_of

__all__ = ["RULES", "damping_factors", "plan_field_rule", "plan_fields"]

RULES = {
    "persistence": "x(t + h) = x(t)",
    "climatology": "x(t + h) = c(t + h); c: harmonics of day of year and local hour at each cell, "
    "training split",
    "damped_persistence": "x(t + h) = c(t + h) + s (x(t) - c(t)); s by least squares for each lead "
    "time and pollutant, training split",
}
_TARGET = [DYNAMIC.index(name) for name in TARGETS]
_BATCH = 8


def _reasons(
    years: YearSet, times: np.ndarray, hours_back: Sequence[int], names: Sequence[str]
) -> np.ndarray:
    """Why init times cannot be forecast (N,) str; "" where they can."""
    reasons = np.full(len(times), "", dtype=object)
    for back in hours_back:
        rows = years.rows_at(times - np.timedelta64(back, "h"))
        hour = "init time" if back == 0 else f"hour {back} h before"
        for name in names:
            lacking = (rows >= 0) & ~years.valid[rows, DYNAMIC.index(name)]
            reasons[lacking & (reasons == "")] = f"no {name} at the {hour}"
        reasons[(rows < 0) & (reasons == "")] = f"the {hour} is in no store"
    return reasons


def _data_record(data: TrainingData, manifest: GridManifest, period: Period) -> dict:
    years = data.years
    return {
        "manifest": manifest.name,
        "manifest_sha256": manifest.digest,
        "stores": [[store.path.name, store.digest] for store in years.stores],
        "period": period.describe(),
    }


# ---- a checkpoint


def plan_fields(
    loaded: LoadedForecaster,
    manifest: GridManifest,
    period: Period,
    leads: Sequence[int] | None = None,
    *,
    name: str,
    run: str = "none",
    folder: str | Path | None = None,
    device: str = "cpu",
) -> ForecastPlan:
    """Forecasts of a checkpoint for fields.

    Parameters
    ----------
    loaded : LoadedForecaster
        Of kind "grid".
    manifest : GridManifest
        Its recorded stores are read; other years than those of the training will do, and other
        data on its grid. They are normalised as in the training, and the provenance names both.
    period : Period
    leads : sequence of int, optional
        Lead times [h]; default those of the model. With lead mode "one" any from 1 to 120.
    name, run : str
        For the provenance.
    folder : path, optional
        Of the stores.
    device : str
        Of torch.

    Raises
    ------
    StoreError
        Grid, mask or static fields are not those of the checkpoint.
    LeadTimeError
        The model does not forecast these leads.
    """
    config, model = loaded.model.config, loaded.model.to(device)
    one = config.lead_mode == "one"
    if leads is None or not one:
        leads = chosen_leads(leads, config.lead_times_h)
    else:
        leads = chosen_leads(leads, range(1, MAX_LEAD_TIME_H + 1))
    data = open_training_data(manifest, folder)
    years = data.years
    _require_domain(loaded, years)
    times = period.times(data.splits, max(leads), max(config.history_h))
    names = [n for n in DYNAMIC if n not in config.optional_inputs]
    times, skipped = without(times, _reasons(years, times, config.history_h, names))
    provenance = {
        "title": f"Forecasts of {name}",
        "kind": "checkpoint",
        "name": name,
        "source": {"checkpoint_sha256": loaded.checkpoint.sha256, "kind": "grid",
                   "lead_mode": config.lead_mode, "trained_on": _trained_on(loaded)},
        "data": _data_record(data, manifest, period),
        "run": run,
        "code": code_of(),
        "synthetic": years.synthetic,
        "weather": "none",
    }  # fmt: skip

    @torch.no_grad()
    def forecast(batch_times: np.ndarray) -> np.ndarray:
        batch = _inputs(years, batch_times, config.history_h, device)
        if one:
            found = [model(batch | {"leads_h": _constant(batch, (lead,))}) for lead in leads]
            return torch.cat(found, dim=1).float().cpu().numpy()
        at = [config.lead_times_h.index(lead) for lead in leads]
        whole = model(batch | {"leads_h": _constant(batch, config.lead_times_h)})
        return whole[:, at].float().cpu().numpy()

    return ForecastPlan(times, skipped, leads, years.grid, years.mask, provenance, forecast, _BATCH)


def _constant(batch: dict, leads: Sequence[int]) -> torch.Tensor:
    hours = batch["hours"]
    return torch.tensor(leads, device=hours.device).expand(len(hours), -1)


def _inputs(years: YearSet, times: np.ndarray, history_h: Sequence[int], device: str) -> dict:
    """hours (B,) and inputs (B, K, 11, N) of a batch of `FieldSamples`, without targets."""
    rows = years.rows_at(times[:, None] - np.asarray(history_h).astype("timedelta64[h]"))
    held, place = np.unique(rows, return_inverse=True)
    inputs = years.read(held)[..., years.mask][place.reshape(rows.shape)]
    return {
        "hours": torch.from_numpy(times.astype(np.int64)).to(device),
        "inputs": torch.from_numpy(inputs).to(device),
    }


def _trained_on(loaded: LoadedForecaster) -> dict | str:
    """The data of the training, which may be others than those of the forecasts."""
    identity = loaded.checkpoint.identity
    if identity is None:
        return "not recorded"
    return {"manifest": identity.manifest, "manifest_sha256": identity.manifest_sha256,
            "synthetic": identity.synthetic}  # fmt: skip


def _require_domain(loaded: LoadedForecaster, years: YearSet) -> None:
    domain = loaded.model.domain
    same = {
        "grid": domain.grid.digest == years.grid.digest,
        "mask": np.array_equal(domain.mask, years.mask),
        "static fields": np.array_equal(
            np.where(domain.mask, domain.static, 0), np.where(years.mask, years.static, 0)
        ),
    }
    if differ := [name for name, equal in same.items() if not equal]:
        raise StoreError(
            explain(f"the checkpoint does not fit the stores: {', '.join(differ)}",
                    expected=f"grid {domain.grid.name} {domain.grid.shape}, "
                    f"{int(domain.mask.sum())} cells, as trained",
                    found=f"grid {years.grid.name} {years.grid.shape}, {int(years.mask.sum())} "
                    "cells in the stores", remedy="name the manifest of the training, or one of "
                    "stores on its grid and mask")
        )  # fmt: skip


# ---- rules in closed form


def plan_field_rule(
    rule: str,
    manifest: GridManifest,
    period: Period,
    leads: Sequence[int],
    *,
    folder: str | Path | None = None,
) -> ForecastPlan:
    """Forecasts of a rule of `RULES` from yearly stores; arguments as `plan_fields`.

    Climatologies are those of the recorded statistics of the training split.

    Raises
    ------
    ChecksumError
        The statistics are not recorded.
    """
    leads = chosen_leads(leads, None)
    data = open_training_data(manifest, folder)
    years, climatology = data.years, data.statistics.climatology
    times = period.times(data.splits, max(leads), 0)
    times, skipped = without(times, _reasons(years, times, (0,), TARGETS))
    source: dict = {"rule": RULES[rule]}
    if rule != "persistence":
        source["statistics_sha256"] = data.statistics.digest
    damping = np.zeros((len(leads), len(TARGETS)))
    if rule == "damped_persistence":
        damping = damping_factors(years, climatology, data.splits["train"], leads)
        source["damping"] = damping.round(12).tolist()
    provenance = {
        "title": f"Forecasts by {rule.replace('_', ' ')}",
        "kind": "baseline",
        "name": rule,
        "source": source,
        "data": _data_record(data, manifest, period),
        "run": "none",
        "code": code_of(),
        "synthetic": years.synthetic,
        "weather": "none",
    }
    ahead = np.asarray(leads).astype("timedelta64[h]")

    def forecast(batch_times: np.ndarray) -> np.ndarray:
        now = years.read(years.rows_at(batch_times))[:, _TARGET] if rule != "climatology" else None
        if rule == "persistence":
            return np.repeat(now[:, None], len(leads), axis=1)
        valid = (batch_times[:, None] + ahead).ravel()
        usual = climatology(valid, _TARGET).reshape(len(batch_times), len(leads), -1,
                                                       *years.grid.shape)  # fmt: skip
        if rule == "damped_persistence":
            anomaly = now - climatology(batch_times, _TARGET)
            usual = usual + damping[:, :, None, None] * anomaly[:, None]
        return np.maximum(usual, 0.0).astype(np.float32)

    return ForecastPlan(times, skipped, leads, years.grid, years.mask, provenance, forecast, _BATCH)


def damping_factors(
    years: YearSet, climatology: HarmonicClimatology, split: Split, leads: Sequence[int]
) -> np.ndarray:
    """Factors s (L, 6) of ``x(t + h) - c(t + h) = s (x(t) - c(t))``, least squares over all cells.

    Pairs with both hours in `split`; an unknown value leaves its pairs out. Two days at a time
    are in memory with the hours that the longest lead time reaches back.
    """
    rows = np.flatnonzero(split.contains(years.times))
    back: dict[int, np.ndarray] = {}
    product = np.zeros((len(leads), len(TARGETS)))
    square = np.zeros_like(product)
    for first in range(0, len(rows), 48):
        part = rows[first : first + 48]
        times = years.times[part]
        usual = climatology(times, _TARGET)[..., years.mask]
        values = years.read(part)[:, _TARGET][..., years.mask] - usual
        for hour, late in zip(times.astype(np.int64).tolist(), values, strict=True):
            for place, lead in enumerate(leads):
                early = back.get(hour - lead)
                if early is not None:
                    both = np.isfinite(early) & np.isfinite(late)
                    one, two = np.where(both, early, 0.0), np.where(both, late, 0.0)
                    product[place] += np.einsum("pc,pc->p", one, two, dtype=np.float64)
                    square[place] += np.einsum("pc,pc->p", one, one, dtype=np.float64)
            back[hour] = late.astype(np.float32)
            back.pop(hour - max(leads), None)
    if not (square > 0).all():
        raise StoreError(
            explain("the damping factors cannot be fitted",
                    expected="pairs of known values for each lead time in the training split",
                    found=f"{len(rows)} hours", remedy="choose shorter lead times")
        )  # fmt: skip
    return product / square

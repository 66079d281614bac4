"""Forecasts made elsewhere, brought to a grid of aqnet: a plan that writes an ordinary store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from aqnet.data.source.latlon_regridding import latlon_weights
from aqnet.data.source.regridding import RegridWeights
from aqnet.data.years.format import stamp
from aqnet.errors import CoverageError, LeadTimeError, explain
from aqnet.grid import Grid
from aqnet.io import sha256_file, sha256_json
from aqnet.variables import TARGETS
from aqnet.verification.forecast_plan import ForecastPlan
from aqnet.verification.foreign.files import ForeignForecasts
from aqnet.verification.provenance import code_of

__all__ = ["plan_import"]


def plan_import(
    foreign: ForeignForecasts,
    grid: Grid,
    mask: np.ndarray,
    leads: Sequence[int] | None = None,
    *,
    name: str,
    method: str = "area",
    incomplete: str = "refuse",
    synthetic: bool = False,
    density: str | None = None,
    pressure: str | None = None,
    temperature: str | None = None,
) -> ForecastPlan:
    """Forecasts of other files on a grid of aqnet, for `write_forecasts`.

    Parameters
    ----------
    foreign : ForeignForecasts
    grid, mask : Grid, (H, W) bool
        As of the stores to compare with.
    leads : sequence of int, optional
        Lead times [h]; default all of the files.
    name : str
        How tables and figures call it.
    method : str
        "area" (means over the cells) or "bilinear".
    incomplete : str
        Init times that lack a lead time: "refuse", or "skip" and record.
    synthetic : bool
        Whether the data are simulated by a world that is not ours.
    density, pressure, temperature : str, optional
        For mass mixing ratios; see `aqnet.verification.foreign.files`.

    Raises
    ------
    LeadTimeError
        A lead time is missing, if refused.
    CoverageError
        The source does not cover the mask.
    """
    leads = tuple(leads or foreign.lead_times_h)
    weights = _covering(foreign, grid, mask, method)
    times, skipped = [], []
    for time in foreign.init_times:
        lacking = [lead for lead in leads if (time, lead) not in foreign.places]
        if not lacking:
            times.append(time)
        elif incomplete == "skip":
            skipped.append((stamp(time), f"no lead {', '.join(map(str, lacking))} h"))
        else:
            raise LeadTimeError(
                explain(f"the forecast from {stamp(time)} lacks lead times", found=f"without "
                        f"{lacking} h", expected=f"{list(leads)} h",
                        remedy="get the files, ask for fewer leads, or skip such init times")
            )  # fmt: skip
    gases = {"density": density, "pressure": pressure, "temperature": temperature}
    pollutants = [p for p in TARGETS if p in foreign.layout.variables]
    provenance = {
        "title": f"{foreign.layout.title}: {name}",
        "kind": "imported",
        "name": name,
        "source": {
            "title": foreign.layout.title,
            "values": foreign.layout.values,
            "layout_sha256": sha256_json(foreign.layout.model_dump(mode="json")),
            "regridding": f"{method}, from {foreign.grid.shape}",
            **{k: v for k, v in gases.items() if v},
        },
        "data": {"files": [[f.name, _digest(f)] for f in foreign.files]},
        "run": "none",
        "code": code_of(),
        "synthetic": synthetic,
        "weather": "none",
    }

    def forecast(batch_times: np.ndarray) -> np.ndarray:
        found = np.array([[[foreign.field(time, lead, p, gases) for p in pollutants]
                           for lead in leads] for time in batch_times])  # fmt: skip
        return weights.apply(found).astype(np.float32)

    return ForecastPlan(np.array(times, "datetime64[h]"), tuple(skipped), leads, grid, mask,
                        provenance, forecast, batch=1, pollutants=tuple(pollutants))  # fmt: skip


def _digest(path: Path) -> str:
    return "a folder" if path.is_dir() else sha256_file(path)


def _covering(
    foreign: ForeignForecasts, grid: Grid, mask: np.ndarray, method: str
) -> RegridWeights:
    weights = latlon_weights(method, foreign.grid, grid)
    bare = mask & (weights.coverage < 1 - 1e-6)
    if bare.any():
        lat, lon = (axis[bare] for axis in grid.mesh())
        raise CoverageError(
            explain(f"the forecasts do not cover {int(bare.sum())} cells of the mask",
                    expected=f"all cells of {grid.name}", found=f"not covered: {lat.min():g} to "
                    f"{lat.max():g} N, {lon.min():g} to {lon.max():g} E; the source reaches from "
                    f"{foreign.grid.lat.min():g} to {foreign.grid.lat.max():g} N, "
                    f"{foreign.grid.lon.min():g} to {foreign.grid.lon.max():g} E",
                    remedy="get the whole domain, or give a smaller mask")
        )  # fmt: skip
    return weights

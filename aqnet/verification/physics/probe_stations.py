"""The wind turned or taken away in front of a forecaster for stations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from aqnet.data.history import rows_of
from aqnet.data.stations.samples import GriddedFields, batch_arrays
from aqnet.errors import CoverageError, explain
from aqnet.grid import Grid
from aqnet.io import atomic_directory
from aqnet.model.forecaster import Forecaster
from aqnet.variables import DYNAMIC
from aqnet.verification.physics.figures import draw_numbers, draw_responses, with_expected_sign
from aqnet.verification.physics.probe_quantities import Probed, area_mean, rms, summary
from aqnet.verification.physics.probe_results import definitions_of
from aqnet.verification.physics.probe_runs import positions
from aqnet.verification.physics.probes import LEAST_WIND_M_S, Scene
from aqnet.verification.physics.results import Album, stamps, write_results

__all__ = ["StationForecasts", "probe_station_wind", "station_init_times", "write_station_probes"]

Change = Callable[[np.ndarray], np.ndarray]
CHANGES: dict[str, Change] = {"wind_turned": lambda wind: -wind, "calm": np.zeros_like}
CONTROLS = {"statistical": "the statistical forecast that the checkpoint corrects, which knows no "
            "wind (share of the correction 0)"}  # fmt: skip
assert DYNAMIC[:2] == ("u", "v")  # relied upon below


class StationForecasts:
    """Forecasts (B, L, 6, N) in ug/m3 of all cells, under the wind of the store or another one.

    Only the wind of the init hour changes; trailing means keep the days before as they were.

    Parameters
    ----------
    model : Forecaster
    fields : GriddedFields
        Of the store that it was trained on.
    leads_h : sequence of int
        Some of the model's.
    share : float, optional
        Of the correction, in place of the model's.
    """

    def __init__(
        self,
        model: Forecaster,
        fields: GriddedFields,
        leads_h: Sequence[int],
        share: float | None = None,
    ) -> None:
        self.model, self.fields, self.share = model.eval(), fields, share
        self.at = [model.config.lead_times_h.index(lead) for lead in leads_h]

    def __call__(self, times: np.ndarray, change: Change | None = None) -> np.ndarray:
        """Forecasts from init times, with `change` of the wind (B, 2, H, W) [m/s]."""
        rows = rows_of(self.fields.history.times, times)
        arrays = batch_arrays(self.fields, rows, self.model.config.lead_times_h)
        if change is not None:
            wind = change(arrays["wind"])
            anomaly = arrays["anomaly"].copy()
            anomaly[:, :2] += wind - arrays["wind"]
            arrays |= {"wind": wind, "anomaly": anomaly}
        batch = {k: torch.from_numpy(np.ascontiguousarray(a)) for k, a in arrays.items()}
        with torch.no_grad():
            start = self.model.start(batch)
            share = float(self.model.share if self.share is None else self.share)
            change_by = share * self.model.scale(batch) * self.model.correction(batch)
            found = (start + change_by).clamp_min(0)
        return found[:, self.at].flatten(-2).numpy()

    def wind(self, times: np.ndarray) -> np.ndarray:
        """(B, 2, N) m/s at init times."""
        rows = rows_of(self.fields.history.times, times)
        found = batch_arrays(self.fields, rows, self.model.config.lead_times_h)["wind"]
        return found.reshape(len(times), 2, -1)


def station_init_times(
    fields: GriddedFields, split: str, max_lead_h: int, count: int
) -> np.ndarray:  # fmt: skip
    """At most `count` init times of a split with valid inputs, evenly chosen, a day or more apart.

    CoverageError if there is none.
    """
    times, whole = fields.history.times, fields.splits[split]
    lead = np.timedelta64(max_lead_h, "h")
    good = np.flatnonzero(
        fields.inputs_valid & whole.contains(times) & whole.contains(times + lead)
    )
    if not good.size:
        raise CoverageError(
            explain(f"the split {split} has no init time", found="none",
                    expected=f"valid inputs, and {max_lead_h} h after them in the split",
                    remedy="choose another split or shorter lead times")
        )  # fmt: skip
    chosen: list[np.datetime64] = []
    for time in times[good[np.linspace(0, good.size - 1, min(count, good.size)).astype(int)]]:
        if not chosen or time - chosen[-1] >= np.timedelta64(24, "h"):
            chosen.append(time)
    return np.array(chosen)


def probe_station_wind(
    models: dict[str, StationForecasts],
    times: np.ndarray,
    grid: Grid,
    pollutants: Sequence[str],
) -> Probed:
    """Turn the wind by 180 degrees, and take it away; means over the whole grid."""
    at, area = positions(pollutants), grid.cell_area_km2.ravel()
    first = next(iter(models.values()))
    values = np.full((len(times), 1, len(DYNAMIC), area.size), np.nan, np.float32)
    values[:, 0, :2] = first.wind(times)
    scene = Scene(times, values, grid, np.ones(grid.shape, bool))
    mean_v = values[:, 0, 1].mean(-1)
    # turned, a wind from the north comes from the south
    sign = np.where(np.abs(mean_v) >= LEAST_WIND_M_S, -np.sign(mean_v), np.nan)[:, None, None]
    everywhere, found, fields = np.ones(area.size, bool), {}, {}
    for name, model in models.items():
        usual = model(times)[:, :, at].astype(np.float64)
        for probe, change in CHANGES.items():
            response = model(times, change)[:, :, at] - usual
            fields[probe, name] = response
            found[probe, "rms", name] = rms(response, area)
            mean = area_mean(response, area, everywhere)
            if probe == "calm":
                found[probe, "mean", name] = mean
            else:
                found[probe, "southerly_minus_northerly", name] = sign * mean
    return Probed(found, fields, scene)


def write_station_probes(
    folder: str | Path,
    model: Forecaster,
    fields: GriddedFields,
    grid: Grid,
    times: np.ndarray,
    leads_h: Sequence[int],
    pollutants: Sequence[str],
    record: dict,
) -> dict:
    """Probe a checkpoint for stations, write `folder` and return the content of results.json."""
    models = {"checkpoint": StationForecasts(model, fields, leads_h),
              "statistical": StationForecasts(model, fields, leads_h, share=0.0)}  # fmt: skip
    probed = probe_station_wind(models, times, grid, pollutants)
    rows = summary(probed, leads_h, pollutants)
    with atomic_directory(folder) as draft:
        album = Album(draft)
        for p, name in enumerate(pollutants):
            _draw(probed, leads_h, p, name, album)
            if not with_expected_sign(rows, name):
                continue
            album.add(f"numbers_{name}.png", f"Numbers of the probes, {name}",
                      "Quantities for which physics expects a sign; bars are two standard errors.",
                      draw_numbers(rows, name))  # fmt: skip
        settings = {"lead_times_h": list(leads_h), "init_times": stamps(times),
                    "pollutants": list(pollutants), "probes": list(CHANGES)}  # fmt: skip
        return write_results(album, "probe", record, settings=settings, rows=rows,
                             definitions=definitions_of(rows, CONTROLS))  # fmt: skip


def _draw(probed: Probed, leads_h: Sequence[int], p: int, name: str, album: Album) -> None:
    north = probed.scene.values[:, 0, 1].mean(-1)
    winds = {"northerly": north <= -LEAST_WIND_M_S, "southerly": north >= LEAST_WIND_M_S}
    for title, chosen in winds.items():
        if not chosen.any():
            continue
        shown = {t: probed.fields[k, "checkpoint"][chosen, :, p]
                 for t, k in (("wind turned", "wind_turned"), ("calm", "calm"))}  # fmt: skip
        album.add(
            f"wind_{title}_{name}.png", f"Wind turned and calmed, {name}, {title}",
            f"Mean response over the {int(chosen.sum())} init times with a {title} of 1 m/s or "
            "more; arrows are the real wind.",
            draw_responses(shown, probed.scene.only(chosen), None, leads_h, name),
        )  # fmt: skip

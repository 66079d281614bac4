"""Episodes that a stated rule finds in the data: haze at Beijing, the basin of Sichuan at 30 N."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from aqnet.errors import explain
from aqnet.metrics import VerificationError
from aqnet.verification.regions import region_masks
from aqnet.verification.report.fields import Fields
from aqnet.verification.report.film import film_of
from aqnet.verification.report.maps import CREDIT, draw_beside
from aqnet.verification.report.page import Section, Text, picture
from aqnet.verification.report.series import StationSeries, draw_station_series
from aqnet.verification.report.style import upper_limit
from aqnet.verification.report.transect import Transect, draw_transect
from aqnet.verification.report.wording import label, number, unit_of

__all__ = [
    "AFTER_H",
    "BEFORE_H",
    "BEIJING",
    "SICHUAN_ROW_N",
    "Shown",
    "haze_section",
    "local_hour",
    "transect_section",
    "worst_day",
]

BEIJING = (39.9, 116.4, 100.0)  # degrees N and E, km: the city and its plain
SICHUAN_ROW_N, SICHUAN_E = 30.0, (98.0, 112.0)  # plateau, Chengdu, Chongqing, Three Gorges
BEFORE_H, AFTER_H = 84, 36  # of the film and the series, round the worst day
_ROUND_DEG = 5.0  # of the maps at the peak, each way
_ROW_DAYS = 10
_UTC_OFFSET_H = 8


@dataclass(frozen=True)
class Shown:
    """What episode pages show.

    Attributes
    ----------
    pollutant : str
    lead_h : int
    name : str
        Of the forecast.
    frames : int
        At most so many frames of a film.
    """

    pollutant: str
    lead_h: int
    name: str
    frames: int = 40


def worst_day(times: np.ndarray, values: np.ndarray) -> np.datetime64:
    """End of the 24 h with the highest mean.

    Parameters
    ----------
    times : (n,) datetime64[h], ascending
    values : (n,)
        NaN where unknown; a day counts with three quarters of its values.

    Raises
    ------
    VerificationError
        No day does.
    """
    series = pd.Series(values, pd.DatetimeIndex(times))
    step = np.median(np.diff(times).astype(int)) if len(times) > 1 else 24
    means = series.rolling("24h", min_periods=max(1, int(0.75 * 24 / step))).mean()
    if not means.notna().any():
        raise VerificationError(
            explain("no episode can be found", expected="24 h with three quarters of the values",
                    found=f"{len(times)} valid times", remedy="give a store of a longer period")
        )  # fmt: skip
    return means.idxmax().to_datetime64().astype("datetime64[h]")


def _span(times: np.ndarray, start: np.datetime64, end: np.datetime64, most: int) -> np.ndarray:
    """Valid times of a period, evenly thinned to at most `most`."""
    chosen = times[(times >= start) & (times <= end)]
    return chosen[:: -(-len(chosen) // most)] if len(chosen) else chosen


def local_hour(time: np.datetime64) -> str:
    """Hour in Beijing time, in words."""
    local = time + np.timedelta64(_UTC_OFFSET_H, "h")
    return f"{str(local)[:10]} {str(local)[11:13]}:00 Beijing time"


def haze_section(fields: Fields, shown: Shown) -> Section:
    """The worst day at Beijing: series, maps at its peak, and a film of forecast against truth."""
    near, times = fields.within(*BEIJING), fields.valid_times(shown.lead_h)
    means = fields.means(times, shown.pollutant, near)
    end = worst_day(times, means)
    span = _span(times, end - np.timedelta64(BEFORE_H, "h"), end + np.timedelta64(AFTER_H, "h"),
                 shown.frames)  # fmt: skip
    truth = fields.truth_at(span, shown.pollutant)
    forecast = fields.forecast_at(span, shown.pollutant, shown.lead_h)
    level = means[np.isin(times, span)]
    peak = int(np.nanargmax(level))
    limits = (upper_limit(truth, forecast), upper_limit(forecast - truth))
    named = {f"{shown.name}, {shown.lead_h} h ahead": forecast}
    unit, what = unit_of(shown.pollutant), label(shown.pollutant)
    rule = (
        f"Rule: the 24 h with the highest mean {what} within {BEIJING[2]:g} km of Beijing "
        f"({BEIJING[0]:g} N, {BEIJING[1]:g} E; {int(near.sum())} cells) among the valid times of "
        f"the store. They end {local_hour(end)}; the highest hour shown has "
        f"{number(level[peak])} {unit}."
    )
    lat, lon, wide = *BEIJING[:2], _ROUND_DEG
    scene = draw_beside(
        fields, truth[peak], {name: values[peak] for name, values in named.items()},
        shown.pollutant, limits, f"valid {local_hour(span[peak])}",
        (lon - wide, lon + wide, lat - wide, lat + wide),
    )  # fmt: skip
    blocks = [
        Text([rule]),
        _series(fields, shown, near, span),
        picture(scene, f"Maps of {what} at the peak of the episode",
                f"{what} [{unit}] at the highest hour. {CREDIT}", "At the peak"),
        film_of(fields, span, truth, forecast, shown, limits, peak),
    ]  # fmt: skip
    return Section("haze", "Haze at Beijing", blocks)


def _series(fields: Fields, shown: Shown, near: np.ndarray, span: np.ndarray) -> object:
    """Mean of the cells against time: truth, persistence and the forecast at each lead."""
    start, end = span[0], span[-1]
    series = []
    for lead in fields.store.lead_times_h:
        times = fields.valid_times(lead)
        times = times[(times >= start) & (times <= end)]
        before = times - np.timedelta64(lead, "h")
        means = [fields.means(t, shown.pollutant, near) for t in (times, before)]
        mine = np.nanmean(fields.forecast_at(times, shown.pollutant, lead)[:, near], axis=1)
        series.append(
            StationSeries(f"mean within {BEIJING[2]:g} km of Beijing", shown.pollutant, lead,
                          times, means[0], {shown.name: mine, "persistence": means[1]})
        )  # fmt: skip
    figure = draw_station_series(series, shown.name, _UTC_OFFSET_H, "truth")
    caption = (
        f"Truth (grey) and forecasts [{unit_of(shown.pollutant)}] against valid time, one panel "
        "for each lead time; persistence is the truth at the init time."
    )
    return picture(figure, "Series through the episode", caption, "Rise and end")


def transect_section(fields: Fields, shown: Shown) -> Section:
    """The basin of Sichuan from west to east at 30 N, ten days, over the height of the cells."""
    basin = region_masks(fields.grid, fields.elevation_m)["sichuan_basin"] & fields.mask
    times = fields.valid_times(shown.lead_h)
    end = worst_day(times, fields.means(times, shown.pollutant, basin))
    half = np.timedelta64(_ROW_DAYS * 12, "h")
    span = _span(times, end - half, end + half, 240)
    row = int(np.abs(fields.grid.lat - SICHUAN_ROW_N).argmin())
    columns = (fields.grid.lon >= SICHUAN_E[0]) & (fields.grid.lon <= SICHUAN_E[1])
    strip = {"pollutant": shown.pollutant, "row": row}
    transect = Transect(
        shown.pollutant, shown.lead_h, span, float(fields.grid.lat[row]),
        fields.grid.lon[columns], fields.strip(span, columns=columns, **strip),
        fields.strip(span, columns=columns, lead_h=shown.lead_h, **strip),
        fields.elevation_m[row, columns],
    )  # fmt: skip
    what = label(shown.pollutant)
    text = (
        f"Cells of the row at {fields.grid.lat[row]:.2f} N, {SICHUAN_E[0]:g} to {SICHUAN_E[1]:g} E:"
        " the Tibetan plateau, the basin with Chengdu (104.1 E) and Chongqing (106.6 E), the "
        f"Three Gorges. Rule: {_ROW_DAYS} days round the 24 h with the highest mean {what} in the "
        f"Sichuan basin, which end {local_hour(end)}."
    )
    caption = (
        f"{what} [{unit_of(shown.pollutant)}] against longitude (across) and time (upwards). "
        "Below: height of the cells [m] and the mean of the period. A model without terrain "
        "smears the step at 103 E, where the plateau ends."
    )
    figure = draw_transect(transect, shown.name, _UTC_OFFSET_H)
    image = picture(figure, f"Section through the Sichuan basin at 30 N, {what}", caption)
    return Section("transect", "Sichuan basin at 30 N", [Text([text]), image])

"""The twin beside the observations of Beijing: memory, level, spread and cycles, in numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aqnet.data.manifest import load_manifest, resolve_manifest
from aqnet.data.stations.measurements import read_stations
from aqnet.data.years.reader import open_year
from aqnet.data.years.year_set import YearSet
from aqnet.grid import Grid, local_clock
from aqnet.variables import DYNAMIC, LEAD_TIMES_H, TARGETS

__all__ = [
    "TOLERANCE",
    "Behaviour",
    "behaviour",
    "beijing_behaviour",
    "largest_difference",
    "realism_table",
    "station_cells",
    "table_text",
    "twin_behaviour",
]

TOLERANCE = 0.1  # of autocorrelation and of persistence RMSE over standard deviation
_OFFSET_H = 8.0


@dataclass(frozen=True)
class Behaviour:
    """How an hourly series behaves; means over years of numbers that are of one year each.

    mean, std (unit of the variable); autocorrelation and persistence (4,) at `LEAD_TIMES_H`:
    correlation with, and RMSE against, the value that many hours earlier, the latter over std;
    by_hour (24,) and by_month (12,): means at local clock hours (UTC+8) and months.
    """

    mean: float
    std: float
    autocorrelation: np.ndarray
    persistence: np.ndarray
    by_hour: np.ndarray
    by_month: np.ndarray


def _pairs(series: np.ndarray, lag: int) -> tuple[np.ndarray, np.ndarray]:
    early, late = series[:-lag], series[lag:]
    both = np.isfinite(early) & np.isfinite(late)
    return early[both], late[both]


def _of_year(series: np.ndarray) -> np.ndarray:
    """mean, std, 4 autocorrelations, 4 persistence ratios."""
    std = np.nanstd(series)
    pairs = [_pairs(series, lag) for lag in LEAD_TIMES_H]
    correlation = [np.corrcoef(early, late)[0, 1] for early, late in pairs]
    rmse = [np.sqrt(np.mean((late - early) ** 2)) / std for early, late in pairs]
    return np.array([np.nanmean(series), std, *correlation, *rmse])


def behaviour(times: np.ndarray, series: np.ndarray, hours_per_year: int = 8760) -> Behaviour:
    """Behaviour of an hourly series without gaps in `times` (NaN where a value is missing).

    Parameters
    ----------
    times : array of datetime64, shape (T,)
        Ends of the hours, UTC.
    series : array, shape (T,)
    hours_per_year : int
        The series is cut into stretches of this length from its start; a rest is left out.
        Shorter series count as one stretch.
    """
    series = np.asarray(series, dtype=np.float64)
    count = max(1, len(series) // hours_per_year)
    years = [series[k * hours_per_year : (k + 1) * hours_per_year] for k in range(count)]
    numbers = np.mean([_of_year(year) for year in years], axis=0)
    local = local_clock(times, _OFFSET_H)
    hour = local.astype("datetime64[h]").astype(np.int64) % 24
    month = local.astype("datetime64[M]").astype(np.int64) % 12
    # A trial of some days has no values for most months: these stay NaN.
    by_hour, by_month = (
        np.array([np.nanmean(series[key == k]) if (key == k).any() else np.nan for k in range(n)])
        for key, n in ((hour, 24), (month, 12))
    )
    return Behaviour(numbers[0], numbers[1], numbers[2:6], numbers[6:], by_hour, by_month)


def beijing_behaviour() -> dict[str, Behaviour]:
    """Behaviour of the mean over the 12 stations of Beijing, 2013-03 to 2017-02, by variable."""
    stations = read_stations(load_manifest(resolve_manifest("beijing")))
    times = stations["time"].values
    with np.errstate(invalid="ignore"):
        means = {name: stations[name].mean("station").values for name in DYNAMIC}
    return {name: behaviour(times, values) for name, values in means.items()}


def station_cells(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of the cell that holds each of Beijing's 12 stations, (12,) int."""
    manifest = load_manifest(resolve_manifest("beijing"))
    stations = read_stations(manifest)
    rows = np.abs(grid.lat[:, None] - stations["lat"].values).argmin(0)
    cols = np.abs(grid.lon[:, None] - stations["lon"].values).argmin(0)
    return rows, cols


def twin_behaviour(years: YearSet) -> dict[str, Behaviour]:
    """Behaviour at Beijing: the mean over the stations' cells, each as often as it has stations."""
    rows, cols = station_cells(years.grid)
    parts = []
    for first in range(0, len(years.times), 480):
        parts.append(years.read(slice(first, first + 480))[:, :, rows, cols].mean(-1))
    series = np.concatenate(parts)
    return {name: behaviour(years.times, series[:, k]) for k, name in enumerate(DYNAMIC)}


def largest_difference(real: Mapping[str, Behaviour], twin: Mapping[str, Behaviour]) -> float:
    """Largest of the differences that `TOLERANCE` is for: wind u, v; persistence of pollutants."""
    wind = [np.abs(real[n].autocorrelation - twin[n].autocorrelation).max() for n in ("u", "v")]
    rest = [np.abs(real[n].persistence - twin[n].persistence).max() for n in TARGETS]
    return float(max(wind + rest))


def _row(label: str, real: np.ndarray, twin: np.ndarray) -> str:
    cells = "".join(f"{a:8.2f}{b:7.2f}" for a, b in zip(real, twin, strict=True))
    worst = np.abs(np.asarray(real) - np.asarray(twin)).max()
    return f"{label:<22}{cells}   {worst:6.3f}{'' if worst <= TOLERANCE else '  outside'}"


def table_text(real: Mapping[str, Behaviour], twin: Mapping[str, Behaviour]) -> str:
    """Table of both, Beijing left and twin right in every pair of columns."""
    leads = "".join(f"{f'{lead} h':>15}" for lead in LEAD_TIMES_H)
    lines = [
        "Beijing's observations (mean of 12 stations) | twin (SYNTHETIC, mean of their cells)",
        f"{'':<22}{leads}   largest difference (tolerance {TOLERANCE:g})",
    ]
    lines += [
        _row(f"autocorrelation {name}", real[name].autocorrelation, twin[name].autocorrelation)
        for name in ("u", "v")
    ]
    lines += [
        _row(f"persistence {name}", real[name].persistence, twin[name].persistence)
        for name in TARGETS
    ]
    lines.append(f"{'':<8}{'mean':>20}{'std':>20}{'daily range':>20}{'yearly range':>20}")
    for name in DYNAMIC:
        pairs = [
            (b.mean, b.std, np.ptp(b.by_hour), np.nanmax(b.by_month) - np.nanmin(b.by_month))
            for b in (real[name], twin[name])
        ]
        cells = "".join(f"{a:10.4g}{b:10.4g}" for a, b in zip(*pairs, strict=True))
        lines.append(f"{name:<8}{cells}")
    return "\n".join(lines)


def realism_table(paths: Sequence[str | Path]) -> str:
    """Table of the stores of consecutive years beside Beijing's observations."""
    return table_text(beijing_behaviour(), twin_behaviour(YearSet([open_year(p) for p in paths])))

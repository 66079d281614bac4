"""How well cells stand for the stations in them: distance, height, neighbours, spread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from aqnet.data.splits import Split
from aqnet.variables import TARGETS
from aqnet.verification.stations.network import Observations
from aqnet.verification.stations.sampling import Sampling

__all__ = ["spread_within_cells", "station_record", "station_rows"]


def spread_within_cells(values: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """How far stations of one cell are apart, in the unit of the values.

    Parameters
    ----------
    values : (T, S)
        Hourly, NaN where missing.
    cell : (S,) int
        Cell of each station.

    Returns
    -------
    (S,) float64
        Root mean square over the hours of the station minus the mean of the other stations of
        its cell in that hour; NaN for a station that is alone, or never observed with another.
    """
    found = np.full(values.shape[1], np.nan)
    for number in np.unique(cell):
        inside = np.flatnonzero(cell == number)
        known = np.isfinite(values[:, inside])
        x = np.where(known, values[:, inside], 0.0).astype(np.float64)
        for place, column in enumerate(inside):
            others = known.sum(1) - known[:, place]
            both = known[:, place] & (others > 0)
            if both.any():
                rest = (x.sum(1) - x[:, place])[both] / others[both]
                found[column] = np.sqrt(np.mean((x[both, place] - rest) ** 2))
    return found


def _root_mean_square(difference: np.ndarray) -> np.ndarray:
    """(S,) of (T, S), what is known; NaN where nothing is."""
    known = np.isfinite(difference)
    total = np.where(known, difference, 0.0).astype(np.float64)
    count = known.sum(0)
    return np.sqrt(np.where(count > 0, (total**2).sum(0) / np.maximum(count, 1), np.nan))


def station_rows(
    sampling: Sampling, observations: Observations, pollutants: Sequence[str],
    analysis: Observations | None = None,
) -> list[dict]:  # fmt: skip
    """A line a station for tables and JSON files (None where a number is not known).

    Those of `Sampling.table`, `stations_in_cell`, and for each pollutant over the hours given
    `spread_<name>_ug_m3` (`spread_within_cells`) and, with an analysis at the same stations,
    `from_analysis_<name>_ug_m3`, the root mean square of station minus analysis.
    """
    _, place, count = np.unique(sampling.cell, return_inverse=True, return_counts=True)
    columns = {"stations_in_cell": count[place]}
    for name in pollutants:
        values = observations.values[:, TARGETS.index(name)]
        spread = spread_within_cells(values, sampling.cell)
        columns[f"spread_{name}_ug_m3"] = spread.round(2)
        if analysis is not None:
            seen = analysis.at(observations.times)[:, TARGETS.index(name)]
            columns[f"from_analysis_{name}_ug_m3"] = _root_mean_square(values - seen).round(2)
    lists = {name: values.tolist() for name, values in columns.items()}
    more = [dict(zip(lists, line, strict=True)) for line in zip(*lists.values(), strict=True)]
    rows = [a | b for a, b in zip(sampling.table(), more, strict=True)]
    return [{k: None if v != v else v for k, v in row.items()} for row in rows]


def station_record(
    samplings: Sequence[Sampling], names: Sequence[str], observations: Observations,
    pollutants: Sequence[str], dropped: Mapping[str, str], unfitted: np.ndarray,
    fit: Split | None, analysis: Observations | None = None,
) -> dict:  # fmt: skip
    """What a reader of station scores must know, JSON values.

    Returns
    -------
    dict
        sampling : str; fit : [start, end] of the training period, or None;
        table : `station_rows` of the first store's grid, in the order of the board's places;
        other_grids : by store, the same on grids that differ from the first;
        outside : reason by id of station; unfitted : pollutants by id, without climatology and
        therefore not scored.
    """
    first, ids = samplings[0], observations.stations.ids
    others = {
        name: station_rows(one, observations, pollutants)
        for name, one in zip(names, samplings, strict=True)
        if repr(one.table()) != repr(first.table())  # a height that is not known equals itself
    }
    lost = {
        str(ids[s]): [pollutants[p] for p in np.flatnonzero(unfitted[:, s])]
        for s in np.flatnonzero(unfitted.any(0))
    }
    return {
        "sampling": first.method,
        "fit": None if fit is None else [str(fit.start), str(fit.end)],
        "table": station_rows(first, observations, pollutants, analysis),
        "other_grids": others,
        "outside": {name: str(reason) for name, reason in dropped.items()},
        "unfitted": lost,
    }

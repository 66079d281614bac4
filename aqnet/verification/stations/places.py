"""Stations as several grids see them: which ones all have, in which groups, with which analysis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from aqnet.errors import CoverageError, explain
from aqnet.verification.groups import ASSIMILATED, WITHHELD
from aqnet.verification.stations.analysis import AnalysisFields
from aqnet.verification.stations.network import Stations
from aqnet.verification.stations.sampling import Sampling, sample_stations
from aqnet.verification.store.reader import ForecastStore

__all__ = ["StationPlaces", "station_members"]


@dataclass(frozen=True, eq=False)
class StationPlaces:
    """Stations that every grid has, and how each store and the analysis see them.

    Attributes
    ----------
    of_stores : tuple of Sampling
        One a store.
    of_analysis : Sampling or None
    kept : (S,) int
        Positions in the table of stations.
    dropped : dict of str to str
        The others, and why.
    """

    of_stores: tuple[Sampling, ...]
    of_analysis: Sampling | None
    kept: np.ndarray
    dropped: dict[str, str]

    @staticmethod
    def of(
        stores: Sequence[ForecastStore], analysis: AnalysisFields | None, stations: Stations,
        method: str, outside: str, elevation_m: np.ndarray | None,
    ) -> StationPlaces:  # fmt: skip
        """Arguments as `sample_stations`, `elevation_m` of the first store's grid.

        GridError if stations outside are refused.
        """
        sources = [*stores, *([] if analysis is None else [analysis])]
        dropped: dict[str, str] = {}
        for source in sources:
            seen = sample_stations(source.grid, source.mask, stations, method, outside=outside)
            dropped = seen.dropped | dropped
        kept = np.flatnonzero(~np.isin(stations.ids, list(dropped)))
        if not kept.size:
            raise CoverageError(
                explain("no station can be sampled on all grids", expected="at least one",
                        found=f"{len(dropped)} outside of one or another",
                        remedy="choose other stations, or score the stores one by one")
            )  # fmt: skip
        ours = sources[0].grid.digest  # of which the elevation is
        heights = [elevation_m if source.grid.digest == ours else None for source in sources]
        found = tuple(
            sample_stations(source.grid, source.mask, stations.take(kept), method, elevation_m=h)
            for source, h in zip(sources, heights, strict=True)
        )
        of_analysis = None if analysis is None else found[-1]
        return StationPlaces(found[: len(stores)], of_analysis, kept, dropped)


def station_members(
    stations: Stations, regions: Mapping[str, np.ndarray] | None = None
) -> dict[str, np.ndarray]:
    """Groups of stations, (S,) bool by name; those without a station are left out.

    `ASSIMILATED` and `WITHHELD`; "network X" and "class X" if there are several; `regions`.
    """
    found = {ASSIMILATED: ~stations.withheld, WITHHELD: stations.withheld}
    for title, labels in (("network", stations.networks), ("class", stations.classes)):
        if len(unique := np.unique(labels)) > 1:
            found |= {f"{title} {label}": labels == label for label in unique}
    found |= {name: np.asarray(chosen) for name, chosen in (regions or {}).items()}
    return {name: chosen for name, chosen in found.items() if chosen.any()}

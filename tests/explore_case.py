"""Small worlds to look at: an analysis of stations in memory, and a made-up year of fields."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import synthetic
from made_up_years import make_year

from aqnet.data.store import AnalysisStore
from aqnet.data.years.reader import open_year
from aqnet.data.years.year_set import YearSet
from aqnet.explore.world import Place, World
from aqnet.grid import Grid
from aqnet.variables import STATIC

DAYS = 4


def manifest(name: str, synthetic_data: bool, **more: object) -> SimpleNamespace:
    """What a world asks of a manifest."""
    return SimpleNamespace(
        name=name, title=f"Title of {name}", doi="none", licence="a licence; with details",
        synthetic=synthetic_data, source_utc_offset_h=8.0, digest="0" * 64, **more,
    )  # fmt: skip


def station_world(content: dict[str, np.ndarray] | None = None) -> World:
    """Six stations, the last one withheld, and 8 x 8 cells."""
    store: AnalysisStore = synthetic.store_of(content or synthetic._arrays())
    kinds = np.where(store.withheld, "withheld station", "station").tolist()
    rows = zip(store.stations, store["station_lat"][:], store["station_lon"][:], kinds, strict=True)
    places = tuple(Place(n, float(y), float(x), k) for n, y, x, k in rows)
    grid = Grid("tiny", store["lat"][:], store["lon"][:])
    elevation = store.read("static")[STATIC.index("elevation")]
    return World(manifest("stations", False), store, grid, np.ones(grid.shape, bool), elevation,
                 store.times, places, 1)  # fmt: skip


def field_world(folder: Path) -> World:
    """Four days on 32 x 64 cells, simulated."""
    years = YearSet([open_year(make_year(folder, days=DAYS))])
    elevation = years.static[STATIC.index("elevation")]
    places = (Place("here", 36.0, 110.0, "cell"), Place("there", 33.0, 105.0, "cell"))
    return World(manifest("fields", True), years, years.grid, years.mask, elevation, years.times,
                 places, 3)  # fmt: skip

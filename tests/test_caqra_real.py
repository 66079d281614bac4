"""A real file of CAQRA, if there is one: AQNET_CAQRA_FILE=FILE pytest tests/test_caqra_real.py -s.

Any file of one hour or one day on the source's Lambert grid serves; it is read in place.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from aqnet.data.grid_manifest import GridManifest
from aqnet.data.manifest import load_manifest
from aqnet.data.source import ingest as module
from aqnet.data.source.caqra import native_name, read_hour
from aqnet.data.source.conversion import Conversion
from aqnet.data.years.reader import open_year, verify_year
from aqnet.grid import EARTH_RADIUS_KM
from aqnet.lambert_grid import LambertGrid
from aqnet.variables import DYNAMIC, TARGETS, VARIABLES

FILE = os.environ.get("AQNET_CAQRA_FILE")
LABEL = np.datetime64("2013-01-01T00", "h")
MANIFEST = load_manifest(Path(__file__).resolve().parents[1] / "data_manifests" / "caqra.yaml")

pytestmark = pytest.mark.skipif(
    FILE is None, reason="set AQNET_CAQRA_FILE to a file of CAQRA to run these tests"
)


@pytest.fixture(scope="module")
def hour():
    return read_hour(Path(FILE).read_bytes(), MANIFEST, FILE)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Store of a year of 48 hours, of which the first is the file, and its conversion."""
    folder = tmp_path_factory.mktemp("real")
    (folder / "source").mkdir()
    (folder / "source" / native_name(LABEL)).symlink_to(Path(FILE).resolve())
    whole = GridManifest.times
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AQNET_DATA", str(folder / "data"))
        patch.setattr(GridManifest, "times", lambda self, year: whole(self, year)[:48])
        listing = module.find_hours(MANIFEST, folder / "source", 2013, "stop")
        conversion, _ = module.prepare(MANIFEST, listing, 2013)
        path = module.ingest_year(MANIFEST, folder / "source", 2013, folder / "out")
    assert verify_year(path, deep=True)
    return open_year(path), conversion


@pytest.fixture(scope="module")
def fields(made) -> dict[str, np.ndarray]:
    return dict(zip(DYNAMIC, made[0].read(slice(0, 1))[0], strict=True))


def test_the_grid_is_the_one_that_was_documented(hour):
    grid = LambertGrid.from_latlon(hour.lat2d, hour.lon2d, "real")
    steps = (grid.x_m[1] - grid.x_m[0], grid.y_m[1] - grid.y_m[0])
    print(f"\ngrid: {grid.shape} cells, steps {steps} m, {grid.orientation}")
    np.testing.assert_allclose(np.abs(steps), 15_000, rtol=1e-3)


def test_china_is_covered(made):
    store, conversion = made
    share = store.mask.sum() / conversion.land.sum()
    print(f"\nmask: {store.mask.sum()} of {conversion.land.sum()} cells of China ({share:.2%})")
    assert share > 0.98 and store.valid[0].all()


def test_values_stay_inside_the_range_of_the_source(hour, made, fields):
    mask = made[0].mask
    speed = np.hypot(*hour.values[:2])
    print()
    for name, values in fields.items():
        source, rounding = hour.values[DYNAMIC.index(name)], 2.0 ** -VARIABLES[name].keep_bits
        low, high = np.nanmin(source), np.nanmax(source)
        if name in ("u", "v"):  # turned
            low, high = -np.nanmax(speed), np.nanmax(speed)
        found = values[mask]
        assert np.isfinite(found).all()
        print(
            f"{name:5} {VARIABLES[name].unit:6} source {np.nanmin(source):10.2f} "
            f"{np.nanmedian(source):10.2f} {np.nanmax(source):10.2f}   store {found.min():10.2f} "
            f"{np.median(found):10.2f} {found.max():10.2f}"
        )
        assert found.min() >= low - rounding * abs(low)
        assert found.max() <= high + rounding * abs(high)


def test_co_is_in_ug_and_pressure_goes_down_to_tibet(made, fields):
    mask = made[0].mask
    assert 50 < np.median(fields["co"][mask]) < 5000
    low = fields["psfc"][mask].min()
    lat, lon = (axis[mask][fields["psfc"][mask].argmin()] for axis in made[0].grid.mesh())
    print(f"\nlowest pressure {low / 1e3:.1f} kPa at {lat:.1f} N {lon:.1f} E")
    assert 45e3 < low < 52e3 and 26 < lat < 37 and 75 < lon < 105


def inside(conversion: Conversion, lat, lon, cells: np.ndarray, grid) -> np.ndarray:
    """Which places lie in one of the target `cells`."""
    lat_edges, lon_edges = grid.edges()
    row = np.floor((lat - lat_edges[0]) / (lat_edges[1] - lat_edges[0])).astype(int)
    col = np.floor((lon - lon_edges[0]) / (lon_edges[1] - lon_edges[0])).astype(int)
    there = (row >= 0) & (row < grid.shape[0]) & (col >= 0) & (col < grid.shape[1])
    return there & cells[np.clip(row, 0, grid.shape[0] - 1), np.clip(col, 0, grid.shape[1] - 1)]


@pytest.mark.parametrize("name", TARGETS)
def test_the_mass_of_each_pollutant_is_kept(hour, made, fields, name):
    store, conversion = made
    source = LambertGrid.from_latlon(hour.lat2d, hour.lon2d, "real")
    field = hour.values[DYNAMIC.index(name)].astype(np.float64)
    known = conversion.area.apply(np.where(np.isnan(field), np.nan, 1.0))
    share = (conversion.area.matrix @ np.isfinite(field).reshape(-1)).reshape(store.grid.shape)
    cells = store.mask & np.isfinite(known) & (share > 0.9999)  # known to their last corner
    area = store.grid.cell_area_km2 * (source.radius_m / 1e3 / EARTH_RADIUS_KM) ** 2
    found = (fields[name] * area)[cells].sum(dtype=np.float64)
    # independent: every source cell as 8 x 8 squares, each inside or outside of these cells
    offset = ((np.arange(8) + 0.5) / 8 - 0.5) * 15e3
    x, y = ((axis[:, None] + offset).reshape(-1) for axis in (source.x_m, source.y_m))
    places = source.to_latlon(*np.meshgrid(x, y))
    counted = inside(conversion, *places, cells, store.grid)
    counted = counted.reshape(source.shape[0], 8, source.shape[1], 8).mean((1, 3))
    expected = np.nansum(field * source.cell_area_km2 * counted)
    all_of_it = np.nansum(field * source.cell_area_km2)
    in_mask = (fields[name] * area)[store.mask].sum(dtype=np.float64)
    print(
        f"\n{name}: {found / expected - 1:+.4%} in {cells.sum()} cells that are known entirely; "
        f"the whole mask holds {in_mask / all_of_it:.2%} of the source"
    )
    assert abs(found / expected - 1) < 5e-3

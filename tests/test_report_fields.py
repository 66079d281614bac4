"""Maps, films and episodes: what the rules find, and pictures that stay as they were.

Pictures are compared with those in tests/golden/report: root mean square difference of the
pixels below 8 of 255, which a moved label of another font rendering stays below, and a field
moved by one cell does not. AQNET_NEW_PICTURES=1 writes them anew; look at them then.
"""

from __future__ import annotations

import base64
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from forecast_case import PROVENANCE, small_store
from made_up_years import made_up_mask, make_year
from matplotlib.testing.compare import compare_images

from aqnet.data.years.reader import open_year
from aqnet.data.years.year_set import YearSet
from aqnet.errors import StoreError
from aqnet.grid import GRIDS
from aqnet.metrics import VerificationError
from aqnet.variables import DYNAMIC, TARGETS
from aqnet.verification.report import episodes, station_episode
from aqnet.verification.report.boards import BoardFile
from aqnet.verification.report.build import Asked, board_report
from aqnet.verification.report.episodes import worst_day
from aqnet.verification.report.fields import Fields, place_fields
from aqnet.verification.report.leads import draw_rmse, draw_skill
from aqnet.verification.report.maps import draw_beside, draw_place_maps
from aqnet.verification.report.page import render_page
from aqnet.verification.report.station_episode import StationEpisode, station_episode_section
from aqnet.verification.report.transect import draw_transect
from aqnet.verification.scoring import score
from aqnet.verification.stations.network import Observations, Stations
from aqnet.verification.store.reader import open_forecast_store

GRID, LEADS = GRIDS["china_32x64"], (12, 24)
CHANNELS = [DYNAMIC.index(name) for name in TARGETS]
GOLDEN, TOLERANCE = Path(__file__).parent / "golden" / "report", 8.0


@pytest.fixture(scope="module")
def fields(tmp_path_factory):
    """Eight days of made-up truth, and a forecast that is too high by a tenth of the level."""
    folder = tmp_path_factory.mktemp("fields")
    truth = YearSet([open_year(make_year(folder, days=8))])

    def forecast(times):
        rows = np.searchsorted(truth.times, times)
        now = truth.read(rows)[:, CHANNELS]
        return np.repeat(1.1 * now[:, None], len(LEADS), axis=1)

    path = small_store(
        folder / "f.zarr", 28, 7, times=truth.times[: 28 * 6 : 6], lead_times_h=LEADS, grid=GRID,
        mask=made_up_mask(GRID), provenance=PROVENANCE | {"name": "too high"}, forecast=forecast,
    )  # fmt: skip
    return Fields(open_forecast_store(path), truth)


@pytest.fixture(scope="module")
def board(fields):
    return score(fields.store, fields.truth, windows=(), pollutants=("pm25", "o3"))


def test_fields_are_those_of_store_and_truth(fields):
    times = fields.valid_times(12)
    rows = np.searchsorted(fields.truth.times, times[:3])
    seen = fields.truth.read(rows)[:, DYNAMIC.index("o3")]
    np.testing.assert_array_equal(
        fields.truth_at(times[:3], "o3")[:, fields.mask], seen[:, fields.mask]
    )
    made = fields.forecast_at(times[:3], "o3", 12)[:, fields.mask]
    np.testing.assert_array_equal(made, fields.store.read(slice(0, 3), 12, "o3", cells=True))
    gone = times[:1] - np.timedelta64(1, "h")
    assert np.isnan(fields.forecast_at(gone, "o3", 12)).all()
    near = fields.within(39.9, 116.4, 150)
    mean = np.average(seen[0][near], weights=GRID.cell_area_km2[near])
    assert fields.means(times[:1], "o3", near)[0] == pytest.approx(mean, rel=1e-6)


def test_maps_of_places_are_scores_of_cells(fields, board):
    found = place_fields(board, fields, "too high")
    times = fields.valid_times(24)
    error = fields.forecast_at(times, "pm25", 24) - fields.truth_at(times, "pm25")
    np.testing.assert_allclose(found["bias"][1, 0], error.mean(0), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(
        found["rmse"][1, 0], np.sqrt((error**2).mean(0)), rtol=1e-5, atol=1e-4
    )
    other = score(fields.store, fields.truth, windows=(), each_place=False)
    with pytest.raises(VerificationError, match="no map of these cells"):
        place_fields(other, fields, "too high")


def test_the_worst_day_is_the_highest_mean_of_24_hours():
    times = np.datetime64("2018-01-01T00", "h") + np.arange(0, 240, 6)
    values = np.where((times > times[10]) & (times <= times[14]), 100.0, 10.0)
    values[30] = 250.0  # one high value does not make a day
    assert worst_day(times, values) == times[14]
    values[11:15] = np.nan
    assert worst_day(times, values) in times[30:34]
    with pytest.raises(VerificationError, match="no episode"):
        worst_day(times, np.full(len(times), np.nan))


def test_stores_of_other_grids_are_refused(fields, tmp_path):
    with pytest.raises(StoreError, match="another grid"):
        Fields(open_forecast_store(small_store(tmp_path / "s.zarr")), fields.truth)


@pytest.fixture(scope="module")
def page(fields, board):
    file = BoardFile(Path("b.npz"), "0" * 64, board, "too high", "board-1")
    return board_report([file], Asked(tests=False, frames=9), fields)


def test_the_report_has_maps_film_and_episodes(page):
    sections = {section.key: section for section in page.sections}
    assert {"maps", "haze", "transect", "credits"} <= set(sections)
    kinds = [block.kind for block in sections["haze"].blocks]
    assert kinds == ["text", "picture", "picture", "film"]
    film = sections["haze"].blocks[-1]
    assert len({src for _, src in film.frames}) == len(film.frames) > 4
    text = render_page(page)
    assert text.count("Natural Earth") >= 4 and "highest mean PM2.5 within 100 km" in text
    assert "Sichuan basin" in text and "attribution" in text
    assert len(text) < 12e6


# ---- pictures


def figures_of(fields, board):
    times = fields.valid_times(12)[:20]
    truth, forecast = fields.truth_at(times, "pm25"), fields.forecast_at(times, "pm25", 12)
    row, columns = 13, np.arange(64) > 30
    section = episodes.Transect(
        "pm25", 12, times, 30.0, GRID.lon[columns], truth[:, row, columns],
        forecast[:, row, columns], fields.elevation_m[row, columns],
    )  # fmt: skip
    return {
        "beside": draw_beside(fields, truth[0], {"12 h ahead": forecast[0]}, "pm25", (150, 30)),
        "places": draw_place_maps(fields, place_fields(board, fields, "too high"), ["pm25"], 0),
        "transect": draw_transect(section, "made-up"),
        "rmse": draw_rmse(lines("forecast", "rmse"), "a"),
        "skill": draw_skill(lines("reference", "skill")),
    }


def lines(by, column):
    rows = [
        {by: name, "pollutant": p, "lead_h": lead, column: v, "low": v - 0.2, "high": v + 0.1}
        for n, name in enumerate("abc")
        for p in TARGETS
        for lead in LEADS
        for v in [0.1 * lead * (n + 0.5)]
    ]
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def drawn(fields, board, tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    for name, figure in figures_of(fields, board).items():
        figure.savefig(folder / f"{name}.png", dpi=45, metadata={"Software": None})
    if os.environ.get("AQNET_NEW_PICTURES") == "1":
        GOLDEN.mkdir(exist_ok=True)
        for path in folder.glob("*.png"):
            (GOLDEN / path.name).write_bytes(path.read_bytes())
    return folder


@pytest.mark.parametrize("name", ["beside", "places", "transect", "rmse", "skill"])
def test_pictures_stay_as_they_were(drawn, name):
    assert compare_images(GOLDEN / f"{name}.png", drawn / f"{name}.png", TOLERANCE) is None


def test_a_field_moved_by_a_cell_is_seen(fields, drawn, tmp_path):
    time = fields.valid_times(12)[:1]
    truth = np.roll(fields.truth_at(time, "pm25")[0], 1, axis=1)
    forecast = np.roll(fields.forecast_at(time, "pm25", 12)[0], 1, axis=1)
    figure = draw_beside(fields, truth, {"12 h ahead": forecast}, "pm25", (150, 30))
    figure.savefig(tmp_path / "moved.png", dpi=45)
    assert compare_images(GOLDEN / "beside.png", tmp_path / "moved.png", TOLERANCE)


# ---- stations


@pytest.fixture(scope="module")
def episode(fields):
    """Observed: the truth of the nearest cell, twice as high at the station "high"."""
    ids = np.array(["low", "high", "held", "far"])
    stations = Stations(
        ids, ids, np.array([33.0, 36.0, 35.0, 70.0]), np.array([104.0, 112.0, 106.0, 20.0]),
        np.full(4, np.nan), ids, np.full(4, "urban"), ids == "held",
    )  # fmt: skip
    cells = [(15, 30), (12, 40), (13, 32), (0, 0)]
    hours = np.stack(
        [fields.truth.read(slice(0, 192))[:, CHANNELS, r, c] for r, c in cells], axis=-1
    )
    hours[..., 1] *= 2
    seen = Observations(stations, fields.truth.times[:192], np.nan_to_num(hours))
    return StationEpisode.of(fields.store, seen)


def test_an_episode_at_stations_shows_the_worst_and_the_withheld(episode):
    assert list(episode.observed.stations.ids) == ["low", "high", "held"]
    section = station_episode_section(episode, episodes.Shown("pm25", 24, "too high"), None, None)
    assert [block.kind for block in section.blocks] == ["text", "picture", "picture"]
    assert "24 h with the highest mean PM2.5 of the stations" in section.blocks[0].sentences[0]
    times = episode.valid_times(24)
    series = station_episode._series(episode, episodes.Shown("pm25", 24, "too high"), times)
    assert [one.station.split(" ")[0] for one in series] == ["high", "low", "held"]
    # init times every 6 h: the value at the init time is the one observed four steps before
    np.testing.assert_array_equal(series[0].forecasts["persistence"][4:], series[0].observed[:-4])
    made = episode.sampling(episode.store.read(0, 24, "pm25", cells=True))
    assert series[1].forecasts["too high"][0] == made[0]


def test_an_episode_of_a_period_without_forecasts_is_refused(episode):
    late = np.datetime64("2019-01-01T00", "h")
    with pytest.raises(VerificationError, match="no episode at the stations"):
        station_episode_section(episode, episodes.Shown("pm25", 24, "x"), late, late)


def test_frames_of_a_film_keep_their_layout(page):
    (haze,) = [section for section in page.sections if section.key == "haze"]
    sizes = set()
    for _, src in haze.blocks[-1].frames:
        data = base64.b64decode(src.split(",")[1])
        sizes.add(data[16:24])  # width and height of a PNG
    assert len(sizes) == 1

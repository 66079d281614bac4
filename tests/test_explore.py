"""What notebooks look with: worlds, forecasts, footprints, figures that only update."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace

import explore_case
import network_case
import numpy as np
import pytest
import synthetic
import torch
from explore_case import field_world, station_world
from forecast_case import PROVENANCE
from matplotlib.figure import Figure
from matplotlib.image import imread

from aqnet.data.stations.samples import batch_arrays
from aqnet.errors import CoverageError, LeadTimeError
from aqnet.explore import attention
from aqnet.explore.attention import _Calls, _inner, attention_row, prior_footprints
from aqnet.explore.bench_redraw import redraw_times
from aqnet.explore.controls import TimeControl
from aqnet.explore.explorers import explore_footprint, explore_map, explore_runs
from aqnet.explore.footprint_view import MEAN, FootprintView
from aqnet.explore.forecast_view import ForecastView, Moment, RunsView
from aqnet.explore.forecasts import Forecast, open_forecast, window_of
from aqnet.explore.map_view import MapView
from aqnet.explore.panels import Map
from aqnet.explore.scan_view import ScanView
from aqnet.explore.world import clock
from aqnet.grid import GRIDS, Grid
from aqnet.model.attention import PlainAttention
from aqnet.model.check_attention import Sizes, made_up_context
from aqnet.model.config import ScanConfig
from aqnet.model.physics_attention import PhysicsAttention, PhysicsConfig
from aqnet.model.ridge import ridge_path, ridge_spec, save_ridge
from aqnet.variables import DYNAMIC, TARGETS
from aqnet.verification.forecast_plan import ForecastPlan, write_forecasts
from aqnet.verification.forecasts import sample_at_stations

LATE = synthetic.HOURS - 2000  # row of an hour with 60 days before it and 48 h after it


@pytest.fixture(scope="module")
def stations():
    return station_world()


@pytest.fixture(scope="module")
def fields(tmp_path_factory):
    return field_world(tmp_path_factory.mktemp("fields"))


def picture(view):
    """(h, w, 3), 0 to 1."""
    return imread(io.BytesIO(view.png()), format="png")[..., :3]


def region(pixels, axes):
    """Pixels of the inside of axes."""
    box, (height, width) = axes.get_position(), pixels.shape[:2]
    rows = slice(round((1 - box.y1) * height) + 2, round((1 - box.y0) * height) - 2)
    return pixels[rows, round(box.x0 * width) + 2 : round(box.x1 * width) - 2]


# ---- worlds


def test_hours_of_stations_are_those_of_the_store(stations):
    content = synthetic._arrays()
    row = 700
    time = stations.times[row]
    np.testing.assert_array_equal(stations.hour(time), content["inputs"][row])
    np.testing.assert_array_equal(stations.wind(time), content["inputs"][row, :2])
    truth, bad = stations.truth(time), content["targets_error_ratio"][row] > 0.5
    assert np.isnan(truth[bad]).all() and bad.any()
    np.testing.assert_array_equal(truth[~bad], content["targets"][row][~bad])
    p = TARGETS.index("o3")
    hours = stations.times[row - 3 : row + 4]
    series = stations.series(4, "o3", hours)
    np.testing.assert_array_equal(series, content["station_values"][row - 3 : row + 4, 4, p])


def test_an_hour_that_is_not_there(stations):
    with pytest.raises(CoverageError, match="2012-01-01"):
        stations.hour(np.datetime64("2012-01-01T00", "h"))
    far = stations.times[-1] + np.arange(-1, 2).astype("timedelta64[h]")
    assert np.isfinite(stations.series(0, "pm25", far)).tolist()[2] is False


def test_values_at_places(stations, fields):
    field = np.random.default_rng(0).normal(size=(3, *stations.grid.shape))
    records = type("R", (), {"lat": np.array([p.lat for p in stations.places]),
                             "lon": np.array([p.lon for p in stations.places])})  # fmt: skip
    expected = sample_at_stations(stations.grid, records, field)
    np.testing.assert_allclose(stations.at_place(2, field), expected[:, 2], rtol=1e-12)
    time = fields.times[10]
    place = fields.places[1]
    row, column = fields.cell(place)
    assert abs(fields.grid.lat[row] - place.lat) < 0.6  # half a cell of 1.2 degrees
    expected = fields.hour(time)[DYNAMIC.index("co"), row, column]
    assert fields.series(1, "co", np.array([time]))[0] == expected


def test_both_clocks_are_written():
    text = clock(np.datetime64("2016-12-20T16", "h"), 8.0)
    assert text == "2016-12-20 16:00 UTC = 2016-12-21 00:00 UTC+8"


# ---- maps


@pytest.mark.parametrize("north_first", [True, False])
def test_a_field_is_drawn_where_it_is(north_first):
    world = station_world()
    lat = 39.7 + 0.05 * np.arange(8)
    grid = Grid("g", lat[::-1] if north_first else lat, 116.0 + 0.05 * np.arange(8))
    object.__setattr__(world, "grid", grid)
    axes = Figure().subplots()
    drawn = Map(axes, world, "viridis", None, wind_m_s=5)
    lat2d, lon2d = grid.mesh()
    drawn.field(lat2d + 10 * lon2d)
    held, (west, east, south, north) = drawn.image.get_array(), drawn.image.get_extent()
    assert drawn.image.origin == "lower" and west < east and south < north
    np.testing.assert_allclose(held[0, 0], lat.min() + 10 * 116.0)  # south-west corner
    np.testing.assert_allclose(held[-1, 0], lat.max() + 10 * 116.0)
    uv = np.stack([lat2d, lon2d]).astype(np.float32)
    uv[:, 0, 0] = np.nan
    drawn.wind(uv)
    x, y = drawn.quiver.XY.T
    u, v = (np.ma.filled(a, np.nan).ravel() for a in (drawn.quiver.U, drawn.quiver.V))
    known = ~drawn.quiver.Umask.ravel() if np.ndim(drawn.quiver.Umask) else np.isfinite(u)
    assert known.sum() == 63
    np.testing.assert_allclose(u[known], y[known], rtol=1e-6)
    np.testing.assert_allclose(v[known], x[known], rtol=1e-6)


def looks(world, hour):
    """Each view with two choices of its controls."""
    a, b = (open_forecast(world, n) for n in ("persistence", "same hour of the day"))
    prints = prior_footprints(world)
    place = world.grid.lat.mean(), world.grid.lon.mean()
    later, moments = hour + 5, [Moment(hour + k, 12, "o3", k) for k in (0, 1)]
    views = MapView(world), ScanView(world, 2, (2, 2), 3), FootprintView(world)
    return [
        (views[0], lambda: views[0].update("pm25", hour, 0),
         lambda: views[0].update("temp", later, 1)),
        (views[1], lambda: views[1].update(hour, "region", 1.0),
         lambda: views[1].update(later, "lanes", 0.5)),
        (views[2], lambda: views[2].update(prints, hour, place, "plume", MEAN, 0),
         lambda: views[2].update(prints, later, (place[0] + 1, place[1]), "plume, climb", "1", 0)),
        (forecast := ForecastView(world), lambda: forecast.update(a, moments[0]),
         lambda: forecast.update(b, moments[1])),
        (runs := RunsView(world), lambda: runs.update(a, b, moments[0]),
         lambda: runs.update(b, a, moments[1])),
    ]  # fmt: skip


def artists_of(view):
    """What is drawn, but for colour bars, which matplotlib draws anew for another scale."""
    own = [axes for axes in view.figure.axes if axes.get_label() != "<colorbar>"]
    return {id(artist) for axes in own for artist in axes.get_children()}


@pytest.mark.parametrize("kind", ["stations", "fields"])
def test_views_update_artists_and_keep_their_layout(kind, stations, fields):
    world = stations if kind == "stations" else fields
    hour = world.times[min(LATE, 40)]
    for view, first, second in looks(world, hour):
        first()
        before = picture(view)
        artists = artists_of(view)
        places = [axes.get_position().bounds for axes in view.figure.axes]
        second()
        assert np.abs(picture(view) - before).max() > 0.2, view
        assert artists_of(view) == artists
        assert [axes.get_position().bounds for axes in view.figure.axes] == places
        first()
        np.testing.assert_array_equal(picture(view), before)


def test_only_what_depends_on_a_control_changes(stations):
    view, hour = MapView(stations), stations.times[LATE]
    view.update("pm25", hour, 0)
    before = picture(view)
    image, series, bar = view.map.axes, view.series.axes, view.map.bar.ax
    view.update("pm25", hour, 1)  # another place: another series, the same map but for the ring
    after = picture(view)
    assert (region(after, series) != region(before, series)).any()
    share = (region(after, image) != region(before, image)).mean()
    assert 0 < share < 0.03
    view.update("pm25", hour + 7, 1)
    later = picture(view)
    assert (region(later, image) != region(after, image)).mean() > 0.3
    np.testing.assert_array_equal(region(later, bar), region(after, bar))


def test_simulated_data_are_marked(stations, fields):
    assert "SYNTHETIC" in MapView(fields)._mark.get_text()
    assert MapView(stations)._mark.get_text() == ""


# ---- forecasts


def test_rules_see_nothing_later_than_the_init_time(stations):
    time = stations.times[LATE]
    content = synthetic._arrays()["inputs"]
    at = DYNAMIC.index("co")
    same = open_forecast(stations, "same hour of the day", (12, 24, 36, 96))
    for lead, row in ((12, LATE - 12), (24, LATE), (36, LATE - 12), (96, LATE)):
        np.testing.assert_array_equal(same.at(time, lead, "co"), content[row, at])
    keep = open_forecast(stations, "persistence")
    np.testing.assert_array_equal(keep.at(time, 96, "co"), content[LATE, at])
    with pytest.raises(LeadTimeError, match="13"):
        keep.at(time, 13, "co")


def test_a_window_of_the_store_makes_the_batch_of_the_whole(stations):
    whole, _ = synthetic.tiny()
    time, ahead = stations.times[LATE], max(synthetic.LEADS)
    part = window_of(stations, whole.normaliser, time, ahead, synthetic.splits())
    row = int(np.flatnonzero(part.history.times == time)[0])
    assert part.inputs_valid[row] == whole.inputs_valid[LATE]
    expected = batch_arrays(whole, np.array([LATE]), synthetic.LEADS)
    found = batch_arrays(part, np.array([row]), synthetic.LEADS)
    for name in set(expected) - {"target", "weight"}:
        np.testing.assert_allclose(found[name], expected[name], rtol=2e-5, atol=2e-4, err_msg=name)
    with pytest.raises(CoverageError, match="too near"):
        window_of(stations, whole.normaliser, stations.times[100], ahead, synthetic.splits())


def test_forecasts_of_a_store(fields, tmp_path):
    times = fields.times[24:48:6]
    values = np.random.default_rng(0).gamma(2, 20, (4, 2, 6, *fields.grid.shape)).astype("f4")
    plan = ForecastPlan(
        times, (), (12, 24), fields.grid, fields.mask, PROVENANCE,
        lambda some: values[np.searchsorted(times, some)], 4,
    )  # fmt: skip
    write_forecasts(plan, tmp_path / "f.zarr", echo=lambda line: None)
    found = open_forecast(fields, tmp_path / "f.zarr")
    field = found.at(times[1], 24, "no2")
    expected = values[1, 1, TARGETS.index("no2")][fields.mask]
    np.testing.assert_allclose(field[fields.mask], expected, rtol=1e-3)  # bits kept by the store
    with pytest.raises(CoverageError, match="no such init time"):
        found.at(times[1] + 1, 24, "no2")


# ---- attention


def gradient_row(core, q, k, context, receiver):
    """Weights of a receiver as the derivative of what it gets by what the others send."""
    v = torch.zeros_like(q, requires_grad=True)
    got = core(q, k, v, context)[:, :, receiver, 0].sum()
    return torch.autograd.grad(got, v)[0][..., 0]


@pytest.mark.parametrize(
    "config",
    [
        None,
        PhysicsConfig(),
        PhysicsConfig(ridge=True),
        PhysicsConfig(elevation="source_uphill", position="none"),
    ],
)
def test_weights_are_those_that_the_core_applies(config):
    sizes = Sizes(1, 4, 40, 16, 3)
    context = made_up_context(sizes)
    q, k = torch.randn(2, 1, 4, 40, 16, generator=torch.Generator().manual_seed(0)).double()
    core = PlainAttention(4) if config is None else PhysicsAttention(4, config).double()
    row = attention_row(core, q, k, context, 7)
    torch.testing.assert_close(row.double().sum(-1), torch.ones(1, 4).double())
    expected = gradient_row(core, q, k, context, 7)
    torch.testing.assert_close(row.double(), expected.double(), rtol=1e-3, atol=1e-5)


def test_weights_in_windows_along_the_scan():
    scan = ScanConfig(mode="lanes", window=6, regions=(2, 2), lane_patches=2)
    network = network_case.network(scan=scan, physics=network_case.ALL)
    given = network_case.inputs(1)
    cores = {f"block {i}": _inner(b.attention.core) for i, b in enumerate(network.blocks)}
    with _Calls(cores, network.scan) as calls, torch.no_grad():
        network(**given)
    order = network.scan(*given["wind"].unbind(1), network.mask).order[0].numpy()
    for token in (0, 5, len(order) - 1):
        row = calls.row("block 0", token, 0, 1)
        np.testing.assert_allclose(row.sum(1), 1, rtol=1e-5)
        place = int(np.flatnonzero(order == token)[0])
        window = order[place // 6 * 6 : place // 6 * 6 + 6]
        assert set(np.flatnonzero(row.sum(0))) <= set(window.tolist())


def test_a_footprint_before_learning_lies_upwind(stations):
    row = LATE + int(np.hypot(*synthetic._arrays()["inputs"][LATE:, :2].mean((2, 3)).T).argmax())
    prints = prior_footprints(stations, sigma_km=8, travel_h=1.0)
    at = stations.grid.patches(2)
    lat, lon = (x.ravel() for x in at.mesh())
    u, v = stations.wind(stations.times[row]).mean((1, 2))
    weights = prints.weights(stations.times[row], 5, "plume", 0)[0]
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-5)
    along = u * (lon - lon[5]) * np.cos(np.deg2rad(40)) + v * (lat - lat[5])
    assert weights @ along < 0


def test_the_ridges_of_a_large_grid_are_those_of_its_own_terrain(tmp_path, monkeypatch):
    monkeypatch.setenv("AQNET_DATA", str(tmp_path))
    monkeypatch.setattr(attention, "_COMPUTED", 0)
    grid = GRIDS["china_32x64"]
    hills = np.random.default_rng(0).gamma(2.0, 500.0, grid.shape)
    spec = ridge_spec(grid, 4, elevation=hills)
    factors = save_ridge(ridge_path(spec), spec)
    active = np.zeros((8, 16), bool)
    active[2, 3:7] = True
    left, right = attention._ridges(SimpleNamespace(grid=grid, elevation_m=hills), 4, active)
    np.testing.assert_array_equal(left, factors.left[35:39])
    np.testing.assert_array_equal(right, factors.right[35:39])


# ---- controls


def test_a_control_changes_the_picture_and_an_error_keeps_it(stations):
    explorer = explore_map(stations, str(stations.times[LATE]))
    before = explorer.picture.value
    time = next(c for row in explorer.children[:2] for c in row.children
                if isinstance(c, TimeControl))  # fmt: skip
    time.slider.value += 1
    after = explorer.picture.value
    assert after != before and time.value == str(stations.times[LATE + 1])
    time.field.value = "1999-01-01T00"
    assert "no such hour" in time.local.value and explorer.picture.value == after
    time.field.value = f" {str(stations.times[LATE]).replace('T', ' ')} "
    assert explorer.picture.value == before and "UTC+8" in time.local.value


def test_another_place_draws_once_and_moves_both_sliders(fields, monkeypatch):
    explorer = explore_footprint(fields, str(fields.times[4]), [])
    place, lat, lon = explorer.children[1].children
    drawn, show = [], explorer.view.update
    monkeypatch.setattr(explorer.view, "update", lambda *a: [drawn.append(a[2]), show(*a)])
    here, there = fields.places[0], fields.places[1]
    place.value = 1
    assert drawn == [(lat.value, lon.value)] == [(there.lat, there.lon)]
    lat.value = here.lat  # a slider alone moves from there on
    assert drawn[1:] == [(here.lat, there.lon)]


def test_what_cannot_be_shown_is_said(stations):
    names = ["persistence", "same hour of the day"]
    explorer = explore_runs(stations, str(stations.times[LATE]), names)
    before = explorer.picture.value
    time = explorer.children[2].children[0]
    time.field.value = str(stations.times[3])  # nothing is known of the day before
    assert "there is no hour" in explorer.message.value and explorer.picture.value == before
    time.field.value = str(stations.times[LATE])
    assert explorer.message.value == "" and explorer.picture.value == before


def test_lead_times_that_two_forecasts_share(stations, monkeypatch):
    blank = np.ones((2, 6, *stations.grid.shape))
    held = {
        "a": Forecast("a", (12, 24), lambda t: blank),
        "b": Forecast("b", (24, 48), lambda t: blank),
    }
    monkeypatch.setattr("aqnet.explore.explorers.open_forecast", lambda world, name: held[name])
    explorer = explore_runs(stations, str(stations.times[LATE]), ["a", "b"])
    lead = explorer.children[1].children[1]
    assert lead.options == (24,)
    explorer.children[0].children[1].value = "a"
    assert lead.options == (12, 24) and lead.value == 24


def test_redraws_are_measured(fields):
    found = redraw_times(fields, "persistence", "same hour of the day", 1)
    names = [each.view for each in found]
    assert names == ["map", "scan", "footprint", "forecast", "two runs"]
    assert all((each.seconds >= each.drawing).all() and each.seconds.size == 1 for each in found)


def test_notebooks_hold_no_outputs_and_compose_only():
    folder = Path(explore_case.__file__).resolve().parents[1] / "nbs" / "explore"
    names = sorted(path.stem for path in folder.glob("*.ipynb"))
    assert names == ["footprint", "forecast", "map", "runs", "scan"]
    for name in names:
        cells = json.loads((folder / f"{name}.ipynb").read_text())["cells"]
        code = [cell for cell in cells if cell["cell_type"] == "code"]
        assert not any(cell["outputs"] or cell["execution_count"] for cell in code)
        assert code[0]["metadata"]["tags"] == ["parameters"]
        assert not any("def " in "".join(cell["source"]) for cell in code)

"""The report: one valid page, complete, without network, and wrong input is named."""

from __future__ import annotations

import base64
import dataclasses
import io
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from report_case import read_page

from aqnet.metrics import VerificationError
from aqnet.model.statistical import SEES
from aqnet.variables import LEAD_TIMES_H, TARGETS
from aqnet.verification.accumulate import design_of
from aqnet.verification.accumulate_blocks import BlockAccumulator
from aqnet.verification.groups import ALL, Groups
from aqnet.verification.report import leads, series, station_maps, style, tables, wording
from aqnet.verification.report.beijing import render_report
from aqnet.verification.report.beijing import write_report as write
from aqnet.verification.report.boards import BoardFile
from aqnet.verification.report.context import TRANSPORT_CAVEAT, ReportContext, outcome
from aqnet.verification.scores import BASELINES, PLACES, place_scores, primary_test

NAMES = (*BASELINES, "ridge", "model")
HOURS = 1400
LEVEL = np.array([80.0, 105.0, 12.0, 48.0, 1300.0, 57.0])  # ug/m3, in the order of TARGETS
# RMSE over level at 12 h and how it grows by lead; the model is worse than a baseline for O3.
SKILL = {
    "persistence": (0.80, 0.12),
    "climatology": (0.88, 0.0),
    "damped climatology": (0.70, 0.06),
    "trailing-damped": (0.67, 0.05),
    "ridge": (0.62, 0.05),
    "model": (0.60, 0.045),
}


def noise(rng, *shape):
    """Red noise along axis 0 with an e-folding time of 20 h."""
    phi, x = np.exp(-1 / 20), rng.standard_normal(shape)
    for t in range(1, shape[0]):
        x[t] = phi * x[t - 1] + np.sqrt(1 - phi**2) * x[t]
    return x


def fake_boards(seed):
    """Scores of forecasts whose errors are of the size seen at Beijing, at stations and cells."""
    rng = np.random.default_rng(seed)
    withheld = np.arange(5) >= 3
    members = dict(zip(PLACES, (~withheld, withheld), strict=False))
    return (fake_board(rng, 5, members), fake_board(rng, 4, {}))


def fake_board(rng, places, members):
    times = np.datetime64("2016-05-01T00", "h") + np.arange(HOURS)
    truth = LEVEL[:, None] * (1 + 0.5 * noise(rng, HOURS, 4, 6, places))
    common = 0.9 * noise(rng, HOURS, 4, 6, 1)
    forecasts = {}
    for name, (start, growth) in SKILL.items():
        scale = start + growth * np.arange(4)[:, None, None] + 0 * LEVEL[:, None]
        scale[:, 5] *= {"model": 1.35, "climatology": 0.7}.get(name, 1.0)
        own = 0.45 * noise(rng, HOURS, 4, 6, places)
        forecasts[name] = truth + scale * LEVEL[:, None] * (common + own)
    forecasts["persistence"][:12] = np.nan
    lat = np.linspace(39.8, 40.3, places)
    groups = Groups(lat, lat + 76.3, np.ones(places), members)
    adder = BlockAccumulator(design_of(groups, NAMES, LEAD_TIMES_H, TARGETS), groups)
    adder.add(times, forecasts, truth)
    return adder.board


def fake_maps(count=3, shape=(16, 16), stations=12):
    rng = np.random.default_rng(4)
    lat, lon = 39.725 + 0.05 * np.arange(shape[0]), 116.025 + 0.05 * np.arange(shape[1])
    north, east = np.meshgrid(lat - 40.1, lon - 116.4, indexing="ij")
    height = 30 + 900 / (1 + np.exp(-(north - east - 0.25) * 14))
    haze = np.stack([(180 + 90 * k) * np.exp(-2.2 * north - 0.8 * east) for k in range(count)])
    haze = np.clip(haze, 5, 480)
    place = rng.uniform(0.12, 0.88, (2, stations))
    rows, columns = (place * np.array(shape)[:, None]).astype(int)
    return station_maps.EpisodeMaps(
        pollutant="pm25",
        lead_h=24,
        valid_times=np.datetime64("2016-12-17T04", "h") + 48 * np.arange(count),
        lat=lat,
        lon=lon,
        truth=haze,
        forecast=haze * 0.75 + 40 * east,
        elevation_m=height,
        scored=(north - east) < 0.35,
        station_lat=lat[rows],
        station_lon=lon[columns],
        station_observed=haze[:, rows, columns] * rng.uniform(0.85, 1.15, (count, stations)),
        station_withheld=np.arange(stations) < 2,
    )


def fake_series(station="Dongsi", count=240):
    hours = np.arange(count)
    rise = 60 + 320 * np.exp(-(((hours - 120) / 45) ** 2)) + 20 * np.sin(hours / 4)
    observed = np.where((hours > 60) & (hours < 66), np.nan, rise)
    late = np.interp(hours - 14, hours, rise)
    return series.StationSeries(
        station=station,
        pollutant="pm25",
        lead_h=24,
        valid_times=np.datetime64("2016-12-14T00", "h") + hours,
        observed=observed,
        forecasts={"model": 0.7 * late + 20, "trailing-damped": 0.45 * late + 55},
    )


def fake_curve(epochs=14):
    e = np.arange(epochs)
    return series.TrainingCurve(
        epochs=e,
        train_loss=0.32 + 0.4 * np.exp(-e / 3.0),
        validation_loss=0.41 + 0.3 * np.exp(-e / 2.5) + 0.004 * np.maximum(e - 8, 0),
        label="mean squared error [normalised units]",
        best_epoch=8,
    )


def boards_of(stations, grid):
    at = BoardFile(Path("stations.npz"), "0" * 64, stations, "model", "board-1")
    on = BoardFile(Path("grid.npz"), "1" * 64, grid, "model", "board-2")
    return {PLACES[0]: (at, PLACES[0]), PLACES[1]: (at, PLACES[1]), PLACES[2]: (on, ALL)}


@cache
def context():
    stations, grid = fake_boards(2)
    return ReportContext(
        title="Forecast of air quality at Beijing",
        subtitle="Beijing multi-site data, test year 2016-03-01 to 2017-02-28, hourly",
        primary=primary_test(fake_boards(1)[0], stations),
        scores=place_scores(stations, grid),
        boards=boards_of(stations, grid),
        sees=SEES | {"ridge": "station means up to t", "model": "fields up to t"},
        places={
            PLACES[0]: "Ten stations that the gridded analysis uses.",
            PLACES[1]: "Guanyuan (urban) and Dingling (foothills).",
            PLACES[2]: "Cells whose analysis-error variance is at most half of the background's.",
        },
        episode=fake_maps(),
        episode_title="Haze of December 2016",
        series=(fake_series(), fake_series("Dingling (withheld)")),
        training=fake_curve(),
        synthetic=False,
        provenance={
            "Run": {"id": "20261122T023000-beijing-1a2b3c4d", "git": "0123abc, clean"},
            "Parameters": {"learning_rate": 1e-4, "note": "<script>alert('x')</script> & co"},
            "Data": {"beijing.zarr": "9f" * 32},
        },
    )


@cache
def page():
    return render_report(context())


@cache
def read():
    return read_page(page())


def test_the_page_is_well_formed():
    reader = read()
    assert page().startswith("<!DOCTYPE html>")
    assert reader.problems == [] and reader.open == []
    assert len(reader.ids) == len(set(reader.ids))
    for tag, attributes in reader.tags:
        assert tag not in ("script", "iframe", "object", "embed", "link")
        assert not [name for name in attributes if name.startswith("on")]
        assert tag != "img" or attributes["alt"]


def test_nothing_is_loaded_from_elsewhere():
    for tag, attributes in read().tags:
        for name in ("src", "srcset", "poster", "data", "action"):
            assert attributes.get(name, "data:").startswith("data:"), (tag, attributes)
        target = attributes.get("href")
        assert target is None or target[1:] in read().ids
    assert not re.search(r"url\(|@import|https?://", page())


def test_images_are_png_with_something_in_them():
    sources = [attributes["src"] for tag, attributes in read().tags if tag == "img"]
    assert len(sources) == 5
    for source in sources:
        kind, data = source.split(",")
        assert kind == "data:image/png;base64"
        pixels = imread(io.BytesIO(base64.b64decode(data, validate=True)), format="png")
        assert min(pixels.shape[:2]) > 300 and pixels[..., :3].std() > 0.05


def test_the_primary_table_has_all_cells_with_sign_and_verdict():
    rows = [cells for table, cells, _ in read().rows if table == "primary-table"][2:]
    assert len(rows) == 24
    marks = {"won": "▲", "lost": "▼", "tie": "="}
    for cells, expected in zip(rows, context().primary.cells, strict=True):
        assert cells[1] == str(expected.lead_h)
        assert cells[3] == expected.opponent
        sign = "+" if expected.difference_percent > 0 else "\N{MINUS SIGN}"
        assert cells[5] == f"{sign}{abs(expected.difference_percent):.1f}"
        assert cells[9].split() == [marks[expected.verdict], expected.verdict]
        assert cells[12].split()[1] in marks
    named = [cells[0] for cells in rows if cells[0]]
    assert named == [wording.LABELS[name] for name in TARGETS]
    verdicts = {cell.verdict for cell in context().primary.cells}
    assert verdicts == {"won", "lost", "tie"}, "the fake input must show all verdicts"


def test_the_rows_of_a_table_have_the_width_of_its_head():
    spans = [sum(s) for table, _, s in read().rows if table == "primary-table"]
    assert len(set(spans)) == 1


def test_every_score_of_every_place_is_there():
    found = {}
    for entry in read().entries:
        if "--by" in entry.command:
            found.setdefault((entry.command, entry.column), []).append(entry)
    assert len({command for command, _ in found}) == 3 and len(found) == 3 * 6 - 3
    for (command, _), entries in found.items():
        assert len(entries) == 24 * len(NAMES), command
    rows = context().scores.set_index(["place", "forecast", "pollutant", "lead_h"])
    for entry in found[
        "aqnet scoreboard stations.npz --by pollutant,lead_h --only "
        "'group=withheld stations' --csv table.csv",
        "bias_over_space_time",
    ]:
        row = rows.loc[(PLACES[1], *(entry.row[k] for k in ("forecast", "pollutant", "lead_h")))]
        assert entry.value == row["bias"]


@pytest.mark.parametrize(
    ("score", "rule"),
    [
        ("rmse", lambda v: v.min()),
        ("mae", lambda v: v.min()),
        ("bias", lambda v: v[np.abs(v).argmin()]),
        ("correlation", lambda v: v.max()),
    ],
)
def test_the_best_forecast_of_each_row_is_marked(score, rule):
    file, group = context().boards[PLACES[1]]
    column = f"{score}_over_space_time"
    table = next(t for t in tables.score_tables(file, group) if t.rows[0][2].column == column)
    assert len(table.rows) == 24
    for row in table.rows:
        values = {c.row["forecast"]: c.value for c in row if c.column}
        best = [c.row["forecast"] for c in row if "best" in c.style]
        assert best == [n for n, v in values.items() if v == rule(np.array(list(values.values())))]


def test_the_summary_says_what_the_numbers_say():
    text, primary = page(), context().primary
    assert f"significantly better in {primary.won} of 24 cells" in text
    assert f"lower in {primary.lower} of 24" in text
    assert TRANSPORT_CAVEAT in text and "130 km in 12 h" in text
    assert "The model adds nothing" in text and "The model loses to a baseline: O3 at" in text
    assert "Scored at the withheld stations" in text
    assert "persistence 864" in text  # 12 h x 24 cells x 3 stations


def test_ties_are_said_to_add_nothing_and_wins_are_not():
    cells = [dataclasses.replace(c, verdict="tie") for c in context().primary.cells]
    cells[0] = dataclasses.replace(cells[0], verdict="won")
    lines = outcome(dataclasses.replace(context().primary, cells=tuple(cells)))
    assert lines[1] == "The model wins: PM2.5 at 12 h."
    assert "PM2.5 at 24, 48 and 96 h; PM10 at 12, 24, 48 and 96 h" in lines[2]
    assert len(lines) == 3


def test_what_comes_from_outside_is_escaped():
    assert "<script>alert" not in page() and "&lt;script&gt;alert" in page()


def test_a_report_is_written_in_one_piece_the_same_and_says_first_that_it_is_simulated(tmp_path):
    assert "SYNTHETIC" not in page()
    target = tmp_path / "report.html"
    target.write_text("old")
    assert write(target, dataclasses.replace(context(), synthetic=True)) == target
    text = target.read_text(encoding="utf-8")
    assert text.index("SYNTHETIC") < text.index("<h1>")
    assert re.sub(r'<p class="synthetic">.*?</p>\n', "", text) == page()
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: {"scores": c.scores.drop(columns="mae")}, "columns of scores[^$]*mae"),
        (lambda c: {"scores": c.scores.iloc[:-1]}, "rows of scores[^$]*grid.*o3.*96.*model"),
        (lambda c: {"sees": {"model": "all"}}, "descriptions of forecasts[^$]*persistence"),
        (lambda c: {"places": {}}, "descriptions of places"),
        (lambda c: {"series": ()}, "time series"),
        (
            lambda c: {"primary": dataclasses.replace(c.primary, cells=c.primary.cells[:-1])},
            r"cells of the primary test[^$]*o3.*96",
        ),
    ],
)
def test_incomplete_input_is_named(change, message):
    with pytest.raises(VerificationError, match=message):
        dataclasses.replace(context(), **change(context()))


@pytest.mark.parametrize(
    ("make", "name", "message"),
    [
        (fake_maps, "truth", r"EpisodeMaps.truth .*\n.*\(3, 16, 16\)\n.*\(2, 16, 16\)"),
        (fake_maps, "forecast", "EpisodeMaps.forecast"),
        (fake_maps, "elevation_m", "EpisodeMaps.elevation_m"),
        (fake_maps, "station_observed", "EpisodeMaps.station_observed"),
        (fake_maps, "station_withheld", "EpisodeMaps.station_withheld"),
        (fake_series, "observed", "StationSeries.observed"),
        (fake_curve, "validation_loss", "TrainingCurve.validation_loss"),
    ],
)
def test_wrong_shapes_are_named(make, name, message):
    good = make()
    with pytest.raises(VerificationError, match=message):
        dataclasses.replace(good, **{name: getattr(good, name)[:-1]})


def test_a_forecast_of_wrong_length_is_named():
    one = fake_series()
    with pytest.raises(VerificationError, match=r"forecasts\['model'\] has the wrong shape"):
        dataclasses.replace(one, forecasts={"model": one.observed[:-1]})


def test_no_valid_time_at_all_is_refused():
    maps = fake_maps(count=1)
    none = {"valid_times": maps.valid_times[:0], "truth": maps.truth[:0]}
    with pytest.raises(VerificationError, match=r"EpisodeMaps\.valid_times"):
        dataclasses.replace(maps, **none)


def meshes(figure):
    return [m for axes in figure.axes for m in axes.collections if hasattr(m, "get_coordinates")]


def test_maps_share_one_scale_and_centre_the_difference():
    maps = fake_maps()
    drawn = meshes(station_maps.draw_episode_maps(maps))
    rows = np.array(drawn[: 3 * 3], dtype=object).reshape(3, 3)
    limits = {mesh.get_clim() for mesh in rows[:, :2].ravel()}
    assert len(limits) == 1 and next(iter(limits))[0] == 0
    low, high = rows[0, 2].get_clim()
    assert low == -high
    np.testing.assert_allclose(rows[1, 2].get_array(), maps.forecast[1] - maps.truth[1])


def test_maps_show_stations_in_the_colours_of_the_truth():
    maps = fake_maps(count=1)
    panel = station_maps.draw_episode_maps(maps).axes[0]
    dots = [c for c in panel.collections if len(c.get_offsets()) in (2, 10)]
    assert sorted(len(d.get_offsets()) for d in dots) == [2, 10]
    for dot in dots:
        assert dot.norm.vmax == meshes(panel.figure)[0].norm.vmax


def test_maps_with_gaps_and_latitudes_from_north_are_drawn():
    maps = fake_maps()
    north_first = dataclasses.replace(
        maps,
        lat=maps.lat[::-1],
        truth=np.where(maps.scored, maps.truth, np.nan),
        forecast=maps.forecast[:, ::-1],
    )
    figure = station_maps.draw_episode_maps(north_first)
    figure.canvas.draw()
    assert len(figure.axes) == 9 + 2
    low, high = figure.axes[0].get_ylim()
    assert low < high


def test_lead_time_figure_draws_every_forecast_of_every_pollutant():
    scores = context().scores
    figure = leads.draw_rmse(scores[scores["place"] == PLACES[0]], "model")
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        wording.LABELS[name] for name in TARGETS
    ]
    for axes in figure.axes:
        assert len(axes.lines) == len(NAMES) and "ug/m3" in axes.get_ylabel()
        assert [t.get_text() for t in axes.get_xticklabels()] == [str(h) for h in LEAD_TIMES_H]
    rows = scores[(scores["place"] == PLACES[0]) & (scores["pollutant"] == "pm25")]
    model = rows[rows["forecast"] == "model"].sort_values("lead_h")["rmse"]
    np.testing.assert_array_equal(figure.axes[0].lines[-1].get_ydata(), model)


def test_forecasts_differ_in_colour_and_in_dashes():
    styles = [style.style_of(name, NAMES) for name in NAMES]
    assert len({s["color"] for s in styles}) == len(NAMES)
    assert len({str(s["linestyle"]) for s in styles}) == len(NAMES)
    assert len({s["marker"] for s in styles}) == len(NAMES)

"""Reports of scoreboards: every entry comes back from the command that is printed beside it."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import shlex
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from board_case import LEADS, PLACES, board_file, made_up_board
from click.testing import CliRunner
from report_case import read_page

from aqnet.cli import main
from aqnet.io import sha256_file
from aqnet.metrics import VerificationError
from aqnet.verification.report import comparison
from aqnet.verification.report.boards import BoardFile, open_boards
from aqnet.verification.report.build import Asked, board_report
from aqnet.verification.report.page import Page, Picture, Section, Text, render_page, write_page
from aqnet.verification.report.physics import physics_section
from aqnet.verification.report.tables import score_tables
from aqnet.verification.scoreboard import Design, Scoreboard

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two boards of fields, one of stations, physics results."""
    folder = tmp_path_factory.mktemp("boards")
    board_file(folder, "a.npz")
    board_file(folder, "second board.npz", model="b", size=0.8)
    board_file(folder, "stations.npz", stations=True)
    (folder / "checks").mkdir()
    (folder / "checks" / "map.png").write_bytes(PIXEL)
    results = {"kind": "physics", "version": 1, "record": {"command": ["aqnet", "physics", "x"]},
               "pictures": [{"file": "map.png", "title": "A map", "caption": "Of <this>."}],
               "budget": {"rows": [{"region": "r", "rms": 1.5}], "times": list(range(50))},
               "definitions": {"rms": "of what"}}  # fmt: skip
    (folder / "checks" / "results.json").write_text(json.dumps(results))
    return folder


@pytest.fixture(scope="module")
def page(folder):
    """The report of all of it, by the command line."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        words = ["report", "a.npz", "second board.npz", "stations.npz", "--physics", "checks"]
        done = CliRunner().invoke(main, [*words, "--out", "r.html"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return (folder / "r.html").read_text(encoding="utf-8")


@cache
def reader_of(text):
    return read_page(text)


def test_the_page_is_well_formed_and_offline(page):
    reader = reader_of(page)
    assert reader.problems == [] and reader.open == []
    assert len(reader.ids) == len(set(reader.ids))
    for tag, attributes in reader.tags:
        assert tag not in ("iframe", "object", "embed", "link")
        assert not [name for name in attributes if name.startswith("on")]
        assert attributes.get("src", "data:").startswith("data:")
        assert tag != "img" or attributes["alt"]
        target = attributes.get("href")
        assert target is None or target[1:] in reader.ids
    assert not re.search(r"url\(|@import|https?://", page)


def test_every_entry_comes_back_from_its_command(page, folder, monkeypatch):
    monkeypatch.chdir(folder)
    commands: dict[str, list] = {}
    for entry in reader_of(page).entries:
        commands.setdefault(entry.command, []).append(entry)
    kinds = ("--skill", "--by pollutant", "--events", "--by group", "--places", "--comparison-csv")
    assert all(any(kind in command for command in commands) for kind in kinds)
    for command, entries in commands.items():
        assert command in page.replace("&#39;", "'"), "the command is there to read"
        Path("table.csv").unlink(missing_ok=True)
        done = CliRunner().invoke(main, shlex.split(command)[1:], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        table = pd.read_csv("table.csv")
        for entry in entries:
            found = np.ones(len(table), bool)
            for column, label in entry.row.items():
                found &= (table[column] == label).to_numpy()
            assert found.sum() == 1, (command, entry.row)
            value = table.loc[found, entry.column].item()
            assert value == pytest.approx(entry.value, rel=1e-9, abs=1e-12, nan_ok=True)
    assert sum(map(len, commands.values())) > 400


def test_the_page_says_where_its_numbers_come_from(page, folder):
    for name in ("a.npz", "second board.npz", "stations.npz"):
        assert sha256_file(folder / name) in page
    assert "aqnet score &#39;model a.zarr&#39; --manifest made-up" in page
    for text in ("7e" * 32, "5a" * 32, "3c" * 32, "20260101T000000-train", "abc"):
        assert text in page
    assert page.index("SYNTHETIC") < page.index("<h1>")
    sources = [
        a["href"] for tag, a in reader_of(page).tags if tag == "a" and a["href"] != "#origin"
    ]
    assert {"#board-1", "#board-2", "#board-3"} <= set(sources)


def test_stations_and_physics_are_shown(page):
    assert "&lt;3&gt;" in page and "<3>" not in page
    assert "X1: no cell" in page and "1 of them withheld" in page
    assert "Of &lt;this&gt;." in page and "50: 0 to 49" in page and "of what" in page


def test_marks_follow_the_tests(page):
    cells = [cells for table, cells, _ in reader_of(page).rows]
    assert any("▲" in text for row in cells for text in row)


def test_the_page_is_the_same_every_time(folder, page, monkeypatch):
    monkeypatch.chdir(folder)
    files = open_boards([Path(p) for p in ("a.npz", "second board.npz", "stations.npz")])
    again = render_page(board_report(files, Asked(physics=(Path("checks"),))))
    assert again == page


def test_daily_tables_name_their_edition():
    one = made_up_board().design
    changes = {"edition": "2012", "days": "one initialisation", "lead_days": (1, 2)}
    design = Design(**{k: getattr(one, k) for k in one.__dataclass_fields__} | changes)
    file = BoardFile(Path("d.npz"), "0", Scoreboard(design), "a", "board-1")
    tables = score_tables(file)
    assert all("edition 2012" in t.note and "one initialisation" in t.note for t in tables)
    assert all("lead_day" in t.command for t in tables)
    assert "lead [day]" in [cell.text for cell in tables[0].heads[0]]


# ---- comparison


def files_of(folder, **changes):
    paths = [folder / "a.npz", folder / "second board.npz"]
    a, b = open_boards(paths)
    return [a, dataclasses.replace(b, board=dataclasses_board(b.board, **changes))]


def dataclasses_board(board, weight=1.0, leads=None):
    design = dataclasses.replace(board.design, lead_times_h=leads or LEADS)
    made = Scoreboard(design)
    made.__dict__.update(board.__dict__, design=design, weight=board.weight * weight)
    return made


def test_a_comparison_is_on_common_init_times(folder):
    a, b = files_of(folder)
    whole = comparison.compare_boards([a, b])
    assert len(whole) == 4 and (whole["model"] == "b").all() and (whole["skill"] < 0).all()
    assert ((whole["skill_low"] < whole["skill"]) & (whole["skill"] < whole["skill_high"])).all()
    np.testing.assert_allclose(whole["rmse_difference"], whole["rmse"] - whole["rmse_of_reference"])
    b.board.times = b.board.times + np.timedelta64(10, "h")
    b.board.weight[:] = PLACES
    a.board.weight[:] = PLACES
    assert (comparison.compare_boards([a, b])["n_times"] == len(a.board.times) - 10).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"weight": 1.01}, "not scored on the same pairs"), ({"leads": (12, 48)}, "other cells")],
)
def test_boards_that_do_not_belong_together_are_refused(folder, changes, message):
    with pytest.raises(VerificationError, match=message):
        comparison.compare_boards(files_of(folder, **changes))


@pytest.mark.parametrize(("count", "models"), [(0, ()), (7, ()), (2, ("a",)), (2, ("a", "nobody"))])
def test_wrong_boards_are_named(folder, count, models):
    with pytest.raises(VerificationError, match=r"cannot be reported|does not compare"):
        open_boards([folder / "a.npz"] * count, models)


def test_short_periods_need_to_be_told(folder, tmp_path):
    (file,) = open_boards([folder / "a.npz"])
    board = file.board
    board.times, board.weight = board.times[:300], board.weight[:300]
    board.squares = {name: values[:300] for name, values in board.squares.items()}
    with pytest.raises(VerificationError, match="without a test"):
        board_report([file], Asked())
    page = board_report([file], Asked(tests=False))
    assert "scorecard" not in [section.key for section in page.sections]
    assert "95 %" not in render_page(page)


# ---- pages


def test_folders_without_results_are_refused(tmp_path):
    with pytest.raises(VerificationError, match="holds no results"):
        physics_section([tmp_path])
    (tmp_path / "results.json").write_text('{"pictures": []}')
    with pytest.raises(VerificationError, match="record"):
        physics_section([tmp_path])


def test_sections_of_one_name_and_huge_pages_are_refused(tmp_path):
    twice = [Section("x", "X", [Text(["x"])])] * 2
    with pytest.raises(VerificationError, match="sections of one name"):
        render_page(Page("t", "s", twice, False))
    huge = [Section("x", "X", [Picture("data:image/png;base64," + "A" * 26_000_000, "a", "c")])]
    with pytest.raises(VerificationError, match="too large"):
        write_page(tmp_path / "r.html", Page("t", "s", huge, False))
    assert not list(tmp_path.iterdir())


def test_maps_need_a_store_and_its_truth(folder, tmp_path):
    words = ["report", str(folder / "a.npz"), "--store", "x.zarr", "--out", str(tmp_path / "r")]
    done = CliRunner().invoke(main, words)
    assert done.exit_code != 0 and "--store, with --truth" in done.output

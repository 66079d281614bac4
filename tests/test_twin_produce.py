"""Stores, states, native files and manifests of the twin."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from aqnet.cli.twin import twin
from aqnet.data.source.caqra import native_name, read_hour
from aqnet.data.twin import produce
from aqnet.data.twin.config import TwinConfig
from aqnet.data.twin.native import LambertSampler, write_native
from aqnet.data.twin.produce import enter_year, make_years, state_path
from aqnet.data.twin.recipe import (
    derived_manifest,
    settings_of,
    twin_config,
    twin_manifest,
    write_manifest,
)
from aqnet.data.twin.simulate import Simulation
from aqnet.data.years.reader import open_year, verify_year
from aqnet.errors import AqnetError, CoverageError, ManifestError, ParameterError, StoreError
from aqnet.lambert_grid import CAQRA_GRID
from aqnet.variables import DYNAMIC, STATIC

WINDOW = ("2013-01-01T00", "2013-01-03T11")  # 60 hours: two shards


def small(**switches):
    """Manifest of a quick world."""
    return derived_manifest(
        twin_manifest(), TwinConfig(**({"grid": "china_32x64", "spin_up_days": 0} | switches))
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A window of the first year, once."""
    folder = tmp_path_factory.mktemp("twin")
    manifest = small()
    return manifest, folder, make_years(manifest, [2013], folder, window=WINDOW)[0]


def test_a_store_says_that_it_is_synthetic_and_how_it_was_made(made):
    manifest, _, path = made
    store = open_year(path)
    assert path.name == "data_2013_china_32x64_masked.zarr"
    assert store.synthetic is True
    assert "SYNTHETIC" in store.attributes["title"]
    assert store.attributes["manifest_sha256"] == manifest.digest
    recorded = store.attributes["recipe"]["settings"]
    assert TwinConfig.model_validate(recorded) == twin_config(manifest)
    assert store.times[0] == np.datetime64("2012-12-31T16")
    assert len(store.times) == 60
    assert store.valid.all()
    assert verify_year(path, deep=True) == store.digest


def test_a_store_holds_the_simulation(made):
    manifest, _, path = made
    run = Simulation(twin_config(manifest))
    hours = np.stack([run.step() for _ in range(50)])
    stored = open_year(path).read(slice(0, 50))
    mask = open_year(path).mask
    for index, name in enumerate(DYNAMIC):
        np.testing.assert_allclose(
            stored[:, index][:, mask], hours[:, index][:, mask], rtol=2**-10, err_msg=name
        )
    assert np.isnan(stored[:, :, ~mask]).all()


def test_a_second_run_changes_nothing_and_an_equal_world_has_equal_content(made, tmp_path):
    manifest, folder, path = made
    again = make_years(manifest, [2013], folder, window=WINDOW)[0]
    assert open_year(again).digest == open_year(path).digest
    other = make_years(manifest, [2013], tmp_path, window=WINDOW)[0]
    assert open_year(other).digest == open_year(path).digest


def test_an_interrupted_year_is_completed_with_the_same_content(made, tmp_path, monkeypatch):
    manifest, _, path = made

    class BrokenError(Exception):
        pass

    step, count = Simulation.step, [0]

    def failing(self):
        count[0] += 1
        if count[0] > 55:
            raise BrokenError
        return step(self)

    monkeypatch.setattr(Simulation, "step", failing)
    with pytest.raises(BrokenError):
        make_years(manifest, [2013], tmp_path, window=WINDOW)
    monkeypatch.undo()
    assert not (tmp_path / path.name).exists()
    resumed = make_years(manifest, [2013], tmp_path, window=WINDOW)[0]
    assert open_year(resumed).digest == open_year(path).digest


PARENT = """
import os, signal
from aqnet.data.twin.produce import _writers

if __name__ == "__main__":
    with _writers(1) as executor:
        print(executor.submit(os.getpid).result(), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_writing_process_ends_with_a_killed_simulation(tmp_path):
    (tmp_path / "parent.py").write_text(PARENT)
    path = os.pathsep.join(sys.path)
    with (tmp_path / "pid").open("w") as pid:  # a pipe would be open until the process ends
        done = subprocess.run([sys.executable, tmp_path / "parent.py"], stdout=pid, timeout=60,
                              env=os.environ | {"PYTHONPATH": path})  # fmt: skip
    worker = int((tmp_path / "pid").read_text())
    assert done.returncode == -signal.SIGKILL
    try:
        until = time.monotonic() + 20
        while ps_state(worker) not in ("", "Z"):
            assert time.monotonic() < until, "the writing process goes on without its parent"
            time.sleep(0.1)
    finally:
        if ps_state(worker) not in ("", "Z"):
            os.kill(worker, signal.SIGKILL)


def die(*_):
    os._exit(9)


def test_a_killed_writing_process_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(produce, "write_shard", die)
    with pytest.raises(AqnetError, match=r"worker process died(.|\n)*memory: free some"):
        make_years(small(), [2013], tmp_path, window=WINDOW)


def ps_state(process: int) -> str:
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True
    )
    return state.stdout.strip()[:1]


def test_a_year_continues_the_state_of_the_year_before(tmp_path):
    manifest = small()
    run = Simulation(twin_config(manifest))
    for _ in range(5):
        run.step()
    # as if these were the last hours of 2013
    stored = Simulation(twin_config(manifest))
    stored.amount[...] = run.amount
    stored.hour = int(manifest.times(2014)[0].astype(np.int64)) - 1
    produce._save_state(stored, state_path(tmp_path, manifest, 2013))
    following = Simulation(twin_config(manifest))
    enter_year(following, manifest, tmp_path, 2014)
    np.testing.assert_array_equal(following.step(), stored.step())
    assert manifest.times(2014)[0] == manifest.times(2013)[-1] + np.timedelta64(1, "h")


def test_a_year_without_the_one_before_is_refused_by_name(tmp_path):
    with pytest.raises(CoverageError, match="2014 continues 2013"):
        make_years(small(), [2014], tmp_path)
    assert not list(tmp_path.iterdir())
    late = small(first_year=2014)
    path = make_years(late, [2014], tmp_path, window=("2014-01-01T00", "2014-01-01T05"))[0]
    assert len(open_year(path).times) == 6


def test_a_folder_of_another_world_is_refused(made, tmp_path):
    manifest, folder, _ = made
    with pytest.raises(StoreError):
        make_years(small(weather_seed=1), [2013], folder, window=WINDOW)
    other = Simulation(twin_config(small(weather_seed=1)))
    other.hour = int(manifest.times(2014)[0].astype(np.int64)) - 1
    produce._save_state(other, state_path(tmp_path, manifest, 2013))
    with pytest.raises(StoreError, match="another world"):
        make_years(manifest, [2014], tmp_path)


def test_years_outside_the_manifest_and_empty_windows_are_refused(tmp_path):
    with pytest.raises(CoverageError):
        make_years(small(), [2030], tmp_path)
    with pytest.raises(ParameterError, match="no hours"):
        make_years(small(), [2013], tmp_path, window=("2014-01-01T00", "2014-01-02T00"))


# ---- native files


def test_native_files_are_read_back_as_the_simulation(tmp_path):
    manifest = small()
    window = ("2013-01-01T00", "2013-01-01T01")
    count = write_native(manifest, tmp_path / "native", window, states=tmp_path)
    assert count == 2
    path = tmp_path / "native" / native_name(np.datetime64("2013-01-01T01"))
    hour = read_hour(path.read_bytes(), manifest, path.name)
    run = Simulation(twin_config(manifest))
    run.step()
    fields = run.step()
    grid = run.world.grid
    inside = np.isfinite(hour.values[0])
    assert 0.5 < inside.mean() < 1
    assert (np.isfinite(hour.values) == inside).all()
    expected = {name: fields[k] for k, name in enumerate(DYNAMIC)}
    cells, weights = grid.bilinear(hour.lat2d[inside], hour.lon2d[inside])
    for name in ("temp", "co", "pm25", "psfc"):
        values = (expected[name].reshape(-1)[cells] * weights).sum(-1)
        np.testing.assert_allclose(
            hour.values[DYNAMIC.index(name)][inside], values, rtol=2e-3, err_msg=name
        )
    # u and v are along the Lambert axes: turned back they are the east and north winds.
    angle = CAQRA_GRID.rotation_rad()[inside]
    along_x, along_y = (hour.values[DYNAMIC.index(n)][inside] for n in ("u", "v"))
    east = along_x * np.cos(angle) + along_y * np.sin(angle)
    north = -along_x * np.sin(angle) + along_y * np.cos(angle)
    for turned, name in ((east, "u"), (north, "v")):
        values = (expected[name].reshape(-1)[cells] * weights).sum(-1)
        np.testing.assert_allclose(turned, values, atol=0.02)
    assert np.abs(along_x - east).max() > 0.5


def test_a_sampler_without_rotation_keeps_east_and_north():
    grid = twin_manifest().grid_object()
    fields = np.ones((11, *grid.shape), np.float32)
    plain = LambertSampler(grid, CAQRA_GRID, along_grid=False)(fields)
    np.testing.assert_allclose(plain[np.isfinite(plain)], 1, rtol=1e-5)


def test_native_windows_must_be_in_order_within_a_year(tmp_path):
    for window in (("2013-01-02T00", "2013-01-01T00"), ("2013-12-31T23", "2014-01-01T00"),
                   ("2013-01-02T00", "soon")):  # fmt: skip
        with pytest.raises(ParameterError, match="window"):
            write_native(small(), tmp_path, window, states=tmp_path)


# ---- manifests


def test_the_shipped_manifest_states_the_default_world_completely():
    manifest = twin_manifest()
    assert twin_config(manifest) == TwinConfig()
    assert manifest.synthetic
    assert "SYNTHETIC" in manifest.title


def test_other_worlds_have_other_names_and_can_be_read_back(tmp_path):
    first, second = small(weather_seed=1), small(weather_seed=2)
    assert len({twin_manifest().name, first.name, second.name}) == 3
    again = twin_manifest(write_manifest(first, tmp_path))
    assert again.digest == first.digest
    assert twin_config(again).weather_seed == 1


def test_flat_terrain_is_named_as_constant(tmp_path):
    assert small().constant_static == ()
    flat = small(written_terrain="flat")
    assert flat.constant_static == ("elevation",)
    base = twin_manifest().model_copy(update={"constant_static": ("elevation", "population")})
    for terrain, constant in (("flat", flat.constant_static), ("own", ())):
        derived = derived_manifest(base, TwinConfig(grid="china_32x64", written_terrain=terrain))
        assert derived.constant_static == (*constant, "population")
    path = make_years(flat, [2013], tmp_path, window=WINDOW)[0]
    assert not open_year(path).static[STATIC.index("elevation")].any()


def test_settings_that_are_not_a_whole_world_are_refused():
    manifest = small()

    def with_settings(settings):
        recipe = manifest.recipe.model_copy(update={"settings": settings})
        return manifest.model_copy(update={"recipe": recipe})

    whole = settings_of(twin_config(manifest))
    lacking = {key: value for key, value in whole.items() if key != "transport"}
    with pytest.raises(ManifestError, match="missing: transport"):
        twin_config(with_settings(lacking))
    partial = whole | {"mixing": {"night_m": 180.0}}
    with pytest.raises(ManifestError, match=r"mixing\.stability"):
        twin_config(with_settings(partial))
    with pytest.raises(ManifestError, match="bogus"):
        twin_config(with_settings(whole | {"bogus": 1}))
    with pytest.raises(ManifestError, match="contradicts"):
        twin_config(with_settings(whole | {"grid": "china"}))
    with pytest.raises(ManifestError, match="not the manifest of a twin"):
        twin_manifest("caqra")


# ---- command line


def call(*arguments) -> tuple[int, str]:
    result = CliRunner().invoke(twin, [str(a) for a in arguments])
    return result.exit_code, result.output


def test_the_command_writes_a_store_and_its_manifest(tmp_path):
    code, text = call("--year", 2013, "--days", 1, "--grid", "china_32x64", "--first-year", 2013,
                      "--transport", 0, "--out", tmp_path)  # fmt: skip
    assert code == 0, text
    assert "SYNTHETIC" in text
    store = open_year(tmp_path / "data_2013_china_32x64_masked.zarr")
    assert len(store.times) == 24
    manifest = twin_manifest(tmp_path / f"{store.attributes['manifest']}.yaml")
    assert manifest.digest == store.attributes["manifest_sha256"]
    assert twin_config(manifest).transport == 0


def test_the_command_prints_settings_and_refuses_nonsense(tmp_path):
    code, text = call("--print-settings", "--weather-seed", 7)
    assert code == 0
    assert TwinConfig.model_validate(yaml.safe_load(text)).weather_seed == 7
    for wrong in (("--transport", -1, "--year", 2013), ("--year", 2013, "--start", "2013-01-01T00"),
                  (), ("--years", "soon"), ("--years", "2013-2014", "--days", 2),
                  ("--year", 2013, "--native", tmp_path)):  # fmt: skip
        code, text = call(*wrong)
        assert code == 2, (wrong, text)
    assert not list(tmp_path.iterdir())


def test_the_command_refuses_before_it_writes(tmp_path):
    """A window of another year or none, unknown grids, years in reverse, reports it cannot give."""
    native = ("--year", 2013, "--days", 1, "--native", tmp_path / "native")
    for wrong, said in (
        (("--year", 2013, "--start", "2013-01-01T00", "--end", "soon"), "'soon' is not a label"),
        (("--year", 2014, "--start", "2014-01-01T00", "--end", "2013-01-02T00"), "of 2014"),
        (("--year", 2013, "--days", 1, "--grid", "nonsense"), "china_32x64"),
        (("--year", 2013, "--days", 1, "--grid", "reference"), "china_32x64"),
        (("--years", "2016-2013"), "ends before it begins"),
        ((*native, "--realism"), "--realism"),
    ):
        code, text = call(*wrong, "--transport", 0.5, "--out", tmp_path)
        assert code == 2, (wrong, text)
        assert said in text
    assert not list(tmp_path.iterdir())

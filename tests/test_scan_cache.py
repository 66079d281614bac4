"""The cache file: small, verified, atomic; read by many while another process rebuilds it."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from made_up_years import made_up_fields, made_up_mask, made_up_static

from aqnet.cli import main
from aqnet.data.geography import china_static
from aqnet.data.grid_manifest import GridManifest
from aqnet.data.manifest import load_manifest
from aqnet.data.years.format import YearSpec, year_times
from aqnet.data.years.records import record_stores
from aqnet.data.years.writer import write_year
from aqnet.grid import GRIDS, Grid
from aqnet.model.array_cache import CacheError
from aqnet.model.scan_cache import (
    load_scan,
    read_scan,
    save_scan,
    scan_path,
    verify_scan,
    with_margin,
)
from aqnet.model.scan_orders import build_orders, scan_spec

ROOT = Path(__file__).resolve().parents[1]
SPEC = scan_spec(GRIDS["china"])


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    """The default grid's file."""
    path = tmp_path_factory.mktemp("scan") / "china.safetensors"
    save_scan(path, build_orders(SPEC))
    return path


def test_what_is_written_is_read(cache):
    built, found = build_orders(SPEC), load_scan(cache, SPEC)
    for name in ("region", "region_rank", "local_rank", "domain_rank", "lane_rank"):
        assert np.array_equal(getattr(built, name), getattr(found, name))
        assert getattr(built, name).dtype == getattr(found, name).dtype
    assert cache.stat().st_size <= 500_000


def test_equal_orders_give_equal_bytes(cache, tmp_path):
    again = tmp_path / "again.safetensors"
    assert save_scan(again, build_orders(SPEC)) == save_scan(cache, build_orders(SPEC))
    assert again.read_bytes() == cache.read_bytes()


def other_specs():
    """Specifications that the file is not for, and the key that differs."""
    reverse = Grid("china", GRIDS["china"].lat[::-1], GRIDS["china"].lon)
    active = np.ones((64, 128), bool)
    active[3, 5] = False
    return [
        (scan_spec(GRIDS["reference"]), "grid"),
        (scan_spec(reverse), "grid_digest"),
        (scan_spec(GRIDS["china"], regions=(16, 32)), "regions"),
        (scan_spec(GRIDS["china"], sectors=8), "sectors"),
        (scan_spec(GRIDS["china"], lane_patches=2), "lane_patches"),
        (scan_spec(GRIDS["china"], 4, (16, 32)), "patch_size"),
        (scan_spec(GRIDS["china"], active=active), "active"),
    ]


@pytest.mark.parametrize(
    ("spec", "key"), other_specs(), ids=lambda x: x if isinstance(x, str) else ""
)
def test_a_file_for_something_else_is_refused(cache, spec, key):
    with pytest.raises(CacheError, match=key):
        load_scan(cache, spec)


def test_a_missing_file_names_the_command(tmp_path):
    with pytest.raises(CacheError, match="aqnet wind-scan build --grid china"):
        load_scan(tmp_path / "none.safetensors", SPEC)


def command_of(problem: Exception) -> list[str]:
    """The command that an error names, without `aqnet`."""
    return shlex.split(re.search("`aqnet (.*)`", str(problem))[1])


@pytest.mark.parametrize("margin", [0, 1, 2])
def test_the_command_in_an_error_builds_what_was_asked_for(tmp_path, margin):
    grid = GRIDS["china_64x128"]
    active = grid.active_patches(china_static(grid)["mask"].values, 4)
    active = with_margin(active, margin)
    assert not active.all()
    spec, path = scan_spec(grid, 4, (8, 16), 8, 2, active), tmp_path / "a b.safetensors"
    with pytest.raises(CacheError) as missing:
        load_scan(path, spec)
    assert CliRunner().invoke(main, command_of(missing.value)).exit_code == 0
    assert load_scan(path, spec).spec is spec


@pytest.fixture
def stores(tmp_path, monkeypatch) -> tuple[Path, Path]:
    """Manifest and folder of a store of four days that has fewer cells than China."""
    monkeypatch.setattr(GridManifest, "times", lambda self, year: year_times(year, 8)[:96])
    content = yaml.safe_load((ROOT / "data_manifests/twin.yaml").read_text())
    parts = zip(("train", "validation", "test"), ("01-01", "01-02", "01-03"), strict=True)
    split = {name: {"start": f"2013-{day}", "end": f"2013-{day}"} for name, day in parts}
    content.update(years=[2013], grid="china_32x64", split=split)
    (path := tmp_path / "small.yaml").write_text(yaml.safe_dump(content))
    manifest, grid, folder = load_manifest(path), GRIDS["china_32x64"], tmp_path / "stores"
    spec = YearSpec.from_manifest(manifest, 2013, made_up_static(grid), made_up_mask(grid))
    fields = made_up_fields(spec.times, grid)
    write_year(folder / manifest.store_file(2013), spec, fields.__getitem__)
    record_stores(manifest, folder)
    return path, folder


@pytest.mark.parametrize("margin", [0, 1])
def test_the_command_in_an_error_builds_the_patches_of_stores(stores, tmp_path, margin):
    """Their mask is none of China's polygons: only the stores know it."""
    grid, path = GRIDS["china_32x64"], tmp_path / "x.safetensors"
    active = with_margin(grid.active_patches(made_up_mask(grid), 2), margin)
    spec = scan_spec(grid, 2, (8, 16), active=active)
    with pytest.raises(CacheError) as missing:
        load_scan(path, spec)
    names = {"NAME": str(stores[0]), "ACTIVE_MARGIN": str(margin)}
    command = [names.get(word, word) for word in command_of(missing.value)]
    built = CliRunner().invoke(main, [*command, "--folder", str(stores[1])])
    assert built.exit_code == 0, built.output
    assert load_scan(path, spec).spec is spec


@pytest.mark.parametrize("active", ["all", "china"])
def test_other_patches_than_those_of_stores_can_be_asked_for(stores, tmp_path, active):
    grid, path = GRIDS["china_32x64"], tmp_path / "x.safetensors"
    options = ["--manifest", str(stores[0]), "--folder", str(stores[1]), "--regions", "8", "16"]
    command = ["wind-scan", "build", *options, "--out", str(path), "--active", active]
    built = CliRunner().invoke(main, command)
    assert built.exit_code == 0, built.output
    mask = china_static(grid)["mask"].values
    expected = grid.active_patches(mask if active == "china" else np.ones_like(mask), 2)
    np.testing.assert_array_equal(read_scan(path).spec.active, expected)


def test_a_file_that_is_whole_needs_no_command(cache, monkeypatch):
    """To find it the geography of China is read, with libraries that a training can spare."""
    monkeypatch.delattr("aqnet.model.scan_cache._known_patches")
    load_scan(cache, SPEC)


@pytest.mark.parametrize(
    "options",
    [["--folder", "x"], ["--active", "stores"], ["--manifest", "twin", "--grid", "china"]],
)
def test_options_that_contradict_each_other_are_refused(options):
    refused = CliRunner().invoke(main, ["wind-scan", "build", *options])
    assert refused.exit_code == 2 and "--manifest" in refused.output


def test_another_version_is_refused(cache, monkeypatch):
    monkeypatch.setattr("aqnet.model.scan_cache.ALGORITHM_VERSION", 99)
    with pytest.raises(CacheError, match="version"):
        load_scan(cache, SPEC)


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.5, 0.999])
def test_half_a_file_is_refused(cache, tmp_path, share):
    part = tmp_path / "part.safetensors"
    content = cache.read_bytes()
    part.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CacheError, match="not a whole file"):
        load_scan(part, SPEC)


@pytest.mark.parametrize("seed", range(8))
def test_a_flipped_bit_anywhere_is_refused(cache, tmp_path, seed):
    content = bytearray(cache.read_bytes())
    where = int(np.random.default_rng(seed).integers(8, len(content)))
    content[where] ^= 1 << seed % 8
    (broken := tmp_path / "broken.safetensors").write_bytes(content)
    with pytest.raises(CacheError):
        load_scan(broken, SPEC)


def test_a_folder_that_cannot_be_written_is_a_named_error(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(CacheError, match="cannot be written"):
        save_scan(tmp_path / "file" / "x.safetensors", build_orders(SPEC))


def test_verify_sees_orders_that_another_algorithm_built(cache, tmp_path):
    orders = build_orders(SPEC)
    swapped = orders.domain_rank.copy()
    swapped[0, [0, 1]] = swapped[0, [1, 0]]
    object.__setattr__(orders, "domain_rank", swapped)
    save_scan(tmp_path / "x.safetensors", orders)
    assert read_scan(tmp_path / "x.safetensors").spec.grid is GRIDS["china"]
    with pytest.raises(CacheError, match="domain_rank"):
        verify_scan(tmp_path / "x.safetensors")


READER = """
import sys, time
from aqnet.grid import GRIDS
from aqnet.model.scan_cache import load_scan
from aqnet.model.scan_orders import scan_spec
spec = scan_spec(GRIDS["china"])
print("ready", flush=True)
sys.stdin.readline()
until = time.monotonic() + 1.0
loads = 0
while time.monotonic() < until or loads == 0:
    load_scan(sys.argv[1], spec)
    loads += 1
print(loads, "torch" in sys.modules)
"""


def test_64_processes_load_while_another_rebuilds(tmp_path):
    path = tmp_path / "china.safetensors"
    orders = build_orders(SPEC)
    save_scan(path, orders)
    command = [sys.executable, "-c", READER, str(path)]
    readers = [
        subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(64)
    ]
    assert all(reader.stdout.readline() == "ready\n" for reader in readers)
    for reader in readers:
        reader.stdin.write("go\n")
        reader.stdin.flush()
    rebuilds, until = 0, time.monotonic() + 2.0
    while time.monotonic() < until:
        save_scan(path, orders)
        rebuilds += 1
    answers = [reader.communicate()[0].split() for reader in readers]
    assert all(reader.returncode == 0 for reader in readers)
    assert all(int(loads) >= 1 and torch == "False" for loads, torch in answers)
    assert rebuilds > 1


def test_the_command_line_builds_inspects_and_verifies(tmp_path):
    out = tmp_path / "c.safetensors"
    run = CliRunner().invoke
    options = ["--grid", "china_64x128", "--regions", "16", "16"]
    options += ["--active", "china", "--margin", "1"]
    assert run(main, ["wind-scan", "build", *options, "--out", str(out)]).exit_code == 0
    shown = run(main, ["wind-scan", "inspect", str(out)])
    assert "china_64x128" in shown.output and "[16, 16]" in shown.output
    assert run(main, ["wind-scan", "verify", str(out)]).exit_code == 0
    out.write_bytes(out.read_bytes()[:-1])
    failed = run(main, ["wind-scan", "verify", str(out)])
    assert failed.exit_code == 1 and "not a whole file" in failed.output
    unknown = run(main, ["wind-scan", "build", "--grid", "mars"])
    assert unknown.exit_code == 2 and "china" in unknown.output


def test_the_default_path_is_in_the_data_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("AQNET_DATA", str(tmp_path))
    china, folder = GRIDS["china"], tmp_path / "wind_scan"
    assert scan_path(scan_spec(china)) == folder / "china-all.safetensors"
    unusual = scan_spec(china, 4, (16, 8), 8, 2)
    assert scan_path(unusual) == folder / "china-all-p4-r16x8-s8-l2.safetensors"
    some = np.zeros((64, 128), bool)
    some[:2] = True
    assert scan_path(scan_spec(china, active=some)) == folder / "china-active256.safetensors"

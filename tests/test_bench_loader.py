"""`aqnet bench loader`: it measures what it says, on stores it is given or makes itself."""

from __future__ import annotations

import multiprocessing
import re

import numpy as np
import pytest
from click.testing import CliRunner
from made_up_years import make_year

from aqnet.cli.bench_loader import loader
from aqnet.cli.console import Group
from aqnet.data.bench_loader import PROCESSES, _chosen, bench_loader, copy_speed_gb_s, report
from aqnet.data.made_up import write_made_up_year
from aqnet.data.years.reader import open_year, verify_year
from aqnet.data.years.year_set import YearSet
from aqnet.errors import SampleError, StoreError


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return make_year(tmp_path_factory.mktemp("bench"), 2014, 3)


def run(*arguments: object):
    group = Group("aqnet")
    group.add_command(loader)
    return CliRunner().invoke(group, ["loader", *map(str, arguments)])


def test_the_command_prints_rates_ratios_and_memory(path):
    options = ("--batch-size", 2, "--samples", 9, "--leads", "3,6", "--rounds", 1)
    done = run("--store", path, *options)
    assert done.exit_code == 0, done.output
    rows = re.findall(r"^(raw|Field\w+|plain)\D*(\d) ?\w*.*$", done.output, re.MULTILINE)
    assert {("raw", "1"), ("FieldSamples", "1"), ("raw", "2"), ("FieldSamples", "2")} <= set(rows)
    assert "a pass  8 samples in random order, batches of 2, leads 3, 6 h" in done.output
    assert "cache   warm" in done.output and "memory copy" in done.output
    peak = re.search(r"peak memory of this process (\d+) MB", done.output)
    assert 50 < int(peak[1]) < 20_000
    ratios = re.findall(r"^FieldSamples.* (\d\.\d\d) ", done.output, re.MULTILINE)
    assert len(ratios) == len(PROCESSES) and all(float(r) > 0 for r in ratios)
    assert not multiprocessing.active_children()


def test_rates_count_each_chunk_once_a_batch(path):
    years = YearSet([open_year(path)])
    bench = bench_loader(years, 4, 16, (1, 2), rounds=2)
    assert bench.samples == 16 and 16 < bench.hours <= 48
    assert {len(v) for v in bench.rates.values()} == {2}
    for n in PROCESSES:
        assert bench.ratio(n) > 0
    assert all(peak > 0 for name, peak in bench.peaks_mb.items() if "xarray" not in name)
    assert any(f"{bench.hours} chunks" in line for line in report(bench))


def test_what_cannot_be_measured_is_refused(path, tmp_path):
    done = run("--store", path, "--batch-size", 64, "--samples", 64, "--leads", 3)
    assert done.exit_code == 1 and "too few samples" in done.output + done.stderr
    done = run("--store", path, "--leads", "24,x")
    assert done.exit_code == 2
    done = run("beijing")
    assert done.exit_code == 1 and "kind: grid" in done.stderr  # as every command says it
    done = run("beijing", "--store", path)
    assert done.exit_code == 2
    done = run("--store", tmp_path / "nothing.zarr")
    assert done.exit_code == 1 and "there is no yearly store" in done.stderr


def test_a_damaged_chunk_ends_the_measurement_with_its_name(tmp_path):
    path = make_year(tmp_path, 2014, 3)
    shard = path / "inputs" / "c.0.0.0.0"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(StoreError, match=r"c\.0\.0\.0\.0"):
        bench_loader(YearSet([open_year(path)]), 2, 60, (1, 2), rounds=1)


def test_whole_batches_in_even_number():
    assert len(_chosen(1000, 130, 4, 0)) == 128
    assert len(_chosen(1000, 22, 4, 0)) == 16
    assert len(_chosen(9, 130, 4, 0)) == 8
    chosen = _chosen(1000, 128, 4, 0)
    assert len(set(chosen.tolist())) == 128
    with pytest.raises(SampleError, match="at least two batches"):
        _chosen(7, 130, 4, 0)


def test_made_up_years_are_sound_and_continue_each_other(tmp_path):
    path = write_made_up_year(tmp_path / "a.zarr", "2013-12-31T20", 4, "china_32x64", seed=3)
    other = write_made_up_year(
        tmp_path / "b.zarr", "2013-12-31T22", 50, "china_32x64", seed=3, missing={1: "test"}
    )
    assert verify_year(path, deep=True) != verify_year(other, deep=True)
    first, second = open_year(path), open_year(other)
    assert first.times[2] == second.times[0] == np.datetime64("2013-12-31T14")
    np.testing.assert_array_equal(first.read(slice(2, 3)), second.read(slice(0, 1)))
    assert second.valid[0].all() and not second.valid[1].any() and second.synthetic
    assert 0.3 < first.mask.mean() < 0.4


def test_copy_speed_is_that_of_memory():
    assert 0.1 < copy_speed_gb_s() < 1000

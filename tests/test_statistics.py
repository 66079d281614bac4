"""Statistics: equal to numpy, blind to other splits, the same bits for any number of workers."""

from __future__ import annotations

import json
import resource
import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_years import made_up_fields, made_up_mask, made_up_static, make_year
from test_streaming import series

from aqnet.cli.stats import stats as stats_command
from aqnet.data.climatology import fit_climatology
from aqnet.data.grid_manifest import GridManifest
from aqnet.data.manifest import load_manifest
from aqnet.data.normalisation import constant_scaling, denormalise, normalise
from aqnet.data.splits import Split
from aqnet.data.statistics import plan as statistics_plan
from aqnet.data.statistics.compute import (
    CELL_QUANTILES,
    QUANTILES,
    FieldSeries,
    Settings,
    compute_statistics,
    load_statistics,
    normaliser_of_statistics,
    statistics_of_manifest,
    write_statistics,
)
from aqnet.data.statistics.file import check_statistics
from aqnet.data.training_data import open_training_data
from aqnet.data.years.format import YearSpec, year_times
from aqnet.data.years.reader import open_year
from aqnet.data.years.records import record_stores
from aqnet.data.years.writer import write_year
from aqnet.data.years.year_set import YearSet
from aqnet.errors import (
    AqnetError,
    ChecksumError,
    CoverageError,
    DataError,
    ManifestError,
    ParameterError,
    StorageFullError,
    StoreError,
)
from aqnet.grid import GRIDS
from aqnet.io import repository_root
from aqnet.variables import DYNAMIC, STATIC, TARGETS, VARIABLES

BITS = dict.fromkeys(DYNAMIC, 14)
HERE = Settings(annual=0, diurnal=1, leads_h=(3, 12), workers=0)
AT = [DYNAMIC.index(name) for name in TARGETS]


def whole(source) -> Split:
    return Split("train", source.times[0], source.times[-1] + 1)


def long_series(seed, hours=400, **options):
    source = series(seed, hours, **options)
    static = np.random.default_rng(seed).normal(size=(len(STATIC), *source.mask.shape))
    return replace(source, static=static)


def compute(source, split=None, settings=HERE):
    return compute_statistics(source, split or whole(source), 8.0, BITS, settings)


# ---- equal to numpy


@pytest.fixture(params=[0, 1, 2])
def some(request):
    return long_series(request.param)


def known(source):
    """(T, 11, C) float64 of the active cells."""
    return source.values[:, :, source.mask].astype(np.float64)


EMPTY = pytest.mark.filterwarnings("ignore:(Mean of empty slice|All-NaN|Degrees of freedom)")


@EMPTY
def test_moments_and_quantiles(some, monkeypatch):
    monkeypatch.setattr(statistics_plan, "SEGMENT_H", 150)
    found, values = compute(some), known(some)
    logs = np.log(np.maximum(values[:, AT], 0) + 1)
    expected = {
        "count": np.isfinite(values).sum(0),
        "mean": np.nanmean(values, axis=0), "std": np.nanstd(values, axis=0),
        "log_mean": np.nanmean(logs, axis=0), "log_std": np.nanstd(logs, axis=0),
    }  # fmt: skip
    for name, numbers in expected.items():
        np.testing.assert_allclose(found[name][..., some.mask], numbers, rtol=1e-9)
    np.testing.assert_array_equal(
        found["cell_quantiles"][..., some.mask], np.nanquantile(values, CELL_QUANTILES, axis=0)
    )
    np.testing.assert_array_equal(
        found["quantiles"], np.nanquantile(values, QUANTILES, axis=(0, 2))
    )
    domain = {
        "domain_mean": np.nanmean(values, axis=(0, 2)), "domain_std": np.nanstd(values, (0, 2)),
        "domain_log_mean": np.nanmean(logs, axis=(0, 2)),
        "domain_log_std": np.nanstd(logs, axis=(0, 2)),
        "log_quantiles": np.nanquantile(logs, QUANTILES, axis=(0, 2)),
        "static_mean": some.static[:, some.mask].mean(axis=1),
        "static_std": some.static[:, some.mask].std(axis=1),
    }  # fmt: skip
    for name, numbers in domain.items():
        np.testing.assert_allclose(found[name], numbers, rtol=1e-10)
    for name in ("mean", "std", "cell_quantiles", "climatology", "lag_correlation"):
        assert np.isnan(found[name][..., ~some.mask]).all()


@EMPTY
def test_climatology_is_the_least_squares_fit(some):
    found, values = compute(some), known(some)
    covered = np.isfinite(values).any(0)
    fitted = np.full((3, *values.shape[1:]), np.nan)
    residual = np.full(values.shape[1:], np.nan)
    for v, c in np.argwhere(covered):
        one = fit_climatology(some.times, values[:, v, c], whole(some), 8, 0, 1)
        fitted[:, v, c] = one.coefficients
        residual[v, c] = np.nanstd(values[:, v, c] - one(some.times))
    scale = np.nanstd(values, axis=0)
    off = (found["climatology"][..., some.mask] - fitted) / scale
    assert np.nanmax(np.abs(off)) < 1e-9 and (np.isfinite(off) == covered).all()
    np.testing.assert_allclose(found["anomaly_std"][:, some.mask], residual, rtol=1e-9)


def test_three_harmonics_of_year_and_day_by_default():
    """49 terms, hours of two years (every fifth: one less than the day's harmonics need)."""
    times = np.datetime64("2013-01-01T00", "h") + np.arange(0, 17520, 5)
    rng = np.random.default_rng(0)
    values = rng.normal(size=(len(times), 11, 1, 2)).astype(np.float32)
    mask, static = np.ones((1, 2), bool), rng.normal(size=(len(STATIC), 1, 2))
    source = FieldSeries(times, values, np.ones((len(times), 11), bool), mask, static)
    bits = dict.fromkeys(DYNAMIC, 23)
    found = compute_statistics(source, whole(source), 8.0, bits, Settings(workers=0))
    fitted = fit_climatology(times, values, whole(source), 8)
    assert found["climatology"].shape == (49, 11, 1, 2)
    np.testing.assert_allclose(found["climatology"], fitted.coefficients, atol=1e-10)
    np.testing.assert_allclose(found.climatology(times[:9]), fitted(times[:9]), atol=1e-9)
    # unrounded floats: 2 x 3,504 values, all different
    np.testing.assert_array_equal(
        found["quantiles"], np.quantile(values.astype(float), QUANTILES, axis=(0, 2, 3))
    )


def correlations(times, values, leads):
    """numpy.corrcoef of each cell over known pairs exactly h apart."""
    found = np.full((len(leads), *values.shape[1:]), np.nan)
    for row, lead in enumerate(leads):
        _, i, j = np.intersect1d(times + lead, times, return_indices=True)
        for v, c in np.ndindex(*values.shape[1:]):
            x, y = values[i, v, c], values[j, v, c]
            both = np.isfinite(x) & np.isfinite(y)
            if both.sum() > 1:
                found[row, v, c] = np.corrcoef(x[both], y[both])[0, 1]
    return found


def test_correlations_with_later_hours(some, monkeypatch):
    monkeypatch.setattr(statistics_plan, "SEGMENT_H", 130)
    found = compute(some, settings=replace(HERE, anomalies=True))
    values = known(some)
    expected = correlations(some.times, values, (3, 12))
    np.testing.assert_allclose(found["lag_correlation"][..., some.mask], expected, atol=1e-9)
    anomalies = values - found.climatology(some.times)[:, :, some.mask]
    expected = correlations(some.times, anomalies, (3, 12))
    np.testing.assert_allclose(
        found["anomaly_lag_correlation"][..., some.mask], expected, atol=1e-8
    )


def test_pairs_do_not_reach_over_the_border_of_the_split():
    source = long_series(4, gaps=0)
    split = Split("train", source.times[50], source.times[300])
    inside = np.flatnonzero(split.contains(source.times))
    found = compute(source, split)
    expected = correlations(source.times[inside], known(source)[inside], (3, 12))
    np.testing.assert_allclose(found["lag_correlation"][..., source.mask], expected, atol=1e-9)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(60, 200), st.floats(0, 0.6))
def test_one_cell_with_gaps(seed, hours, gaps):
    source = long_series(seed, hours, shape=(1, 1), gaps=gaps)
    source.values[source.valid] = (
        np.random.default_rng(seed).normal(size=(source.valid.sum(), 1, 1)).astype(np.float16)
    )
    found, values = compute(source), known(source)
    np.testing.assert_allclose(found["std"][:, 0, 0], np.nanstd(values[..., 0], 0), rtol=1e-9)
    expected = np.nanquantile(values[..., 0], CELL_QUANTILES, axis=0)
    np.testing.assert_array_equal(found["cell_quantiles"][:, :, 0, 0], expected)
    # one cell has no spread in space: nothing to scale its coordinates by
    with pytest.raises(DataError, match="does not vary"):
        normaliser_of_statistics(found)


def test_a_constant_field():
    source = long_series(5, gaps=0.1)
    wind = DYNAMIC.index("u")
    source.values[:, wind] = np.where(np.isfinite(source.values[:, wind]), 2.5, np.nan)
    found = compute(source)
    assert (found["std"][wind, source.mask] == 0).all()
    assert (found["mean"][wind, source.mask] == 2.5).all()
    assert np.isnan(found["lag_correlation"][:, wind]).all()
    for reference in ("constant", "climatology"):
        with pytest.raises(DataError, match=r"does not vary(.|\n)*'u': 0\.0"):
            normaliser_of_statistics(found, reference)


def test_quantiles_of_cells_in_blocks_of_any_memory(some):
    found = [
        compute(some, settings=replace(HERE, memory_bytes=size))["cell_quantiles"]
        for size in (10_000, 25_000, 10**9)
    ]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
    with pytest.raises(ParameterError, match="does not hold one cell"):
        compute(some, settings=replace(HERE, memory_bytes=1000))


def test_scratch_without_room(some, tmp_path):
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(StorageFullError):
            compute(some, settings=replace(HERE, scratch=tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert not list(tmp_path.iterdir())


def test_too_few_hours_are_named(some):
    with pytest.raises(DataError, match=r"climatology of u cannot(.|\n)*49 harm(.|\n)*--annual"):
        compute(some, settings=replace(HERE, annual=3, diurnal=3))


# ---- of stores


@pytest.fixture(scope="module")
def years(tmp_path_factory):
    """Two stores of five and three days that follow each other, an hour missing."""
    folder = tmp_path_factory.mktemp("years")
    early = make_year(folder, 2013, 5, start_label="2013-12-27T00", missing={30: "lost"})
    return YearSet([open_year(early), open_year(make_year(folder, 2014, 3))])


def of_years(years, workers, **changes):
    bits = years.stores[0].attributes["keep_bits"]
    split = Split("train", years.times[0], years.times[-24])
    return compute_statistics(years, split, 8.0, bits, replace(HERE, workers=workers, **changes))


def test_stores_of_two_years_equal_numpy(years):
    found = of_years(years, 0)
    values = years.read(slice(0, len(years.times) - 24))[:, :, years.mask].astype(float)
    np.testing.assert_allclose(found["mean"][:, years.mask], np.nanmean(values, 0), rtol=1e-12)
    np.testing.assert_allclose(found["std"][:, years.mask], np.nanstd(values, 0), rtol=1e-9)
    np.testing.assert_array_equal(
        found["quantiles"], np.nanquantile(values, QUANTILES, axis=(0, 2))
    )
    np.testing.assert_array_equal(found["lat"], years.grid.lat)
    assert found["count"][0, years.mask].tolist() == [167] * years.mask.sum()


def test_the_same_bits_for_any_number_of_workers_and_any_memory(years, tmp_path):
    first = of_years(years, 1)
    second = of_years(years, 2, memory_bytes=10**6)
    assert first.digest == second.digest
    for number, found in enumerate((first, second)):
        assert write_statistics(found, tmp_path / f"{number}.nc") == first.digest
    assert (tmp_path / "0.nc").read_bytes() == (tmp_path / "1.nc").read_bytes()


def test_an_error_of_a_worker_is_the_error(years):
    with pytest.raises(DataError, match="climatology of u cannot"):
        of_years(years, 1, annual=3)
    broken = YearSet([replace(s, path=s.path / "elsewhere") for s in years.stores])
    with pytest.raises(AqnetError, match="cannot be opened"):
        of_years(broken, 1)


# ---- the file


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "statistics.nc"
    write_statistics(compute(long_series(0)), path)
    return path


def test_the_file_gives_everything_back(file):
    source = long_series(0)
    made, read = compute(source), load_statistics(file)
    assert read.digest == made.digest == load_statistics(file, made.digest).digest
    assert read.split == whole(source) and (read.mask == source.mask).all()
    assert set(read.arrays) == set(made.arrays) == set(read.dataset.variables)
    for name in made.arrays:
        np.testing.assert_array_equal(read[name], made[name])
    times = source.times[:30]
    np.testing.assert_array_equal(read.climatology(times), made.climatology(times))
    said = read.attributes
    assert said["log_offset_ug_m3"] == "1.0" and said["content_sha256"] == made.digest
    assert "log(max(c, 0) + 1 ug/m3)" in read.dataset["log_mean"].attrs["definition"]


def test_another_file_than_expected_is_refused(file, tmp_path):
    with pytest.raises(ChecksumError, match=r"other statistics(.|\n)*expected: 000"):
        load_statistics(file, "0" * 64)
    with pytest.raises(DataError, match=r"no statistics at(.|\n)*aqnet data stats"):
        load_statistics(tmp_path / "none.nc")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.999])
def test_a_cut_file_is_named(file, share):
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ChecksumError, match=r"statistics\.nc: (cannot be read|another format)"):
        load_statistics(file)


@pytest.mark.parametrize("change", ["value", "attribute", "definition"])
def test_a_changed_file_is_named(file, change):
    made = load_statistics(file)
    if change == "value":
        made["mean"].flat[-1] += 1e-9
    elif change == "attribute":
        made.attributes["split"] = "test"
    else:
        made.arrays["mean"][2]["definition"] = "median"
    recorded = made.attributes["content_sha256"]
    made.dataset.to_netcdf(file, engine="netcdf4")
    with pytest.raises(ChecksumError, match=rf"damaged(.|\n)*expected: {recorded}"):
        load_statistics(file)


# ---- normalisers


@pytest.mark.parametrize("reference", ["constant", "climatology"])
def test_normalised_training_hours_have_mean_0_and_spread_1(some, reference):
    normaliser = normaliser_of_statistics(compute(some), reference)
    usual, ratio = normaliser.climatology(some.times), np.ones((len(some.times), 11))
    values = some.values.astype(np.float64)
    z = normalise(normaliser, values, usual, ratio)[..., some.mask]
    np.testing.assert_allclose(np.nanmean(z, axis=(0, 2)), 0, atol=1e-7)
    np.testing.assert_allclose(np.nanstd(z, axis=(0, 2)), 1, rtol=1e-9)
    back = denormalise(normaliser, normalise(normaliser, values, usual, ratio), usual, ratio)
    np.testing.assert_allclose(
        back[..., some.mask], values[..., some.mask], rtol=1e-12, atol=1e-12 * 1e5
    )
    np.testing.assert_allclose(
        normaliser.static_spread, some.static[:, some.mask].std(axis=1), rtol=1e-12
    )


def test_references_by_name(some):
    found = compute(some)
    mean, spread = constant_scaling(normaliser_of_statistics(found))
    np.testing.assert_array_equal(mean, found["domain_mean"])
    np.testing.assert_array_equal(spread, found["domain_std"])
    assert normaliser_of_statistics(found, "climatology").coefficients.shape == (3, 11, 2, 3)
    with pytest.raises(ParameterError, match="constant"):
        normaliser_of_statistics(found, "median")


def test_a_static_field_that_does_not_vary_must_be_named():
    source, hills = long_series(4), STATIC.index("elevation")
    varied = compute(source)
    source.static[hills] = 250.0
    flat = compute(source)
    with pytest.raises(DataError, match=r"does not vary(.|\n)*'elevation': 0\.0"):
        normaliser_of_statistics(flat)

    def named(found):
        return replace(found, attributes=found.attributes | {"constant_static": '["elevation"]'})

    normaliser = normaliser_of_statistics(named(flat))
    assert (normaliser.static_mean[hills], normaliser.static_spread[hills]) == (250.0, 1.0)
    others = [i for i in range(len(STATIC)) if i != hills]
    expected = normaliser_of_statistics(varied).static_spread[others]
    np.testing.assert_array_equal(normaliser.static_spread[others], expected)
    with pytest.raises(DataError, match="elevation varies"):
        normaliser_of_statistics(named(varied))


# ---- leaks: what lies outside the training split changes nothing


def test_other_hours_of_the_source_do_not_matter(some):
    split = Split("train", some.times[40], some.times[300])
    before = compute(some, split)
    outside = ~split.contains(some.times)
    changed = replace(some, values=some.values.copy(), valid=some.valid.copy())
    changed.values[outside] = 1e4
    changed.valid[outside] = False
    assert compute(changed, split).digest == before.digest
    changed.values[np.flatnonzero(~outside)[-1]] *= np.float32(2)
    assert compute(changed, split).digest != before.digest


def three_years(content: dict) -> None:
    content.update(years=[2013, 2014, 2015], grid="china_32x64", split={
        name: {"start": f"{year}-01-01", "end": f"{year}-01-04"}
        for name, year in (("train", 2013), ("validation", 2014), ("test", 2015))})  # fmt: skip


@pytest.fixture
def described(tmp_path, monkeypatch):
    """A manifest of three years of four days, and a function that writes their stores."""
    content = yaml.safe_load((repository_root() / "data_manifests/twin.yaml").read_text())
    three_years(content)
    path = tmp_path / "data_manifests" / "twin.yaml"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump(content))
    monkeypatch.setattr(GridManifest, "times", lambda self, year: year_times(year, 8)[:96])
    manifest, grid = load_manifest(path), GRIDS["china_32x64"]

    def write(folder, years, seed=0):
        for year in years:
            spec = YearSpec.from_manifest(manifest, year, made_up_static(grid), made_up_mask(grid))
            fields = made_up_fields(spec.times, grid, seed + year)
            write_year(folder / manifest.store_file(year), spec, fields.__getitem__)
        return folder

    return path, manifest, write


def test_later_years_need_not_even_be_there(described, tmp_path):
    _, manifest, write = described
    alone = statistics_of_manifest(manifest, write(tmp_path / "a", [2013]), HERE)
    with_others = write(tmp_path / "b", [2013])
    write(with_others, [2014, 2015], seed=99)
    assert statistics_of_manifest(manifest, with_others, HERE).digest == alone.digest
    assert alone.split == Split(
        "train", np.datetime64("2012-12-31T16"), np.datetime64("2013-01-04T16")
    )
    assert list(alone.store_sha256) == ["2013"]
    said = alone.attributes
    assert said["manifest_sha256"] == manifest.digest and said["synthetic"] == "true"
    assert json.loads(said["keep_bits"]) == {n: VARIABLES[n].keep_bits for n in DYNAMIC}
    with pytest.raises(CoverageError, match="2013"):
        statistics_of_manifest(manifest, write(tmp_path / "c", [2014]), HERE)


def test_statistics_of_other_stores_or_splits_are_refused(described, tmp_path):
    _, manifest, write = described
    folder = write(tmp_path / "a", [2013, 2014])
    found = statistics_of_manifest(manifest, folder, HERE)
    stores = [open_year(folder / manifest.store_file(year)) for year in (2013, 2014)]
    check_statistics(found, stores, found.split)
    with pytest.raises(ChecksumError, match=r"something else: split\n"):
        check_statistics(found, stores, replace(found.split, end=found.split.end + 1))
    with pytest.raises(ChecksumError, match="store of 2013: not there"):
        check_statistics(found, stores[1:], found.split)
    other = open_year(write(tmp_path / "b", [2013], seed=7) / manifest.store_file(2013))
    with pytest.raises(ChecksumError, match=rf"2013: {other.digest}(.|\n)*: {stores[0].digest}"):
        check_statistics(found, [other, stores[1]], found.split)


def test_the_command(described, tmp_path):
    path, _, write = described
    folder = write(tmp_path / "stores", [2013])
    options = ["--folder", str(folder), "--annual", "0", "--diurnal", "1"]
    done = CliRunner().invoke(stats_command, [str(path), *options, "--workers", "1"])
    assert done.exit_code == 0, done.output
    found = load_statistics(folder / "statistics.nc")
    assert f"content_sha256: {found.digest}" in done.output
    other = tmp_path / "other.nc"
    again = CliRunner().invoke(stats_command, [str(path), *options, "--out", str(other)])
    assert again.exit_code == 0
    assert other.read_bytes() == (folder / "statistics.nc").read_bytes()
    failed = CliRunner().invoke(stats_command, [str(path), "--folder", str(folder)])
    assert isinstance(failed.exception, DataError)  # 4 days do not show the seasons
    stations = str(repository_root() / "data_manifests" / "beijing.yaml")
    refused = CliRunner().invoke(stats_command, [stations])
    assert isinstance(refused.exception, ManifestError)


def test_training_opens_recorded_data_alone(described, tmp_path):
    path, manifest, write = described
    folder = write(tmp_path / "stores", [2013, 2014, 2015])
    with pytest.raises(CoverageError, match="not recorded"):
        open_training_data(manifest, folder)
    record_stores(manifest, folder)
    with pytest.raises(ChecksumError, match="statistics of twin are not recorded"):
        open_training_data(manifest, folder)
    write_statistics(statistics_of_manifest(manifest, folder, HERE), folder / "statistics.nc")
    record_stores(manifest, folder)
    data = open_training_data(manifest, folder)
    assert len(data.years.times) == 3 * 96 and list(data.splits) == ["train", "validation", "test"]
    assert data.normaliser.digest == normaliser_of_statistics(data.statistics).digest

    content = yaml.safe_load(path.read_text())
    content["split"]["train"]["end"] = "2013-01-03"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ChecksumError, match="something else: split"):
        open_training_data(load_manifest(path), folder)

    shutil.rmtree(folder / manifest.store_file(2014))
    write(folder, [2014], seed=5)
    with pytest.raises(StoreError, match="differs from manifest twin: content_sha256"):
        open_training_data(manifest, folder)


def test_statistics_remember_what_the_manifest_calls_constant(described, tmp_path):
    path, manifest, write = described
    folder = write(tmp_path / "stores", [2013])
    assert "constant_static" not in statistics_of_manifest(manifest, folder, HERE).attributes
    content = yaml.safe_load(path.read_text()) | {"constant_static": ["elevation"]}
    path.write_text(yaml.safe_dump(content))
    found = statistics_of_manifest(load_manifest(path), folder, HERE)
    with pytest.raises(DataError, match="elevation varies"):
        normaliser_of_statistics(found)

"""Yearly stores: what is read is what was written, and every kind of damage is named."""

from __future__ import annotations

import copy as copying
import json
import multiprocessing
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_years import made_up_fields, made_up_mask, made_up_spec, make_year

from aqnet.data.store import content_digest
from aqnet.data.years.format import LAYOUT, SHARD_HOURS, Gap, round_bits, year_times
from aqnet.data.years.reader import open_year, read_hours, verify_year
from aqnet.data.years.writer import YearWriter
from aqnet.data.years.year_set import YearSet
from aqnet.errors import CoverageError, StoreError
from aqnet.grid import GRIDS, Grid
from aqnet.variables import DYNAMIC, VARIABLES

DAYS = 5  # 2 shards and a half


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    return make_year(tmp_path_factory.mktemp("years"), days=DAYS, missing={7: "no file"})


@pytest.fixture(scope="module")
def fields(original) -> np.ndarray:
    """What is expected in the store: masked and rounded."""
    store = open_year(original)
    values = made_up_fields(store.times, store.grid)
    for index, name in enumerate(DYNAMIC):
        values[:, index] = round_bits(values[:, index], VARIABLES[name].keep_bits)
    values[:, :, ~store.mask] = np.nan
    values[7] = np.nan
    return values


@pytest.fixture
def copy(original, tmp_path) -> Path:
    return shutil.copytree(original, tmp_path / original.name)


def flip(file: Path, place: float, bit: int = 4) -> None:
    content = bytearray(file.read_bytes())
    content[int(place * (len(content) - 1))] ^= bit
    file.write_bytes(content)


def edit_attributes(path: Path, edit, sign: bool = False) -> None:
    described = json.loads((path / "zarr.json").read_text())
    edit(described["attributes"])
    if sign:
        described["attributes"]["content_sha256"] = content_digest(described["attributes"])
    (path / "zarr.json").write_text(json.dumps(described))


# ---- precision and time


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(width=32, allow_subnormal=False), min_size=1, max_size=20),
    st.integers(1, 23),
)
def test_rounding_keeps_the_stated_precision(numbers, keep):
    values = np.array(numbers, np.float32)
    rounded = round_bits(values, keep)
    finite = np.isfinite(values)
    np.testing.assert_array_equal(rounded[~finite], values[~finite])
    kept = finite & np.isfinite(rounded)  # the largest numbers may round to infinity
    error = np.abs(rounded[kept].astype(float) - values[kept])
    assert (error <= np.abs(values[kept].astype(float)) * 2.0 ** -(keep + 1)).all()
    assert not (rounded[kept].view(np.uint32) & np.uint32((1 << (23 - keep)) - 1)).any()
    np.testing.assert_array_equal(round_bits(rounded, keep), rounded)


def test_rounding_is_unbiased_at_halves_and_refuses_other_precisions():
    halves = np.array([1 + 2**-11, 1 + 3 * 2**-11, -1 - 2**-11], np.float32)
    np.testing.assert_array_equal(round_bits(halves, 10), [1, 1 + 2**-9, -1])
    np.testing.assert_array_equal(round_bits(halves, 23), halves)
    for keep in (0, 24):
        with pytest.raises(ValueError, match="keep_bits"):
            round_bits(halves, keep)


def test_six_years_of_labels_follow_each_other():
    years = [year_times(year, 8.0) for year in range(2013, 2019)]
    assert [len(times) for times in years] == [8760, 8760, 8760, 8784, 8760, 8760]
    assert str(years[0][0]) == "2012-12-31T16" and str(years[0][-1]) == "2013-12-31T15"
    assert (np.diff(np.concatenate(years)) == np.timedelta64(1, "h")).all()
    with pytest.raises(ValueError, match=r"5\.75"):
        year_times(2013, 5.75)


# ---- round trip


def test_round_trip(original, fields):
    store = open_year(original)
    np.testing.assert_array_equal(store.read(slice(None)), fields)
    np.testing.assert_array_equal(store.times, year_times(2013, 8.0)[: 24 * DAYS])
    np.testing.assert_array_equal(store.mask, made_up_mask(store.grid))
    assert store.year == 2013 and store.synthetic and store.grid.name == "china_32x64"
    assert store.grid.digest == GRIDS["china_32x64"].digest
    assert store.missing == (Gap(store.times[7], store.times[7], "no file"),)
    assert store.valid.sum() == (24 * DAYS - 1) * len(DYNAMIC) and not store.valid[7].any()
    assert not store.source_sha256.any()
    assert store.attributes["units"]["co"] == "ug/m3"
    assert store.attributes["keep_bits"]["psfc"] == 14


def test_the_format_is_what_it_says(original):
    store, group = open_year(original), zarr.open_group(original, mode="r")
    assert store.inputs.chunks == (1, 11, 32, 64) and store.inputs.shards[0] == SHARD_HOURS
    assert set(group.array_keys()) == set(LAYOUT)
    for name, (kind, dimensions) in LAYOUT.items():
        assert group[name].dtype == kind and group[name].metadata.dimension_names == dimensions
    files = sorted(f.name for f in (original / "inputs").iterdir())
    assert files == ["c.0.0.0.0", "c.1.0.0.0", "c.2.0.0.0", "zarr.json"]
    assert group.metadata.zarr_format == 3
    for row in (0, 7, 119):
        assert store.step_sha256[row].any()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 24 * DAYS - 1), max_size=12)
    | st.slices(24 * DAYS).filter(lambda rows: rows.step is None or rows.step > 0)
)
def test_any_rows_are_read_as_by_numpy(original, fields, rows):
    chosen = np.array(rows, int) if isinstance(rows, list) else rows
    np.testing.assert_array_equal(read_hours(open_year(original), chosen), fields[chosen])


def test_same_content_same_digest_other_content_other_digest(original, tmp_path):
    again = open_year(make_year(tmp_path, days=DAYS, missing={7: "no file"}))
    assert again.digest == open_year(original).digest
    others = [
        make_year(tmp_path / "a", days=DAYS, missing={7: "damaged"}),
        make_year(tmp_path / "b", days=DAYS, missing={8: "no file"}),
        make_year(tmp_path / "c", days=DAYS, missing={7: "no file"}, seed=1),
        make_year(tmp_path / "d", days=DAYS, missing={7: "no file"}, synthetic=False),
    ]
    digests = {open_year(path).digest for path in others} | {again.digest}
    assert len(digests) == 5


def test_a_store_of_reversed_rows_keeps_its_orientation(tmp_path):
    spec = made_up_spec(days=1)
    north = Grid("upside", spec.grid.lat[::-1], spec.grid.lon)
    object.__setattr__(spec, "grid", north)
    with YearWriter(tmp_path / "n.zarr", spec) as writer:
        writer.write(0, made_up_fields(spec.times, north))
        writer.finish()
    store = open_year(tmp_path / "n.zarr")
    assert store.grid.lat[0] > store.grid.lat[-1] and store.grid.digest == north.digest


def test_coverage_by_local_month(tmp_path):
    missing = dict.fromkeys(range(12), "lost")
    path = make_year(tmp_path, 2013, days=4, start_label="2013-01-30T00", missing=missing)
    shares = open_year(path).coverage()
    np.testing.assert_array_equal(shares[:2], [36 / 48, 1.0])
    assert np.isnan(shares[2:]).all()


# ---- other processes


def _read_first(store, queue) -> None:
    queue.put(store.read([3, 2]))


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_an_opened_year_can_be_read_in_another_process(original, fields, method):
    context = multiprocessing.get_context(method)
    both = YearSet([open_year(original)])
    both.read([0])  # the parent has zarr's thread running
    queue = context.Queue()
    worker = context.Process(target=_read_first, args=(both, queue))
    worker.start()
    np.testing.assert_array_equal(queue.get(timeout=60), fields[[3, 2]])
    worker.join(10)
    assert worker.exitcode == 0


def test_the_opened_array_is_not_sent(original):
    store = open_year(original)
    store.read([0])
    assert len(pickle.dumps(store)) < 200_000
    assert store._opened and copying.copy(store)._opened == {}


# ---- damage


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9, 0.9999, 1.0])
def test_a_flipped_byte_of_a_shard_is_named_by_hour(copy, place):
    flip(copy / "inputs" / "c.1.0.0.0", place)
    with pytest.raises(StoreError, match=r"hour 2013-01-0\dT\d\dZ \(row \d+, file .*c\.1\.") as e:
        verify_year(copy, deep=True)
    assert str(copy) in str(e.value) and "copy the store again" in str(e.value)
    store = open_year(copy)
    with pytest.raises(StoreError, match=r"c\.1\.0\.0\.0\) cannot be read"):
        store.read(slice(0, 100))
    store.read(slice(0, SHARD_HOURS))


def test_only_the_damaged_hour_is_lost(copy, fields):
    flip(copy / "inputs" / "c.1.0.0.0", 0.5)
    store, lost = open_year(copy), []
    for row in range(SHARD_HOURS, 2 * SHARD_HOURS):
        try:
            np.testing.assert_array_equal(store.read([row])[0], fields[row])
        except StoreError as error:
            lost.append(row)
            assert f"row {row}," in str(error)
    assert len(lost) == 1


def test_a_lost_shard_is_not_a_missing_hour(copy):
    (copy / "inputs" / "c.2.0.0.0").unlink()
    store = open_year(copy)
    store.read(slice(0, 96))
    with pytest.raises(StoreError, match=r"row 96, .* has lost its values"):
        store.read(slice(90, 100))
    with pytest.raises(StoreError, match="has lost its values"):
        verify_year(copy)  # the last hour is always among the samples


def test_a_read_that_failed_once_is_not_passed_over(original):
    """Of a run of hours: each can be read afterwards, and still somebody should know."""
    store, failures = open_year(original), [OSError(5, "Input/output error")]
    whole = store.inputs

    class Unsteady:
        def __getitem__(self, rows):
            if failures:
                raise failures.pop()
            return whole[rows]

    store._opened["array"] = Unsteady()
    with pytest.raises(StoreError, match="failed once; it can be read now"):
        store.read(slice(0, 6))


def test_a_shortened_shard(copy):
    file = copy / "inputs" / "c.0.0.0.0"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(StoreError, match="cannot be read"):
        open_year(copy).read([0])


def test_a_changed_hour_with_a_good_checksum(copy):
    """Written through zarr: only step_sha256 knows."""
    array = zarr.open_array(copy / "inputs", mode="r+")
    hour = array[50]
    hour[3][np.isfinite(hour[3])] += 1
    array[50] = hour
    open_year(copy).read([50])
    with pytest.raises(StoreError, match=r"row 50, .* differs from its step_sha256 \(u, v, temp"):
        verify_year(copy, deep=True)


def test_values_outside_the_mask_and_other_variables_are_named(copy):
    array = zarr.open_array(copy / "inputs", mode="r+")
    hour = array[50]
    hour[10, 0, 0] = 1.0
    array[50] = hour
    with pytest.raises(StoreError, match=r"row 50, .* outside the mask\n.*\n.*pm25\n"):
        verify_year(copy, deep=True)
    hour[10] = np.nan
    hour[9, 0, 0] = np.nan
    array[50] = hour
    with pytest.raises(StoreError, match=r"row 50, .* other variables .*\n.*\n.*pm25\n"):
        verify_year(copy, deep=True)


def test_quick_verification_samples_by_seed(copy):
    flip(copy / "inputs" / "c.1.0.0.0", 0.5)
    found = []
    for seed in range(12):
        try:
            verify_year(copy, samples=24, seed=seed)
        except StoreError:
            found.append(seed)
    assert 0 < len(found) < 12  # 24 of 120 hours: one in five


@pytest.mark.parametrize("damage", ["lost", "cut short"])
def test_quick_verification_looks_into_every_shard(copy, damage):
    shard = copy / "inputs" / "c.1.0.0.0"
    if damage == "lost":
        shard.unlink()
    else:
        shard.write_bytes(shard.read_bytes()[:-1])
    for seed in range(12):
        with pytest.raises(StoreError, match=r"row 48, file inputs/c\.1\.0\.0\.0"):
            verify_year(copy, samples=1, seed=seed)


@pytest.mark.parametrize("name", sorted(set(LAYOUT) - {"inputs"}))
def test_a_changed_small_array_is_found_when_opening(copy, name):
    array = zarr.open_group(copy, mode="r+")[name]
    values = array[...]
    values.flat[0] = not values.flat[0] if values.dtype == bool else values.flat[0] + 1
    array[...] = values
    with pytest.raises(StoreError, match=f"array {name} is damaged"):
        open_year(copy)


@pytest.mark.parametrize("name", sorted(set(LAYOUT)))
def test_a_lost_array_is_found_when_opening(copy, name):
    shutil.rmtree(copy / name)
    with pytest.raises(StoreError, match=str(copy)):
        open_year(copy)


@pytest.mark.parametrize(
    "edit",
    [
        lambda a: a.update(synthetic=False),
        lambda a: a.update(manifest_sha256="1" * 64),
        lambda a: a.update(missing=[]),
        lambda a: a["array_sha256"].update(mask="0" * 64),
        lambda a: a.pop("content_sha256"),
        lambda a: a.update(note="x"),
    ],
)
def test_changed_attributes_are_found(copy, edit):
    edit_attributes(copy, edit)
    with pytest.raises(StoreError, match="attributes are damaged"):
        open_year(copy)


def test_other_formats_and_grids_are_refused(copy, tmp_path):
    edit_attributes(copy, lambda a: a.update(format_version=99), sign=True)
    with pytest.raises(StoreError, match=r"another format\n.*1\)\n.*99\)"):
        open_year(copy)
    with pytest.raises(StoreError, match=r"no yearly store at .*\n.*\n.*nothing"):
        open_year(tmp_path / "none.zarr")
    with pytest.raises(StoreError, match=r"without zarr\.json"):
        open_year(tmp_path)


def test_attributes_of_another_grid(copy):
    edit_attributes(copy, lambda a: a["grid"].update(digest="0" * 64), sign=True)
    with pytest.raises(StoreError, match="another grid"):
        open_year(copy)


def test_broken_json(copy):
    (copy / "zarr.json").write_text("{")
    with pytest.raises(StoreError, match=r"zarr\.json cannot be read"):
        open_year(copy)


# ---- several years


@pytest.fixture(scope="module")
def new_year(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("new_year")
    return make_year(folder, 2013, 2, start_label="2013-12-30T00"), make_year(folder, 2014, 3)


def test_new_year_is_continuous(new_year):
    both = YearSet([open_year(path) for path in reversed(new_year)])
    assert (np.diff(both.times) == np.timedelta64(1, "h")).all()
    assert both.times[47] == np.datetime64("2013-12-31T15") and len(both.times) == 48 + 72
    assert [store.year for store in both.stores] == [2013, 2014]
    whole = np.concatenate([store.read(slice(None)) for store in both.stores])
    rows = np.array([119, 47, 48, 46, 48, 0])
    np.testing.assert_array_equal(both.read(rows), whole[rows])
    np.testing.assert_array_equal(both.read(slice(40, 60)), whole[40:60])
    np.testing.assert_array_equal(both.read([]), whole[:0])
    np.testing.assert_array_equal(both.valid, np.ones((120, 11), bool))
    index, row = both.locate(rows)
    assert index.tolist() == [1, 0, 1, 0, 1, 0] and row.tolist() == [71, 47, 0, 46, 0, 0]
    assert both.locate(48)[0] == 1 and both.synthetic
    # the fields themselves continue: a step over New Year is like any other
    step = np.nanstd(np.diff(both.read(slice(44, 52)), axis=0), axis=(2, 3))[:, 0]
    assert step.max() < 2 * step.min()


@pytest.mark.parametrize("rows", [[-1], [120], [0, 500]])
def test_rows_outside_are_refused(new_year, rows):
    both = YearSet([open_year(path) for path in new_year])
    with pytest.raises(CoverageError, match="rows outside the years"):
        both.locate(np.array(rows))


def test_a_gap_between_years_has_no_rows(tmp_path, new_year):
    late = make_year(tmp_path, 2016, 1)
    both = YearSet([open_year(new_year[0]), open_year(late)])
    assert len(both.times) == 48 + 24 and np.diff(both.times).max() > np.timedelta64(365, "D")


def test_years_that_do_not_belong_together(tmp_path, new_year):
    first = open_year(new_year[0])
    with pytest.raises(StoreError, match="hours given twice: 2013-12-29T16Z to 2013-12-31T15Z"):
        YearSet([first, open_year(make_year(tmp_path / "twice", 2013, 2, "china_32x64", 1,
                                            "2013-12-30T00"))])  # fmt: skip
    with pytest.raises(StoreError, match="grid; mask; static"):
        YearSet([first, open_year(make_year(tmp_path, 2014, 1, "china_64x128"))])
    with pytest.raises(StoreError, match="utc_offset_h"):
        YearSet([first, open_year(make_year(tmp_path / "offset", 2014, 1, utc_offset_h=0.0))])
    with pytest.raises(CoverageError, match="no year to read"):
        YearSet([])


def test_the_digest_of_a_set_is_that_of_its_years(new_year):
    stores = [open_year(path) for path in new_year]
    assert YearSet(stores).digest == YearSet(stores[::-1]).digest != YearSet(stores[:1]).digest

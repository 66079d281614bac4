"""The store: round trip, digests, and every kind of damage is found."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from aqnet.data.store import (
    FORMAT_VERSION,
    LAYOUT,
    SHARD_STEPS,
    array_digest,
    content_digest,
    open_store,
    verify_store,
    write_fields,
)
from aqnet.errors import StoreError
from aqnet.variables import STATIC

SIZES = {"lat": 4, "lon": 3, "variable": 11, "target": 6, "static_variable": len(STATIC),
         "station": 5}  # fmt: skip
FIELDS = [name for name, dimensions in LAYOUT.items() if len(dimensions) == 4]
DTYPES = {"time": "i8", "inputs_valid": "?", "station_input_age_h": "i1"}


def random_arrays(hours: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng, arrays = np.random.default_rng(seed), {}
    for name, dimensions in LAYOUT.items():
        shape = tuple(hours if d == "time" else SIZES[d] for d in dimensions)
        arrays[name] = rng.normal(size=shape).astype(DTYPES.get(name, "f4"))
    arrays["time"] = 380000 + np.arange(hours)
    arrays["inputs"][hours // 2] = np.nan
    return arrays


def write_store(path, arrays, **changes):
    group = zarr.create_group(path, zarr_format=3)
    for name, values in arrays.items():
        write_fields(group, name, values)
    attributes = {
        "format_version": FORMAT_VERSION, "stations": list("abcde"), "utc_offset_h": 8.0,
        "withheld": [False, True, False, False, False],
        "array_sha256": {name: array_digest(values) for name, values in arrays.items()},
    }  # fmt: skip
    attributes |= {"content_sha256": content_digest(attributes)} | changes
    group.attrs.update(attributes)
    return path


@pytest.fixture(scope="module")
def arrays():
    return random_arrays(SHARD_STEPS + 30)


@pytest.fixture(scope="module")
def original(tmp_path_factory, arrays):
    return write_store(tmp_path_factory.mktemp("store") / "a.zarr", arrays)


@pytest.fixture
def copy(original, tmp_path):
    return shutil.copytree(original, tmp_path / "copy.zarr")


def edit_attributes(path, edit):
    described = json.loads((path / "zarr.json").read_text())
    edit(described["attributes"])
    (path / "zarr.json").write_text(json.dumps(described))


def test_round_trip(original, arrays):
    store = open_store(original)
    for name, values in arrays.items():
        np.testing.assert_array_equal(store.read(name), values)
        assert store[name].dtype == values.dtype
        assert store[name].metadata.dimension_names == LAYOUT[name]
    np.testing.assert_array_equal(store.times, arrays["time"].astype("datetime64[h]"))
    assert store.stations == tuple("abcde") and store.withheld.tolist() == [0, 1, 0, 0, 0]
    assert store.utc_offset_h == 8.0 and verify_store(original) == store.digest


@settings(max_examples=5, deadline=None)
@given(hours=st.integers(1, 60), seed=st.integers(0, 2**32 - 1))
def test_round_trip_of_any_length(hours, seed, tmp_path_factory):
    arrays = random_arrays(hours, seed)
    path = write_store(tmp_path_factory.mktemp("store") / "b.zarr", arrays)
    for name in LAYOUT:
        np.testing.assert_array_equal(open_store(path).read(name), arrays[name])


@settings(max_examples=25, deadline=None)
@given(
    st.none() | st.integers(-900, 900),
    st.none() | st.integers(-900, 900),
    st.none() | st.integers(1, 50),
)
def test_any_rows_are_read_as_by_numpy(original, arrays, start, stop, step):
    rows = slice(start, stop, step)
    store = open_store(original)
    for name in ("inputs", "targets_error_ratio"):
        np.testing.assert_array_equal(store.read(name, rows), arrays[name][rows])


def test_one_hour_of_all_variables_is_a_chunk_and_a_file_holds_a_month(original):
    store = open_store(original)
    for name in ("inputs", "targets"):
        assert store[name].chunks == (1, *store[name].shape[1:])
        assert store[name].shards == (SHARD_STEPS, *store[name].shape[1:])
        assert len([f for f in (original / name / "c").rglob("*") if f.is_file()]) == 2
    assert store.group.metadata.zarr_format == 3


# ---- digests


def test_digest_sees_type_shape_and_numbers():
    values = np.arange(6.0)
    digests = [
        array_digest(a)
        for a in (
            values,
            values.astype("f4"),
            values.reshape(2, 3),
            values[::-1],
            np.nextafter(values, 9),
        )
    ]
    assert len(set(digests)) == len(digests)
    strided = np.asfortranarray(values.reshape(2, 3))
    assert array_digest(strided) == array_digest(values.reshape(2, 3))


def test_digest_does_not_depend_on_the_order_of_attributes_or_itself():
    one = content_digest({"a": 1, "b": [2, 3], "content_sha256": "x"})
    assert one == content_digest({"b": [2, 3], "a": 1}) != content_digest({"a": 1, "b": [3, 2]})


# ---- damage


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("where", [0.0, 0.5])
def test_a_flipped_byte_in_a_field_is_found(copy, name, where):
    shard = copy / name / "c" / "0" / "0" / "0" / "0"
    raw = bytearray(shard.read_bytes())
    raw[int(where * len(raw)) + 20] ^= 4
    shard.write_bytes(raw)
    with pytest.raises(StoreError, match=f"array {name} "):
        verify_store(copy)


def test_a_flipped_byte_in_the_index_of_a_file_is_found(copy):
    shard = copy / "targets" / "c" / "0" / "0" / "0" / "0"
    raw = bytearray(shard.read_bytes())
    raw[-10] ^= 4
    shard.write_bytes(raw)
    with pytest.raises(StoreError, match="array targets cannot be read"):
        verify_store(copy)


@pytest.mark.parametrize("name", sorted(set(LAYOUT) - set(FIELDS)))
def test_a_changed_number_in_a_small_array_is_found(copy, name):
    array = zarr.open_group(copy, mode="r+")[name]
    values = array[...]
    values.flat[0] = not values.flat[0] if values.dtype == bool else values.flat[0] + 1
    array[...] = values
    with pytest.raises(StoreError, match=f"array {name} is damaged"):
        verify_store(copy)


def test_a_lost_file_is_found(copy):
    (copy / "inputs" / "c" / "1" / "0" / "0" / "0").unlink()  # zarr reads zeros for it
    with pytest.raises(StoreError, match="array inputs is damaged"):
        verify_store(copy)


@pytest.mark.parametrize(
    "edit",
    [
        lambda a: a.update(withheld=[False] * 5),
        lambda a: a.update(utc_offset_h=7.0),
        lambda a: a.update(stations=list("bacde")),
        lambda a: a.pop("stations"),
        lambda a: a.update(note="x"),
        lambda a: a["array_sha256"].update(inputs="0" * 64),
        lambda a: a.update(content_sha256="0" * 64),
        lambda a: a.pop("content_sha256"),
    ],
)
def test_changed_attributes_are_found(copy, edit):
    edit_attributes(copy, edit)
    with pytest.raises(StoreError, match="attributes are damaged"):
        verify_store(copy)


@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, None, "1"])
def test_another_format_version_is_refused(copy, version):
    edit_attributes(copy, lambda a: a.update(format_version=version))
    with pytest.raises(StoreError, match=f"found: +version {version}"):
        open_store(copy)


def test_a_missing_array_is_named(copy):
    shutil.rmtree(copy / "inputs_valid")
    with pytest.raises(StoreError, match=r"without \['inputs_valid'\]"):
        open_store(copy)


def test_a_store_of_another_manifest_is_refused(original, manifest):
    with pytest.raises(StoreError, match="built from another manifest"):
        open_store(original, manifest)


def test_the_built_store_is_that_of_its_manifest(store, manifest):
    open_store(store.path, manifest)
    other = manifest.model_copy(update={"withheld_stations": ("Tiantan",)})
    with pytest.raises(StoreError, match="built from another manifest"):
        open_store(store.path, other)


def test_no_store(tmp_path):
    with pytest.raises(StoreError, match=r"found: +nothing") as caught:
        open_store(tmp_path / "none.zarr")
    assert "aqnet data beijing" in str(caught.value)
    with pytest.raises(StoreError, match=r"without zarr\.json"):
        open_store(tmp_path)


def test_a_store_is_read_only(original):
    with pytest.raises(ValueError, match="read-only"):
        open_store(original)["static"][:] = 0

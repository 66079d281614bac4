"""Files of precomputed arrays: what goes in comes out, and nothing else passes for it."""

from __future__ import annotations

import time

import numpy as np
import pytest

from aqnet.model.array_cache import CacheError, read_arrays, write_arrays

SPEC = {"grid": "china", "rank": 16, "bounds": (1.5, 2.0), "weights": {"near": 3.0}}


def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "orders": rng.integers(0, 8192, (16, 8192)).astype(np.int16),
        "left": rng.normal(size=(100, 16)).astype(np.float32).T,  # not contiguous
        "mask": np.arange(7) % 2 == 0,
        "empty": np.zeros((0, 3)),
    }


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "deep" / "x.safetensors"
    write_arrays(path, "scan", 1, SPEC, arrays())
    return path


def test_what_goes_in_comes_out(path):
    spec, found = read_arrays(path, "scan", 1, SPEC)
    assert spec == {**SPEC, "bounds": [1.5, 2.0]}
    assert found.keys() == arrays().keys()
    for name, array in arrays().items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


def test_equal_content_gives_equal_bytes_and_leaves_nothing_beside(path, tmp_path):
    again = tmp_path / "again.safetensors"
    other_order = dict(reversed(SPEC.items())), dict(reversed(arrays().items()))
    assert write_arrays(again, "scan", 1, *other_order) == write_arrays(
        path, "scan", 1, SPEC, arrays()
    )
    assert again.read_bytes() == path.read_bytes()
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_missing_names_the_command(tmp_path):
    with pytest.raises(CacheError, match=r"is missing(.|\n)*`aqnet scan build`"):
        read_arrays(tmp_path / "x.safetensors", "scan", 1)
    with pytest.raises(CacheError, match="`make caches`"):
        read_arrays(tmp_path / "x.safetensors", "scan", 1, command=lambda: "make caches")


def test_kind_version_and_spec_are_told_apart(path):
    with pytest.raises(CacheError, match="kind 'terrain'\n  found:    'scan'"):
        read_arrays(path, "terrain", 1)
    with pytest.raises(CacheError, match="another version\n  expected: 2\n  found:    1"):
        read_arrays(path, "scan", 2)
    with pytest.raises(CacheError, match=r"something else \(new, rank\)") as caught:
        read_arrays(path, "scan", 1, {**SPEC, "rank": 8, "new": 1})
    assert "{'new': 1, 'rank': 8}" in str(caught.value)
    assert "{'new': 'nothing', 'rank': 16}" in str(caught.value)


def test_a_file_that_cannot_be_read_is_a_named_error(path, monkeypatch):
    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "read_bytes", refuse)
    with pytest.raises(CacheError, match=r"cannot be read(.|\n)*Permission denied"):
        read_arrays(path, "scan", 1)


def test_any_flipped_bit_is_found(path):
    whole = path.read_bytes()
    places = np.linspace(0, len(whole) - 1, 60).astype(int)
    for place in [*places, *range(0, 16)]:
        damaged = bytearray(whole)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(CacheError):
            read_arrays(path, "scan", 1, SPEC)


def test_any_truncation_is_found(path):
    whole = path.read_bytes()
    for size in (0, 5, 8, 40, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(CacheError, match="not a whole file"):
            read_arrays(path, "scan", 1, SPEC)
    path.write_bytes(whole + b"x")
    with pytest.raises(CacheError):
        read_arrays(path, "scan", 1, SPEC)


def test_a_foreign_file_is_refused(path):
    path.write_bytes(b"{}" * 1000)
    with pytest.raises(CacheError, match="not a whole file"):
        read_arrays(path, "scan", 1)


def test_a_spec_that_json_cannot_hold_is_refused(tmp_path):
    with pytest.raises(ValueError):
        write_arrays(tmp_path / "x", "scan", 1, {"x": float("nan")}, {})
    assert not list(tmp_path.iterdir())


def test_reading_takes_milliseconds(tmp_path):
    path = tmp_path / "x.safetensors"
    write_arrays(path, "scan", 1, {}, {"x": np.zeros(500_000, np.uint8)})
    took = []
    for _ in range(5):
        start = time.perf_counter()
        read_arrays(path, "scan", 1)
        took.append(time.perf_counter() - start)
    assert min(took) < 0.02  # 0.6 ms on the developers' machine; SHA-256 of 0.5 MB is most of it

"""Writing years: resumed after any end, one writer at a time, nothing half-written visible."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import zarr
from made_up_years import made_up_fields, made_up_spec, make_year

from aqnet.data.years import partial_store
from aqnet.data.years.format import SHARD_HOURS, YearSpec
from aqnet.data.years.reader import open_year, verify_year
from aqnet.data.years.writer import YearWriter, write_shard, write_year
from aqnet.errors import FieldError, StorageFullError, StoreBusyError, StoreError
from aqnet.variables import DYNAMIC

ROOT = Path(__file__).resolve().parents[1]
DAYS = 5  # three shards, the last one half


@pytest.fixture(scope="module")
def spec() -> YearSpec:
    return made_up_spec(days=DAYS)


@pytest.fixture(scope="module")
def fields(spec) -> np.ndarray:
    return made_up_fields(spec.times, spec.grid)


@pytest.fixture(scope="module")
def digest(tmp_path_factory) -> str:
    """Of the store as it is when nothing goes wrong."""
    return open_year(make_year(tmp_path_factory.mktemp("whole"), days=DAYS)).digest


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write_pending(path: Path, spec: YearSpec, fields: np.ndarray) -> tuple[list[int], str]:
    with YearWriter(path, spec) as writer:
        pending = writer.pending()
        for number in pending:
            writer.write(number, fields[writer.rows(number)])
        return pending, writer.finish()


def test_a_year_written_at_once_has_its_missing_hours_in_their_shards(tmp_path, spec, fields):
    lost, path = {0: "no file", SHARD_HOURS: "damaged", len(spec.times) - 1: "cut"}, tmp_path / "y"
    store = write_year(path, spec, lambda rows: fields[rows], lost)
    expected = np.ones(len(spec.times), bool)
    expected[list(lost)] = False
    np.testing.assert_array_equal(store.valid.all(1), expected)
    assert [gap[-1] for gap in store.attributes["missing"]] == list(lost.values())
    again = write_year(path, spec, lambda rows: 1 / 0)  # it is there: nothing is asked for
    assert again.digest == store.digest
    for row in (-1, len(spec.times)):
        with pytest.raises(StoreError, match="rows in `missing` that"):
            write_year(tmp_path / "z", spec, lambda rows: fields[rows], {row: "no file"})
    assert names(tmp_path) == ["y"]


# ---- resuming


def test_an_exception_leaves_nothing_visible_and_the_next_writer_goes_on(
    tmp_path, spec, fields, digest
):
    path = tmp_path / "y.zarr"
    with pytest.raises(KeyboardInterrupt), YearWriter(path, spec) as writer:
        writer.write(1, fields[writer.rows(1)])
        assert writer.pending() == [0, 2]
        raise KeyboardInterrupt
    assert names(tmp_path) == [".y.zarr.partial"]
    with pytest.raises(StoreError, match="no yearly store"):
        open_year(path)
    assert write_pending(path, spec, fields) == ([0, 2], digest)
    assert names(tmp_path) == ["y.zarr"] and verify_year(path, deep=True) == digest


def test_without_resume_nothing_stays_and_nothing_is_taken_over(tmp_path, spec, fields, digest):
    path = tmp_path / "y.zarr"
    with YearWriter(path, spec) as writer:
        writer.write(0, fields[writer.rows(0)] + 1)
    with pytest.raises(ValueError, match="stop"), YearWriter(path, spec, resume=False) as writer:
        assert writer.pending() == [0, 1, 2]
        writer.write(0, fields[writer.rows(0)])
        raise ValueError("stop")
    assert names(tmp_path) == []
    assert write_pending(path, spec, fields)[1] == digest


def test_a_finished_store_has_nothing_pending_and_is_not_written_to(tmp_path, spec, fields):
    path = tmp_path / "y.zarr"
    _, digest = write_pending(path, spec, fields)
    before = {file: file.stat().st_mtime_ns for file in path.rglob("*")}
    with YearWriter(path, spec) as writer:
        assert writer.pending() == [] and writer.finish() == digest
        with pytest.raises(StoreError, match="a finished store"):
            writer.write(0, fields[:SHARD_HOURS])
    assert names(tmp_path) == ["y.zarr"]
    assert {file: file.stat().st_mtime_ns for file in path.rglob("*")} == before


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"manifest_sha256": "1" * 64}, "manifest_sha256"),
        ({"recipe": {"command": "x", "settings": {}}}, "recipe"),
        ({"days": 4}, "array time"),
        ({"mask": True}, "array mask"),
        ({"static": True}, "array static"),
    ],
)
def test_another_spec_is_refused(tmp_path, spec, fields, finished, change, named):
    path = tmp_path / "y.zarr"
    with YearWriter(path, spec) as writer:
        for number in writer.pending():
            writer.write(number, fields[writer.rows(number)])
        if finished:
            writer.finish()
    other = made_up_spec(**({"days": DAYS} | {k: v for k, v in change.items() if v is not True}))
    if "mask" in change:
        other.mask[16, 32] = False
    if "static" in change:
        other.static[2] += 1
    with (
        pytest.raises(StoreError, match=f"holds something else: {named}\n") as caught,
        YearWriter(path, other),
    ):
        pytest.fail("the block must not run")
    assert "delete it" in str(caught.value)
    assert write_pending(path, spec, fields)[0] == []  # nothing was touched


def test_a_shard_whose_file_is_gone_or_cut_is_pending_again(tmp_path, spec, fields, digest):
    path = tmp_path / "y.zarr"
    with YearWriter(path, spec) as writer:
        for number in writer.pending():
            writer.write(number, fields[writer.rows(number)])
        shards = writer.partial / "store" / "inputs"
        (shards / "c.0.0.0.0").unlink()
        cut = shards / "c.1.0.0.0"
        cut.write_bytes(cut.read_bytes()[:-1])
        assert writer.pending() == [0, 1]
    assert write_pending(path, spec, fields) == ([0, 1], digest)


def test_finishing_too_early(tmp_path, spec, fields):
    with YearWriter(tmp_path / "y.zarr", spec) as writer:
        writer.write(0, fields[writer.rows(0)])
        with pytest.raises(StoreError, match=r"2 of 3 pending: \[1, 2\]"):
            writer.finish()
    assert names(tmp_path) == [".y.zarr.partial"]
    with pytest.raises(StoreError, match="not open"):
        writer.write(1, fields[:SHARD_HOURS])


KILLED = """
    import os, signal, sys
    from pathlib import Path
    import made_up_years as made_up
    import zarr
    from aqnet.data.years import partial_store
    from aqnet.data.years import writer as year_writer

    path, where = Path(sys.argv[1]), sys.argv[2]

    def dies_in(module, name, after=0, done=False):
        original, calls = getattr(module, name), []
        def dying(*arguments, **options):
            calls.append(1)
            if len(calls) <= after:
                return original(*arguments, **options)
            if done:
                original(*arguments, **options)
            os.kill(os.getpid(), signal.SIGKILL)
        setattr(module, name, dying)

    class Dying(dict):
        begun = staticmethod(lambda: dies_in(partial_store, "atomic_write_json"))
        shard = staticmethod(lambda: dies_in(partial_store, "_synced_size", after=1))
        journal = staticmethod(lambda: dies_in(partial_store, "atomic_write_json", after=2))
        entry = staticmethod(lambda: dies_in(partial_store, "atomic_write_json", 2, done=True))
        small = staticmethod(lambda: dies_in(year_writer, "write_small", after=6))
        signed = staticmethod(lambda: dies_in(partial_store, "place_folder"))
        placed = staticmethod(lambda: dies_in(partial_store, "place_folder", done=True))

    getattr(Dying, where)()
    spec = made_up.made_up_spec(days=5)
    with year_writer.YearWriter(path, spec) as writer:
        for number in writer.pending():
            rows = writer.rows(number)
            writer.write(number, made_up.made_up_fields(spec.times[rows], spec.grid))
        writer.finish()
"""


def start(code: str, *arguments: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
    )


@pytest.mark.parametrize(
    ("where", "left"),
    [
        ("begun", [0, 1, 2]),
        ("shard", [1, 2]),
        ("journal", [1, 2]),
        ("entry", [2]),
        ("small", []),
        ("signed", []),
        ("placed", []),
    ],
)
def test_kill_9_at_any_point_is_resumed(tmp_path, spec, fields, digest, where, left):
    path = tmp_path / "y.zarr"
    process = start(KILLED, path, where)
    _, error = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, error
    assert path.exists() == (where == "placed") and ".y.zarr.partial" in names(tmp_path)
    assert write_pending(path, spec, fields) == (left, digest)
    assert verify_year(path, deep=True) == digest
    assert not list(path.rglob("*.partial"))
    with YearWriter(path, spec):
        pass
    assert [n for n in names(tmp_path) if n != ".y.zarr.partial"] == ["y.zarr"]


# ---- one writer at a time

HOLDING = """
    import sys, time
    from pathlib import Path
    from made_up_years import made_up_spec
    from aqnet.data.years.writer import YearWriter
    with YearWriter(Path(sys.argv[1]), made_up_spec(days=5)):
        print("holding", flush=True)
        time.sleep(60)
"""


def test_a_second_writer_is_refused_at_once(tmp_path, spec, fields):
    path = tmp_path / "y.zarr"
    process = start(HOLDING, path)
    try:
        assert process.stdout.readline() == "holding\n"
        for resume in (True, False):
            with (
                pytest.raises(StoreBusyError, match=r"y\.zarr is being written"),
                YearWriter(path, spec, resume=resume),
            ):
                pytest.fail("the block must not run")
    finally:
        process.kill()
        process.communicate(timeout=30)
    assert write_pending(path, spec, fields)[0] == [0, 1, 2]


def test_a_second_writer_in_the_same_process(tmp_path, spec):
    with YearWriter(tmp_path / "y.zarr", spec), pytest.raises(StoreBusyError):
        YearWriter(tmp_path / "y.zarr", spec).__enter__()
    with YearWriter(tmp_path / "y.zarr", spec):
        pass


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_write_shards_in_any_order(tmp_path, spec, fields, digest, method):
    path = tmp_path / "y.zarr"
    context = multiprocessing.get_context(method)
    with (
        YearWriter(path, spec) as writer,
        ProcessPoolExecutor(2, mp_context=context) as workers,
    ):
        jobs = [
            workers.submit(write_shard, writer.partial, n, fields[writer.rows(n)])
            for n in reversed(writer.pending())
        ]
        for job in jobs:
            job.result()
        assert writer.finish() == digest


# ---- no room

NO_ROOM = """
    import resource, sys
    from pathlib import Path
    from aqnet.errors import StorageFullError
    from made_up_years import make_year
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    try:
        make_year(Path(sys.argv[1]), days=5)
    except StorageFullError as error:
        print(error)
"""


def test_the_file_size_limit(tmp_path):
    process = start(NO_ROOM, tmp_path)
    output, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    assert "the file size limit (ulimit -f) is reached" in output and "remedy:" in output
    assert names(tmp_path) == []


@pytest.mark.parametrize("fail_at", ["inputs", "journal", "finish"])
def test_a_full_disk_keeps_what_is_finished(tmp_path, spec, fields, digest, monkeypatch, fail_at):
    path = tmp_path / "y.zarr"

    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    with (
        pytest.raises(StorageFullError, match="the file system is full") as caught,
        YearWriter(path, spec) as writer,
        monkeypatch.context() as patch,
    ):
        writer.write(0, fields[writer.rows(0)])
        if fail_at == "inputs":
            patch.setattr("zarr.storage._local._put", full)
        if fail_at == "journal":
            patch.setattr(partial_store, "atomic_write_json", full)
        for number in (1, 2):
            writer.write(number, fields[writer.rows(number)])
        patch.setattr("zarr.storage._local._put", full)
        writer.finish()
    assert "MB free" in str(caught.value) and not path.exists()
    expected = [] if fail_at == "finish" else [1, 2]
    assert write_pending(path, spec, fields) == (expected, digest)


# ---- what is written


def test_values_are_masked_and_missing_hours_hold_nothing(tmp_path, spec, fields):
    source = np.arange(len(fields) * 32, dtype=np.uint8).reshape(-1, 32)
    inputs = fields.copy()
    inputs[3, DYNAMIC.index("co")] = np.nan
    inputs[4, DYNAMIC.index("co")] = np.nan
    inputs[60, :, 16, 30] = np.nan  # a cell
    inputs[1, :, ~spec.mask] = np.inf  # outside the mask anything may stand
    lost = {47: "damaged", 48: "damaged", 49: "damaged", 119: "no file"}
    path = tmp_path / "y.zarr"
    with YearWriter(path, spec) as writer:
        for number in writer.pending():
            rows = writer.rows(number)
            here = {r - rows.start: why for r, why in lost.items() if r in range(120)[rows]}
            writer.write(number, inputs[rows], source[rows], here)
        writer.finish()
    store = open_year(path)
    assert store.attributes["missing"] == [
        ["2012-12-31T19Z", "2012-12-31T20Z", "no values of co"],
        ["2013-01-02T15Z", "2013-01-02T17Z", "damaged"],  # one span over two shards
        ["2013-01-05T15Z", "2013-01-05T15Z", "no file"],
    ]
    lacking = np.flatnonzero(~store.valid.all(1))
    assert lacking.tolist() == [3, 4, 47, 48, 49, 119]
    assert store.valid[3].sum() == 10 and not store.valid[47].any() and store.valid[60].all()
    np.testing.assert_array_equal(store.source_sha256, source)
    values = store.read(slice(None))
    assert np.isnan(values[list(lost)]).all() and np.isnan(values[..., ~spec.mask]).all()
    assert np.isnan(values[60, :, 16, 30]).all() and np.isfinite(values[61, :, 16, 30]).all()
    assert verify_year(path, deep=True) == store.digest


def test_a_shard_of_missing_hours_has_no_file(tmp_path, spec, fields):
    path = tmp_path / "y.zarr"
    with YearWriter(path, spec) as writer:
        writer.write(0, fields[:48], missing=dict.fromkeys(range(48), "no file"))
        assert writer.pending() == [1, 2]
        for number in (1, 2):
            writer.write(number, fields[writer.rows(number)])
        writer.finish()
    assert not (path / "inputs" / "c.0.0.0.0").exists()
    assert np.isnan(open_year(path).read(slice(0, 48))).all()
    verify_year(path, deep=True)


def test_other_nans_give_the_same_bytes(tmp_path, spec, fields, digest):
    odd = np.array([0x7FC12345], np.uint32).view(np.float32)[0]
    plain, strange = fields.copy(), fields.copy()
    plain[5, 2, 16], strange[5, 2, 16] = np.nan, odd
    digests = {write_pending(tmp_path / f"{i}.zarr", spec, f)[1] for i, f in
               enumerate((plain, strange))}  # fmt: skip
    assert len(digests) == 1 and digest not in digests


@pytest.mark.parametrize("infinite", [np.inf, -np.inf])
def test_infinite_values_are_refused_by_name_and_hour(tmp_path, spec, fields, infinite):
    inputs = fields[:SHARD_HOURS].copy()
    inputs[2, DYNAMIC.index("o3"), 16, 30] = infinite
    with YearWriter(tmp_path / "y.zarr", spec) as writer:
        with pytest.raises(FieldError, match="o3 is infinite at 2012-12-31T18Z"):
            writer.write(0, inputs)
        assert writer.pending() == [0, 1, 2]


def test_shapes_that_do_not_fit(tmp_path, spec, fields):
    with YearWriter(tmp_path / "y.zarr", spec) as writer:
        calls = [
            (0, fields[:47], None, None),
            (2, fields[:48], None, None),
            (0, fields[:48, :, :, :-1], None, None),
            (0, fields[:48], np.zeros((47, 32), np.uint8), None),
            (0, fields[:48], np.zeros((48, 32), np.int64), None),
            (0, fields[:48], None, {48: "beyond"}),
            (3, fields[:48], None, None),
            (-1, fields[:48], None, None),
        ]
        for call in calls:
            with pytest.raises(StoreError, match="of a shard does not fit"):
                writer.write(*call)
        assert writer.pending() == [0, 1, 2]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"times": np.array([], "datetime64[h]")}, "times that ascend"),
        ({"times": np.array(["2013-01-02", "2013-01-01"], "datetime64[h]")}, "times that ascend"),
        ({"static": np.zeros((3, 32, 64))}, "static of shape"),
        ({"mask": np.zeros((64, 32), bool)}, "a mask of shape"),
        ({"mask": np.zeros((32, 64), bool)}, "at least one cell"),
        ({"attributes": {"title": "x"}}, "the attributes"),
    ],
)
def test_a_spec_that_does_not_fit(spec, change, named):
    given = {name: getattr(spec, name) for name in YearSpec.__dataclass_fields__}
    with pytest.raises(StoreError, match=named):
        YearSpec(**(given | change))


def test_the_journal_vouches_only_for_what_is_on_the_disk(tmp_path, spec, fields):
    with YearWriter(tmp_path / "y.zarr", spec) as writer:
        writer.write(0, fields[writer.rows(0)])
        entry = json.loads((writer.partial / "journal" / "0.json").read_text())
        shard = writer.partial / "store" / "inputs" / "c.0.0.0.0"
        assert entry["bytes"] == [shard.stat().st_size]
        assert len(entry["step_sha256"]) == len(entry["valid"]) == SHARD_HOURS
        array = zarr.open_array(writer.partial / "store" / "inputs", mode="r")
        assert np.isfinite(array[0][:, spec.mask]).all()

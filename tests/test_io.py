"""Atomic writes under success, failure, a full disk and a killed process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aqnet import io
from aqnet.errors import AqnetError, StorageFullError, TargetExistsError

ROOT = Path(__file__).resolve().parents[1]


def start(code: str, *arguments: object) -> subprocess.Popen:
    """Run code in a fresh process that takes SIGINT even if the test runner ignores it."""
    program = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    return subprocess.Popen(
        [sys.executable, "-c", program + textwrap.dedent(code), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# ---- plain behaviour


def test_text_bytes_and_json_arrive_whole_and_alone(tmp_path):
    io.atomic_write_text(tmp_path / "new" / "a.txt", "wind 3 m/s\n")
    io.atomic_write_bytes(tmp_path / "new" / "b", b"\x00\x01")
    io.atomic_write_json(tmp_path / "new" / "c.json", {"b": 1e-7, "a": [1]})
    assert (tmp_path / "new" / "a.txt").read_text() == "wind 3 m/s\n"
    assert (tmp_path / "new" / "b").read_bytes() == b"\x00\x01"
    assert json.loads((tmp_path / "new" / "c.json").read_text()) == {"a": [1], "b": 1e-7}
    assert names(tmp_path / "new") == ["a.txt", "b", "c.json"]


def test_permissions_follow_the_umask(tmp_path):
    """A group on a cluster must be able to read what one member wrote."""
    before = os.umask(0o027)
    try:
        io.atomic_write_text(tmp_path / "file", "x")
        with io.atomic_directory(tmp_path / "folder"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o750


def test_json_refuses_nan_and_keeps_the_old_file(tmp_path):
    io.atomic_write_json(tmp_path / "m.json", {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        io.atomic_write_json(tmp_path / "m.json", {"a": float("nan")})
    assert json.loads((tmp_path / "m.json").read_text()) == {"a": 1}


def test_folder_appears_only_when_complete(tmp_path):
    target = tmp_path / "deep" / "store"
    with io.atomic_directory(target) as folder:
        (folder / "part").mkdir()
        (folder / "part" / "x").write_text("1")
        assert not target.exists()
        assert folder.parent == target.parent
    assert (target / "part" / "x").read_text() == "1"
    assert names(target.parent) == ["store"]


def test_existing_folder_is_refused_before_anything_is_written(tmp_path):
    (tmp_path / "store").mkdir()
    with (
        pytest.raises(TargetExistsError, match=r"store exists already\n  expected: a free name"),
        io.atomic_directory(tmp_path / "store"),
    ):
        pytest.fail("the block must not run")
    assert names(tmp_path) == ["store"]


def test_folder_made_meanwhile_is_not_overwritten(tmp_path):
    target = tmp_path / "store"
    with pytest.raises(TargetExistsError), io.atomic_directory(target) as folder:
        (folder / "mine").write_text("1")
        target.mkdir()
        (target / "theirs").write_text("1")
    assert names(target) == ["theirs"]
    assert names(tmp_path) == ["store"]


def test_replace_keeps_the_old_folder_until_the_new_one_is_complete(tmp_path):
    target = tmp_path / "store"
    with io.atomic_directory(target) as folder:
        (folder / "old").touch()
    with pytest.raises(RuntimeError), io.atomic_directory(target, replace=True) as folder:
        (folder / "new").touch()
        raise RuntimeError("half way")
    assert names(target) == ["old"]
    with io.atomic_directory(target, replace=True) as folder:
        (folder / "new").touch()
        assert names(target) == ["old"]
    assert names(target) == ["new"]
    assert names(tmp_path) == ["store"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_any_exception_removes_the_temporary_folder(tmp_path, error):
    with pytest.raises(error), io.atomic_directory(tmp_path / "store") as folder:
        (folder / "x").touch()
        raise error("stop")
    assert names(tmp_path) == []


# ---- killed processes

HALF_WAY = """
    import sys, time
    from aqnet.io import atomic_directory
    with atomic_directory(sys.argv[1]) as folder:
        (folder / "half").write_text("x" * 1000)
        print("half way", flush=True)
        time.sleep(60)
"""
WHOLE = """
    import sys
    from aqnet.io import atomic_directory
    with atomic_directory(sys.argv[1]) as folder:
        (folder / "whole").touch()
"""


def run_whole(target: Path) -> None:
    process = start(WHOLE, target)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 0, error
    assert names(target) == ["whole"]


def test_sigkill_leaves_a_leftover_that_the_rerun_removes(tmp_path):
    process = start(HALF_WAY, tmp_path / "store")
    assert process.stdout.readline() == "half way\n"
    process.kill()
    process.communicate(timeout=30)
    left = names(tmp_path)
    assert len(left) == 1 and left[0].startswith(".store.new-")
    run_whole(tmp_path / "store")
    assert names(tmp_path) == ["store"]


def test_sigint_leaves_nothing_and_the_rerun_works(tmp_path):
    process = start(HALF_WAY, tmp_path / "store")
    assert process.stdout.readline() == "half way\n"
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert "KeyboardInterrupt" in error
    assert names(tmp_path) == []
    run_whole(tmp_path / "store")


def test_folder_of_a_living_process_is_not_taken_for_a_leftover(tmp_path):
    process = start(HALF_WAY, tmp_path / "store")
    try:
        assert process.stdout.readline() == "half way\n"
        run_whole(tmp_path / "store")
        assert len(names(tmp_path)) == 2
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert names(tmp_path) == ["store"]
    assert names(tmp_path / "store") == ["whole"]


def test_sigkill_while_replacing_never_loses_the_old_folder(tmp_path):
    """Killed between the two renames: the next write puts the old folder back first."""
    target = tmp_path / "store"
    with io.atomic_directory(target) as folder:
        (folder / "old").touch()
    code = """
        import os, signal, sys
        from pathlib import Path
        from aqnet import io
        rename = Path.rename
        def killed_after_the_first(self, to):
            rename(self, to)
            os.kill(os.getpid(), signal.SIGKILL)
        Path.rename = killed_after_the_first
        with io.atomic_directory(sys.argv[1], replace=True) as folder:
            (folder / "new").touch()
    """
    process = start(code, target)
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL
    assert not target.exists()
    with pytest.raises(TargetExistsError), io.atomic_directory(target):
        pytest.fail("the old folder must be back")
    assert names(target) == ["old"]
    assert names(tmp_path) == ["store"]


# ---- folders that outlive a process

HOLD = """
    import sys, time
    from aqnet.io import lock_folder
    assert lock_folder(sys.argv[1]) is not None
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_held_folder_is_free_again_when_its_holder_is_killed(tmp_path):
    folder = tmp_path / "new" / "folder"
    process = start(HOLD, folder)
    assert process.stdout.readline() == "held\n"
    assert io.lock_folder(folder) is None
    process.kill()
    process.communicate(timeout=30)
    descriptor = io.lock_folder(folder)
    assert descriptor is not None and io.lock_folder(folder) is None
    io.unlock_folder(descriptor)


def test_a_forked_process_does_not_keep_a_folder_that_was_let_go(tmp_path):
    descriptor = io.lock_folder(tmp_path / "folder")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writing)
        os.read(reading, 1)  # until the parent closes its end
        os._exit(0)
    os.close(reading)
    io.unlock_folder(descriptor)
    again = io.lock_folder(tmp_path / "folder")
    os.close(writing)
    os.waitpid(child, 0)
    assert again is not None
    io.unlock_folder(again)


def test_a_folder_renamed_by_its_holder_is_not_locked_under_the_old_name(tmp_path, monkeypatch):
    """Between opening and locking, the holder puts the folder into its place and lets go."""
    begun, final = tmp_path / "begun", tmp_path / "final"
    begun.mkdir()
    try_lock = io._try_lock

    def meanwhile(descriptor, path):
        if not final.exists():
            begun.rename(final)
        return try_lock(descriptor, path)

    monkeypatch.setattr(io, "_try_lock", meanwhile)
    descriptor = io.lock_folder(begun)
    assert os.path.samestat(os.fstat(descriptor), begun.stat())
    assert not os.path.samestat(os.fstat(descriptor), final.stat())
    io.unlock_folder(descriptor)


def test_a_folder_is_placed_only_where_nothing_stands(tmp_path):
    (tmp_path / "built").mkdir()
    (tmp_path / "built" / "a").touch()
    io.place_folder(tmp_path / "built", tmp_path / "store")
    assert names(tmp_path / "store") == ["a"]
    (tmp_path / "built").mkdir()
    with pytest.raises(TargetExistsError):
        io.place_folder(tmp_path / "built", tmp_path / "store")
    assert names(tmp_path) == ["built", "store"]


# ---- no room

WRITE_FILE = """
    import resource, sys
    from aqnet import io
    from aqnet.errors import StorageFullError
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
    io.atomic_write_text(sys.argv[1] + "/small", "x" * 100)
    try:
        io.atomic_write_text(sys.argv[1] + "/small", "y" * 20_000)
    except StorageFullError as error:
        print(error)
    try:
        with io.atomic_directory(sys.argv[1] + "/folder") as folder:
            (folder / "a").write_text("x" * 100)
            (folder / "b").write_text("y" * 20_000)
    except StorageFullError as error:
        print(error)
"""


def test_file_size_limit_is_explained_and_leaves_nothing_half_written(tmp_path):
    process = start(WRITE_FILE, tmp_path)
    output, error = process.communicate(timeout=30)
    assert process.returncode == 0, error
    assert output.count("the file size limit (ulimit -f) is reached") == 2
    assert output.count("MB free on the file system of") == 2
    assert output.count("remedy:   delete old folders") == 2
    assert names(tmp_path) == ["small"]
    assert (tmp_path / "small").read_text() == "x" * 100


FULL_DISK = """
    import sys
    from pathlib import Path
    from aqnet import io
    from aqnet.errors import StorageFullError
    disk = Path(sys.argv[1])
    io.atomic_write_text(disk / "small", "x" * 100)
    for write in (
        lambda: io.atomic_write_bytes(disk / "small", bytes(2_000_000)),
        lambda: folder_of(bytes(2_000_000)),
    ):
        try:
            write()
        except StorageFullError as error:
            print(error)
    print(sorted(p.name for p in disk.iterdir()), (disk / "small").read_text() == "x" * 100)
    try:
        io.require_free_space(disk / "not" / "yet", 2_000_000)
    except StorageFullError as error:
        print(error)
"""
FOLDER_OF = """
    def folder_of(data):
        from pathlib import Path
        import sys
        from aqnet import io
        with io.atomic_directory(Path(sys.argv[1]) / "folder") as folder:
            (folder / "a").write_bytes(data)
"""


def tmpfs_reason() -> str | None:
    """Why a small file system cannot be mounted here, or None."""
    try:
        command = ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except FileNotFoundError:
        return "no `unshare` here"
    return None if done.returncode == 0 else f"unshare -rm and mount: {done.stderr.strip()}"


def test_full_disk_is_explained_and_leaves_nothing_half_written(tmp_path):
    reason = tmpfs_reason()
    if reason:
        pytest.skip(reason)
    program = textwrap.dedent(FOLDER_OF) + textwrap.dedent(FULL_DISK)
    mount = 'mount -t tmpfs -o size=1m tmpfs "$1" && exec "$2" -c "$3" "$1"'
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", mount, "sh", str(tmp_path), sys.executable, program],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("the file system is full") == 2
    assert "['small'] True" in done.stdout
    assert "expected: 2.0 MB free" in done.stdout


def test_full_disk_wrapped_by_a_library_is_recognised(tmp_path):
    with (
        pytest.raises(StorageFullError, match="the disk quota is used up"),
        io.explain_full_disk(tmp_path),
    ):
        try:
            raise OSError(122, "Disk quota exceeded")
        except OSError as error:
            raise RuntimeError("cannot store chunk") from error


def test_other_errors_pass_unchanged(tmp_path):
    with pytest.raises(PermissionError), io.explain_full_disk(tmp_path):
        raise PermissionError(13, "no")


def test_require_free_space_accepts_what_fits(tmp_path):
    io.require_free_space(tmp_path / "not" / "yet", 1)


# ---- digests

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs",))),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=("Cs",))), inner)
    ),
    max_leaves=10,
)


@given(st.dictionaries(st.text(st.characters(exclude_categories=("Cs",))), JSON))
def test_json_digest_does_not_depend_on_key_order(content):
    backwards = dict(reversed(list(content.items())))
    assert io.sha256_json(content) == io.sha256_json(backwards)
    assert io.sha256_json(content) != io.sha256_json(content | {"another key": 1, "b": 2})


def test_digests_of_known_content(tmp_path):
    """Of the two bytes `{}`, by sha256sum of coreutils."""
    known = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    (tmp_path / "x").write_text("{}")
    assert io.sha256_file(tmp_path / "x") == known
    assert io.sha256_json({}) == known
    assert io.sha256_json({"a": 1}) != io.sha256_json({"a": 1.0})
    with pytest.raises(ValueError, match="JSON compliant"):
        io.sha256_json([float("inf")])


# ---- places


@pytest.fixture
def no_places(monkeypatch):
    for name in ("AQNET_ROOT", "AQNET_DATA", "AQNET_RUNS"):
        monkeypatch.delenv(name, raising=False)


def repository(path: Path) -> Path:
    (path / "data_manifests").mkdir(parents=True)
    (path / "settings.ini").touch()
    return path


def test_root_is_found_from_a_subfolder(tmp_path, monkeypatch, no_places):
    root = repository(tmp_path / "aqnet")
    (root / "nbs" / "train").mkdir(parents=True)
    monkeypatch.chdir(root / "nbs" / "train")
    assert io.repository_root() == root
    assert io.data_root() == root / "data"
    assert io.runs_root() == root / "runs"


def test_missing_root_names_both_ways_to_give_it(tmp_path, monkeypatch, no_places):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AqnetError, match="inside the repository, or set AQNET_ROOT"):
        io.repository_root()
    monkeypatch.setenv("AQNET_ROOT", str(tmp_path))
    with pytest.raises(AqnetError, match=f"none at AQNET_ROOT={tmp_path}"):
        io.repository_root()


def test_variables_move_the_places(tmp_path, monkeypatch, no_places):
    root = repository(tmp_path / "aqnet")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AQNET_ROOT", str(root))
    assert io.data_root() == root / "data"
    monkeypatch.setenv("AQNET_DATA", "scratch")
    monkeypatch.setenv("AQNET_RUNS", "/scratch/runs")
    assert io.data_root() == tmp_path / "scratch"
    assert io.runs_root() == Path("/scratch/runs")


def test_locks_end_with_the_write_not_with_the_process(tmp_path):
    """Many writes of one process must not run out of file descriptors."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    for count in range(20):
        io.atomic_write_text(tmp_path / "x", str(count))
    with pytest.raises(TargetExistsError), io.atomic_directory(tmp_path / "x"):
        pass
    assert len(list(Path("/proc/self/fd").iterdir())) == before

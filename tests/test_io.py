"""Writes that happen completely or not at all: under success, failure and a killed process."""

from __future__ import annotations

import errno
import json
import os
import signal
from contextlib import nullcontext
from pathlib import Path

import pytest
from io_case import names, start

from aqnet import io
from aqnet.errors import StorageFullError, TargetExistsError

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


def test_a_draft_folder_is_gone_at_the_end_and_so_are_those_of_the_dead(tmp_path):
    dead = tmp_path / ".x.new-dead"
    for error in (None, OSError(errno.ENOSPC, "full"), ValueError("stop")):
        dead.mkdir()
        expected = StorageFullError if isinstance(error, OSError) else type(error)
        with pytest.raises(expected) if error else nullcontext(), io.draft_folder(
            tmp_path / "x"
        ) as folder:
            (folder / "draft").touch()
            assert names(tmp_path) == [folder.name] and folder != dead
            if error:
                raise error
        assert names(tmp_path) == []
    with io.draft_folder(tmp_path / "x") as folder:
        folder.rename(tmp_path / "kept")
    assert names(tmp_path) == ["kept"]


def test_a_folder_is_placed_only_where_nothing_stands(tmp_path):
    (tmp_path / "built").mkdir()
    (tmp_path / "built" / "a").touch()
    io.place_folder(tmp_path / "built", tmp_path / "store")
    assert names(tmp_path / "store") == ["a"]
    (tmp_path / "built").mkdir()
    with pytest.raises(TargetExistsError):
        io.place_folder(tmp_path / "built", tmp_path / "store")
    assert names(tmp_path) == ["built", "store"]


def test_locks_end_with_the_write_not_with_the_process(tmp_path):
    """Many writes of one process must not run out of file descriptors."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    for count in range(20):
        io.atomic_write_text(tmp_path / "x", str(count))
    with pytest.raises(TargetExistsError), io.atomic_directory(tmp_path / "x"):
        pass
    assert len(list(Path("/proc/self/fd").iterdir())) == before


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

"""A full disk, quota or file size limit is explained, and leaves nothing half written."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest
from io_case import ROOT, names, start

from aqnet import io
from aqnet.errors import StorageFullError

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

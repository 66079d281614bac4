"""Folders that a process holds until it lets go or dies."""

from __future__ import annotations

import fcntl
import os

from io_case import start

from aqnet import io
from aqnet.io import locks

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
    try_lock = locks.try_lock

    def meanwhile(descriptor, path):
        if not final.exists():
            begun.rename(final)
        return try_lock(descriptor, path)

    monkeypatch.setattr(locks, "try_lock", meanwhile)
    descriptor = io.lock_folder(begun)
    assert os.path.samestat(os.fstat(descriptor), begun.stat())
    assert not os.path.samestat(os.fstat(descriptor), final.stat())
    io.unlock_folder(descriptor)


def test_files_are_locked_as_nfs_wants_it_and_folders_as_they_can_be(tmp_path):
    """An exclusive lock over NFS needs a file that is open for writing."""
    (tmp_path / "file").write_text("")
    for path, mode in ((tmp_path / "file", os.O_RDWR), (tmp_path, os.O_RDONLY)):
        descriptor = locks.lock_existing(path)
        assert fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == mode
        os.close(descriptor)


def test_a_file_that_may_only_be_read_is_locked_too(tmp_path, monkeypatch):
    """What another user has left; root could write it."""
    (tmp_path / "file").write_text("")
    opened = os.open

    def refuse(path, flags):
        if flags & os.O_ACCMODE != os.O_RDONLY:
            raise PermissionError
        return opened(path, flags)

    monkeypatch.setattr(locks.os, "open", refuse)
    descriptor = locks.lock_existing(tmp_path / "file")
    assert descriptor is not None
    os.close(descriptor)

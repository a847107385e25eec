"""A file appears whole or not at all, and nothing else is left in its folder."""

import os
import stat
import threading

import pytest

from rmtntk import _files
from rmtntk._files import atomic_write


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_writes_a_new_file_and_replaces_an_old_one(tmp_path):
    for content in (b"first", b"second", b""):
        with atomic_write(tmp_path / "a.bin") as stream:
            stream.write(content)
        assert (tmp_path / "a.bin").read_bytes() == content
        assert names(tmp_path) == ["a.bin"]


def test_takes_a_string(tmp_path):
    with atomic_write(str(tmp_path / "a.bin")) as stream:
        stream.write(b"x")
    assert (tmp_path / "a.bin").read_bytes() == b"x"


def test_takes_a_relative_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with atomic_write("a.bin") as stream:
        stream.write(b"x")
    assert names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
@pytest.mark.parametrize("old", [None, b"old"])
def test_an_interrupted_write_changes_nothing(tmp_path, error, old):
    target = tmp_path / "a.bin"
    if old is not None:
        target.write_bytes(old)

    def interrupted():
        with atomic_write(target) as stream:
            stream.write(b"half of the new co")
            stream.flush()
            raise error

    with pytest.raises(error):
        interrupted()
    assert names(tmp_path) == ([] if old is None else ["a.bin"])
    assert old is None or target.read_bytes() == old


def test_the_old_file_is_there_until_the_new_one_is_whole(tmp_path):
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    with atomic_write(target) as stream:
        stream.write(b"new")
        stream.flush()
        assert target.read_bytes() == b"old"
        assert len(names(tmp_path)) == 2  # the temporary file is beside it: the same disk, so that renaming is atomic
        assert [name for name in names(tmp_path) if name.endswith(".tmp")]
    assert target.read_bytes() == b"new"


def test_two_writers_at_once_leave_one_whole_file(tmp_path):
    both_open = threading.Barrier(2)

    def work(content):
        with atomic_write(tmp_path / "a.bin") as stream:
            stream.write(content[:1000])
            both_open.wait(timeout=30)
            stream.write(content[1000:])

    contents = [b"a" * 5000, b"b" * 5000]
    threads = [threading.Thread(target=work, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert names(tmp_path) == ["a.bin"]
    assert (tmp_path / "a.bin").read_bytes() in contents


def test_a_missing_folder_is_named(tmp_path):
    target = tmp_path / "nowhere" / "a.bin"
    with pytest.raises(FileNotFoundError, match="`path` must be in an existing directory"), atomic_write(target):
        raise AssertionError("the block must not run")
    assert names(tmp_path) == []


def test_a_folder_is_not_replaced(tmp_path):
    target = tmp_path / "folder"
    target.mkdir()
    with pytest.raises(OSError), atomic_write(target) as stream:
        stream.write(b"x")
    assert names(tmp_path) == ["folder"]
    assert names(target) == []


def test_a_failing_rename_leaves_nothing(tmp_path, monkeypatch):
    def refuse(source, destination):
        raise PermissionError(f"cannot rename {source}")

    monkeypatch.setattr(_files.os, "replace", refuse)
    with pytest.raises(PermissionError, match="cannot rename"), atomic_write(tmp_path / "a.bin") as stream:
        stream.write(b"x")
    assert names(tmp_path) == []


def test_the_file_is_as_readable_as_any_other(tmp_path):
    (tmp_path / "plain").write_bytes(b"x")
    with atomic_write(tmp_path / "atomic") as stream:
        stream.write(b"x")
    plain, atomic = (stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in ("plain", "atomic"))
    assert plain == atomic

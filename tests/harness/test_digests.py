"""The memo of file digests: what is the same is not read again, what has changed is."""

import hashlib
import os
import time

import pytest

from harness import audio
from harness.interface import SlimbenchError
from harness.store import digests

OLD = time.time_ns() - 3_600_000_000_000


@pytest.fixture
def read(monkeypatch):
    """The files that were really read, in the order of their names; all changes of a file count as settled."""
    really, done = audio.digest_file, []

    def counted(path):
        done.append(path.name)
        return really(path)

    monkeypatch.setattr(audio, "digest_file", counted)
    monkeypatch.setattr(digests, "_SETTLED", 0)
    return done


def write(folder, **contents):
    files = []
    for name, content in contents.items():
        file = folder / name
        file.write_bytes(content)
        os.utime(file, ns=(OLD, OLD))
        files.append(file)
    return files


def sha(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_files_are_read_once_and_again_only_where_they_changed(tmp_path, read):
    files, memo = write(tmp_path, a=b"one", b=b"two"), tmp_path / "cache" / "memo"
    for _ in range(3):
        assert audio.file_digests([*files, files[0]], memo) == {file: sha(file) for file in files}
    assert sorted(read) == ["a", "b"]
    write(tmp_path, a=b"ONE", c=b"three")
    assert audio.file_digests([*files, tmp_path / "c"], memo) == {f: sha(f) for f in (*files, tmp_path / "c")}
    assert sorted(read) == ["a", "a", "b", "c"]


def change_in_place(file):
    file.write_bytes(b"ONE")


def change_with_another_time(file):
    file.write_bytes(b"ONE")
    os.utime(file, ns=(OLD + 1, OLD + 1))


def change_and_set_the_time_back(file):
    file.write_bytes(b"ONE")
    os.utime(file, ns=(OLD, OLD))


def replace_with_the_same_time(file):
    other = file.with_name("other")
    other.write_bytes(b"ONE")
    os.utime(other, ns=(OLD, OLD))
    other.replace(file)


@pytest.mark.parametrize(
    "change",
    [change_in_place, change_with_another_time, change_and_set_the_time_back, replace_with_the_same_time],
)
def test_a_change_of_the_same_size_is_noticed(tmp_path, read, change):
    [file] = write(tmp_path, a=b"one")
    memo = tmp_path / "memo"
    assert audio.file_digests([file], memo) == {file: hashlib.sha256(b"one").hexdigest()}
    time.sleep(0.02)  # longer than a tick of the file system's clock
    change(file)
    assert audio.file_digests([file], memo) == {file: hashlib.sha256(b"ONE").hexdigest()}


def test_what_was_written_just_now_is_not_remembered(tmp_path):
    """It could change again within the same tick of the clock."""
    [file] = write(tmp_path, a=b"one")
    audio.file_digests([file], tmp_path / "memo")
    assert len(digests.Digests(tmp_path / "memo")) == 0


def test_a_missing_or_empty_file_is_an_error_also_where_it_is_remembered(tmp_path, read):
    [file] = write(tmp_path, a=b"one")
    memo = tmp_path / "memo"
    audio.file_digests([file], memo)
    file.write_bytes(b"")
    with pytest.raises(SlimbenchError, match="empty"):
        audio.file_digests([file], memo)
    file.unlink()
    with pytest.raises(SlimbenchError, match="no such audio file"):
        audio.file_digests([file], memo)


def test_a_harmed_memo_costs_reading_and_nothing_else(tmp_path, read):
    files, memo = write(tmp_path, a=b"one", b=b"two", c=b"three"), tmp_path / "memo"
    audio.file_digests(files, memo)
    lines = memo.read_bytes().splitlines(keepends=True)
    memo.write_bytes(b"\xff\x00\n\n" + lines[1] + b"text\ttext\n" + lines[2][:-9])
    read.clear()
    for _ in range(2):
        assert audio.file_digests(files, memo) == {file: sha(file) for file in files}
    assert sorted(read) == ["a", "c"]


def test_the_memo_does_not_grow_with_changes(tmp_path, read):
    memo = tmp_path / "memo"
    for number in range(20):
        files = write(tmp_path, a=b"%3d" % number, b=b"two")
        for file in files:
            os.utime(file, ns=(OLD + number, OLD + number))
        assert audio.file_digests(files, memo) == {file: sha(file) for file in files}
    assert len(memo.read_bytes().splitlines()) <= 6
    read.clear()
    audio.file_digests(files, memo)
    assert not read


def test_reading_all_again_finds_what_nothing_else_tells(tmp_path, read, monkeypatch):
    """A flipped bit on the disk leaves size, times and inode as they were; here the memo is told another digest."""
    files, memo = write(tmp_path, a=b"one", b=b"two"), tmp_path / "memo"
    audio.file_digests(files, memo)
    memo.write_bytes(memo.read_bytes().replace(sha(files[0]).encode(), sha(files[1]).encode()))
    known = digests.Digests(memo)
    assert known.changed(audio.digest_file) == [files[0]]
    known.forget([files[0]])
    assert digests.Digests(memo).changed(audio.digest_file) == []
    assert audio.file_digests(files, memo) == {file: sha(file) for file in files}

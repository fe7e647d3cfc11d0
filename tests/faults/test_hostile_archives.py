"""Archives and streams made to do harm, cut off, changed, or no checkpoint at all."""

import io
import pickle
import random
import struct
import subprocess
import sys
import textwrap
import zipfile

import hostile
import pytest
import torch
from hostile import Member
from test_hostile_pickles import refused

from harness.interface import SlimbenchError
from upstreams.adapters import torch_files
from upstreams.adapters.checkpoints import read_checkpoint
from upstreams.adapters.weights import read_tensors

GOOD = hostile.dumps({"a": hostile.tensor()})


def test_the_writer_of_these_tests_writes_files_that_torch_reads(tmp_path):
    for name, data in (
        ("zip", hostile.zipped(GOOD)),
        ("legacy", hostile.legacy(hostile.dumps({"a": hostile.tensor(storage=hostile.LEGACY_STORAGE)}))),
    ):
        file = hostile.write(tmp_path, data, name)
        expected = torch.load(file, weights_only=True)["a"]
        assert read_checkpoint(file)["a"].equal(expected)
        assert expected.tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([Member("../evil", b"x")], "has the path '../evil'"),
        ([Member("/etc/evil", b"x")], "has the path '/etc/evil'"),
        ([Member("a/../../evil", b"x")], "has the path"),
        ([Member("a\\evil", b"x")], "has the path"),
        ([Member("a//evil", b"x")], "has the path"),
        ([Member("a/data/0\0.txt", b"x")], "has the path"),
        ([Member("a/data/0", hostile.FLOATS)], "'a/data/0' twice"),
        ([Member("a/x", b"x", local_name="a/y")], "two names"),
        ([Member("a/x", b"x" * 9999, method=8)], "compressed or encrypted"),
        ([Member("a/x", b"x", method=99)], "compressed or encrypted"),
        ([Member("a/x", b"x", flags=0x801)], "compressed or encrypted"),
        ([Member("a/x", b"x", claimed=1 << 30)], "larger than the file"),
        ([Member("a/x", b"x", offset=0)], "overlap"),
        ([Member("a/x", b"x", offset=5)], "overlap"),
        ([Member("a/x", b"x", offset=1 << 30)], "lacks its header"),
        ([Member("b/data.pkl", GOOD)], "torch.save did not write it"),
        ([Member("a/constants.pkl", b"x")], "TorchScript"),
        ([Member("a/byteorder", b"big")], "big-endian"),
        ([Member("a/byteorder", b"little", checksum=7)], "checksum"),
    ],
    ids=str,
)
def test_members_are_plain_and_where_they_say(members, reason, tmp_path):
    refused(hostile.write(tmp_path, hostile.zipped(GOOD, *members)), reason)


@pytest.mark.parametrize("index", [0, 1])
def test_members_hold_what_they_held_when_they_were_written(index, tmp_path):
    members = [Member("a/data.pkl", GOOD), Member("a/data/0", hostile.FLOATS)]
    members[index].checksum = 0
    refused(hostile.write(tmp_path, hostile.archive(*members)), "checksum")


def test_members_that_hide_in_others_are_refused(tmp_path):
    first = Member("a/data/0", hostile.FLOATS, claimed=16 + 30 + len("a/data/1") + 16)
    data = hostile.archive(Member("a/data.pkl", GOOD), first, Member("a/data/1", hostile.FLOATS))
    assert {m.filename: m.file_size for m in zipfile.ZipFile(io.BytesIO(data)).infolist()}["a/data/0"] == 70
    refused(hostile.write(tmp_path, data), "overlap")


def test_absurd_numbers_of_members_are_refused_before_they_are_listed(tmp_path, monkeypatch):
    data = hostile.zipped(GOOD, *(Member(f"a/x/{i}", b"") for i in range(300)))
    file = hostile.write(tmp_path, data)
    assert read_checkpoint(file)["a"].tolist() == [1, 2, 3, 4]
    monkeypatch.setattr(zipfile, "ZipFile", lambda _: pytest.fail("the members were listed"))
    with monkeypatch.context() as patch:
        patch.setattr(torch_files, "MAX_MEMBERS", 302)
        refused(file, "archive of more than 302 members")
    with monkeypatch.context() as patch:
        patch.setattr(torch_files, "MAX_DIRECTORY", 4096)
        refused(file, "archive of more than")


def test_a_pickle_of_absurd_size_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_files, "MAX_PICKLE", len(GOOD) - 1)
    refused(hostile.write(tmp_path, hostile.zipped(GOOD)), "its pickle has more than")


@pytest.mark.parametrize(
    ("keys", "storages"),
    [
        (["0"], struct.pack("<q", 1 << 60) + hostile.FLOATS),
        (["0"], struct.pack("<q", -1) + hostile.FLOATS),
        (["0"], struct.pack("<q", 4) + hostile.FLOATS[:-1]),
        (["0"], struct.pack("<q", 4) + hostile.FLOATS + b"more"),
        (["0"], b""),
        (["0", "0"], 2 * (struct.pack("<q", 4) + hostile.FLOATS)),
        (["0", "1"], 2 * (struct.pack("<q", 4) + hostile.FLOATS)),
        ([], struct.pack("<q", 4) + hostile.FLOATS),
        ([["0"]], struct.pack("<q", 4) + hostile.FLOATS),
        ("0", struct.pack("<q", 4) + hostile.FLOATS),
    ],
    ids=str,
)
def test_streams_hold_what_they_say(keys, storages, tmp_path):
    content = hostile.dumps({"a": hostile.tensor(storage=hostile.LEGACY_STORAGE)})
    refused(hostile.write(tmp_path, hostile.legacy(content, keys, storages)), "list of storages|cut off")


@pytest.mark.parametrize(
    ("content", "reason", "remedy"),
    [
        (b"", "it is empty", "copy it again"),
        (b"  \n", "it is empty", "copy it again"),
        (b"<!DOCTYPE html><html>404</html>", "it is a web page", "download it again"),
        (b"\n<HTML>sign in</HTML>", "it is a web page", "download it again"),
        (b"<?xml version='1.0'?><Error/>", "it is a web page", "download it again"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
            "pointer that Git LFS",
            "git lfs pull",
        ),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_failed_downloads_are_named(content, reason, remedy, name, tmp_path):
    file = hostile.write(tmp_path, content, name)
    for read in (read_checkpoint, read_tensors):
        with pytest.raises(SlimbenchError, match=rf"{reason}.*; .*{remedy}"):
            read(file)


@pytest.mark.parametrize(
    "content",
    [b"Not found\n", b"\x80", pickle.dumps({"a": 1}), b"\x1f\x8b" + b"0" * 99, b"PK\3\4", b"PK\3\4" + b"0" * 99,
     b"PK\5\6" + bytes(18), random.Random(0).randbytes(99), torch_files._LEGACY_START, b"RIFF\0\0\0\0WAVE"],
    ids=lambda data: repr(data[:12]),
)  # fmt: skip
def test_other_files_are_no_checkpoints(content, tmp_path):
    refused(hostile.write(tmp_path, content), "torch.save did not|its end|list of members|cut off")


def test_programs_and_archives_of_others_are_no_checkpoints(tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "scripted.pt")
    refused(tmp_path / "scripted.pt", "TorchScript program")
    with zipfile.ZipFile(tmp_path / "plain.zip", "w") as archive:
        archive.writestr("readme.txt", "nothing")
    refused(tmp_path / "plain.zip", "torch.save did not write it")


def test_missing_files_and_folders(tmp_path):
    for read in (read_checkpoint, read_tensors):
        with pytest.raises(
            SlimbenchError, match=r"none\.pt cannot be read as .*No such file or directory.*; check the path"
        ):
            read(tmp_path / "none.pt")
        with pytest.raises(SlimbenchError, match=r"cannot be read as .*Is a directory.*; check the path"):
            read(tmp_path)


@pytest.mark.parametrize("modern", [True, False])
def test_files_cut_off_anywhere_are_refused(modern, tmp_path):
    torch.save(
        {"a": torch.arange(50.0), "b": {"c": torch.ones(3)}}, tmp_path / "w", _use_new_zipfile_serialization=modern
    )
    data = (tmp_path / "w").read_bytes()
    file = tmp_path / "cut.pt"
    for length in range(0, len(data), 7):
        file.write_bytes(data[:length])
        with pytest.raises(SlimbenchError, match="cannot be read as a checkpoint"):
            read_checkpoint(file)


BOMBS = {
    "bytes made by their class": lambda: hostile.zipped(hostile.dumps({"a": hostile.Call(bytearray, 1 << 33)})),
    "tensor made by its class": lambda: hostile.zipped(hostile.dumps({"a": hostile.Call(torch.Tensor, 1 << 31)})),
    "tensor larger than its storage": lambda: hostile.legacy(
        hostile.dumps({"a": hostile.tensor(size=(1 << 31,), storage=hostile.LEGACY_STORAGE)})
    ),
    "storage larger than its file": lambda: hostile.legacy(
        hostile.dumps({"a": hostile.tensor(storage=hostile.Reference((*hostile.STORAGE.identity[:4], 1 << 31, None)))})
    ),
    "compressed pickle": lambda: hostile.archive(
        Member("a/data.pkl", bytes(1 << 28), method=8), Member("a/version", b"3\n")
    ),
}


def test_bombs_take_no_memory(tmp_path):
    """Each would take gigabytes; the process may take 150 MB more than it has after its imports."""
    for name in BOMBS:
        hostile.write(tmp_path, BOMBS[name](), name)
    script = """
        import pickle, resource, sys
        from pathlib import Path
        import torch
        from harness.interface import SlimbenchError
        from upstreams.adapters.checkpoints import read_checkpoint
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + (150 << 20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        for file in sorted(Path(sys.argv[1]).iterdir()):
            try:
                found = str(read_checkpoint(file))
            except SlimbenchError as error:
                found = "refused"
            try:
                torch.load(file, weights_only=True)
                theirs = "read"
            except BaseException as error:
                theirs = "memory" if "alloc" in str(error) or isinstance(error, MemoryError) else "refused"
            print(file.name, found, theirs, sep=":")
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, result.stderr
    ours, theirs = {}, {}
    for line in result.stdout.splitlines():
        name, ours[name], theirs[name] = line.split(":", 2)
    assert ours.keys() == set(BOMBS)
    assert set(ours.values()) == {"refused"}
    assert set(theirs.values()) == {"memory"}, "the bombs are bombs: torch's own reader goes for the memory"

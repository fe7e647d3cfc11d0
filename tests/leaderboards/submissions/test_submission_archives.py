"""Archives and JSON that try something: each is refused in one sentence that names the file."""

import io
import stat
import struct
import zipfile

import pytest
from tampering import ACCEPTED, UPSTREAM, members

from leaderboards.submissions import archive, strict
from leaderboards.submissions.findings import RefusedError

GOOD = {"manifest.json": b"{}", "records/a/b/c.json": b"x" * 1000}


def bundle(*entries, **more):
    """A zip of (name or ZipInfo, data), without any of pack's care."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **more) as made, pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *_a, **_k: None)  # about names that stand there twice
        for name, data in entries:
            made.writestr(name, data)
    return buffer.getvalue()


def entry(name, mode=stat.S_IFREG | 0o644, **fields):
    made = zipfile.ZipInfo(name)
    made.external_attr = mode << 16
    for field, value in fields.items():
        setattr(made, field, value)
    return made


def lying_size(data, size):
    """The directory's statement of the first member's unpacked size, changed."""
    place = data.index(b"PK\1\2") + 24
    return data[:place] + struct.pack("<I", size) + data[place + 4 :]


def overlapping():
    """Two members in the directory, one body."""
    data = bundle(("a.json", b"x" * 9))
    directory = data.index(b"PK\1\2")
    end = data.index(b"PK\5\6")
    twice = data[directory:end] + data[directory:end].replace(b"a.json", b"b.json")
    tail = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 2, 2, len(twice), directory, 0)
    return data[:directory] + twice + tail


PLAIN = archive.pack(GOOD)
TRICKS = {
    "no zip": b"PK nothing",
    "empty": b"",
    "cut": PLAIN[:-30],
    "path traversal": bundle(("../../up.json", b"")),
    "traversal inside": bundle(("records/../../up.json", b"")),
    "absolute path": bundle(("/etc/cron.d/x", b"")),
    "backslash": bundle(("records\\..\\x", b"")),
    "drive": bundle(("C:x", b"")),
    "hidden": bundle((".git/config", b"")),
    "control character": bundle(("a\nb", b"")),
    "not ASCII": bundle(("rücken", b"")),
    "a name twice": bundle(("a.json", b"1"), ("a.json", b"2")),
    "a name twice but for case": bundle(("a.json", b"1"), ("A.json", b"2")),
    "symbolic link": bundle((entry("link", stat.S_IFLNK | 0o777), b"/etc/passwd")),
    "device": bundle((entry("dev", stat.S_IFCHR | 0o666), b"")),
    "folder": bundle((entry("folder/", stat.S_IFDIR | 0o755), b"")),
    "other compression": bundle(("a", b"x" * 99), compression=zipfile.ZIP_LZMA),
    "bytes before": b"#!/bin/sh\n" + PLAIN,
    "bytes behind": PLAIN + b"more",
    "comment": bundle(("a", b""))[:-2] + b"\4\0more",
    "extra field": bundle((entry("a", extra=b"\x99\x99\x02\x00ab"), b"")),
    "overlap": overlapping(),
    "too many": bundle(*((f"f{i}", b"") for i in range(archive.MAX_MEMBERS + 1))),
    "states less than it has": lying_size(bundle(("a", b"x" * 999)), 10),
    "states more than it has": lying_size(bundle(("a", b"x" * 999)), 5000),
    "states too much": lying_size(bundle(("a", b"x" * 999)), 2**31),
}


@pytest.mark.parametrize("trick", TRICKS)
def test_tricks_are_refused(tmp_path, trick):
    path = tmp_path / "s.zip"
    path.write_bytes(TRICKS[trick])
    with pytest.raises(RefusedError) as caught:
        archive.unpack(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [path]


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    path = tmp_path / "bomb.zip"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made,
        made.open("a.json", "w", force_zip64=False) as stream,
    ):
        for _ in range(65):
            stream.write(bytes(2**20))
    assert path.stat().st_size < 100_000
    monkeypatch.setattr(archive, "_member", lambda *_: pytest.fail("it was unpacked"))
    with pytest.raises(RefusedError, match="unpacks to 68,157,440 bytes"):
        archive.unpack(path)


def test_members_that_are_too_much_together_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MAX_TOTAL", 1500)
    (tmp_path / "s.zip").write_bytes(bundle(("a", b"x" * 800), ("b", b"x" * 800)))
    with pytest.raises(RefusedError, match="unpacks to 1,600 bytes"):
        archive.unpack(tmp_path / "s.zip")


def test_large_files_and_links_are_not_opened(tmp_path):
    path = tmp_path / "s.zip"
    with path.open("wb") as file:
        file.truncate(archive.MAX_FILE + 1)
    with pytest.raises(RefusedError, match="at most"):
        archive.unpack(path)
    (tmp_path / "link.zip").symlink_to(ACCEPTED / f"{UPSTREAM}.zip")
    with pytest.raises(RefusedError, match="regular file"):
        archive.unpack(tmp_path / "link.zip")


def test_packing_is_deterministic_and_reversible(tmp_path):
    again = archive.pack(dict(reversed(GOOD.items())))
    assert again == PLAIN
    (tmp_path / "s.zip").write_bytes(again)
    assert archive.unpack(tmp_path / "s.zip") == GOOD
    with zipfile.ZipFile(io.BytesIO(again)) as made:
        assert made.namelist() == sorted(GOOD)
        assert {info.date_time for info in made.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    assert members()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 100_000, "nested"),
        ("[" * 20 + "]" * 20, "nested"),
        ('{"a":' * 40 + "1" + "}" * 40, "nested"),
        ("NaN", "NaN is not a number"),
        ("[Infinity]", "not a number"),
        ("-Infinity", "not a number"),
        ("1e999", "too large"),
        ("1.10", "shortest form"),
        ("1" * 5000, "too many digits"),
        ('{"a": 1, "a": 2}', "'a' stands there twice"),
        (r'"\ud800"', "halves of characters"),
        (r'"\u001b[31m"', "control characters"),
        ('"' + "x" * 20_001 + '"', "too long"),
        ("{", "not whole JSON"),
        ("", "not whole JSON"),
        ("{} {}", "not whole JSON"),
    ],
)
def test_json_that_tries_something_is_refused(text, reason):
    with pytest.raises(RefusedError, match=reason) as caught:
        strict.read(text.encode(), "f.json")
    assert str(caught.value).startswith("f.json: ")
    assert len(str(caught.value)) < 300


def test_bytes_that_are_no_text_and_files_without_end_are_refused(monkeypatch):
    with pytest.raises(RefusedError, match="not whole JSON"):
        strict.read(b'"\xff"', "f.json")
    monkeypatch.setattr(strict, "MAX_BYTES", 10)
    with pytest.raises(RefusedError, match="at most 10"):
        strict.read(b"[" + b" " * 99 + b"]", "f.json")

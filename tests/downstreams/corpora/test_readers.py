"""The readers on miniature trees; LibriSpeech and VoxCeleb1 against torchaudio and s3prl's rules, and damaged."""

from __future__ import annotations

import shutil

import pytest
from torchaudio import datasets

from downstreams.corpora.index import CORPORA
from downstreams.corpora.librispeech import LIBRISPEECH, PARTS
from downstreams.corpora.voxceleb import VOXCELEB_ASV, VOXCELEB_SID
from harness.interface import SlimbenchError


@pytest.mark.parametrize("corpus", CORPORA, ids=lambda corpus: corpus.name)
@pytest.mark.parametrize("tree", ["tones", "spoken"])
def test_the_trees_are_found_and_their_counts_come_out(corpus, tree, request):
    data, expected = request.getfixturevalue(tree)
    finding = corpus.check(data, expected)
    assert finding.problems == ()
    assert finding.status == "found"
    assert {name: finding.counts[name] for name in expected[corpus.name]} == expected[corpus.name]
    rows = corpus.rows(data, corpus.tasks[0], expected)
    assert all((data / row.path).is_file() for row in rows)


@pytest.mark.parametrize("corpus", CORPORA, ids=lambda corpus: corpus.name)
def test_a_subset_is_not_the_official_corpus(corpus, tones):
    finding = corpus.check(tones[0])
    assert finding.status == "incomplete"
    assert "the counts differ" in finding.problems[-1]


@pytest.mark.parametrize("corpus", CORPORA, ids=lambda corpus: corpus.name)
def test_without_its_folder_it_is_missing_and_says_what_was_looked_for(corpus, tmp_path):
    finding = corpus.check(tmp_path)
    assert (finding.status, finding.root) == ("missing", None)
    assert corpus.folders[0] in finding.problems[0]
    with pytest.raises(SlimbenchError, match=r"get it from http"):
        corpus.rows(tmp_path, corpus.tasks[0])


# LibriSpeech


def test_librispeech_equals_torchaudio(tones):
    data, expected = tones
    rows = LIBRISPEECH.rows(data, "asr", expected)
    for split, part in PARTS.items():
        theirs = datasets.LIBRISPEECH(data, url=part)
        known = [theirs.get_metadata(index) for index in range(len(theirs))]
        ours = [(row.path, int(row.speaker), row.text) for row in rows if row.split == split]
        assert sorted(ours) == sorted((f"LibriSpeech/{path}", person, text) for path, _, text, person, *_ in known)


def test_pr_labels_are_the_phones_of_the_lexicon_files(tones):
    data, expected = tones
    table = {}
    for name in ("librispeech-lexicon-200k-g2p.txt", "librispeech-lexicon-allothers-g2p.txt"):
        for line in (data / "lexicon" / name).read_text().splitlines():
            table.setdefault(line.split()[0], line.split()[1:])
    for row in LIBRISPEECH.rows(data, "pr", expected):
        assert row.label.split() == [phone for word in row.text.split() for phone in table[word]]


def chapter(data):
    """A chapter's folder, its transcript and its first FLAC file."""
    transcript = sorted((data / "LibriSpeech" / "dev-clean").rglob("*.trans.txt"))[0]
    return transcript.parent, transcript, sorted(transcript.parent.glob("*.flac"))[0]


def test_librispeech_missing_transcript_line(problems, copied, tones):
    data = copied("LibriSpeech")
    _, transcript, audio = chapter(data)
    transcript.write_text("".join(transcript.read_text().splitlines(keepends=True)[1:]))
    found = problems(LIBRISPEECH, data, tones[1])
    assert found[0].startswith(f"{audio} has no line in {transcript.name}")
    assert "dev 23 of 24" in found[-1]
    assert len(found) == 2


def test_librispeech_missing_file_extra_file_and_double_line(problems, copied, tones):
    data = copied("LibriSpeech")
    folder, transcript, audio = chapter(data)
    audio.unlink()
    assert problems(LIBRISPEECH, data, tones[1])[0].startswith(f"{audio} is missing")
    extra = folder / audio.name.replace("0000", "0099")
    shutil.copy(sorted(folder.glob("*.flac"))[0], extra)
    with transcript.open("a") as handle:
        handle.write(transcript.read_text().splitlines()[1] + "\n")
    found = problems(LIBRISPEECH, data, tones[1])
    assert any(f"{extra} has no line" in problem for problem in found)
    assert any("stands there twice" in problem and f"{transcript}: line" in problem for problem in found)


def test_librispeech_wrong_case(problems, copied, tones):
    data = copied("LibriSpeech")
    audio = chapter(data)[2]
    audio.rename(audio.with_suffix(".FLAC"))
    found = problems(LIBRISPEECH, data, tones[1])
    assert found[0].startswith(f"{audio} is missing, but {audio.stem}.FLAC is there")
    assert len(found) == 2


def test_librispeech_transcript_file_missing(problems, copied, tones):
    data = copied("LibriSpeech")
    _, transcript, _ = chapter(data)
    transcript.unlink()
    assert problems(LIBRISPEECH, data, tones[1])[0].startswith(f"{transcript} is missing")


def test_librispeech_duplicate_id(problems, copied, tones):
    data = copied("LibriSpeech")
    folder, _, audio = chapter(data)
    twin = data / "LibriSpeech" / "test-clean" / folder.parent.name / folder.name
    shutil.copytree(folder, twin)
    found = problems(LIBRISPEECH, data, tones[1])
    assert f"{twin / audio.name}: dev-clean/" in found[0]
    assert "has the same id" in found[0]


def test_librispeech_names_the_chapter_that_is_missing_as_a_whole(copied):
    data = copied("LibriSpeech")
    folder = chapter(data)[0]
    line = f"{folder.name} |{folder.parent.name} | 1.2 | dev-clean | 1 | 2 | A | B\n"
    (data / "LibriSpeech" / "CHAPTERS.TXT").write_text(";ID |READER|MINUTES| SUBSET | ...\n" + line)
    before = LIBRISPEECH.check(data).problems
    shutil.rmtree(folder)
    found = LIBRISPEECH.check(data).problems
    assert not any("CHAPTERS.TXT" in problem for problem in before)
    assert found[0].startswith(f"{folder} is missing, which CHAPTERS.TXT names")


# VoxCeleb1


def test_sid_equals_the_search_that_s3prl_does(tones):
    data, expected = tones
    root = data / "VoxCeleb1"
    wanted = []
    for line in (root / "veri_test_class.txt").read_text().splitlines():
        number, path = line.split()
        (place,) = root.glob(f"*/wav/{path}")
        split = ("train", "dev", "test")[int(number) - 1]
        wanted.append((split, place.relative_to(data).as_posix(), path.split("/")[0]))
    rows = VOXCELEB_SID.rows(data, "sid", expected)
    assert [(row.split, row.path, row.label) for row in rows] == wanted
    assert {row.path.split("/")[1] for row in rows} == {"dev", "test"}


def test_vgg_name_of_the_list(copied, tones):
    data = copied("VoxCeleb1")
    (data / "VoxCeleb1" / "veri_test_class.txt").rename(data / "VoxCeleb1" / "iden_split.txt")
    assert VOXCELEB_SID.check(data, tones[1]).status == "found"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1 ../../secret/a.wav\n", "leads out of the corpus"),
        ("1 /etc/x/a.wav\n", "leads out of the corpus"),
        ("1 id10001/../a.wav\n", "leads out of the corpus"),
        ("4 id10001/x/a.wav\n", "is no entry"),
        ("1 id10001/absent/00001.wav\n", "is missing"),
    ],
)
def test_sid_list_with_a_bad_line(problems, copied, tones, line, said):
    data = copied("VoxCeleb1")
    file = data / "VoxCeleb1" / "veri_test_class.txt"
    number = len(file.read_text().splitlines()) + 1
    with file.open("a") as handle:
        handle.write(line)
    found = problems(VOXCELEB_SID, data, tones[1])
    assert found[0].startswith(f"{file}: line {number}: ")
    assert said in found[0]


def test_sid_first_differing_file(problems, copied, tones):
    data = copied("VoxCeleb1")
    file = data / "VoxCeleb1" / "veri_test_class.txt"
    lines = file.read_text().splitlines(keepends=True)
    gone = data / "VoxCeleb1" / "dev" / "wav" / lines[3].split()[1]
    gone.rename(gone.with_suffix(".WAV"))
    found = problems(VOXCELEB_SID, data, tones[1])
    assert found[0].startswith(f"{file}: line 4: ")
    assert "correct upper and lower case" in found[0]
    gone.with_suffix(".WAV").rename(gone)
    file.write_text("".join(lines[:3] + lines[4:]))
    assert problems(VOXCELEB_SID, data, tones[1])[0].startswith(f"{gone} is in no line of veri_test_class.txt")
    file.write_text("".join([*lines, lines[3]]))
    assert "stands already in line 4" in problems(VOXCELEB_SID, data, tones[1])[0]
    file.unlink()
    assert problems(VOXCELEB_SID, data, tones[1])[0].startswith(f"{file} is missing (or iden_split.txt)")


def test_asv_trains_on_dev_wav_and_tests_on_the_trials(tones):
    data, expected = tones
    rows = VOXCELEB_ASV.rows(data, "asv", expected)
    known = {path.relative_to(data).as_posix() for path in (data / "VoxCeleb1" / "dev" / "wav").rglob("*.wav")}
    assert {row.path for row in rows if row.split != "test"} == known
    lines = (data / "VoxCeleb1" / "voxceleb1_test_v2.txt").read_text().split("\n")
    named = {f"VoxCeleb1/test/wav/{path}" for line in lines for path in line.split()[1:]}
    assert {row.path for row in rows if row.split == "test"} == named
    people = {split: {row.speaker for row in rows if row.split == split} for split in ("train", "dev", "test")}
    assert not people["train"] & people["dev"]
    assert not (people["train"] | people["dev"]) & people["test"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("0 {a} {same}", "says 0 of speakers"),
        ("1 {a} {other}", "says 1 of speakers"),
        ("1 {a} ../../../x.wav", "leads out of the corpus"),
        ("1 {a} id10270/absent/00001.wav", "is missing"),
        ("1 {a}", "is no trial"),
        ("yes {a} {same}", "is no trial"),
    ],
)
def test_asv_list_with_a_bad_trial(problems, copied, tones, line, said):
    data = copied("VoxCeleb1")
    file = data / "VoxCeleb1" / "voxceleb1_test_v2.txt"
    text = file.read_text()
    a, same = next(entry.split()[1:] for entry in text.splitlines() if entry.startswith("1"))
    other = next(p for entry in text.splitlines() for p in entry.split()[1:] if p.split("/")[0] != a.split("/")[0])
    file.write_text(line.format(a=a, same=same, other=other) + "\n" + text)
    found = problems(VOXCELEB_ASV, data, tones[1])
    assert found[0].startswith(f"{file}: line 1: ")
    assert said in found[0]


def test_asv_speaker_on_both_sides(problems, copied, tones):
    data = copied("VoxCeleb1")
    place = data / "VoxCeleb1"
    shutil.copytree(place / "test" / "wav" / "id10270", place / "dev" / "wav" / "id10270")
    assert "speaker id10270 is in dev/wav and in the test trials" in problems(VOXCELEB_ASV, data, tones[1])[0]
    assert "keep one of them" in problems(VOXCELEB_SID, data, tones[1])[0]

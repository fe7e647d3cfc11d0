"""SUPERB's splits: the hash of Speech Commands, the folds of IEMOCAP, the held-out speakers of VoxCeleb1."""

from __future__ import annotations

import csv
import hashlib
import os
import re
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch.utils.data import random_split

from downstreams.corpora import iemocap, speech_commands, voxceleb

# Names out of the corpus' own lists (v0.02): validation_list.txt, testing_list.txt, and neither.
DEV = "a69b9b3e 439c84f4 409c962a dbaf8fc6 a6d586b7 0e17f595 ff2b842e 7fd25f7c 3cc595de 591d32f3 52bfbce8".split()
TEST = "87070229 f9643d42 28497c5b fe1916ba 5c8af87a aa80f517 893705bb af405b69 e5e54cee cfbedff9 2005ca25".split()
TRAIN = "4a294341 43f57297 f9af823e 9ff2d2f4 651d108f 810c99be 6a1908f8 179a61b7 edd8bfe3 215699ff".split()


def percent(name):
    """The rule, written down once more."""
    speaker = re.sub(r"_nohash_.*$", "", name)
    number = int.from_bytes(hashlib.sha1(speaker.encode(), usedforsecurity=False).digest(), "big")
    return (number & (2**27 - 1)) * 100 / (2**27 - 1)


@pytest.mark.parametrize(("speakers", "split"), [(DEV, "dev"), (TEST, None), (TRAIN, "train")])
def test_names_of_the_corpus_fall_where_its_lists_have_them(speakers, split):
    for speaker in speakers:
        for number in (0, 3):
            assert speech_commands.split_of(f"{speaker}_nohash_{number}.wav") == split


def test_the_hash_equals_brute_force():
    names = [f"{number:08x}_nohash_{number % 5}.wav" for number in range(0, 2**32, 2**32 // 3000)]
    for name in names:
        assert speech_commands.percent(name) == pytest.approx(percent(name), abs=1e-12)
        place = percent(name)
        assert speech_commands.split_of(name) == ("dev" if place < 10 else None if place < 20 else "train")
    shares = Counter(speech_commands.split_of(name) for name in names)
    assert shares["dev"] / len(names) == pytest.approx(0.1, abs=0.02)
    assert shares["train"] / len(names) == pytest.approx(0.8, abs=0.02)


def test_real_names_of_the_test_archive_are_in_the_dropped_tenth():
    speech = os.environ.get("REAL_SPEECH")
    if not speech:
        pytest.skip("REAL_SPEECH names no folder of real recordings")
    with (Path(speech) / "ks" / "manifest.csv").open(newline="") as handle:
        names = [Path(row["path"]).name for row in csv.DictReader(handle) if row["label"] != "_silence_"]
    speakers = [re.search(r"[0-9a-f]{8}_nohash_\d+", name)[0] for name in names]
    assert len(speakers) > 1000
    assert {speech_commands.split_of(speaker) for speaker in speakers} == {None}


def test_words_add_up():
    lines = [line.split() for line in speech_commands.WORD_COUNTS.read_text().splitlines() if line[0] != "#"]
    counts = {word: int(number) for word, number in lines}
    assert sorted(counts) == sorted(speech_commands.KEYWORDS + speech_commands.OTHERS)
    # 6 noise files are in train and in dev; 6,835 words are in testing_list.txt.
    assert sum(counts.values()) == (51_094 - 6) + (6_804 - 6) + 6_835
    assert len(speech_commands.OTHERS_V2) == 25


# First twelve digits of SHA-1 (protocol section 4.6): the newline-joined paths of the training and of the test file of
# each fold, and the comma-joined train indices.
PATHS_TRAIN = "a03726380f64 6570cdce5320 91b652a612a8 0b1b70f2cd36 39384e3ea0dd".split()
PATHS_TEST = "81aca8b6d8da 4a97763a4831 7ecc09d61d6c f907643a6fc0 2a20ccd297d6".split()
INDICES = "f85599aed66d 8fde0dd28b6c 2439c7a886f8 37b85ae8ed78 9c9341aeaf51".split()


def sha1(text):
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()[:12]


@pytest.mark.parametrize("fold", range(1, 6))
def test_iemocap_folds_have_the_digests_of_superb(fold):
    paths = list(iemocap.order().values())
    assert len(set(paths)) == 5531
    test = [path for path in paths if path.startswith(f"Session{fold}/")]
    rest = [path for path in paths if not path.startswith(f"Session{fold}/")]
    assert sha1("\n".join(rest)) == PATHS_TRAIN[fold - 1]
    assert sha1("\n".join(test)) == PATHS_TEST[fold - 1]
    train, dev = iemocap.train_and_dev(len(rest))
    assert sha1(",".join(map(str, train))) == INDICES[fold - 1]
    must = iemocap.IEMOCAP.expected
    sizes = [must[f"fold{fold}_{split}"] for split in ("train", "dev", "test")]
    assert [len(train), len(dev), len(test)] == sizes
    torch.manual_seed(0)
    theirs = random_split(range(len(rest)), [int((1 - 0.2) * len(rest)), len(rest) - int((1 - 0.2) * len(rest))])
    assert [list(part.indices) for part in theirs] == [train, dev]


def test_iemocap_split_leaves_the_global_generator_alone():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    iemocap.train_and_dev(100)
    assert torch.equal(before, torch.get_rng_state())


def test_rows_of_the_folds_follow_the_drawn_order(tones):
    data, expected = tones
    rows = iemocap.IEMOCAP.rows(data, "er", expected)
    paths = [f"IEMOCAP_full_release/{path}" for path in iemocap.order().values()]
    there = [path for path in paths if (data / path).is_file()]
    for fold in range(1, 6):
        rest = [path for path in there if f"/Session{fold}/" not in path]
        torch.manual_seed(0)
        size = int((1 - 0.2) * len(rest))
        train, dev = random_split(rest, [size, len(rest) - size])
        wanted = [*train, *dev, *(path for path in there if f"/Session{fold}/" in path)]
        assert [row.path for row in rows if row.fold == fold] == wanted


def people(number, files):
    return [
        f"id{10001 + person}/video{file // 4}/{file % 4:05d}.wav" for person in range(number) for file in range(files)
    ]


def test_forty_speakers_are_held_out_by_their_hash():
    speakers = [f"id{10001 + number}" for number in range(1251) if not 10270 <= 10001 + number < 10310]
    assert len(speakers) == 1211
    chosen = voxceleb.held_out(speakers)
    ranked = sorted((hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest(), name) for name in speakers)
    assert chosen == [name for _, name in ranked[:40]]
    assert voxceleb.held_out(speakers[::-1]) == chosen
    assert len(voxceleb.held_out(speakers[:14])) == 2
    assert len(voxceleb.held_out(speakers[:60])) == 12


def test_dev_trials_are_balanced_distinct_and_depend_on_names_only():
    paths = people(40, 24)
    trials = voxceleb.dev_trials(paths)
    assert trials == voxceleb.dev_trials(sorted(paths, key=lambda path: path[::-1]))
    assert len(trials) == 40 * 2 * voxceleb.PAIRS >= 2000
    assert len({(trial.enrol, trial.test) for trial in trials}) == len(trials)
    assert sum(trial.same for trial in trials) * 2 == len(trials)
    for trial in trials:
        a, b = (path.rpartition("/")[0].split("/") for path in (trial.enrol, trial.test))
        assert trial.same == (a[0] == b[0])
        assert a != b  # never of one video
        assert {trial.enrol, trial.test} <= set(paths)
    per_speaker = Counter(trial.enrol.split("/")[0] for trial in trials if trial.same)
    assert set(per_speaker.values()) == {voxceleb.PAIRS}


def test_dev_trials_of_speakers_with_one_video():
    trials = voxceleb.dev_trials(people(3, 4))
    assert Counter(trial.same for trial in trials) == {True: 18, False: 18}


def test_dev_trials_where_other_speakers_have_too_few_files():
    trials = voxceleb.dev_trials([*people(1, 6), "id10002/video0/00000.wav"])
    assert len({(trial.enrol, trial.test) for trial in trials}) == len(trials)
    assert Counter(trial.same for trial in trials) == {True: 4, False: 4}  # the fifth and later pairs find no partner

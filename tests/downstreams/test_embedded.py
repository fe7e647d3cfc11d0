"""The embedded suite: the same bytes for any number of workers, and splits that share nothing they should not."""

import csv
import wave
from collections import Counter, defaultdict
from contextlib import closing
from itertools import pairwise

import numpy as np
import pytest

from downstreams.corpora import embedded, grammar, rendering
from harness import audio, manifest
from harness.interface import SPLITS, SlimbenchError
from harness.synthesis import HELD_OUT_VARIANTS, Synthesiser

TASKS = ("asr", "pr", "ks", "ic", "sid", "er", "asv")
SCALE = 0.02


def build(folder, **options):
    folder.mkdir()
    embedded.build(folder, **{"seed": 0, "workers": 1, "scale": SCALE, **options})
    return folder


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    return build(tmp_path_factory.mktemp("one") / "suite")


@pytest.fixture(scope="module")
def whole():
    """The plan of the full suite, without its audio."""
    return embedded.plan(seed=0)


def test_two_workers_make_the_same_bytes(suite, tmp_path):
    seen = []
    other = build(tmp_path / "suite", workers=2, progress=lambda done, total: seen.append((done, total)))
    assert embedded.digest(other) == embedded.digest(suite)
    total = len(list(suite.rglob("*.wav")))
    assert seen == [(n, total) for n in range(1, total + 1)]


def test_digest_covers_every_file(suite, tmp_path):
    first = embedded.digest(suite)
    assert first == embedded.digest(suite)
    for file in (
        suite / "asv" / "trials_dev.txt",
        suite / "pr" / "lexicon.txt",
        suite / "ic" / "manifest.csv",
        next(suite.rglob("*.wav")),
    ):
        kept = file.read_bytes()
        file.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
        assert embedded.digest(suite) != first, file
        file.write_bytes(kept)
    assert embedded.digest(suite) == first


def test_seeds_differ(whole):
    texts = [line.text for line in whole["pool"]]
    assert sum(a == b for a, b in zip(texts, (x.text for x in embedded.plan(1)["pool"]), strict=True)) < 20
    assert texts == [line.text for line in embedded.plan(0)["pool"]]


@pytest.mark.parametrize("task", TASKS)
def test_the_harness_accepts_it(suite, task):
    table = manifest.read(suite, task)
    digests = audio.file_digests(u.path for u in table.utterances)
    manifest.check_content(table, {u.id: digests[u.path] for u in table.utterances})
    with (suite / task / "manifest.csv").open(newline="") as file:
        assert csv.DictReader(file).fieldnames == [
            *("split", "path", "speaker", "text", "label", "start", "seconds", "note")
        ]
    for utterance in table.utterances:
        with wave.open(str(utterance.path)) as file:
            assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16_000, 1, 2)
            assert file.getnframes() / 16_000 == pytest.approx(utterance.seconds, abs=1e-4)
            heard = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        assert np.abs(heard).max() > 10
        assert np.abs(heard.astype(int)).max() < 32_767
    if task != "sid":
        speakers = [{u.speaker for u in table.split(split)} - {""} for split in SPLITS]
        assert sum(map(len, speakers)) == len(set.union(*speakers)) > 0


def test_four_tasks_share_one_pool(suite):
    paths = [{u.path for u in manifest.read(suite, task).utterances} for task in ("asr", "pr", "sid", "asv")]
    assert paths[0] == paths[1] == paths[2] == paths[3]


def test_phones_are_the_text_through_the_lexicon(suite):
    lines = (suite / "pr" / "lexicon.txt").read_text().splitlines()
    lexicon = dict(line.split("\t") for line in lines)
    assert len(lexicon) == len(lines) > 50
    assert 36 <= len({phone for phones in lexicon.values() for phone in phones.split()}) <= 44
    assert lexicon["CHEESE"] == "CH IY Z"
    assert lexicon["MEASURED"] == "M EH ZH ER D"
    for utterance in manifest.read(suite, "pr").utterances:
        assert utterance.label == " ".join(lexicon[word] for word in utterance.text.split())


def test_trials_are_all_pairs_of_one_voice_and_as_many_of_two(suite):
    table = manifest.read(suite, "asv")
    for split in ("dev", "test"):
        speakers = Counter(u.speaker for u in table.split(split))
        pairs = sum(n * (n - 1) // 2 for n in speakers.values())
        trials = table.trials[split]
        assert Counter(t.same for t in trials) == {True: pairs, False: pairs}
        assert len({frozenset((t.enrol, t.test)) for t in trials}) == 2 * pairs


def test_sizes_of_the_whole(whole):
    counts = {name: Counter(line.split for line in lines) for name, lines in whole.items()}
    assert counts["pool"] == {"train": 480, "dev": 96, "test": 320}
    assert counts["ks"] == {"train": 480, "dev": 120, "test": 312}
    assert counts["ic"] == {"train": 450, "dev": 105, "test": 320}
    assert counts["er"] == {"train": 320, "dev": 100, "test": 320}
    assert len({line.speaker for line in whole["pool"]}) == 112
    assert Counter(embedded.SID_SPLITS) == {"train": 4, "dev": 1, "test": 3}
    assert len({line.item.path for lines in whole.values() for line in lines}) == sum(map(len, whole.values()))


@pytest.mark.parametrize("corpus", ["pool", "ks", "ic", "er"])
def test_nobody_of_dev_or_test_is_heard_before(whole, corpus):
    voices = defaultdict(set)
    for line in whole[corpus]:
        if line.item.voice is not None:
            voices[line.split].add(line.item.voice)
            assert (line.item.voice.variant in HELD_OUT_VARIANTS) == (line.split != "train")
    for a, b in (("train", "dev"), ("train", "test"), ("dev", "test")):
        assert not {v.variant for v in voices[a]} & {v.variant for v in voices[b]}
    heard = {(line.speaker, line.item.voice) for line in whole[corpus] if line.item.voice}
    assert len({voice for _, voice in heard}) == len({speaker for speaker, _ in heard}) == len(heard)


@pytest.mark.parametrize("corpus", ["pool", "er"])
def test_no_sentence_is_in_two_splits(whole, corpus):
    texts = [{line.text for line in whole[corpus] if line.split == split} for split in SPLITS]
    assert sum(map(len, texts)) == len(set.union(*texts))
    if corpus == "pool":
        assert len(set.union(*texts)) == 896
        assert {len(text.split()) for text in set.union(*texts)} <= {4, 5, 6}


def test_keywords_are_balanced(whole):
    for split in SPLITS:
        labels = Counter(line.label for line in whole["ks"] if line.split == split)
        assert set(labels) == {*embedded.KEYWORDS, "_unknown_", "_silence_"}
        assert len(set(labels.values())) == 1
    unknown = {line.text for line in whole["ks"] if line.label == "_unknown_" and line.split == "train"}
    assert unknown == set(embedded.OTHER_WORDS)


def test_every_slot_value_is_in_train(whole):
    slots = {
        split: [set(v) for v in zip(*(x.label.split("|") for x in whole["ic"] if x.split == split), strict=True)]
        for split in SPLITS
    }
    assert [len(values) for values in slots["train"]] == [6, 14, 4]
    assert slots["dev"] == slots["test"] == slots["train"]
    wordings = Counter(line.text for line in whole["ic"])
    assert len(wordings) > 250


def test_text_is_no_cue_to_the_style(whole):
    styles = defaultdict(Counter)
    for line in whole["er"]:
        styles[line.speaker, line.text][line.label] += 1
        assert line.note.startswith("acted by rule")
    assert all(seen == Counter(["neutral", "happy", "angry", "sad"]) for seen in styles.values())


def test_styles_are_heard_and_their_level_is_not(suite):
    table = manifest.read(suite, "er").utterances
    length, level, fall = (defaultdict(list) for _ in range(3))
    for u in table:
        heard = audio.load(u.path).astype(float)
        length[u.label].append(u.seconds)
        level[u.label].append(10 * np.log10(np.mean(heard**2)))
        halves = np.array_split(heard, 2)
        fall[u.label].append(10 * np.log10(np.mean(halves[0] ** 2) / np.mean(halves[1] ** 2)))
    order = [np.mean(length[style]) for style in ("angry", "happy", "neutral", "sad")]
    assert all(a < b for a, b in pairwise(order))
    assert np.mean(fall["sad"]) > np.mean(fall["neutral"]) > np.mean(fall["happy"])
    means = [np.mean(values) for values in level.values()]
    assert max(means) - min(means) < 3.0  # drawn from 12 dB, 26 clips each


def test_unknown_phone_is_named(monkeypatch):
    monkeypatch.delitem(grammar._ARPABET, "tS")
    with closing(Synthesiser()) as engine, pytest.raises(SlimbenchError, match="'cheese' with 'tS'"):
        grammar.lexicon(["cheese"], engine)


def test_too_little_room_is_said_before(tmp_path):
    with pytest.raises(SlimbenchError, match=r"needs \d+ MB but \d+ MB are free"):
        embedded.build(tmp_path, 0, 1, scale=1e9)
    assert list(tmp_path.iterdir()) == []


def test_a_long_word_still_fits_its_clip():
    rng = np.random.default_rng(0)
    clip = rendering._place(np.arange(20_001.0), 1.0, rng)
    np.testing.assert_array_equal(clip, np.arange(2000.0, 18_000.0) + clip[0] - 2000.0)
    assert 1999 <= clip[0] <= 2002
    assert rendering._place(np.ones(100), 1.0, rng).size == 16_000

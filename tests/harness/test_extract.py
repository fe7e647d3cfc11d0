"""Extraction against the toy upstream run by hand, utterance by utterance."""

import shutil
from collections import namedtuple

import numpy as np
import pytest
import soundfile
import torch
import toy_data
from toy_upstream import FRAME, toy

from harness import audio, manifest
from harness.extraction import extract
from harness.interface import HiddenStates, SlimbenchError
from harness.store.features import FeatureStore, TaskFeatures

TASKS = {"ks": "pooled", "sid": "pooled", "pr": "frames", "asv": "frames"}


@pytest.fixture
def data(tmp_path):
    toy_data.write(tmp_path / "data")
    return tmp_path / "data"


def gather(data, run=tuple(TASKS), tasks=tuple(TASKS)):
    manifests = {task: manifest.read(data, task) for task in tasks}
    digests = audio.file_digests(u.path for m in manifests.values() for u in m.utterances)
    keys = {task: {u.id: extract.key_of(u, digests) for u in m.utterances} for task, m in manifests.items()}
    return manifests, keys, extract.pieces(manifests, {t: TASKS[t] for t in tasks}, keys, run)


def encode(data, cache, upstream=None, run=tuple(TASKS), dtype="float16"):
    upstream = upstream or toy()
    _, keys, wanted = gather(data, run)
    store = FeatureStore(cache, upstream, dtype)
    samples, _ = extract.survey(wanted, cache / "audio.json")
    extract.check_lengths(wanted, samples, upstream)
    extract.extract(upstream, store, wanted, samples, "cpu")
    return store, keys


def test_stored_features_are_those_of_each_utterance_alone(data, tmp_path):
    store, keys = encode(data, tmp_path / "cache", dtype="float32")
    for utterance in manifest.read(data, "pr").utterances:
        wave = torch.from_numpy(audio.load(utterance.path))[None]
        alone = torch.stack(toy().encode(wave, torch.tensor([wave.shape[1]])).states)[:, 0]
        source = TaskFeatures(store, keys["pr"])
        torch.testing.assert_close(source.frames(utterance.id), alone)
        torch.testing.assert_close(source.pooled([utterance.id])[0], alone.mean(1))


def test_head_on_time_means_equals_time_mean_of_head_on_frames(data, tmp_path):
    """Linear → mean → linear commutes with the layer sum, so the four pooled tasks lose nothing."""
    store, keys = encode(data, tmp_path / "cache", dtype="float32")
    source, ids = TaskFeatures(store, keys["ks"]), list(keys["ks"])
    torch.manual_seed(0)
    first, second = torch.nn.Linear(store.width, 16), torch.nn.Linear(16, 5)
    weights = torch.softmax(torch.randn(store.num_states), 0)
    with torch.no_grad():
        pooled = second(first(torch.einsum("l,nld->nd", weights, source.pooled(ids))))
        frames = [second(first(torch.einsum("l,ltd->td", weights, source.frames(i))).mean(0)) for i in ids]
    torch.testing.assert_close(pooled, torch.stack(frames), atol=1e-5, rtol=0)


def test_audio_that_four_tasks_share_is_encoded_once_also_task_by_task(data, tmp_path, monkeypatch):
    log = tmp_path / "log"
    monkeypatch.setenv("TOY_LOG", str(log))
    for task in ("ks", "pr", "sid", "asv"):
        store, keys = encode(data, tmp_path / "cache", run=(task,))
    distinct = {u.path: len(audio.load(u.path)) for u in manifest.read(data, "ks").utterances}
    encoded = [int(line) for line in log.read_text().split()]
    noise = 3  # the trial of the upstream before the one extraction that had something to do
    assert len(encoded) == len(distinct) + noise
    ledger = store.ledger({key for per_task in keys.values() for key in per_task.values()})
    assert ledger.encoded_seconds == pytest.approx(sum(distinct.values()) / 16_000)
    assert ledger.ratio == 1.0


def test_same_bytes_under_two_names_are_one_piece_and_cuts_are_pieces_of_their_own(data):
    rows = toy_data.read_manifest(data, "ks")
    shutil.copy(data / rows[0]["path"], data / "audio" / "copy.wav")
    rows.append({**rows[0], "path": "audio/copy.wav"})
    cuts = [{**row, "start": ""} for row in rows]
    cuts += [{**rows[1], "path": "audio/other.wav", "start": start, "seconds": 0.2} for start in (0.0, 0.2)]
    soundfile.write(data / "audio" / "other.wav", toy_data.tone(["la", "mi"], "a", 5), 16_000)
    toy_data.write_manifest(data, "ks", cuts)
    manifests, keys, wanted = gather(data, run=("ks",), tasks=("ks",))
    assert len(manifests["ks"].utterances) == len(rows) + 2
    assert len(wanted) == len(rows) + 1
    assert keys["ks"]["audio/copy"] == keys["ks"][rows[0]["path"].removesuffix(".wav")]


def test_batches_hold_everything_once_within_the_budget(data):
    _, _, wanted = gather(data)
    samples = {key: 4_000 + 1_000 * (n % 7) for n, key in enumerate(wanted)}
    for equal in (False, True):
        made = extract.batches(wanted.values(), samples, equal, seconds=1.0)
        assert sorted(p.key for batch in made for p in batch) == sorted(wanted)
        for batch in made:
            lengths = [samples[p.key] for p in batch]
            assert max(lengths) * len(batch) <= 16_000 or len(batch) == 1
            assert not equal or len(set(lengths)) == 1
    assert extract.batches(reversed(list(wanted.values())), samples, True, 1.0) == made


@pytest.mark.parametrize("seconds", [4.0, 48.0, 1e6])
def test_no_batch_is_padded_by_more_than_a_twentieth_and_none_could_take_the_next_piece(data, seconds):
    _, _, wanted = gather(data)
    rng = np.random.default_rng(0)
    samples = {key: int(16_000 * (0.3 + rng.gamma(3, 1.5))) for key in wanted}
    made = [[samples[p.key] for p in batch] for batch in extract.batches(wanted.values(), samples, False, seconds)]
    for batch, following in zip(made, [*made[1:], None], strict=True):
        assert len(batch) * max(batch) <= 1.05 * sum(batch)
        assert following is None or min(batch) >= max(following)
        if following is not None:
            more = [*batch, following[0]]
            padded = len(more) * more[0]
            assert padded > 1.05 * sum(more) or padded > seconds * 16_000
    assert len(made) < len(wanted)


def test_a_run_that_goes_on_encodes_the_same_batches(data, tmp_path, monkeypatch):
    monkeypatch.setattr(extract, "BATCH_SECONDS", 2.0)
    whole, keys = encode(data, tmp_path / "whole")
    real, calls = extract._encode, []

    def broken(*args):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(args)
        return real(*args)

    monkeypatch.setattr(extract, "_encode", broken)
    with pytest.raises(KeyboardInterrupt):
        encode(data, tmp_path / "cut")
    monkeypatch.setattr(extract, "_encode", real)
    resumed, _ = encode(data, tmp_path / "cut")
    names = [sorted(p.name for p in store.folder.iterdir()) for store in (whole, resumed)]
    assert names[0] == names[1]
    assert len(names[0]) > 3
    for key in set(keys["pr"].values()):
        assert torch.equal(whole.frames(key), resumed.frames(key))
        assert torch.equal(whole.pooled([key]), resumed.pooled([key]))


def damage(path, how):
    wave, rate = soundfile.read(path, dtype="float32")
    if how == "missing":
        path.unlink()
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "truncated":
        path.write_bytes(path.read_bytes()[:-2_000])
    elif how == "text":
        path.write_text("no audio at all")
    elif how == "nan":
        wave[100] = np.nan
        soundfile.write(path, wave, rate, subtype="FLOAT")
    elif how == "short":
        soundfile.write(path, wave[: FRAME - 1], rate)


@pytest.mark.parametrize("how", ["missing", "empty", "truncated", "text", "nan", "short"])
def test_bad_audio_stops_everything_before_anything_is_encoded(data, tmp_path, how, monkeypatch):
    monkeypatch.setenv("TOY_LOG", str(tmp_path / "log"))
    rows = toy_data.read_manifest(data, "ks")
    bad = data / rows[-1]["path"]
    if how == "short":
        for task in TASKS:
            table = toy_data.read_manifest(data, task)
            table[-1]["seconds"] = 0.02
            toy_data.write_manifest(data, task, table)
    damage(bad, how)
    with pytest.raises(SlimbenchError) as error:
        encode(data, tmp_path / "cache")
    assert bad.name in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize("task", ["ks", "pr"])
@pytest.mark.parametrize("cached", [False, True])
def test_a_wrong_length_is_found_in_any_row_whether_the_audio_is_known_or_not(data, tmp_path, task, cached):
    table = tmp_path / "audio.json"
    if cached:
        extract.survey(gather(data)[2], table)
    rows = toy_data.read_manifest(data, task)
    rows[-1]["seconds"] = 0.7
    file = toy_data.write_manifest(data, task, rows)
    for _ in range(2):
        with pytest.raises(SlimbenchError, match=r"lasts 0\.600 s but 0\.700 s were expected") as error:
            extract.survey(gather(data)[2], table)
        assert f"({file} line {len(rows) + 1})" in str(error.value)
    rows[-1]["seconds"] = 0.64
    toy_data.write_manifest(data, task, rows)
    extract.survey(gather(data)[2], table)


def test_conversions_are_said_and_remembered(data, tmp_path):
    rows = toy_data.read_manifest(data, "ks")
    for row, channels, rate in ((rows[0], 2, 16_000), (rows[1], 1, 8_000)):
        wave = toy_data.tone(["la", "mi", "so"], "a", 1, rate)
        soundfile.write(data / row["path"], np.stack([wave] * channels, axis=1), rate)
    _, _, wanted = gather(data)
    for _ in range(2):
        _, said = extract.survey(wanted, tmp_path / "audio.json")
        assert len(said) == 2
        assert "mono" in said[1] + said[0]
        assert "8000 Hz" in said[1] + said[0]


def test_no_space_is_found_before_anything_is_encoded(data, tmp_path, monkeypatch):
    _, _, wanted = gather(data)
    store = FeatureStore(tmp_path, toy())
    extract.check_space(store, wanted.values())
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(extract.shutil, "disk_usage", lambda _path: usage(1, 1, 1_000))
    with pytest.raises(SlimbenchError, match="CACHE=") as error:
        extract.check_space(store, wanted.values())
    assert str(store.folder) in str(error.value)


def test_nothing_is_encoded_and_no_space_needed_when_all_is_there(data, tmp_path, monkeypatch):
    encode(data, tmp_path / "cache")
    monkeypatch.setattr(extract, "_encode", None)
    monkeypatch.setattr(extract.shutil, "disk_usage", None)
    store, _ = encode(data, tmp_path / "cache")
    extract.check_space(store, gather(data)[2].values())


class Leaky:
    """Subtracts the mean over the batch: the states depend on what else is in it."""

    def __init__(self, inner):
        self.__dict__.update(inner.__dict__)
        self.inner = inner

    def encode(self, waves, lengths):
        hidden = self.inner.encode(waves, lengths)
        return HiddenStates([s - s.mean(0, keepdim=True) for s in hidden.states], hidden.lengths, hidden.frame_ms)


def test_an_upstream_whose_states_depend_on_the_batch_is_refused(data, tmp_path):
    with pytest.raises(SlimbenchError, match="depends on what else is in the batch"):
        encode(data, tmp_path / "cache", Leaky(toy()))


class Centred(Leaky):
    """Subtracts the mean over time: the states depend on the padding."""

    def encode(self, waves, lengths):
        hidden = self.inner.encode(waves, lengths)
        return HiddenStates([s - s.mean(1, keepdim=True) for s in hidden.states], hidden.lengths, hidden.frame_ms)


def test_an_upstream_that_says_it_depends_on_padding_gets_equal_lengths():
    upstream = Centred(toy())
    with pytest.raises(SlimbenchError, match="set batch_invariant to false"):
        extract.check_upstream(upstream, "cpu")
    upstream.batch_invariant = False
    extract.check_upstream(upstream, "cpu")


def test_equal_lengths_do_not_excuse_states_that_depend_on_other_audio():
    upstream = Leaky(toy())
    upstream.batch_invariant = False
    with pytest.raises(SlimbenchError, match="also where all lengths are equal; mend its adapter"):
        extract.check_upstream(upstream, "cpu")


@pytest.mark.parametrize(("field", "value"), [("num_states", 3), ("width", 5)])
def test_an_upstream_that_breaks_its_word_is_refused(field, value):
    upstream = toy()
    setattr(upstream, field, value)
    with pytest.raises(SlimbenchError, match="promised"):
        extract.check_upstream(upstream, "cpu")


@pytest.mark.parametrize(("value", "said"), [(1e6, "float32"), (float("nan"), "no numbers")])
def test_states_that_do_not_fit_the_store_are_refused(data, tmp_path, value, said, monkeypatch):
    class Wild(Leaky):
        def encode(self, waves, lengths):
            hidden = self.inner.encode(waves, lengths)
            return HiddenStates([s * 0 + value for s in hidden.states], hidden.lengths, hidden.frame_ms)

    monkeypatch.setattr(extract, "check_upstream", lambda *_: None)
    with pytest.raises(SlimbenchError, match=said):
        encode(data, tmp_path / "cache", Wild(toy()))

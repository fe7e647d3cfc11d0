"""The pipeline around the encoder: no queue, thread, process or lack of memory may change what is stored."""

import itertools
import multiprocessing
import os
import signal
import threading
import time

import numpy as np
import pytest
import soundfile
import torch
from toy_upstream import ToyUpstream, toy

from harness import audio
from harness.extraction import encoding, extract, pipeline
from harness.extraction.spans import Spans
from harness.extraction.survey import Piece
from harness.identity import digest_bytes
from harness.interface import HiddenStates, SlimbenchError, Utterance
from harness.store.features import FeatureStore

LENGTHS = [0.3 + 0.013 * n for n in range(60)]


@pytest.fixture(scope="module")
def audio_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audio")
    for number, seconds in enumerate(LENGTHS):
        wave = 0.1 * np.random.default_rng(number).standard_normal(round(seconds * 16_000))
        soundfile.write(folder / f"{number:02d}.wav", wave, 16_000, subtype="FLOAT")
    return folder


def gather(folder, names=None):
    """Pieces of the files of a folder, every third one pooled only."""
    found = {}
    for row, path in enumerate(sorted(folder.glob("*.wav"))):
        if names is None or row in names:
            seconds = soundfile.info(path).duration
            key = digest_bytes(path.read_bytes())
            utterance = Utterance(path.stem, "train", path, "s", "", "", None, seconds, row + 2)
            found[key] = Piece(key, utterance, folder / "manifest.csv", row % 3 > 0)
    samples = {key: round(piece.utterance.seconds * 16_000) for key, piece in found.items()}
    return found, samples


def encode(folder, cache, upstream=None, names=None, compute="float32", **options):
    wanted, samples = gather(folder, names)
    store = FeatureStore(cache, upstream or toy(), "float32", compute)
    extract.extract(upstream or toy(), store, wanted, samples, "cpu", **options)
    return store, wanted


def assert_same(one, other, wanted, exactly=True):
    compare = torch.testing.assert_close
    tolerance = {"rtol": 0, "atol": 0} if exactly else {}
    for key, piece in wanted.items():
        compare(one.pooled([key]), other.pooled([key]), **tolerance)
        if piece.frames:
            compare(one.frames(key), other.frames(key), **tolerance)


@pytest.fixture
def small(monkeypatch):
    """Batches of 3 s, about a dozen."""
    monkeypatch.setattr(extract, "BATCH_SECONDS", 3.0)


def test_what_is_stored_is_each_utterance_alone_whatever_the_number_of_workers(
    audio_folder, tmp_path, small, monkeypatch
):
    reference, wanted = encode(audio_folder, tmp_path / "1", workers=1)
    for piece in wanted.values():
        wave = torch.from_numpy(audio.load(piece.utterance.path))[None]
        alone = torch.stack(toy().encode(wave, torch.tensor([wave.shape[1]])).states)[:, 0]
        torch.testing.assert_close(reference.pooled([piece.key])[0], alone.mean(1))
        if piece.frames:
            torch.testing.assert_close(reference.frames(piece.key), alone)
        else:
            assert not reference.has(piece.key, frames=True)
    for ahead, workers in ((1, 4), (3, 7)):
        monkeypatch.setattr(pipeline, "AHEAD", ahead)
        monkeypatch.setattr(pipeline, "BEHIND", ahead)
        other, _ = encode(audio_folder, tmp_path / f"{workers}", workers=workers)
        assert_same(reference, other, wanted)
        shards = [sorted(file.name for file in store.folder.glob("*.safetensors")) for store in (reference, other)]
        assert shards[0] == shards[1]
        assert len(shards[0]) > 8


class Counting(ToyUpstream):
    """Notes each batch it is given, and asks ``before`` first."""

    def __init__(self, before=lambda _batch: None):
        self.__dict__.update(toy().__dict__)
        self.before, self.batches = before, []

    def encode(self, waves, lengths):
        self.before(lengths)
        self.batches.append(lengths.tolist())
        return super().encode(waves, lengths)


def test_decoding_runs_ahead_of_the_encoder_by_no_more_than_the_queue(audio_folder, tmp_path, small, monkeypatch):
    decoded, lock = [], threading.Lock()
    real = Piece.waveform

    def load(piece):
        wave = real(piece)
        with lock:
            decoded.append(len(wave))
        return wave

    monkeypatch.setattr(Piece, "waveform", load)
    lead = []

    def before(lengths):
        deadline = time.monotonic() + 0.3
        given = sum(map(len, upstream.batches)) + len(lengths)
        while len(decoded) <= given and time.monotonic() < deadline:
            time.sleep(0.005)
        lead.append(len(decoded) - given)

    upstream = Counting(before)
    monkeypatch.setattr(extract, "check_upstream", lambda *_: None)
    encode(audio_folder, tmp_path, upstream)
    largest = max(map(len, upstream.batches))
    assert max(lead) > 0
    assert max(lead) <= pipeline.AHEAD * largest


def test_an_error_while_decoding_is_the_same_error_and_what_came_before_stays(
    audio_folder, tmp_path, small, monkeypatch
):
    wanted, samples = gather(audio_folder)
    planned = extract.batches(wanted.values(), samples, False, 3.0)
    bad = planned[5][0]
    real = Piece.waveform

    def load(piece):
        if piece.key == bad.key:
            raise SlimbenchError(f"{piece.utterance.path}: is truncated; copy the file again.")
        return real(piece)

    monkeypatch.setattr(Piece, "waveform", load)
    store = FeatureStore(tmp_path, toy(), "float32")
    with pytest.raises(SlimbenchError, match=f"{bad.utterance.path.name}: is truncated; copy the file again"):
        extract.extract(toy(), store, wanted, samples, "cpu")
    assert {key for key in wanted if store.has(key, False)} == {piece.key for batch in planned[:5] for piece in batch}
    monkeypatch.setattr(Piece, "waveform", real)
    extract.extract(toy(), store, wanted, samples, "cpu")
    assert store.ledger(set(wanted)).ratio == 1.0
    assert all(store.has(key, piece.frames) for key, piece in wanted.items())


def test_audio_that_is_not_what_was_surveyed_is_not_padded_in_silence(audio_folder, tmp_path, small):
    wanted, samples = gather(audio_folder)
    key = sorted(wanted, key=samples.get)[3]
    for change in (-100, 100):
        changed = {**samples, key: samples[key] + change}
        with pytest.raises(SlimbenchError, match=rf"{wanted[key].utterance.path.name} .*has changed since"):
            extract.extract(toy(), FeatureStore(tmp_path / f"{change}", toy()), wanted, changed, "cpu")


def test_an_error_while_writing_surfaces(audio_folder, tmp_path, small, monkeypatch):
    wanted, samples = gather(audio_folder)
    store = FeatureStore(tmp_path, toy(), "float32")
    monkeypatch.setattr(store, "save", lambda *_: (_ for _ in ()).throw(SlimbenchError("disk: is full; make room.")))
    with pytest.raises(SlimbenchError, match="disk: is full"):
        extract.extract(toy(), store, wanted, samples, "cpu")


def no_room(kind):
    text = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes. Error code 12"
    return {
        "cuda": torch.OutOfMemoryError("CUDA out of memory."),
        "cpu": RuntimeError(text),
        "windows": RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 99 bytes."),
        "mps": RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
        "python": MemoryError(),
    }[kind]


class Tight(Counting):
    """Memory for ``room`` padded samples."""

    def __init__(self, room, kind="cuda"):
        super().__init__(self.look)
        self.room, self.kind, self.failed = room, kind, 0

    def look(self, lengths):
        if len(lengths) * int(lengths.max()) > self.room:
            self.failed += 1
            raise no_room(self.kind)


@pytest.mark.parametrize("kind", ["cuda", "cpu", "windows", "mps", "python"])
def test_out_of_memory_divides_the_batch_and_loses_nothing(audio_folder, tmp_path, small, kind):
    reference, wanted = encode(audio_folder, tmp_path / "whole")
    upstream = Tight(20_000, kind)
    store, _ = encode(audio_folder, tmp_path / "parts", upstream)
    assert upstream.failed in (1, 2)  # what has been learnt of the memory is kept for the batches that follow
    assert_same(reference, store, wanted, exactly=False)
    ledger = store.ledger(set(wanted))
    assert (ledger.ratio, ledger.distinct_seconds) == (1.0, pytest.approx(sum(LENGTHS), abs=0.01))
    shards = [sorted(file.name for file in each.folder.glob("*.safetensors")) for each in (reference, store)]
    assert shards[0] == shards[1]


def test_one_utterance_that_does_not_fit_is_an_error_that_names_it(audio_folder, tmp_path, small):
    with pytest.raises(SlimbenchError, match=r"59\.wav .*line 61\): 1\.1 s of audio do not fit the memory") as error:
        encode(audio_folder, tmp_path, Tight(16_500))
    assert "\n" not in str(error.value)
    with pytest.raises(SlimbenchError, match=r"0\.5 s of noise do not fit the memory of cpu"):
        encode(audio_folder, tmp_path, Tight(6_000))


def test_other_errors_of_an_upstream_are_not_taken_for_a_lack_of_memory(audio_folder, tmp_path, small):
    def before(lengths):
        if len(lengths) > 2:
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        encode(audio_folder, tmp_path, Counting(before))


def test_models_that_need_equal_lengths_get_them(audio_folder, tmp_path):
    upstream = Counting()
    upstream.batch_invariant = False
    encode(audio_folder, tmp_path, upstream)
    assert all(len(set(batch)) == 1 for batch in upstream.batches[2:])


class Linear(Counting):
    """One state that is a product, so that autocast shows."""

    def encode(self, waves, lengths):
        frames = waves[:, : waves.shape[1] // 320 * 320].unflatten(1, (-1, 320))
        self.batches.append(lengths.tolist())
        weight = torch.randn(320, 12, generator=torch.Generator().manual_seed(1))
        return HiddenStates([frames @ weight, frames @ weight.flip(0)], lengths // 320, 20.0)


def test_products_in_bfloat16_are_those_of_autocast_and_only_where_asked_for(audio_folder, tmp_path, small):
    full, wanted = encode(audio_folder, tmp_path / "full", Linear())
    reduced, _ = encode(audio_folder, tmp_path / "reduced", Linear(), compute="bfloat16")
    for piece in wanted.values():
        wave = torch.from_numpy(audio.load(piece.utterance.path))[None]
        with torch.autocast("cpu", torch.bfloat16):
            alone = torch.stack(Linear().encode(wave, torch.tensor([wave.shape[1]])).states)[:, 0]
        assert alone.dtype == torch.bfloat16
        torch.testing.assert_close(reduced.pooled([piece.key])[0], alone.float().mean(1), atol=2e-3, rtol=2e-2)
        if piece.frames:
            torch.testing.assert_close(reduced.frames(piece.key), alone.float(), atol=2e-2, rtol=2e-2)
            assert torch.equal(reduced.frames(piece.key), reduced.frames(piece.key).bfloat16().float())
            assert not torch.equal(full.frames(piece.key), reduced.frames(piece.key))


def test_the_default_is_float32_on_a_cpu_and_bfloat16_on_cuda_where_there_are_weights():
    assert encoding.compute_type(toy(), "cpu") == "float32"
    assert encoding.compute_type(toy(), "cuda:0") == "bfloat16"
    assert encoding.compute_type(toy(), "cuda", "float32") == "float32"
    assert encoding.compute_type(toy(), "cpu", "bfloat16") == "bfloat16"
    plain = toy()
    plain.module = lambda: None
    assert encoding.compute_type(plain, "cuda") == "float32"
    with pytest.raises(SlimbenchError, match="float32, bfloat16"):
        encoding.compute_type(toy(), "cuda", "int4")


def test_bfloat16_that_changes_states_too_much_is_refused(monkeypatch):
    encoding.check_upstream(Linear(), "cpu", "bfloat16")
    monkeypatch.setattr(encoding, "DRIFT", 1e-4)
    with pytest.raises(SlimbenchError, match="compute in float32"):
        encoding.check_upstream(Linear(), "cpu", "bfloat16")


# Processes.


class Slow(Counting):
    """Takes a while for each batch, and writes down what it has been given."""

    def __init__(self, log, seconds):
        super().__init__(self.look)
        self.log, self.seconds = log, seconds

    def look(self, lengths):
        with self.log.open("a") as file:
            file.write(f"{os.getpid()} {' '.join(map(str, lengths.tolist()))}\n")
        time.sleep(self.seconds)


def work(folder, cache, log, seconds, names, ready):
    extract.BATCH_SECONDS = 3.0
    extract.check_upstream = lambda *_: None
    ready.wait()
    encode(folder, cache, Slow(log, seconds), names)


@pytest.fixture(scope="module")
def context():
    """Processes that are forked from one which has imported what they need, and has no threads."""
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(["harness.extraction.extract"])
    return made


def start(context, lists, *args):
    """One process per list, at the same time; returned with what it waited for."""
    ready = context.Event()
    found = [context.Process(target=work, args=(*args, names, ready)) for names in lists]
    for process in found:
        process.start()
    ready.set()
    return found, ready


def given(log):
    return [line.split() for line in log.read_text().splitlines()]


@pytest.mark.parametrize("lists", [(None, None), (None, range(5, 60, 2)), (range(40), range(20, 60))])
def test_two_processes_that_want_the_same_audio_encode_it_once(audio_folder, tmp_path, context, lists):
    """Also where their lists, and so their batches, differ."""
    log = tmp_path / "log"
    processes, _ready = start(context, lists, audio_folder, tmp_path / "cache", log, 0.03)
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    store = FeatureStore(tmp_path / "cache", toy(), "float32")
    wanted, samples = gather(audio_folder)
    ledger = store.ledger(set(wanted))
    assert ledger.ratio == 1.0
    assert ledger.distinct_seconds == pytest.approx(sum(LENGTHS), abs=0.01)
    encoded = sorted(int(length) for line in given(log) for length in line[1:])
    assert encoded == sorted(samples.values())
    assert all(store.has(key, piece.frames) for key, piece in wanted.items())


def test_the_claims_of_a_killed_process_die_with_it(audio_folder, tmp_path, context):
    log = tmp_path / "log"
    (victim,), _ready = start(context, [None], audio_folder, tmp_path / "cache", log, 30.0)
    deadline = time.monotonic() + 60
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(victim.pid, signal.SIGKILL)
    victim.join(60)
    (heir,), _ready = start(context, [None], audio_folder, tmp_path / "cache", log, 0.0)
    heir.join(60)
    assert heir.exitcode == 0
    wanted, _ = gather(audio_folder)
    store = FeatureStore(tmp_path / "cache", toy(), "float32")
    assert all(store.has(key, piece.frames) for key, piece in wanted.items())


def hold(file, taken, done):
    with Spans(file) as line:
        assert line.take(100, 200)
        taken.set()
        done.wait()


def test_a_stretch_is_refused_where_it_meets_another_ones(tmp_path, context):
    taken, done = context.Event(), context.Event()
    other = context.Process(target=hold, args=(tmp_path / "line", taken, done))
    other.start()
    assert taken.wait(60)
    with Spans(tmp_path / "line") as line:
        found = {(a, b): line.take(a, b) for a, b in ((0, 99), (201, 2**60), (0, 100), (200, 300), (150, 150))}
        assert list(found.values()) == [True, True, False, False, False]
        done.set()
        other.join(60)
        assert line.take(150, 150)


def test_places_keep_the_order_of_batches_and_batches_do_not_meet(audio_folder):
    wanted, samples = gather(audio_folder)
    samples = {key: length // 8_000 for key, length in samples.items()}  # many of one length
    planned = extract.batches(wanted.values(), samples, False, 5 / 16_000)
    spans = [pipeline.stretch(batch, samples) for batch in planned]
    assert len(spans) > 5
    assert all(last >= first for first, last in spans)
    assert all(after[1] < before[0] for before, after in itertools.pairwise(spans))

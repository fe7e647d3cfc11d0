"""Streamed = cached: the same upstream, the same weights, and an account of what was encoded."""

import dataclasses

import pytest
import soundfile
import torch
import toy_data
from test_probe import KilledError, same
from toy_upstream import toy

from downstreams.asv import ASV
from downstreams.pr import PR
from harness import audio, manifest, registry
from harness.extraction import extract, frames
from harness.extraction.stream import OnDemand, Streamed
from harness.interface import SlimbenchError
from harness.probes import probe
from harness.probes.probe import ProbeTrial
from harness.store.features import FeatureStore, TaskFeatures

TRIALS = (ProbeTrial(1e-2, 0), ProbeTrial(3e-2, 1))
SIZES = {"pr": {"project": 8}, "asv": {"project": 8, "channels": 8, "pool": 16, "embed": 8}}
NEEDS = {"cached": "frames", "streamed": "pooled"}
STEPS, BATCH, TRAIN, DEV = 8, 4, 16, 8


class World:
    """Two tasks on the same audio, with stored frames and without."""

    def __init__(self, folder, dtype="float16", upstream=None):
        toy_data.write(folder / "data")
        self.upstream = upstream or toy()
        self.tables = {task: manifest.read(folder / "data", task) for task in ("pr", "asv")}
        digests = audio.file_digests(u.path for table in self.tables.values() for u in table.utterances)
        self.keys = {
            task: {u.id: extract.key_of(u, digests) for u in table.utterances} for task, table in self.tables.items()
        }
        self.stores = {}
        for way, need in NEEDS.items():
            self.wanted = extract.pieces(self.tables, dict.fromkeys(self.tables, need), self.keys, self.tables)
            self.samples, _ = extract.survey(self.wanted, folder / "audio.json")
            self.stores[way] = FeatureStore(folder / way, self.upstream, dtype)
            extract.extract(self.upstream, self.stores[way], self.wanted, self.samples, "cpu")

    def encoder(self, bound=10**9):
        return OnDemand(self.upstream, self.stores["streamed"], self.wanted, self.samples, "cpu", bound=bound)

    def setup(self, task, encoder=None, checkpoint=None, progress=None, **changes):
        table, keys = self.tables[task.name], self.keys[task.name]
        neutral = {"accumulate": 1, "batching": "by_length", "looks_on_test": False, "min_seconds": None}
        settings = {"steps": STEPS, "eval_every": 4, "batch": BATCH, "max_seconds": None, "head": SIZES[task.name]}
        protocol = dataclasses.replace(task.protocol, **{**neutral, **settings, **changes})
        features = TaskFeatures(self.stores["cached"], keys) if encoder is None else Streamed(encoder, keys)
        what = (task, task.labels(table), table, features, protocol, TRIALS, "cpu")
        return probe.Setup(*what, checkpoint, progress)

    def train(self, *args, **changes):
        return probe.train_together([self.setup(*args, **changes)])[0]

    def predict(self, setup, results, split):
        what = (setup.task, setup.labels, setup.manifest, setup.features, setup.protocol)
        return probe.predict_all(*what, results, split)


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def assert_streamed_is_cached(world, task, bound, **changes):
    encoder = world.encoder(bound)
    cached, streamed = world.train(task, **changes), world.train(task, encoder, **changes)
    assert encoder.encodings
    for a, b in zip(cached, streamed, strict=True):
        same(a, b, 1e-5)
    for split in ("dev", "test"):
        one = world.predict(world.setup(task, **changes), cached, split)
        other = world.predict(world.setup(task, encoder, **changes), streamed, split)
        for a, b in zip(one, other, strict=True):
            assert a.keys() == b.keys()
            for name, value in a.items():
                assert value == (pytest.approx(b[name], abs=1e-5) if task is ASV else b[name])


@pytest.mark.parametrize("bound", [0, 10**9])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("task", [PR, ASV], ids=lambda task: task.name)
def test_streamed_is_cached(tmp_path, task, dtype, bound):
    crop = {"max_seconds": 0.4} if task is ASV else {}
    assert_streamed_is_cached(World(tmp_path, dtype), task, bound, **crop)


def test_streamed_is_cached_with_a_real_model(tmp_path):
    world = World(tmp_path, "float32", registry.load_upstream("distilled_wavlm", "cpu"))
    assert_streamed_is_cached(world, PR, 0)


def test_nothing_kept_means_one_encoding_per_use(world):
    encoder = world.encoder(0)
    world.train(PR, encoder)
    assert encoder.encodings == STEPS * BATCH + 2 * DEV
    assert encoder.held == 0
    seconds = encoder.encodings * 0.6  # all utterances of the toy
    assert encoder.encoded_seconds == pytest.approx(seconds)


def test_the_plan_counts_the_same_passes(world):
    encoder = world.encoder(0)
    setup = world.setup(PR, encoder)
    results = probe.train_together([setup])[0]
    world.predict(setup, results, "test")
    rows = [(world.keys["pr"][u.id], u.seconds) for u in setup.manifest.split("train")]
    others = {split: sum(u.seconds for u in setup.manifest.split(split)) for split in ("dev", "test")}
    wanted = frames.demand("pr", setup.protocol, rows, others, 1e9)
    choice = frames.choose([wanted], frames.Room(disk=0.0))["pr"]
    assert choice.passes == pytest.approx(encoder.encodings / len(world.wanted))
    with_test = wanted.encode
    assert with_test == pytest.approx(encoder.encoded_seconds)


def test_where_all_fits_the_memory_everything_is_encoded_once(world):
    encoder = world.encoder()
    world.train(PR, encoder)
    assert encoder.encodings == TRAIN + DEV


def test_the_bound_of_memory_is_respected_and_the_latest_stay(world):
    one = world.encoder().states([next(iter(world.wanted))])[0].nbytes
    encoder = world.encoder(3 * one)
    keys = list(world.wanted)[:6]
    for key in keys:
        encoder.states([key])
        assert encoder.held <= 3 * one
    before = encoder.encodings
    encoder.states(keys[3:])
    assert encoder.encodings == before == 6
    encoder.states(keys[:1])
    assert encoder.encodings == 7
    assert encoder.held == 3 * one


def test_tasks_in_step_with_the_same_batches_share_one_pass(world):
    bound = 2 * BATCH * max(world.encoder().states([key])[0].nbytes for key in world.wanted)
    alone = [world.train(task, world.encoder(0)) for task in (PR, ASV)]
    encoder = world.encoder(bound)
    together = probe.train_together([world.setup(PR, encoder), world.setup(ASV, encoder)])
    for a, b in zip(alone, together, strict=True):
        for one, other in zip(a, b, strict=True):
            same(one, other, 1e-5)
    looks = 2 * 2 * DEV
    assert encoder.encodings <= STEPS * BATCH + looks < 2 * STEPS * BATCH + looks
    assert encoder.held <= bound


def test_tasks_with_other_batches_encode_for_themselves(world):
    encoder = world.encoder(0)
    setups = [world.setup(PR, encoder, batching="windows"), world.setup(ASV, encoder, steps=4)]
    probe.train_together(setups)
    assert encoder.encodings == STEPS * BATCH + 2 * DEV + 4 * BATCH + DEV


def test_killed_while_streaming_goes_on_to_the_same_bits(world, tmp_path):
    expected = [world.train(PR, world.encoder(0)), world.train(ASV, world.encoder(0), steps=12)]
    files = [tmp_path / "pr.pt", tmp_path / "asv.pt"]

    def kill(step, total, text):
        if step == 6:
            raise KilledError

    def setups(progress):
        encoder = world.encoder(10**5)
        first = world.setup(PR, encoder, files[0], progress)
        return [first, world.setup(ASV, encoder, files[1], progress, steps=12)]

    with pytest.raises(KilledError):
        probe.train_together(setups(kill))
    seen = []
    resumed = probe.train_together(setups(lambda step, total, text: seen.append((total, step))))
    assert seen == [(total, step) for step in range(5, 9) for total in (8, 12)] + [(12, step) for step in range(9, 13)]
    for a, b in zip(expected, resumed, strict=True):
        for one, other in zip(a, b, strict=True):
            same(one, other)


def test_a_run_that_lags_behind_comes_up_first(world, tmp_path):
    encoder, file, seen = world.encoder(), tmp_path / "pr.pt", []
    world.train(PR, encoder, file, steps=8)
    state = torch.load(file, weights_only=True)
    setups = [
        world.setup(PR, encoder, file, lambda step, total, text: seen.append(("pr", step))),
        world.setup(ASV, encoder, progress=lambda step, total, text: seen.append(("asv", step))),
    ]
    torch.save({**state, "step": 4}, file)
    probe.train_together(setups)
    assert seen[:4] == [("asv", step) for step in range(1, 5)]
    assert seen[4:6] == [("pr", 5), ("asv", 5)]


def test_stored_frames_are_read_not_encoded(world):
    encoder = OnDemand(world.upstream, world.stores["cached"], world.wanted, world.samples, "cpu")
    key = next(iter(world.wanted))
    assert torch.equal(encoder.states([key, key])[1], world.stores["cached"].frames(key))
    assert encoder.encodings == 0


def test_audio_that_changed_after_the_check_is_an_error(world):
    piece = next(iter(world.wanted.values()))
    soundfile.write(piece.utterance.path, toy_data.tone(["la", "mi", "so"], "a", 9)[:-320], toy_data.RATE)
    with pytest.raises(SlimbenchError, match="has changed since it was checked"):
        world.encoder().states([piece.key])


def test_states_beyond_half_precision_are_an_error(world):
    for layer in world.upstream.module():
        layer.weight *= 1e6
    with pytest.raises(SlimbenchError, match=r"beyond float16; write `dtype: float32`"):
        world.encoder().states(list(world.wanted)[:2])

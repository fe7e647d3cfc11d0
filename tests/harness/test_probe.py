import dataclasses
import itertools
import json

import pytest
import torch
from toy_probe import ToyFeatures, toy_manifest

from downstreams.asr import ASR
from downstreams.asv import ASV
from downstreams.ic import IC
from downstreams.ks import KS
from downstreams.pr import PR
from downstreams.sid import SID
from harness import metrics
from harness.interface import SlimbenchError
from harness.probes import training
from harness.probes.probe import ProbeTrial, predict, predict_all, train

TRIALS = [ProbeTrial(rate, seed) for rate in (1e-3, 1e-2) for seed in (0, 1)]
SIZES = {"asr": {"project": 6, "hidden": 5}, "asv": {"project": 8, "channels": 8, "pool": 10, "embed": 6}}
LABELS = {
    "ks": lambda i: "abc"[i % 3],
    "sid": lambda i: f"s{i % 3}",
    "ic": lambda i: f"{'ab'[i % 2]}|{'cd'[i % 2]}|e",
    "pr": lambda i: " ".join("PTKN"[(i + k) % 4] for k in range(4)),
    "asr": lambda i: "",
    "asv": lambda i: f"s{i % 4}",
}


def setting(task, **changes):
    manifest = toy_manifest(task.name, LABELS[task.name])
    alone = {"accumulate": 1, "batching": "by_length", "looks_on_test": False, "balanced_dev": False}
    settings = {
        **alone,
        "steps": 12,
        "eval_every": 4,
        "batch": 8,
        "head": SIZES.get(task.name, {"project": 12}),
        **changes,
    }
    protocol = dataclasses.replace(task.protocol, **settings)
    return task, task.labels(manifest), manifest, ToyFeatures(manifest), protocol


def same(a, b, tolerance=0.0):
    assert a.state.keys() == b.state.keys()
    for key, value in a.state.items():
        torch.testing.assert_close(value, b.state[key], atol=tolerance, rtol=0)
    assert a.best_step == b.best_step
    steps, scores = zip(*a.curve, strict=True)
    assert steps == tuple(step for step, _ in b.curve)
    assert scores == pytest.approx([score for _, score in b.curve], abs=tolerance, rel=0)


@pytest.mark.parametrize("task", [KS, IC, PR, ASR, ASV], ids=lambda task: task.name)
def test_a_trial_beside_others_is_the_trial_alone(task):
    what = setting(task)
    together = train(*what, TRIALS)
    for trial, beside in zip(TRIALS, together, strict=True):
        (alone,) = train(*what, [trial])
        same(beside, alone, 1e-5)
    assert together[0].curve[-1][0] == 12
    assert [step for step, _ in together[0].curve] == [4, 8, 12]


class KilledError(Exception):
    pass


@pytest.mark.parametrize("when", [3, 4, 7, 12])
@pytest.mark.parametrize("task", [KS, ASR, ASV], ids=lambda task: task.name)
def test_a_killed_run_goes_on_to_the_same_bits(task, when, tmp_path):
    what = setting(task)
    expected = train(*what, TRIALS)

    def kill(step, total, text):
        if step == when:
            raise KilledError

    file = tmp_path / "probe" / "run.pt"
    with pytest.raises(KilledError):
        train(*what, TRIALS, checkpoint=file, progress=kill)
    seen = []
    resumed = train(*what, TRIALS, checkpoint=file, progress=lambda step, total, text: seen.append(step))
    assert seen == list(range(when // 4 * 4 + 1, 13))
    for a, b in zip(resumed, expected, strict=True):
        same(a, b)
        assert a.notes == b.notes
    assert [p.name for p in file.parent.iterdir()] == ["run.pt"]


def test_seconds_add_up_over_interruptions(tmp_path, monkeypatch):
    clock = itertools.count()
    monkeypatch.setattr(training.time, "perf_counter", lambda: float(next(clock)))  # each step lasts a second
    what, file = setting(KS), tmp_path / "run.pt"

    def kill(step, total, text):
        if step == 7:
            raise KilledError

    with pytest.raises(KilledError):
        train(*what, TRIALS, checkpoint=file, progress=kill)
    assert {result.seconds for result in train(*what, TRIALS, checkpoint=file)} == {12.0}
    assert {result.seconds for result in train(*what, TRIALS, checkpoint=file)} == {12.0}


@pytest.mark.parametrize("error", [RuntimeError("writer failed\nstack"), OSError(28, "No space left on device")])
def test_a_full_disk_is_said_and_the_last_checkpoint_stays(tmp_path, monkeypatch, error):
    file, what = tmp_path / "run.pt", setting(KS)
    real, saved = torch.save, []

    def full(state, part):
        if saved:
            part.write_bytes(b"the begin")
            raise error
        real(state, part)
        saved.append(part)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(SlimbenchError, match=r"run\.pt: the checkpoint cannot be written .*make room") as caught:
        train(*what, TRIALS, checkpoint=file)
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["run.pt"]
    monkeypatch.setattr(torch, "save", real)
    seen = []
    resumed = train(*what, TRIALS, checkpoint=file, progress=lambda step, total, text: seen.append(step))
    assert seen == list(range(5, 13))
    for a, b in zip(resumed, train(*what, TRIALS), strict=True):
        same(a, b)


def test_a_checkpoint_of_another_run_or_broken_is_an_error(tmp_path):
    file = tmp_path / "run.pt"
    what = setting(KS)
    train(*what, TRIALS, checkpoint=file)
    with pytest.raises(SlimbenchError, match=r"run\.pt belongs to another"):
        train(*what, TRIALS[:2], checkpoint=file)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(SlimbenchError, match=r"run\.pt cannot be read"):
        train(*what, TRIALS, checkpoint=file)


@pytest.mark.parametrize("task", [KS, SID, PR, ASV], ids=lambda task: task.name)
def test_probes_learn_and_find_the_telling_state(task):
    rate = 1e-1 if task is PR else 1e-2
    steps = 90 if task is PR else 40
    what = setting(task, steps=steps, eval_every=10, optimizer="Adam", layer_lr=10.0)
    (result,) = train(*what, [ProbeTrial(rate, 0)])
    said = predict(*what, result, "test")
    rows = task.rows(what[2], "test", said, what[1])
    value = metrics.score(task.metric, rows)
    assert value > 90 if task.metric == "accuracy" else value < 15
    assert max(range(3), key=lambda i: result.layer_weights[i]) == 1
    assert sum(result.layer_weights) == pytest.approx(1)


def test_kept_weights_are_those_of_the_best_look_at_dev():
    what = setting(KS, steps=30, eval_every=3)
    task, labels, manifest = what[:3]
    for result in train(*what, TRIALS):
        rows = task.rows(manifest, "dev", predict(*what, result, "dev"), labels)
        assert metrics.score("accuracy", rows) == result.dev == max(value for _, value in result.curve)
        assert result.best_step == next(step for step, value in result.curve if value == result.dev)


def test_predictions_of_several_probes_are_those_of_each():
    what = setting(ASR)
    results = train(*what, TRIALS)
    assert predict_all(*what, results, "test") == [predict(*what, result, "test") for result in results]


def test_seeds_differ_in_their_initial_weights_only_where_they_differ():
    first, again, other = train(*setting(KS, steps=1), [ProbeTrial(0.0, 0), ProbeTrial(0.0, 0), ProbeTrial(0.0, 1)])
    assert torch.equal(first.state["head.linear.weight"], again.state["head.linear.weight"])
    assert not torch.equal(first.state["head.linear.weight"], other.state["head.linear.weight"])


def test_training_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(*setting(ASR, steps=2), TRIALS)
    assert torch.equal(torch.rand(3), expected)


def test_a_diverged_trial_is_marked_and_harms_no_other():
    what = setting(KS, optimizer="AdamW")
    wild = ProbeTrial(1e30, 0)
    tame, gone = train(*what, [TRIALS[0], wild])
    (alone,) = train(*what, [TRIALS[0]])
    same(tame, alone, 1e-5)
    assert not tame.diverged
    assert gone.diverged
    assert gone.dev == metrics.METRICS["accuracy"].worst
    assert any("diverged" in note for note in gone.notes)
    assert json.loads(json.dumps(gone.as_row(), allow_nan=False))["dev"] is None


def test_utterances_too_short_for_the_head_are_named():
    task, labels, manifest, features, protocol = setting(ASV)
    features.store["dev3"] = features.store["dev3"][:, :15]
    with pytest.raises(SlimbenchError, match=r"row 45: dev3 has 15 frames.*16"):
        train(task, labels, manifest, features, protocol, TRIALS)
    with pytest.raises(SlimbenchError, match="max_seconds"):
        train(*setting(ASV, max_seconds=0.3), TRIALS)


def test_crops_are_refused_for_ctc_and_noted_for_means():
    with pytest.raises(SlimbenchError, match="cannot crop"):
        train(*setting(PR, max_seconds=0.4), TRIALS)
    (result,) = train(*setting(SID, max_seconds=0.4, steps=1, crops=0), TRIALS[:1])
    assert result.notes == ["40 training utterances over 0.4 s were averaged whole, not cropped."]


def test_targets_without_room_are_noted():
    task, labels, manifest, features, protocol = setting(PR)
    features.store["train0"] = features.store["train0"][:, :3]
    (result,) = train(task, labels, manifest, features, protocol, TRIALS[:1])
    assert result.notes[0].startswith("1 of 40 training utterances")


@pytest.mark.parametrize("split", ["dev", "test"])
def test_a_label_that_train_lacks_names_file_and_row(split):
    manifest = toy_manifest("ks", lambda i: "abc"[i % 3])
    odd = next(u for u in manifest.utterances if u.split == split)
    rows = tuple(dataclasses.replace(u, label="zzz") if u is odd else u for u in manifest.utterances)
    manifest = dataclasses.replace(manifest, utterances=rows)
    what = (KS, KS.labels(manifest), manifest, ToyFeatures(manifest), dataclasses.replace(KS.protocol, steps=1))
    with pytest.raises(SlimbenchError, match=rf"manifest\.csv, row {odd.row}.*'zzz'"):
        train(*what, TRIALS)


def test_the_number_of_threads_does_not_change_asr():
    what, before = setting(ASR), torch.get_num_threads()
    runs = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            runs.append(train(*what, TRIALS))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    for one, three in zip(*runs, strict=True):
        same(one, three)

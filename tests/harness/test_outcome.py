from dataclasses import replace
from pathlib import Path

import pytest
from toy_probe import toy_manifest

from downstreams.asv import ASV
from harness import outcome
from harness.interface import Labels, SlimbenchError
from harness.plan import TaskPlan
from harness.probes.trials import TrialResult


def item():
    table = toy_manifest("asv", lambda i: f"s{i % 4}")
    audio = {u.id: f"key of {u.id}" for u in table.utterances}
    return TaskPlan(ASV, table, Labels((("s0",),)), ASV.protocol, audio, "key", None)


def test_training_utterances_up_to_the_bound_are_left_out_and_counted():
    made = item()
    short = ("train3", "train7", "dev1", "test1")
    samples = {key: 32_000 if key.endswith(short) else 32_001 for key in made.audio.values()}
    left, notes = outcome.long_enough(made, samples)
    gone = {u.id for u in made.manifest.utterances} - {u.id for u in left.manifest.utterances}
    assert gone == {"train3", "train7", "dev1"}  # SUPERB: more than 32,000 samples after trimming; test stays
    assert all("dev1" not in (trial.enrol, trial.test) for trial in left.manifest.trials["dev"])
    assert left.manifest.trials["test"] == made.manifest.trials["test"]
    assert notes == [
        "2 training utterances of at most 2 s were left out",
        "1 dev utterances of at most 2 s were left out",
        "11 dev trials with them were left out",
    ]


def test_folds_are_shortened_too():
    made = item()
    made = replace(made, manifest=replace(made.manifest, folds=(made.manifest,)))
    samples = {key: 1 if key.endswith("train3") else 32_001 for key in made.audio.values()}
    left, _ = outcome.long_enough(made, samples)
    assert "train3" not in {u.id for u in left.folds[0].utterances}


def test_nothing_left_is_an_error():
    made = item()
    with pytest.raises(SlimbenchError, match="no training utterance is longer than 2 s"):
        outcome.long_enough(made, dict.fromkeys(made.audio.values(), 100))


def test_checkpoints_of_folds_lie_apart():
    names = [outcome.checkpoint(Path("w"), fold) for fold in (None, 1, 2)]
    assert len(set(names)) == 3


def test_the_seconds_of_training_are_those_of_the_runs_not_of_their_trials():
    made = [TrialResult(1e-3, seed, [], 1, 0.0, [], {}, fold=fold, seconds=fold) for fold in (1, 2) for seed in (0, 1)]
    assert outcome.training_seconds(made) == 3.0

"""Decoding and metrics on awkward cases, against what s3prl's experts and metric functions make of the same logits."""

import random
from unittest import mock

import numpy as np
import parity_cases
import pytest
import s3prl_side
import torch
from torch import nn

from downstreams.asr import normal
from harness import metrics


class AsGiven(nn.Module):
    """Takes the place of s3prl's model: the features are the logits."""

    def forward(self, features, lengths=None):
        return (features, lengths) if lengths is not None else features


def passing(name, folder):
    """A case whose expert decodes and scores the logits that it is given as features."""
    case = parity_cases.make(name, folder)
    case.expert.projector = nn.Identity()
    case.expert.model = AsGiven()
    case.expert.eval()
    return case


def logits_of(path, classes):
    """Logits (T, C) whose best class per frame is ``path``."""
    return torch.nn.functional.one_hot(torch.tensor(path), classes).float() * 5.0


def decoded(case, logits, targets):
    """Our predictions and s3prl's records, one utterance at a time, as s3prl evaluates both CTC tasks."""
    ours, records = [], []
    for frames, target in zip(logits, targets, strict=True):
        ours += case.task.predict(frames[None], torch.tensor([len(frames)]), case.labels)
        records.append(s3prl_side.loss(case.name, case.expert, [frames], [target], "test")[1])
    return ours, records


def rows(references, hypotheses):
    both = zip(references, hypotheses, strict=True)
    return [{"id": str(i), "ref": ref, "hyp": hyp} for i, (ref, hyp) in enumerate(both)]


PHONE_PATHS = [
    [0, 0, 0, 0],  # nothing: the empty hypothesis
    [1, 1, 0, 1],  # nothing but <eos>
    [5, 5, 5, 5],
    [5, 5, 0, 5],  # a repeated phone
    [5, 1, 5, 6],  # <eos> between two equal phones
    [0, 7, 7, 0, 8, 0, 8, 8, 1],
    [9],
    [4, 5, 6, 7, 1, 8, 9],  # phones after <eos> count
    [5, 0, 0, 5, 0, 5, 6, 0, 6],
]


def test_phones(tmp_path):
    case = passing("pr", tmp_path)
    targets = case.targets[: len(PHONE_PATHS)]
    logits = [logits_of(path, 20) for path in PHONE_PATHS]
    logits.append(torch.zeros(5, 20))  # all classes tie: the first, the blank
    tied = logits_of([5, 5, 6], 20)
    tied[1, 8] = tied[1, 5]  # two phones tie: the first
    logits.append(tied)
    targets = case.targets[: len(logits)]
    ours, records = decoded(case, logits, targets)
    assert ours == [record["hypothesis"][0] for record in records]
    assert ours[:4] == ["", "", "P2", "P2 P2"]
    truth = [record["groundtruth"][0] for record in records]
    assert truth == [row.label for row in case.manifest.split("train")][: len(logits)]
    per = s3prl_side.module("downstream.ctc.metric").per
    assert metrics.score("per", rows(truth, ours)) == pytest.approx(100 * per(ours, truth), abs=1e-9)


def test_phones_as_before_may_2022(tmp_path):
    """The decode up to commit 438435f9: blanks and <eos> are dropped first, equal neighbours merged after.

    s3prl 0.4.18 still has its half of it: ``decode`` with ``ignore_repeat`` on indices without special symbols.
    """
    case = passing("pr", tmp_path)
    draw = random.Random(0)
    paths = PHONE_PATHS + [draw.choices([0, 0, 1, 5, 6, 7], k=draw.randint(1, 20)) for _ in range(100)]
    targets = [case.targets[i % parity_cases.UTTERANCES] for i in range(len(paths))]
    ours, records = decoded(case, [logits_of(path, 20) for path in paths], targets)
    truth = [record["groundtruth"][0] for record in records]
    old = [case.expert.tokenizer.decode([i for i in path if i > 1], ignore_repeat=True) for path in paths]
    per = s3prl_side.module("downstream.ctc.metric").per
    was, now = 100 * per(old, truth), 100 * per(ours, truth)
    assert was != now
    assert metrics.score("per_2021", rows(truth, ours)) == pytest.approx(was, abs=1e-9)
    assert metrics.score("per", rows(truth, ours)) == pytest.approx(now, abs=1e-9)


def path_of(text):
    """A path of characters, one per frame: ``_`` is the blank, ``$`` is </s>, ``~`` <pad> and ``?`` <unk>."""
    table = {"_": 0, "~": 1, "$": 2, "?": 3}
    return [table[c] if c in table else 4 + s3prl_side.CHARACTERS.index(c) for c in text]


TEXT_PATHS = ["____", "|||", "$$_$", "_A_B_|_", "AA_A|", "|A||_|B|$", "HEL_LLO|WORLD|$", "'_'S", "A$A", "A|$|B"]


def test_words(tmp_path):
    case = passing("asr", tmp_path)
    logits = [logits_of(path_of(text), 32) for text in TEXT_PATHS]
    ours, records = decoded(case, logits, case.targets[: len(logits)])
    assert ours == [" ".join(record["pred_words"][0]) for record in records]
    assert ours[:5] == ["", "", "", "AB", "AA"]
    truth = [" ".join(record["target_words"][0]) for record in records]
    assert truth == [normal(row.text) for row in case.manifest.split("train")][: len(logits)]
    keys = ("pred_tokens", "pred_words", "target_tokens", "target_words")
    uer, wer = case.expert._compute_metrics(*([record[key][0] for record in records] for key in keys))
    assert metrics.score("wer", rows(truth, ours)) == pytest.approx(wer, abs=1e-9)
    cer = s3prl_side.module("downstream.ctc.metric").cer
    assert metrics.score("cer", rows(truth, ours)) == pytest.approx(100 * cer(ours, truth), abs=1e-9)
    # s3prl's ASR prints a unit error rate instead, which also counts the | after the last word
    assert uer != pytest.approx(100 * cer(ours, truth), abs=0.1)


@pytest.mark.parametrize(("name", "path"), [("asr", path_of("A~B|?")), ("pr", [5, 2, 6])])
def test_special_symbols_in_a_hypothesis(name, path, tmp_path):
    case = passing(name, tmp_path)
    ours, (record,) = decoded(case, [logits_of(path, parity_cases.CLASSES[name])], case.targets[:1])
    theirs = record["hypothesis"][0] if name == "pr" else " ".join(record["pred_words"][0])
    assert ours == [theirs]


@pytest.mark.parametrize("name", ["per", "wer", "cer"])
def test_error_rates_of_random_texts(name):
    draw = random.Random(name)

    def text(least):
        return " ".join(draw.choices(["A", "B", "BA", "AB"], k=draw.randint(least, 6)))

    truth, said = [text(1) for _ in range(300)], [text(0) for _ in range(300)]
    assert "" in said
    expected = 100 * getattr(s3prl_side.module("downstream.ctc.metric"), name)(said, truth)
    assert metrics.score(name, rows(truth, said)) == pytest.approx(expected, abs=1e-9)
    for ref, hyp in zip(truth, said, strict=True):  # and each alone
        alone = 100 * getattr(s3prl_side.module("downstream.ctc.metric"), name)([hyp], [ref])
        assert metrics.score(name, rows([ref], [hyp])) == pytest.approx(alone, abs=1e-9)


@pytest.mark.parametrize("name", ["ks", "ic", "sid", "er"])
def test_accuracy_with_ties(name, tmp_path):
    """Logits of three values only, so that most arg-maxima tie; intents are right when all three slots are."""
    case = passing(name, tmp_path)
    classes = parity_cases.CLASSES[name]
    logits = torch.randint(3, (parity_cases.UTTERANCES, classes), generator=torch.Generator().manual_seed(2)).float()
    for row, target in enumerate(case.targets[::2]):  # every other utterance is right, or nearly
        starts = np.cumsum([0, *(len(values) for values in case.labels.slots)])
        for slot, index in enumerate(target[: 1 + row % 3]):
            logits[2 * row, starts[slot] + index] = 3.0
    case.expert.model.forward = lambda features, lengths: (torch.stack([x[0] for x in features]), lengths)
    features = [row[None] for row in logits]
    _, records = s3prl_side.loss(name, case.expert, features, case.targets, "test")
    said = case.task.predict(logits, torch.ones(len(logits)), case.labels)
    predictions = {f"u{i}": hyp for i, hyp in enumerate(said)}
    scored = case.task.rows(case.manifest, "train", predictions, case.labels)
    right = [float(row["ref"] == row["hyp"]) for row in scored]
    assert right == records["acc"]
    assert 0 < sum(right) < len(right)
    assert metrics.score("accuracy", scored) == pytest.approx(100 * np.mean(records["acc"]))


def test_verification_from_embedding_to_error_rate(tmp_path):
    """Embeddings, cosines and the equal error rate, s3prl's own ``log_records`` doing the scoring."""
    case = parity_cases.make("asv", tmp_path)
    names = [f"u{i}" for i in range(parity_cases.UTTERANCES)]
    draw = random.Random(4)
    pairs = [(draw.random() < 0.5, *draw.choices(names, k=2)) for _ in range(200)]
    case.expert.eval()
    case.head.eval()
    records, predictions = s3prl_side.Records(), {}
    for i, name in enumerate(names):
        with torch.no_grad():
            s3prl_side.loss("asv", case.expert, case.features([i]), [case.targets[i]], "test", records, [name])
            x, lengths = case.batch([i])
            output = case.head(x.mean(0), lengths)  # uniform layer weights
        predictions[name] = case.task.predict(output, lengths, case.labels)[0]
        torch.testing.assert_close(torch.tensor(predictions[name]), records[name], atol=1e-5, rtol=0)
    case.expert.test_dataset.pair_table = [(str(int(same)), *pair) for same, *pair in pairs]
    logger = mock.MagicMock()
    case.expert.log_records("test", records, logger, 0)
    manifest = parity_cases.with_trials(case.manifest, pairs)
    scored = case.task.rows(manifest, "test", predictions, case.labels)
    assert [row["score"] for row in scored] == pytest.approx([float(score) for score in records["scores"]], abs=1e-6)
    assert metrics.score("eer", scored) == pytest.approx(100 * logger.add_scalar.call_args.args[1], abs=1e-6)


@pytest.mark.parametrize("kind", ["rounded", "coarse", "constant", "apart", "reversed", "one of each"])
def test_equal_error_rate_of_tied_scores(kind):
    draw = np.random.default_rng(0)
    same = draw.random(300) < 0.4
    scores = {
        "rounded": np.round(draw.normal(same * 1.2, 1.0), 1),
        "coarse": np.round(draw.normal(same * 1.2, 1.0)),
        "constant": np.full(300, 0.5),
        "apart": same * 1.0,
        "reversed": ~same * 1.0,
        "one of each": np.where(same, 0.7, 0.7),
    }[kind]
    if kind == "one of each":
        same, scores = np.array([True, False]), np.array([0.2, 0.3])
    expected, _ = s3prl_side.module("downstream.sv_voxceleb1.utils").EER(same.astype(int), scores)
    assert metrics.equal_error_rate(same, scores) == pytest.approx(100 * expected, abs=1e-9)

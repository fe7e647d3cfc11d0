"""The loss of every task on one batch, and its gradient down to the layer weights, against s3prl's experts."""

import parity_cases
import pytest
import s3prl_side
import torch

from harness.probes.stacked import HEAD, LAYERS, build_bank

TOLERANCE = 1e-5
PLACES = [3, 11, 20, 7, 31, 15]


def prepared(name, tmp_path):
    """A case whose layer weights are not uniform; ASV gets equal lengths, see test_asv_padding_against_s3prl."""
    case = parity_cases.make(name, tmp_path, equal=name == "asv")
    bank = build_bank([case.head], case.num_states, "cpu")
    with torch.no_grad():
        bank.params[LAYERS][0] = torch.tensor([0.5, -1.0, 2.0, 0.1])
        case.featurizer.weights.copy_(bank.params[LAYERS][0])
    if name == "asv":  # in eval mode its head gives embeddings; there is no dropout in it
        case.head.train()
    else:
        case.head.eval()
        case.expert.eval()
    return case, bank


def our_loss(case, bank, places):
    x, lengths = case.batch(places)
    output = bank(x, lengths)
    return case.task.loss(output[0], lengths, [case.targets[i] for i in places], case.labels)


def their_loss(case, places):
    return s3prl_side.loss(case.name, case.expert, case.features(places), [case.targets[i] for i in places])[0]


def assert_same(case, bank, places):
    actual = our_loss(case, bank, places).mean()
    expected = their_loss(case, places)
    torch.testing.assert_close(actual, expected, atol=TOLERANCE, rtol=1e-6)
    names = dict(case.expert.named_parameters())
    wanted = torch.autograd.grad(expected, [*names.values(), case.featurizer.weights])
    wanted = dict(zip([*names, LAYERS], wanted, strict=True))
    found = torch.autograd.grad(actual, list(bank.params.values()))
    for key, grad in zip(bank.params, found, strict=True):
        name = LAYERS if key == LAYERS else s3prl_side.their_name(case.name, key.removeprefix(HEAD))
        assert wanted[name].abs().max() > 10 * TOLERANCE, name
        torch.testing.assert_close(grad[0], wanted[name], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", parity_cases.TASKS)
def test_loss_and_gradient(name, tmp_path):
    case, bank = prepared(name, tmp_path)
    assert_same(case, bank, PLACES)


@pytest.mark.parametrize("name", ["asr", "pr"])
def test_ctc_targets_that_do_not_fit(name, tmp_path):
    """They count as zero, in the mean too; a repeated symbol needs one frame more than it has symbols."""
    case, bank = prepared(name, tmp_path)
    frames = case.num_frames("u11")
    exact = ([5, 6] * frames)[:frames]
    case.targets[11] = exact
    assert (our_loss(case, bank, PLACES) > 0).all()
    assert_same(case, bank, PLACES)
    case.targets[11] = [*exact[:-1], exact[-2]]  # as long, and its last symbol is a repetition
    case.targets[7] = [5, 6] * case.num_frames("u7")
    assert (our_loss(case, bank, PLACES) == 0).tolist() == [place in (11, 7) for place in PLACES]
    assert_same(case, bank, PLACES)


def test_targets_are_those_of_s3prl(tmp_path):
    """The closing symbols and the numbers of the classes, as s3prl's own text encoders give them."""
    phones = parity_cases.make("pr", tmp_path)
    characters = parity_cases.make("asr", tmp_path)
    for row, target in zip(phones.manifest.split("train"), phones.targets, strict=True):
        assert target == phones.expert.tokenizer.encode(row.label)
    dictionary = characters.expert.dictionary
    assert tuple(dictionary.symbols) == characters.labels.slots[0]
    for row, target in zip(characters.manifest.split("train"), characters.targets, strict=True):
        line = " ".join(row.text.replace(" ", "|")) + " |"
        assert target == dictionary.encode_line(line, line_tokenizer=str.split, add_if_not_exist=False).tolist()

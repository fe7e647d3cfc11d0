import subprocess
import sys
from pathlib import Path

import pytest
import torch

from downstreams.asr import ASR
from downstreams.asv import ASV
from downstreams.er import ER
from downstreams.ic import IC
from downstreams.ks import KS
from downstreams.pr import PR
from downstreams.sid import SID
from harness import metrics
from harness.interface import Manifest, SlimbenchError, Trial, Utterance
from harness.metrics import score


def manifest(task, rows, trials=None):
    """Rows are (split, speaker, text, label)."""
    made = tuple(
        Utterance(f"u{i}", split, Path(f"u{i}.wav"), speaker, text, label, None, 1.0, i + 2)
        for i, (split, speaker, text, label) in enumerate(rows)
    )
    return Manifest(task, Path("manifest.csv"), made, trials or {}, "digest")


def one_hot(indices, classes):
    return 10.0 * torch.nn.functional.one_hot(torch.tensor(indices), classes).float()


def test_asr_symbols_are_those_of_superb():
    (symbols,) = ASR.labels(manifest("asr", [])).slots
    assert len(symbols) == 32
    assert symbols[:7] == ("<s>", "<pad>", "</s>", "<unk>", "|", "E", "T")
    assert symbols[-1] == "Z"


def test_asr_target_and_decode_are_inverse():
    data = manifest("asr", [("test", "", " he  said No ", "")])
    labels = ASR.labels(data)
    target = ASR.target(data.utterances[0], labels)
    assert "".join(labels.slots[0][i] for i in target) == "HE|SAID|NO|</s>"
    path = [i for symbol in target for i in (symbol, 0)]  # a blank after each symbol
    output = one_hot([path], 32)
    said = ASR.predict(output, torch.tensor([len(path)]), labels)
    assert said == ["HE SAID NO"]
    rows = ASR.rows(data, "test", {"u0": said[0]}, labels)
    assert rows == [{"id": "u0", "speaker": "", "ref": "HE SAID NO", "hyp": "HE SAID NO"}]


@pytest.mark.parametrize("text", ["ROOM 7", "CAFÉ", "<S>", "A|B", ""])
def test_asr_refuses_what_it_cannot_spell(text):
    data = manifest("asr", [("train", "", text, "")])
    with pytest.raises(SlimbenchError):
        ASR.target(data.utterances[0], ASR.labels(data))


def test_pr_labels_come_from_train_and_end_in_eos():
    data = manifest("pr", [("train", "", "", "T AH T"), ("dev", "", "", "T ZH")])
    labels = PR.labels(data)
    assert labels.slots == (("<pad>", "<eos>", "<unk>", "AH", "T"),)
    assert PR.target(data.utterances[0], labels) == [4, 3, 4, 1]
    with pytest.raises(SlimbenchError, match="ZH"):
        PR.target(data.utterances[1], labels)


def test_pr_has_superbs_74_symbols_where_stress_is_marked():
    data = manifest("pr", [("train", "", "", "T AH0 T"), ("dev", "", "", "T ZH")])
    labels = PR.labels(data)
    assert labels.size == PR.superb_labels == 74
    assert labels.slots[0][:5] == ("<pad>", "<eos>", "<unk>", "SIL", "SPN")
    assert PR.target(data.utterances[1], labels)[-1] == 1  # a phone that train lacks is in the table all the same


def test_per_2021_cannot_say_a_phone_twice():
    rows = [{"id": "u", "speaker": "", "ref": "N N OW", "hyp": "N N OW"}]
    assert (score("per", rows), score("per_2021", rows)) == (0.0, pytest.approx(100 / 3))


def test_pr_decode_keeps_repeated_phones_and_drops_eos():
    labels = PR.labels(manifest("pr", [("train", "", "", "N OW")]))
    output = one_hot([[3, 0, 3, 3, 4, 1, 0]], 5)
    assert PR.predict(output, torch.tensor([7]), labels) == ["N N OW"]


def test_labels_keep_first_appearance_and_speakers_are_sorted():
    rows = [("train", "", "", label) for label in ("yes", "no", "yes", "go")]
    assert KS.labels(manifest("ks", rows)).slots == (("yes", "no", "go"),)
    assert SID.labels(manifest("sid", rows)).slots == (("go", "no", "yes"),)


def test_intent_is_right_only_if_all_slots_are():
    rows = [("train", "", "", "on|lamp|hall"), ("train", "", "", "off|heat|hall"), ("test", "", "", "off|lamp|hall")]
    data = manifest("ic", rows)
    labels = IC.labels(data)
    assert labels.slots == (("on", "off"), ("lamp", "heat"), ("hall",))
    assert labels.size == 5
    assert IC.target(data.utterances[2], labels) == [1, 0, 0]
    output = torch.tensor([[0.0, 1, 1, 0, 0], [1, 0, 1, 0, 0], [0, 1, 0, 1, 0]])
    predictions = IC.predict(output, torch.ones(3), labels)
    assert predictions == ["off|lamp|hall", "on|lamp|hall", "off|heat|hall"]
    scores = [metrics.score("accuracy", IC.rows(data, "test", {"u2": said}, labels)) for said in predictions]
    assert scores == [100.0, 0.0, 0.0]


def test_intent_loss_is_the_sum_of_three_cross_entropies():
    data = manifest("ic", [("train", "", "", "a|b|c"), ("train", "", "", "d|e|f")])
    labels = IC.labels(data)
    output = torch.randn(2, 6)
    log = torch.cat([output[:, i : i + 2].log_softmax(-1) for i in (0, 2, 4)], dim=-1)
    expected = torch.stack([-(log[0, 0] + log[0, 2] + log[0, 5]), -(log[1, 1] + log[1, 3] + log[1, 4])])
    torch.testing.assert_close(IC.loss(output, torch.ones(2), [[0, 0, 1], [1, 1, 0]], labels), expected)


@pytest.mark.parametrize("label", ["a|b", "a||c", ""])
def test_malformed_intent_names_file_and_row(label):
    with pytest.raises(SlimbenchError, match=r"manifest\.csv, row 3.*3 values"):
        IC.labels(manifest("ic", [("train", "", "", "a|b|c"), ("train", "", "", label)]))


@pytest.mark.parametrize("task", [KS, SID, ER])
def test_label_that_train_lacks_is_an_error(task):
    data = manifest(task.name, [("train", "", "", "x"), ("dev", "", "", "y")])
    with pytest.raises(SlimbenchError, match="'y'"):
        task.target(data.utterances[1], task.labels(data))


def verification():
    rows = [("train", "b", "", ""), ("train", "a", "", ""), *(("dev", s, "", "") for s in "ccd")]
    trials = {"dev": (Trial(True, "u2", "u3"), Trial(False, "u2", "u4"))}
    return manifest("asv", rows, trials)


def test_verification_rows_are_trials_with_cosines():
    data = verification()
    labels = ASV.labels(data)
    assert labels.slots == (("a", "b"),)
    assert [ASV.target(u, labels) for u in data.utterances] == [[1], [0], [], [], []]
    vectors = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]]), dim=-1)
    said = dict(zip(("u2", "u3", "u4"), ASV.predict(vectors, torch.ones(3), labels), strict=True))
    first, second = ASV.rows(data, "dev", said, labels)
    assert first == {"enrol": "u2", "test": "u3", "speakers": ["c", "c"], "same": True, "score": first["score"]}
    assert first["score"] == pytest.approx(0.5**0.5)
    assert second["score"] == pytest.approx(0.0)
    assert second["same"] is False


def test_verification_without_trials_or_with_unknown_ones_is_an_error():
    data = verification()
    labels = ASV.labels(data)
    with pytest.raises(SlimbenchError, match="trials_test"):
        ASV.rows(data, "test", {}, labels)
    with pytest.raises(SlimbenchError, match="u3"):
        ASV.rows(data, "dev", {"u2": [1.0], "u4": [1.0]}, labels)


def test_missing_prediction_is_an_error():
    data = manifest("ks", [("train", "", "", "x")])
    with pytest.raises(SlimbenchError, match="u0"):
        KS.rows(data, "train", {}, KS.labels(data))


def test_importing_a_task_does_not_import_torch():
    code = "import sys, downstreams.asr, downstreams.asv, downstreams.ic, downstreams.pr; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"

"""Other people's formats: s3prl's prediction files byte by byte, CSV, model cards as the hub's library reads them."""

import argparse
import csv
import io
import zipfile

import pytest
import yaml
from huggingface_hub import ModelCard
from tampering import UPSTREAM, plain

from harness import metrics
from harness.interface import SlimbenchError
from harness.records import Record
from leaderboards.submissions import exchange_verbs, testsets
from leaderboards.submissions.exchange import model_index, s3prl, table
from leaderboards.submissions.exchange.scores import of_records, records_at
from leaderboards.submissions.verification import ACCEPTED

EMBEDDED = ("--results", ACCEPTED, "--suite", "embedded")


@pytest.fixture(scope="module")
def accepted():
    return [one for one in records_at(ACCEPTED / f"{UPSTREAM}.zip") if one.suite == "embedded"]


def call(*arguments):
    parser = argparse.ArgumentParser()
    added = parser.add_subparsers()
    exchange_verbs.add_export(added)
    exchange_verbs.add_import(added)
    options = parser.parse_args([str(a) for a in arguments])
    return options.run(options) or 0


def record(task, metric, rows, seeds=(0,)):
    content = plain("ks") | {"task": task, "metric": metric, "seeds": list(seeds), "secondary": {}}
    content["predictions"] = {str(seed): rows for seed in seeds}
    content.pop("digest")
    return Record(**content)


def said(*pairs, **more):
    return [{"id": name, "speaker": "s", "ref": "r", "hyp": hyp, **more} for name, hyp in pairs]


LIBRI = "LibriSpeech/test-clean/1089/134686/1089-134686-000"
VOX = "VoxCeleb1/test/wav/id10270/5r0dWxy17C8/0000"
CASES = {
    "asr": (
        record("asr", "wer", said((LIBRI + "0", "HE SAID"), (LIBRI + "1", ""))),
        {"asr/test-clean-noLM-hyp.ark": "1089-134686-0000 HE SAID\n1089-134686-0001 \n"},
        "predict/asr_public/predict.ark",
    ),
    "pr": (
        record("pr", "per", said((LIBRI + "0", "HH IY1 SPN"))),
        {"pr/test-hyp.ark": "1089-134686-0000 HH IY1 SPN\n"},
        "predict/pr_public/predict.ark",
    ),
    "ks": (
        record("ks", "accuracy", said(("speech_commands_test/yes/0a_nohash_0", "yes"))),
        {"ks/test_predict.txt": "yes-0a_nohash_0.wav yes\n"},
        "predict/ks_public/predict.txt",
    ),
    "ic": (
        record("ic", "accuracy", said(("fluent/wavs/speakers/x/ab-cd", "change language|none|none"))),
        {"ic/test_predict.csv": "ab-cd,change language,none,none\n"},
        "predict/ic_public/predict.csv",
    ),
    "sid": (
        record("sid", "accuracy", said((VOX + "1", "id10271"))),
        {"sid/test_predict.txt": "id10270-5r0dWxy17C8-00001 id10271\n"},
        "predict/sid_public/predict.txt",
    ),
    "er": (
        record("er", "accuracy", said(("a/Ses01F_impro01_F000", "neu"), fold=1) + said(("a/Ses02F_x", "sad"), fold=2)),
        {
            "er_fold1/test_fold1_predict.txt": "Ses01F_impro01_F000 neu\n",
            "er_fold2/test_fold2_predict.txt": "Ses02F_x sad\n",
        },
        "predict/er_fold1_public/predict.txt",
    ),
    "asv": (
        record(
            "asv",
            "eer",
            [{"enrol": VOX + "1", "test": VOX + "2", "speakers": ["a", "a"], "same": True, "score": 0.25}],
        ),
        {"sv/test_predict.txt": "id10270-5r0dWxy17C8-00001_id10270-5r0dWxy17C8-00002 0.25\n"},
        "predict/sv_public/predict.txt",
    ),
}


@pytest.mark.parametrize("task", CASES)
def test_files_are_as_s3prl_writes_them(task):
    """Expected bytes follow what s3prl's experts and its packing script do with SUPERB's own file names."""
    made, wanted, member = CASES[task]
    files = s3prl.write([made])
    assert {name: data.decode() for name, data in files.items() if not name.startswith("predict/")} == wanted
    assert files[member].decode() == next(iter(wanted.values()))
    assert len(files) == 2 * len(wanted)


def test_a_language_model_has_a_file_of_its_own():
    rows = said((LIBRI + "0", "HE SET"), hyp_wer_lm="HE SAID")
    files = s3prl.write([record("asr", "wer", rows)])
    assert files["asr/test-clean-LM-hyp.ark"] == b"1089-134686-0000 HE SAID\n"
    assert files["predict/asr_lm_public/predict.ark"] == b"1089-134686-0000 HE SAID\n"


def test_predictions_come_back_with_the_scores_of_their_seed(tmp_path, accepted, capsys):
    out = tmp_path / "out"
    assert call("export", UPSTREAM, "--as", "s3prl", *EMBEDDED, "--seed", 1, "--out", out) == 0
    with zipfile.ZipFile(out / "predict.zip") as made:
        assert "predict/sv_public/predict.txt" in made.namelist()
    capsys.readouterr()
    for path in (out, out / "predict.zip"):
        assert call("import", path, "--suite", "embedded") == 0
        rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
        values = {(row["task"], row["metric"]): float(row["value"]) for row in rows}
        for one in accepted:
            assert values[one.task, one.metric] == pytest.approx(one.values_per_seed[1], abs=1e-9)
        assert {row["seeds"] for row in rows} == {"1"}


def folder(tmp_path, text, name="ks/test_predict.txt"):
    path = tmp_path / "p" / name
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return tmp_path / "p"


def test_imported_predictions_are_scored_by_hand(tmp_path):
    items = tuple({"id": f"d/w/{name}", "speaker": name, "ref": "yes"} for name in "abcd")
    sets = {"ks": testsets.TestSet("m", {}, items, {})}
    path = folder(tmp_path, "w-d.wav no\nw-a.wav yes\nw-b.wav yes\nw-c.wav yes\n")
    (found,) = s3prl.scores(path, "tiny", "own", sets, "theirs", 100)
    assert (found.value, found.n_test, found.task, found.metric) == (75.0, 4, "ks", "accuracy")
    assert 0 <= found.low <= 75.0 <= found.high <= 100


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("w-a.wav yes\n", "says nothing of 1 test items, such as w-b.wav"),
        ("w-a.wav yes\nw-b.wav no\nw-x.wav no\n", "such as 'w-x.wav'"),
        ("w-a.wav yes\nw-b.wav no\nw-b.wav yes\n", "twice, such as 'w-b.wav'"),
    ],
)
def test_predictions_that_are_not_of_the_test_set_are_refused(tmp_path, lines, reason):
    items = tuple({"id": f"d/w/{name}", "speaker": name, "ref": "yes"} for name in "ab")
    sets = {"ks": testsets.TestSet("m", {}, items, {})}
    with pytest.raises(SlimbenchError, match=reason):
        s3prl.scores(folder(tmp_path, lines), "tiny", "own", sets, "theirs", 100)


def test_files_that_are_no_predictions_are_refused(tmp_path):
    with pytest.raises(SlimbenchError, match="none of s3prl's prediction files"):
        s3prl.read(tmp_path)
    (tmp_path / "x.zip").write_bytes(b"no zip")
    with pytest.raises(SlimbenchError, match="cannot be read"):
        s3prl.read(tmp_path / "x.zip")
    with pytest.raises(SlimbenchError, match="several files"):
        call("export", UPSTREAM, "--as", "s3prl", "--results", ACCEPTED)


def test_csv_keeps_every_digit(tmp_path, accepted, capsys):
    out = tmp_path / "scores.csv"
    assert call("export", UPSTREAM, *EMBEDDED, "--out", out) == 0
    assert table.read(out) == of_records(accepted)
    rows = {row["task"]: row for row in csv.DictReader(out.open()) if row["metric"] != "cer"}
    assert float(rows["ks"]["value"]) == metrics.score(
        "accuracy", [r for v in plain("ks")["predictions"].values() for r in v]
    )
    assert call("import", out, "--results", ACCEPTED) == 0
    out.write_text(out.read_text().replace("73.71794871794872", "83.71794871794872"))
    capsys.readouterr()
    assert call("import", out, "--results", ACCEPTED) == 1
    assert "value is 83.71794871794872 and in record a025ac66c9bc 73.71794871794872" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("=cmd(),own,u,t,wer,1,,,,,", "suite is '=cmd"),
        ("s,own,u,t,wer,nan,,,,,", "value is 'nan'"),
        ("s,own,u,t,wer,,,,,,", "value is ''"),
        ("s,own,u,t,wer,1,x,,,,", "low is 'x'"),
        ("s,own,u,t,mtwv,1,,,,,", "metric is 'mtwv'"),
        ("s,own,u,t,wer,1", "number of cells"),
    ],
)
def test_a_table_with_something_else_is_refused(tmp_path, line, reason):
    path = tmp_path / "x.csv"
    path.write_text(",".join(table.COLUMNS) + "\n" + line + "\n")
    with pytest.raises(SlimbenchError, match="line 2") as caught:
        table.read(path)
    assert reason in str(caught.value)


def test_a_model_card_is_what_the_hub_reads(tmp_path, accepted):
    text = model_index.write(accepted)
    results = ModelCard(text + "\n# My model\n").data.eval_results
    by_task = {(r.dataset_type, r.task_name, r.metric_type): r for r in results}
    assert len(by_task) == len(of_records(accepted))
    for one in accepted:
        found = by_task["slimbench/embedded", one.task, one.metric]
        assert found.metric_value == one.value
        assert [found.metric_args["low"], found.metric_args["high"]] == list(one.ci95)
        assert not found.verified
    path = tmp_path / "README.md"
    path.write_text(text + "\n# My model\n")
    assert model_index.read(path) == (of_records(accepted), 0)


def test_results_on_other_data_are_counted_and_left_out(tmp_path):
    other = {"task": {"type": "x"}, "dataset": {"type": "librispeech"}, "metrics": [{"type": "wer", "value": 3}]}
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump({"model-index": [{"name": "m", "results": [other]}]}))
    assert model_index.read(path) == ([], 1)


@pytest.mark.parametrize(
    "text",
    ["", "- 1", "model-index: 3", "model-index: [3]", "model-index: [{results: [{dataset: 3}]}]", "a: &x [1]\nb: *x",
     "!!python/name:os.system ''", "[" * 3000,
     "model-index: [{results: [{dataset: {type: slimbench/s}, task: {}, metrics: [{type: wer, value: .nan}]}]}]"],
)  # fmt: skip
def test_a_model_card_without_the_block_is_refused(tmp_path, text):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(SlimbenchError, match=r"c\.yaml"):
        model_index.read(path)

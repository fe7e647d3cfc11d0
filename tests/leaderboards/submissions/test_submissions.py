"""Submissions: the accepted ones, packing, changed members, the verbs."""

import argparse
import hashlib
import json
import shutil
from types import SimpleNamespace

import pytest
import yaml
from tampering import UPSTREAM, few_members, flipped, members, plain, repacked, resealed

from harness import plan, records, registry, suite
from harness.interface import Manifest, SlimbenchError
from leaderboards.submissions import archive, cards, rules, submission, testsets, verbs, verification
from leaderboards.submissions.verification import ACCEPTED


def verdict(tmp_path, files):
    path = tmp_path / "s.zip"
    path.write_bytes(files if isinstance(files, bytes) else archive.pack(files))
    (found,) = verification.verify(path)
    return found


def refusal(tmp_path, files):
    found = verdict(tmp_path, files)
    assert not found.accepted
    return next(str(f) for f in found.findings if f.refuses)


def call(*arguments):
    parser = argparse.ArgumentParser()
    added = parser.add_subparsers()
    verbs.add_submit(added)
    verbs.add_verify(added)
    options = parser.parse_args([str(a) for a in arguments])
    return options.run(options)


@pytest.mark.parametrize("path", sorted(ACCEPTED.rglob("*.zip")), ids=lambda p: p.name)
def test_accepted_submissions_are_verified(path):
    (found,) = verification.verify(path)
    assert [str(f) for f in found.findings if f.refuses] == []
    assert found.records


def test_accepted_records_can_be_read_for_tables():
    found = verification.accepted()
    assert {record.upstream["name"] for record in found} == {path.stem for path in ACCEPTED.glob("*.zip")}
    assert len({record.key for record in found}) == len(found)


@pytest.fixture
def results(tmp_path):
    """A results folder with two real records."""
    for name, data in members().items():
        if "/ks-" in name or "/er-" in name:
            path = tmp_path / "results" / name.removeprefix("records/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    return tmp_path / "results"


def test_submit_packs_records_card_and_digest_but_no_weights(tmp_path, results, capsys):
    out = tmp_path / "out.zip"
    assert call("submit", UPSTREAM, "--results", results, "--out", out) == 0
    packed = archive.unpack(out)
    assert {
        name: data for name, data in members().items() if "/ks-" in name or "/er-" in name
    }.items() <= packed.items()
    assert set(packed) - set(members()) == set()
    assert json.loads(packed["manifest.json"])["weights_sha256"] == registry.card(UPSTREAM).sha256
    assert len(packed) == 4
    assert "2 records of suite embedded" in capsys.readouterr().out
    first = out.read_bytes()
    shutil.copytree(results, tmp_path / "copy")
    assert submission.make(UPSTREAM, tmp_path / "copy")[0] == first
    assert call("verify", out) == 0
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["out.zip"]


def test_submit_writes_nothing_that_would_be_refused(tmp_path, results):
    content = plain("ks") | {"value": 99.0}
    for path in (results / "embedded" / UPSTREAM).glob("ks-*"):
        path.write_bytes(resealed(content))
    with pytest.raises(SlimbenchError, match=r"Nothing was written.*value: it states value = 99"):
        call("submit", UPSTREAM, "--results", results, "--out", tmp_path / "out.zip")
    assert not [path for path in tmp_path.iterdir() if path.is_file()]


def test_submit_writes_right_into_the_accepted_ones(tmp_path, results, monkeypatch):
    monkeypatch.setattr(verification, "ACCEPTED", tmp_path / "accepted")
    out = tmp_path / "accepted" / f"{UPSTREAM}.zip"
    assert call("submit", UPSTREAM, "--results", results, "--out", out) == 0
    assert call("verify", out.parent) == 0
    assert list(out.parent.iterdir()) == [out]


def test_submit_says_what_is_missing(results):
    with pytest.raises(SlimbenchError, match="no record of fbank"):
        submission.make("fbank", results)
    with pytest.raises(SlimbenchError, match="on suite 'superb'"):
        submission.make(UPSTREAM, results, ["superb"])


def test_of_several_records_the_newest_of_the_newest_weights_is_packed(results):
    older = plain("ks") | {"created": "2020-01-01T00:00:00+00:00", "key": "1" * 64}
    other = plain("er") | {"created": "2020-01-01T00:00:00+00:00", "key": "2" * 64}
    other["upstream"] = other["upstream"] | {"fingerprint": "f" * 64}
    for content in (older, other):
        path = records.path_of(results, "embedded", UPSTREAM, content["task"], content["key"])
        path.write_bytes(resealed(content))
    packed, notes = submission.make(UPSTREAM, results)
    assert packed == submission.make(UPSTREAM, results)[0]
    assert any("1 records of other weights" in note for note in notes)
    assert any("1 older records" in note for note in notes)


def test_a_member_that_was_changed_is_refused(tmp_path):
    files = few_members()
    name = next(name for name in files if "/ks-" in name)
    edited = files | {name: files[name].replace(b'"hyp":"left"', b'"hyp":"yes"', 1)}
    assert f"manifest.json: files.{name}: digest or size" in refusal(tmp_path, edited)
    assert f"{name}: digest: it was changed" in refusal(tmp_path, repacked(edited))
    content = json.loads(files[name])
    edited[name] = resealed(content | {"value": flipped(content["value"])})
    assert f"{name}: value: it states" in refusal(tmp_path, repacked(edited))


def test_members_must_be_those_that_the_manifest_lists(tmp_path):
    files = few_members()
    name = next(name for name in files if "/ks-" in name)
    assert "does not list" in refusal(tmp_path, {**files, "more.json": b"{}"})
    assert "does not list" in refusal(tmp_path, {k: v for k, v in files.items() if k != name})
    assert "there is no manifest.json" in refusal(tmp_path, {k: v for k, v in files.items() if k != "manifest.json"})
    moved = {k: v for k, v in files.items() if k != name} | {"records/embedded/other/ks-1.json": files[name]}
    assert "belongs at" in refusal(tmp_path, repacked(moved))
    assert "not a record" in refusal(tmp_path, repacked({**files, "run.py": b"{}"}))
    only = {k: v for k, v in files.items() if not k.startswith("records/")}
    assert "no records" in refusal(tmp_path, repacked(only))


@pytest.mark.parametrize("field", ["format", "version", "upstream", "weights_sha256"])
def test_a_manifest_that_says_something_else_is_refused(tmp_path, field):
    refusal(tmp_path, repacked(few_members(), {field: "0" * 64}))


def with_card(**changes):
    files = few_members()
    fields = yaml.safe_load(files["card.yaml"]) | changes
    return repacked({**files, "card.yaml": yaml.safe_dump(fields).encode()})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"title": "Better"}, "title: it is 'Better' and the record of"),
        ({"depth": 24}, "depth"),
        ({"width": 768}, "width"),
        ({"name": "other"}, "it is 'other' and the submission is of 'wavlm_mini'"),
        ({"sha256": "0" * 64}, "sha256"),
        ({"sha256": "xyz"}, "64 hexadecimal digits"),
        ({"weights": "/home/me/model.safetensors"}, "a path of some machine"),
        ({"options": {"config": "~/secret"}}, "options.config"),
        ({"exposes": "a\x1b[2Jb"}, "control characters"),
        ({"licence": None}, "'licence' is missing"),
        ({"colour": "red"}, "unknown field 'colour'"),
        ({"weights": None, "sha256": None}, "sha256"),
    ],
)
def test_a_card_that_does_not_fit_is_refused(tmp_path, changes, said):
    text = refusal(tmp_path, with_card(**changes))
    assert "card.yaml" in text
    assert said in text
    assert "\n" not in text


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"!!python/object/apply:os.system ['echo']",
        b"a: &x [1]\nb: *x",
        b"[" * 5000,
        b"name: \xff",
        b"x" * 70_000,
    ],
)
def test_a_card_that_is_none_is_refused(tmp_path, text):
    assert "card.yaml" in refusal(tmp_path, repacked({**few_members(), "card.yaml": text}))


def test_the_name_of_other_weights_is_taken(tmp_path):
    """A name of this repository with other weights, consistent within itself, is refused."""
    files = few_members()
    fields = yaml.safe_load(files["card.yaml"]) | {"sha256": "0" * 64}
    changed = repacked({**files, "card.yaml": yaml.safe_dump(fields).encode()}, {"weights_sha256": "0" * 64})
    assert "is the name of other weights" in refusal(tmp_path, changed)


def test_nothing_that_a_card_names_is_imported_or_opened(tmp_path, monkeypatch):
    module = tmp_path / "evil_adapter.py"
    module.write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert verdict(tmp_path, with_card(adapter="evil_adapter:X")).accepted


def test_paths_of_this_machine_stay_here(tmp_path):
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"weights")
    text = "name: mine\ntitle: Mine\nadapter: a.b:C\nlicence: MIT\nsource: here\nexposes: all\n"
    (tmp_path / "mine.yaml").write_text(text + f"weights: {weights}\n")
    packed, digest = cards.pack(registry.card(str(tmp_path / "mine.yaml")))
    assert str(tmp_path) not in packed.decode()
    assert yaml.safe_load(packed)["weights"] == "${SLIMBENCH_WEIGHTS}/model.safetensors"
    assert cards.read(packed, "mine", "c").sha256 == digest == hashlib.sha256(b"weights").hexdigest()
    (tmp_path / "mine.yaml").write_text(text + f"options: {{config: {tmp_path}/x.json}}\n")
    with pytest.raises(SlimbenchError, match="a path of this machine"):
        cards.pack(registry.card(str(tmp_path / "mine.yaml")))


def test_verify_a_folder_and_exit_codes(tmp_path, results, capsys):
    shutil.copy(ACCEPTED / "fbank.zip", results / "fbank.zip")
    assert call("verify", results) == 0
    assert "3 of 3 files verified" in capsys.readouterr().out
    path = next((results / "embedded" / UPSTREAM).glob("ks-*"))
    path.write_bytes(path.read_bytes().replace(b'"n_test": 312', b'"n_test": 313'))
    assert call("verify", results) == 1
    assert f"refused: {path}: digest: it was changed" in capsys.readouterr().out
    assert call("verify", "--json", path) == 1
    (said,) = json.loads(capsys.readouterr().out)
    assert said["verified"] is False
    with pytest.raises(SlimbenchError, match="holds no submission"):
        call("verify", tmp_path / "nothing")


def test_a_record_in_the_wrong_place_and_a_link_are_refused(results):
    path = next((results / "embedded" / UPSTREAM).glob("ks-*"))
    copy = results / "embedded" / "other" / path.name
    copy.parent.mkdir()
    copy.write_bytes(path.read_bytes())
    (results / "embedded" / "other" / "link.json").symlink_to(path)
    refused = [v for v in verification.verify(results) if not v.accepted]
    assert sorted(v.path.name for v in refused) == sorted([path.name, "link.json"])


@pytest.mark.parametrize(("name", "protocol"), [("embedded", None), ("superb", "superb"), ("superb", "fast")])
def test_the_key_is_worked_out_as_a_bench_does(name, protocol):
    chosen = suite.load(name, protocol)
    for task in map(registry.task, chosen.tasks):
        rule = suite.protocol(chosen, task)
        keys = {"b": "2", "a": "1"}
        table = Manifest(task.name, None, (), digest="m")
        bench = plan.record_key(SimpleNamespace(fingerprint="f"), chosen, task.name, table, rule, keys, (0, 1))
        extraction = plan.features.settings(chosen.dtype)
        data = {"manifest_digest": "m", "protocol_version": plan.PROTOCOL_VERSION, **extraction}
        stated = json.loads(json.dumps(rule.__dict__))
        record = SimpleNamespace(
            data=data, upstream={"fingerprint": "f"}, task=task.name, protocol=stated, seeds=[0, 1]
        )
        assert rules.key_of(record, chosen, testsets.TestSet("m", {}, (), keys)) == bench


def test_committed_test_sets_round_trip(tmp_path):
    known = testsets.known("embedded")
    testsets.write(known, tmp_path / "x.json.gz")
    assert (tmp_path / "x.json.gz").read_bytes() == (testsets.FOLDER / "embedded.json.gz").read_bytes()
    assert {name: len(found.items) for name, found in known.items()} == {
        "asr": 320, "pr": 320, "ks": 312, "ic": 320, "sid": 336, "asv": 2240, "er": 320,
    }  # fmt: skip

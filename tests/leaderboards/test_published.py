import shutil
from dataclasses import FrozenInstanceError

import pytest
from fake_records import fake

from harness import registry
from harness.interface import SlimbenchError
from leaderboards import published as room
from leaderboards.published import MARKS, MEASURED, PUBLISHED, Measured, Value, measured_of, of_card, published, read
from leaderboards.published.loader import FOLDER
from leaderboards.published.marks import footnotes


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(FOLDER, tmp_path / "published", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    return tmp_path / "published"


def change(folder, old, new, file="features.yaml"):
    path = folder / file
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_all_rows_are_here():
    rows = published().listed()
    assert len(rows) == 72
    assert len(published().rows) == 73  # and FBANK with the values of the papers
    kinds = [row.source_kind for row in rows]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        "authors_or_leaderboard": 49,
        "quoted_by_later_paper": 7,
        "secondary_digest": 6,
        "digitised_plot": 3,
        "none": 7,
    }
    assert sum(row.status == "not_recovered" for row in rows) == 7
    assert sum("pr.per" in row.values for row in rows) == 54
    assert sum("asr.wer" in row.values for row in rows) == 58


def test_every_value_has_source_unit_and_mark():
    for row in published().rows:
        assert row.origin is PUBLISHED
        for value in row.values.values():
            assert value.origin is PUBLISHED
            assert value.sources
            assert all(source.title for source in value.sources)
            assert value.quantity.unit
            assert MARKS[value.mark.name] is value.mark


def test_profile_buckets_add_up():
    row = published().row("HuBERT Base")
    buckets = [row.value(f"macs_g_{bucket}") for bucket in ("short", "medium", "long", "longer")]
    assert sum(buckets) == pytest.approx(row.value("macs_g"), abs=0.011)


def test_what_was_digitised_or_came_second_hand_is_marked_value_by_value():
    point = published().row("Deep-vs-Wide ~9.93M point (inferred 12-L x 192/768)")
    assert point.values["sid.accuracy"].mark.name == "digitised"
    assert point.values["sid.accuracy"].precision == 0.05
    assert point.values["macs_g"].mark.name == "estimated"
    assert published().row("LightHuBERT Base (a_Base)").values["mean11"].mark.name == "second_hand"
    assert published().row("FitHuBERT-960h").values["pr.per"].mark.name == "quoted"
    assert published().row("FitHuBERT-960h").other[0].mark.name == "second_hand"
    distil = published().row("DistilHuBERT").values
    assert [distil[name].mark.name for name in ("asr.wer", "macs_g")] == ["printed", "estimated"]
    assert [s.name for s in distil["superb_s"].sources] == ["lighthubert_board"]


def test_two_sets_of_fbank_and_two_generations_of_wavlm():
    new, old = of_card("fbank")
    assert (new.edition, old.edition, old.alternate_of) == ("leaderboard", "paper", "FBANK")
    differ = {name for name in new.metrics() if new.value(name) != old.value(name)}
    assert differ == {"ks.accuracy", "sid.accuracy", "ic.accuracy", "er.accuracy"}
    assert (new.value("sid.accuracy"), old.value("sid.accuracy")) == (20.06, 0.085)
    new, old = of_card("wavlm_base")
    assert (new.edition, old.edition) == ("leaderboard", "paper")
    assert {n for n in new.metrics() if n in old.metrics() and new.value(n) != old.value(n)} == {"sd.der"}


def test_cards_of_rows_exist_and_are_of_the_shape_that_the_row_says():
    cards = registry.cards()
    named = [(row, cards[name]) for row in published().rows for name in row.cards]
    assert len(named) > 35
    for row, card in named:
        if row.layers is not None:
            assert card.depth == row.layers
    assert [row.system for row in of_card("distilhubert@paper")] == ["DistilHuBERT"]
    assert not of_card("wavlm_mini")


def test_measured_and_published_are_different_types_with_different_looks():
    cell = measured_of(fake("wavlm_mini", "asr", 38.4))
    assert set(cell) == {"asr.wer", "asr.cer"}
    assert isinstance(cell["asr.wer"], Measured)
    assert not isinstance(cell["asr.wer"], Value)
    assert cell["asr.wer"].origin is MEASURED
    for name in ("name", "title", "sign", "latex", "colour", "colour_dark", "filled", "footnote"):
        assert getattr(MEASURED, name) != getattr(PUBLISHED, name)
    signs = [mark.sign for mark in MARKS.values() if mark.sign] + [PUBLISHED.sign, "†", "*"]
    assert len(set(signs)) == len(signs), "† and * are the report's own"


def test_footnotes_explain_every_sign_once():
    row = published().row("DistilHuBERT")
    notes = footnotes([MEASURED, PUBLISHED, PUBLISHED], [v.mark for v in row.values.values()])
    assert len(notes) == 3
    assert notes[1].startswith(PUBLISHED.sign)
    assert notes[2].startswith(MARKS["estimated"].sign)


def test_rows_cannot_be_changed():
    row = published().row("HuBERT Base")
    with pytest.raises(FrozenInstanceError):
        row.system = "other"
    with pytest.raises(TypeError):
        row.values["pr.per"] = row.values["asr.wer"]
    with pytest.raises(SlimbenchError, match="No published row"):
        published().row("HuBERT")


def test_a_copy_reads_alike(folder):
    assert [row.system for row in read(folder).rows] == [row.system for row in published().rows]
    assert room.read is read


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("status: read", "stauts: read", "unknown field 'stauts', did you mean 'status'"),
        ("status: read", "status: recalled", "use one of read, not_recovered"),
        ("status: read", "status: not_recovered", "but there are scores"),
        ("  status: read\n", "", "the field 'status' is missing"),
        ("sources: [site, archive]", "sources: []", "no source"),
        ("sources: [site, archive]", "sources: [hearsay]", "'hearsay'"),
        ("pr.per: 82.01", "pr.per: 820.1", "from 0 to 200"),
        ("pr.per: 82.01", "pr.per: .nan", "finite number"),
        ("pr.per: 82.01", "pr.per: true", "finite number"),
        ("pr.per: 82.01", "pr.per: '82.01'", "finite number"),
        ("pr.per: 82.01", "pr.wer: 82.01", "unknown field 'pr.wer'"),
        ("qbe.mtwv: 0.0058", "qbe.mtwv: 5.8", "from -1 to 1"),
        ("pr.per: 82.01", "pr.per: 82.01, pr.per: 1", "occurs twice"),
        ("frame_ms: 10", "frame_ms: '10'", "whole number"),
        ("edition: paper", "edition: second", "use one of leaderboard, paper"),
        ("alternate_of: FBANK", "alternate_of: nothing", "which is no row"),
        ('system: "FBANK (paper)"', 'system: "FBANK"', "two rows"),
        ("source_kind: authors_or_leaderboard", "source_kind: none", "no mark"),
        ("marks: {macs_g: printed", "marks: {superb_s: printed", "has a mark or a source, but no value"),
        ("rows:", "rows: &x\n- *x\n#", "referred to"),
        ("rows:", "rows: !!python/object/apply:os.system [true]\n#", "not plain YAML"),
        ("rows:", "lines:", "unknown field 'lines'"),
    ],
)
def test_a_wrong_file_is_refused_in_a_sentence(folder, old, new, message):
    change(folder, old, new)
    with pytest.raises(SlimbenchError, match="published") as error:
        read(folder)
    assert message in str(error.value)


def test_a_missing_file_and_a_foreign_address_are_refused(folder):
    change(folder, "https://github.com", "http://github.com", "sources.yaml")
    with pytest.raises(SlimbenchError, match="https://"):
        read(folder)
    (folder / "sources.yaml").unlink()
    with pytest.raises(SlimbenchError, match=r"Cannot read .*sources\.yaml: No such file"):
        read(folder)

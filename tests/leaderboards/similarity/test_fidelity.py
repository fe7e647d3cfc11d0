import argparse
import csv
from dataclasses import replace

import numpy as np
import pytest
import torch
import toy_data
import toy_upstream
from fake_records import fake

from harness import records, stats
from harness.identity import digest_json
from harness.interface import SlimbenchError
from leaderboards.similarity import layers, states
from leaderboards.similarity.alignment import on_grid
from leaderboards.similarity.estimates import clusters
from leaderboards.similarity.fidelity import fidelity, teacher_of
from leaderboards.similarity.verb import add_verb

LABELS = ("yes", "no", "up")


def record(name, share=0.7, seeds=(0, 1, 2), task="ks", **changes):
    """A record of KS, of which about a ``share`` is right; the same answers for the same arguments."""
    ref = np.random.default_rng(0).choice(LABELS, 60)
    found = {}
    for seed in seeds:
        rng = np.random.default_rng([len(name), seed])
        said = np.where(rng.random(60) < share, ref, rng.choice(LABELS, 60))
        found[str(seed)] = [
            {"id": f"u{i}", "speaker": f"s{i % 10}", "ref": str(ref[i]), "hyp": str(said[i])} for i in range(60)
        ]
    values = [stats.mean_score("accuracy", [rows]) for rows in found.values()]
    more = {"seeds": list(seeds), "values_per_seed": values, "n_test": 60, "predictions": found}
    more["trials"] = [
        {"learning_rate": 1e-3, "seed": s, "dev": 50.0, "best_step": 9, "curve": [[9, 50.0]], "diverged": False}
        for s in seeds
    ]
    more |= {"learning_rate": 1e-3, "layer_weights": [[1.0]] * len(seeds), "key": digest_json([name, task, seeds])}
    return fake(name, task, float(np.mean(values)), **{**more, **changes})


def call(*arguments):
    parser = argparse.ArgumentParser()
    add_verb(parser.add_subparsers())
    options = parser.parse_args(["fidelity", *map(str, arguments)])
    options.run(options)


def only(found):
    ((task,),) = [board.tasks for board in found]
    return task


def test_probes_of_one_seed_are_compared_and_the_ceiling_is_the_teachers_own():
    teacher, student = record("wavlm_mini"), record("distilled_wavlm", seeds=(2, 1))
    task = only(fidelity([teacher, student], "distilled_wavlm", "wavlm_mini", repeats=100))
    said = {name: {s: [row["hyp"] for row in rows] for s, rows in r.predictions.items()}
            for name, r in (("student", student), ("teacher", teacher))}  # fmt: skip
    same = [np.mean(np.array(said["student"][s]) == np.array(said["teacher"][s])) for s in ("1", "2")]
    assert task.seeds == 2
    assert task.measures["agreement"].value == pytest.approx(np.mean(same))
    own = [np.mean(np.array(said["teacher"][a]) == np.array(said["teacher"][b])) for a, b in ("01", "02", "12")]
    assert task.ceiling.value == pytest.approx(np.mean(own))
    assert task.refusal is None


def test_an_upstream_is_wholly_faithful_to_its_twin():
    one = record("wavlm_mini")
    twin = fake("distilled_wavlm", "ks", one.value, **{name: getattr(one, name) for name in (
        "predictions", "values_per_seed", "n_test", "trials", "learning_rate", "layer_weights", "seeds")})  # fmt: skip
    task = only(fidelity([one, twin], "distilled_wavlm", "wavlm_mini", repeats=100))
    for name in ("agreement", "kappa", "on_right", "on_wrong"):
        assert task.measures[name].value == pytest.approx(1.0)
    assert task.ceiling.value < 0.9


def test_other_data_and_other_seeds_are_refused_and_said():
    teacher = record("wavlm_mini")
    other = record("distilled_wavlm", data={"train": 9, "dev": 9, "test": 60, "manifest_digest": "0" * 64})
    assert "different manifests" in only(fidelity([teacher, other], "distilled_wavlm", "wavlm_mini")).refusal
    other = record("distilled_wavlm", data={**teacher.data, "audio_digest": "0" * 64})
    task = only(fidelity([teacher, other], "distilled_wavlm", "wavlm_mini", repeats=100))
    assert task.refusal is None  # the teacher's record is older and does not say
    assert task.cautions
    other = record("distilled_wavlm", seeds=(7,))
    assert "share no seed" in only(fidelity([teacher, other], "distilled_wavlm", "wavlm_mini")).refusal
    other = record("distilled_wavlm")
    for rows in other.predictions.values():
        rows[5]["ref"] = "down"
    assert "different references" in only(fidelity([teacher, other], "distilled_wavlm", "wavlm_mini")).refusal


def test_the_teacher_is_the_one_that_record_or_card_names():
    student = record("distilled_wavlm")
    assert teacher_of([student], "distilled_wavlm", "another") == "wavlm_mini"
    assert teacher_of([], "x", "another") == "another"
    with pytest.raises(SlimbenchError, match=r"did you mean 'wavlm_mini'.*second argument"):
        teacher_of([student, record("wavlm_mini")], "wavlm_mimi", None)


def test_the_verb_writes_tables_and_figures_from_records_alone(tmp_path, capsys):
    for made in (record("wavlm_mini"), record("distilled_wavlm"), record("distilled_wavlm", suite="other")):
        records.save(made, tmp_path)
    call("distilled_wavlm", "--results", tmp_path, "--no-states", "--repeats", 100)
    out = tmp_path / "report" / "fidelity-distilled_wavlm"
    printed = capsys.readouterr().out
    assert printed == (out / "fidelity.md").read_text()
    assert "| KS | same label |" in printed
    assert "other" not in {path.name for path in out.iterdir()}
    with (out / "embedded" / "table_agreement.csv").open() as file:
        (line,) = csv.DictReader(file)
    expected = only(fidelity(records.load_all(tmp_path), "distilled_wavlm", "wavlm_mini", repeats=100))
    assert float(line["kappa"]) == expected.measures["kappa"].value
    assert line["teacher_key"] == record("wavlm_mini").key
    before = {path: path.read_bytes() for path in out.rglob("*.*")}
    assert {path.suffix for path in before} == {".md", ".csv", ".tex", ".pdf", ".png"}
    call("distilled_wavlm", "wavlm_mini", "--results", tmp_path, "--no-states", "--repeats", 100)
    assert {path: path.read_bytes() for path in out.rglob("*.*")} == before
    records.load_all(tmp_path)  # nothing of this is taken for a record


def test_what_cannot_be_compared_is_one_sentence(tmp_path):
    records.save(record("distilled_wavlm"), tmp_path)
    where = ("--results", tmp_path, "--no-states")
    with pytest.raises(SlimbenchError, match="wavlm_mini has no records"):
        call("distilled_wavlm", *where)
    records.save(record("wavlm_mini", suite="other"), tmp_path)
    with pytest.raises(SlimbenchError, match="no task in common"):
        call("distilled_wavlm", *where)
    with pytest.raises(SlimbenchError, match="name that with --suite"):
        call("distilled_wavlm", *where, "--data", tmp_path)
    with pytest.raises(SlimbenchError, match="--repeats 3 gives no 95 % interval"):
        call("distilled_wavlm", *where, "--repeats", 3)
    with pytest.raises(SlimbenchError, match="task 'kx', did you mean 'ks'"):
        call("distilled_wavlm", *where, "--tasks", "kx")


def test_frames_of_other_periods_meet_on_the_coarser_grid():
    states_10 = torch.arange(7, dtype=torch.float32)[None, :, None]
    assert on_grid(states_10, 10.0, 10.0).flatten().tolist() == list(range(7))
    assert on_grid(states_10, 10.0, 20.0).flatten().tolist() == [0.5, 2.5, 4.5, 6.0]
    # places 10, 30, 50, … ms in spans of 45 ms: by hand
    assert on_grid(states_10, 20.0, 45.0).flatten().tolist() == [0.5, 2.5, 5.0]


# From here on: tones, a toy upstream, the real line from audio to features.


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_LOG", str(tmp_path / "encoded.log"))
    threads = torch.get_num_threads()
    suite = toy_data.write(tmp_path / "data")
    cards = [toy_upstream.write_card(tmp_path / name, seed) for name, seed in (("one", 0), ("two", 1))]
    cards[1].write_text(cards[1].read_text().replace("name: toy", "name: pupil\nteacher: toy"))
    common = {"results": tmp_path / "results", "cache": tmp_path / "cache", "data": tmp_path / "data"}
    yield tmp_path, cards, states.Where(str(suite), **common, device="cpu", threads=1)
    torch.set_num_threads(threads)


def encoded(folder):
    log = folder / "encoded.log"
    return len(log.read_text().split()) if log.exists() else 0


def test_states_are_those_of_the_upstream_and_nothing_is_encoded_twice(place):
    folder, (teacher, student), where = place
    heard = states.hear(str(student), str(teacher), where)
    assert heard.task == "pr"
    assert (heard.student.name, heard.teacher.name) == ("pupil", "toy")
    assert len(heard.speakers) == 8
    first = encoded(folder)
    again = states.hear(str(student), str(teacher), where)
    assert encoded(folder) == first
    assert np.array_equal(again.student.means, heard.student.means)
    assert heard.student.moments.shape == (2, 8, states.MOMENTS, toy_upstream.WIDTH)
    # both states are linear maps of one spectrum at one moment: the map between them is exact, apart from float16
    teacher_frames = heard.teacher.moments[0].reshape(-1, toy_upstream.WIDTH)
    student_frames = heard.student.moments.transpose(1, 2, 0, 3).reshape(-1, 2 * toy_upstream.WIDTH)
    solved = np.linalg.lstsq(student_frames, teacher_frames, rcond=None)[0]
    gap = np.abs(student_frames @ solved - teacher_frames).mean()
    assert gap < 0.02 * teacher_frames.std()
    drawn = np.random.default_rng(0).permutation(len(teacher_frames))
    assert np.abs(student_frames @ np.linalg.lstsq(student_frames, teacher_frames[drawn], rcond=None)[0]
                  - teacher_frames[drawn]).mean() > 10 * gap  # fmt: skip


def test_frames_are_stored_for_it_also_where_a_bench_would_stream_them(place, monkeypatch):
    _, (teacher, student), where = place
    usual = states.preparing.prepare

    def streaming(*arguments, **more):
        made = usual(*arguments, **more)
        pieces = {key: replace(piece, frames=False) for key, piece in made.plan.pieces.items()}
        made.plan = replace(made.plan, pieces=pieces)
        return made

    monkeypatch.setattr(states.preparing, "prepare", streaming)
    assert states.hear(str(student), str(teacher), where).teacher.moments is not None


def test_an_upstream_beside_itself_has_ones_on_the_diagonal(place):
    _, (teacher, _), where = place
    found = layers.compare(states.hear(str(teacher), str(teacher), where), repeats=100)
    for values in (found.frames, found.means):
        assert np.diag(values.value) == pytest.approx(np.ones(2))
        assert values.value[0, 1] == pytest.approx(values.value[1, 0])
        assert values.value[0, 1] < 0.9999
    assert found.frames_explained.value[-1] == pytest.approx(1.0, abs=1e-3)
    assert "2 speakers" in found.notes[0]


def test_a_batch_holds_one_utterance_of_each_speaker_and_all_have_their_turn():
    rng = np.random.default_rng(0)
    names = [f"s{n}" for n in rng.permutation(np.repeat(np.arange(300), 2))]
    means = np.arange(600, dtype=np.float32)[None, :, None]
    moments = means[:, :, None] * 100 + np.arange(states.MOMENTS, dtype=np.float32)[None, None, :, None]
    side = states.Side("x", "x", 20.0, means, moments)
    heard, speaker = states.Heard(side, side, "pr", tuple(names)), clusters(names)
    for frames, many in ((False, 600), (True, 600 * states.MOMENTS)):
        seen = set()
        for batch in layers.batches(heard, speaker, frames):
            assert len(set(batch.speaker.tolist())) == len(batch.speaker) <= layers.BATCH
            rows = (batch.student[0, :, 0] // (100 if frames else 1)).astype(int)
            assert np.array_equal(speaker[rows], batch.speaker)
            seen |= set(batch.student[0, :, 0].tolist())
        assert len(seen) == many
    alone = list(layers.batches(heard, np.arange(600), False))
    assert [len(batch.speaker) for batch in alone] == [200, 200, 200]


def test_the_verb_compares_states_and_says_what_it_leaves_out(place, capsys):
    folder, (_, student), where = place
    more = ("--results", where.results, "--cache", where.cache, "--threads", 1, "--device", "cpu")
    chosen = ("--suite", where.suite, "--data", where.data, "--state-repeats", 100)
    call(student, folder / "one" / "toy.yaml", *more, *chosen)
    printed = capsys.readouterr().out
    assert "There are no records of both: states alone." in printed
    out = where.results / "report" / "fidelity-pupil"
    with (out / "tiny" / "table_cka_frames.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 4
    assert {"figure_cka.png", "figure_linear_maps.pdf", "table_linear.tex"} <= {
        p.name for p in (out / "tiny").iterdir()
    }
    before = encoded(folder)
    call(student, folder / "one" / "toy.yaml", *more, *chosen, "--audio", "ks")
    assert "Task ks reads time means" in capsys.readouterr().out
    assert encoded(folder) == before
    with pytest.raises(SlimbenchError, match=r"no such data folder.*--no-states"):
        call(student, folder / "one" / "toy.yaml", *more, "--suite", where.suite, "--data", folder / "none")

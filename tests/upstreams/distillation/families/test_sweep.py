"""A sweep with stubs for training and benches: order, kills, failures."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time

import pytest
from sweep_cases import COLUMNS, Stubs, family

from harness.interface import SlimbenchError
from upstreams.distillation.families import sweep_verb
from upstreams.distillation.families.sweep import Column, Job, Sweep, cohorts, remaining


def run(folder, *, workers=1, columns=COLUMNS, **stubs):
    hands = Stubs(folder, **stubs)
    sweep = Sweep(family(folder), columns, hands, workers)
    sweep.run()
    return sweep, hands


def whole(found):
    """Every model and record of the family is there, by brute force over files."""
    expected = {f"{student.name}.model" for student in found.students}
    expected |= {
        f"{column.suite}+{column.task}+{student.name}.record" for column in COLUMNS for student in found.students
    }
    return {file.name for file in found.folder.iterdir()} - {"log.txt"} == expected


def test_everything_is_done_in_the_promised_order(tmp_path):
    sweep, hands = run(tmp_path)
    assert whole(sweep.family)
    assert not sweep.failures
    names = [student.name for student in sweep.family.students]
    trained, benched = (list(group) for _, group in itertools.groupby(hands.log, lambda line: line.split()[0]))
    assert trained == ["train " + " ".join(names[4 * i : 4 * i + 4]) for i in range(4)]  # one per budget and seed
    assert benched == [f"bench {c.suite} {c.task} {name}" for c in COLUMNS for name in names]
    assert sweep.made == 16 + 48


def test_what_is_done_is_not_done_again(tmp_path):
    run(tmp_path)
    before = Stubs(tmp_path).log
    sweep, hands = run(tmp_path)
    assert hands.log == before
    assert sweep.made == 0
    next(tmp_path.glob("embedded+pr+*.record")).unlink()
    _, hands = run(tmp_path)
    assert len(hands.log) == len(before) + 1


@pytest.mark.parametrize("dies", [1, 3, 4, 5, 20, 52])
def test_a_killed_sweep_goes_on_where_it_stopped(tmp_path, dies):
    child = os.fork()
    if child == 0:
        run(tmp_path, dies=dies)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    killed = Stubs(tmp_path).log
    assert len(killed) == dies
    made = {file.name for file in tmp_path.iterdir()}
    sweep, hands = run(tmp_path)
    assert whole(sweep.family)
    assert not sweep.failures
    for line in hands.log[dies:]:  # nothing that had ended before the kill
        for word in line.split()[1:] if line.startswith("train") else [line.removeprefix("bench ").replace(" ", "+")]:
            assert f"{word}.{'model' if line.startswith('train') else 'record'}" not in made


def test_a_student_that_fails_stops_no_other(tmp_path):
    faulty = "f_1000000_d1_l2l_s1"
    sweep, hands = run(tmp_path, faulty=(faulty,))
    assert [(failure.what, failure.reason) for failure in sweep.failures] == [(faulty, f"{faulty} diverged.")]
    others = [student.name for student in sweep.family.students if student.name != faulty]
    assert {file.stem for file in tmp_path.glob("*.model")} == set(others)
    assert len(list(tmp_path.glob("*.record"))) == len(others) * len(COLUMNS)
    assert not [line for line in hands.log if line.startswith("bench") and faulty in line]
    # the rest of its cohort went on one by one, each of them once
    alone = [line.split()[1] for line in hands.log if line.startswith("train") and len(line.split()) == 2]
    assert alone == [faulty, "f_1000000_d3_pred_s1", "f_1000000_d3_l2l_s1"]
    said = sweep_verb.conclusion(sweep)
    assert "1 failed" in said
    assert f"{faulty}: {faulty} diverged." in said
    again, _ = run(tmp_path)  # mended
    assert whole(again.family)
    assert "all done" in sweep_verb.conclusion(again)


def test_a_bench_that_fails_stops_no_other(tmp_path):
    title = "embedded pr f_1000000_d1_pred_s0"
    sweep, _ = run(tmp_path, refused=(title,))
    assert [(failure.what, failure.reason) for failure in sweep.failures] == [(title, "no such corpus.")]
    assert len(list(tmp_path.glob("*.record"))) == 47


def test_a_training_that_ends_without_a_model_is_a_failure(tmp_path, monkeypatch):
    monkeypatch.setattr(Stubs, "train", lambda self, students: None)
    sweep, _ = run(tmp_path)
    assert {failure.reason for failure in sweep.failures} == {"its training ended without a model"}
    assert len(sweep.failures) == 16
    assert not list(tmp_path.glob("*.record"))


def test_a_damaged_student_or_mark_is_named_and_the_rest_is_done(tmp_path, monkeypatch):
    bad = family(tmp_path).students[2]
    wrong = Job(COLUMNS[1], family(tmp_path).students[0])
    known, marked = Stubs.trained, Stubs.benched

    def trained(self, student):
        if student == bad:
            raise SlimbenchError("made by another recipe.")
        return known(self, student)

    def benched(self, job):
        if job == wrong:
            raise SlimbenchError("damaged mark.")
        return marked(self, job)

    monkeypatch.setattr(Stubs, "trained", trained)
    monkeypatch.setattr(Stubs, "benched", benched)
    sweep, hands = run(tmp_path)
    assert {failure.what for failure in sweep.failures} == {bad.name, wrong.title}
    assert not any(bad.name in line for line in hands.log)
    assert len(list(tmp_path.glob("*.record"))) == 15 * 3 - 1


def test_workers_run_at_once_and_do_the_same(tmp_path, monkeypatch):
    running, most, lock = [0], [0], threading.Lock()
    plain = Stubs.bench

    def bench(self, job):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.02)
        with lock:
            running[0] -= 1
            return plain(self, job)

    monkeypatch.setattr(Stubs, "bench", bench)
    sweep, hands = run(tmp_path, workers=3, faulty=("f_1000000_d1_l2l_s1",))
    assert most[0] == 3
    assert [failure.what for failure in sweep.failures] == ["f_1000000_d1_l2l_s1"]
    benches = [line.split()[1:3] for line in hands.log if line.startswith("bench")]
    assert len(benches) == 45
    place = [[[c.suite, c.task] for c in COLUMNS].index(column) for column in benches]
    assert all(a <= b + 1 for a, b in itertools.pairwise(place))  # columns follow each other but for those at once


def test_an_interruption_ends_the_sweep(tmp_path, monkeypatch):
    def bench(self, job):
        raise KeyboardInterrupt

    monkeypatch.setattr(Stubs, "bench", bench)
    for workers in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, workers=workers)


def test_progress_says_what_is_left(tmp_path, capsys):
    run(tmp_path)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("[")]
    assert lines[0].startswith("[1/48] embedded ks f_1000000_d1_pred_s0: accuracy 50.0; 47 left, about ")
    assert lines[-1].endswith("0 left")


def test_what_remains_is_counted_by_column():
    a, b, c = Column("s", "a"), Column("s", "b"), Column("s", "c")
    assert remaining([a, b], {}) is None
    assert remaining([a, a, b, c], {a: [2.0, 4.0], b: [10.0]}) == 2 * 3.0 + 10.0 + 6.5


def test_cohorts_share_budget_and_seed(tmp_path):
    groups = cohorts(family(tmp_path).students)
    assert [len(group) for group in groups] == [4] * 4
    assert all(len({(s.budget, s.seed) for s in group}) == 1 for group in groups)

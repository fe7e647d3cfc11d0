"""Which records are shown, in which order, and what is said of the others."""

import itertools
import random

from fake_records import STUDENTS, UPSTREAMS, build, fake

from leaderboards.board import board, boards
from leaderboards.tradeoff import kept, pareto


def test_order_of_tasks_and_upstreams():
    shown = board("embedded", random.Random(0).sample(build(), 35))
    assert shown.tasks == ("asr", "pr", "ks", "ic", "sid", "asv", "er")
    assert shown.upstreams == ("fbank", "logmel", "random_mini", "distilled_wavlm", "wavlm_mini")
    assert shown.fixed() == ("fbank", "logmel")
    assert shown.controls() == ("random_mini",)
    assert shown.teachers() == ("wavlm_mini",)
    assert shown.notes == ()


def test_unknown_tasks_follow():
    shown = board("s", [fake("fbank", task, 10.0) for task in ("zz", "er", "aa")])
    assert shown.tasks == ("er", "aa", "zz")


def test_one_board_per_suite():
    assert [b.suite for b in boards(build("b") + build("a"))] == ["a", "b"]


def test_the_newest_record_is_shown_and_the_older_is_said():
    old = fake("logmel", "ks", 10.0, created="2030-01-01T00:00:00+00:00", key="old")
    new = fake("logmel", "ks", 20.0, created="2030-01-02T00:00:00+00:00", key="new")
    for records in ([old, new], [new, old]):
        shown = board("s", records)
        assert shown.cells["logmel", "ks"].value == 20.0
        assert shown.notes == ("1 older record(s) of the same upstream and task are not shown; the newest is.",)


def test_records_of_other_weights_are_left_out_and_said():
    records = build(tasks=("ks", "er"))
    stale = fake("wavlm_mini", "er", 99.0, created="2029-01-01T00:00:00+00:00", key="stale")
    stale = type(stale)(**(vars(stale) | {"upstream": stale.upstream | {"fingerprint": "other"}, "task": "sid"}))
    shown = board("s", [*records, stale])
    assert ("wavlm_mini", "sid") not in shown.cells
    assert shown.notes == ("1 record(s) of wavlm_mini come from other weights under this name and are not shown.",)


def test_a_cell_under_another_protocol_takes_part_in_no_comparison():
    records = [r for r in build(tasks=("ks",)) if r.upstream["name"] != "wavlm_mini"]
    odd = fake("wavlm_mini", "ks", 99.0, protocol={"steps": 9999})
    shown = board("s", [*records, odd])
    assert shown.odd == {("wavlm_mini", "ks")}
    assert "wavlm_mini" not in shown.fair("ks")
    assert len(shown.notes) == 1
    assert "wavlm_mini on ks" in shown.notes[0]


def brute_front(points, higher):
    sign = 1 if higher else -1

    def beaten(a, b):
        no_worse = b[0] <= a[0] and sign * b[1] >= sign * a[1]
        return no_worse and (b[0] < a[0] or sign * b[1] > sign * a[1])

    return sorted(i for i, a in enumerate(points) if not any(beaten(a, b) for b in points))


def test_pareto_against_brute_force():
    rng = random.Random(7)
    for size, higher in itertools.product(range(9), (True, False)):
        for _ in range(60):
            points = [(float(rng.randrange(6)), float(rng.randrange(6))) for _ in range(size)]
            front = pareto(points, higher)
            assert sorted(front) == brute_front(points, higher), points
            assert [points[i][0] for i in front] == sorted(points[i][0] for i in front)


def test_share_kept():
    # Errors: control 60, teacher 20, student 30: 30 of 40 points gained. Accuracy mirrors it.
    assert kept(30.0, 20.0, 60.0) == 75.0
    assert kept(70.0, 80.0, 40.0) == 75.0


def test_students_of_a_teacher_stand_by_size():
    scores = dict.fromkeys([*UPSTREAMS, *STUDENTS], (50.0,) * 7)
    shown = board("s", build(upstreams=UPSTREAMS | STUDENTS, scores=scores))
    assert shown.upstreams[3:] == ("thin_wavlm", "distilled_wavlm", "wide_wavlm", "wavlm_mini")


def test_protocols_of_a_suite_have_boards_of_their_own():
    own, superb, fast = build(), build("superb"), build("superb")
    for records, name in ((superb, "superb"), (fast, "fast")):
        for record in records:
            record.data["protocol"] = name
    assert [b.suite for b in boards([*fast, *own, *superb])] == ["embedded", "superb-fast", "superb-superb"]


def test_settings_that_earlier_records_lack_do_not_set_them_apart_while_they_are_neutral():
    records = build(tasks=("ks",))
    records[0].protocol.update(accumulate=1, batching="by_length", effects=[], crops=0)
    records[0].data["protocol"] = "own"
    assert not board("embedded", records).odd
    records[0].protocol["accumulate"] = 4
    assert board("embedded", records).odd == {(records[0].upstream["name"], "ks")}

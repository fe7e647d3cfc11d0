"""Which records a report is made from: local ones, and accepted ones where asked."""

import pytest
from fake_records import fake

from harness import records
from harness.interface import SlimbenchError
from leaderboards import gather
from leaderboards.submissions import verification


def test_accepted_records_come_only_where_asked(tmp_path):
    assert gather.gather(tmp_path) == []
    found = gather.gather(tmp_path, accepted=True)
    assert {record.key for record in found} == {record.key for record in verification.accepted()}
    assert len(found) >= 7


def test_local_records_win_over_accepted_ones_of_the_same_run(tmp_path, monkeypatch):
    local, other = fake("fbank", "ks", 10.0), fake("logmel", "ks", 20.0)
    records.save(local, tmp_path)
    theirs = fake("fbank", "ks", 99.0)
    assert theirs.key == local.key
    monkeypatch.setattr(verification, "accepted", lambda: [theirs, other])
    found = gather.gather(tmp_path, accepted=True)
    assert [(r.upstream["name"], r.value) for r in found] == [("fbank", 10.0), ("logmel", 20.0)]


def test_another_upstream_under_the_same_key_stays():
    one, two = fake("fbank", "ks", 10.0), fake("logmel", "ks", 20.0)
    twin = type(two)(**{**vars(two), "key": one.key})
    assert gather.merged([one], [twin]) == [one, twin]


def test_a_broken_submission_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "x.zip").write_bytes(b"no archive")
    whole = verification.accepted
    monkeypatch.setattr(verification, "accepted", lambda: whole(tmp_path))
    with pytest.raises(SlimbenchError, match=r"x\.zip"):
        gather.gather(tmp_path / "results", accepted=True)


def test_the_students_of_the_lab_come_only_where_asked(tmp_path):
    grid = {
        f"dvw_1.0m_d{depth}_{how}_s{seed}" for depth in (1, 2, 3, 6, 12) for how in ("pred", "l2l") for seed in (0, 1)
    }
    assert grid <= {record.upstream["name"] for record in gather.gather(tmp_path, lab=True)}
    assert not grid & {record.upstream["name"] for record in gather.gather(tmp_path, accepted=True)}


def test_a_run_that_the_board_and_the_lab_both_hold_comes_once(tmp_path, monkeypatch):
    shared, board, student = fake("fbank", "ks", 10.0), fake("logmel", "ks", 20.0), fake("random_mini", "ks", 30.0)
    again = fake("fbank", "ks", 11.0)
    assert again.key == shared.key

    def accepted(folder=None):
        return [again, student] if folder == verification.LAB else [shared, board]

    monkeypatch.setattr(verification, "accepted", accepted)
    assert gather.gather(tmp_path, accepted=True, lab=True) == [shared, board, student]

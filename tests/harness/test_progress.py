"""Progress on a stepped clock: rate, time left and what an earlier run did."""

import io

import pytest

from harness import progress


@pytest.fixture
def tick(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])

    def forward(seconds):
        now[0] += seconds

    return forward


def lines(stage):
    return stage._stream.getvalue().splitlines()


def test_rate_and_time_left_of_a_stage_that_begins_at_nothing(tick):
    with progress.Progress("encode", 100, "s", io.StringIO()) as stage:
        tick(10)
        stage.advance(20)
    assert lines(stage)[0] == "encode:  20% of 100 s in 0:10, 2.0 s/s, 0:40 left"


def test_what_an_earlier_run_did_is_no_part_of_the_rate(tick):
    with progress.Progress("train", 100, "updates", io.StringIO()) as stage:
        stage(50, 100)
        tick(10)
        stage(60, 100, "dev 3.2")
    assert lines(stage)[0] == "train:  60% of 100 updates in 0:10, 1.0 updates/s, 0:40 left, dev 3.2"


def test_plain_lines_come_every_few_seconds_and_at_the_end(tick):
    with progress.Progress("check", 10, "files", io.StringIO()) as stage:
        for _ in range(10):
            tick(1)
            stage.advance(1)
    assert len(lines(stage)) == 2
    assert lines(stage)[-1].startswith("check: 100% of 10 files in 0:10")


def test_a_stage_that_fails_is_not_called_done(tick):
    stage = progress.Progress("check", 10, "files", io.StringIO())
    with pytest.raises(KeyboardInterrupt), stage:
        raise KeyboardInterrupt
    assert lines(stage) == []


def test_on_a_terminal_one_line_moves():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    with progress.Progress("encode", 4, "s", Terminal()) as stage:
        for _ in range(4):
            stage.advance(1)
    text = stage._stream.getvalue()
    assert "100%" in text
    assert "4/4" in text
    assert text.count("\n") == 1


@pytest.mark.parametrize(("seconds", "said"), [(0.4, "0:00"), (75, "1:15"), (3_725, "1:02:05")])
def test_clock(seconds, said):
    assert progress.clock(seconds) == said

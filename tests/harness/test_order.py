import dataclasses

import pytest
import torch

from downstreams.asr import ASR
from downstreams.ks import KS
from downstreams.pr import PR
from harness.interface import SlimbenchError, TrainingProtocol
from harness.probes import order
from harness.probes.order import Order

DRAW = torch.Generator().manual_seed(0)
LENGTHS = torch.randint(10, 100, (53,), generator=DRAW).tolist()


def protocol(batch, **changes):
    return TrainingProtocol(100, batch, "Adam", (1e-3,), 1.0, 10, **changes)


@pytest.mark.parametrize("need", ["frames", "pooled"])
def test_an_epoch_holds_every_utterance_once(need):
    made = Order(protocol(8), need, LENGTHS)
    epochs = [[made.at(step) for step in range(e * 7, e * 7 + 7)] for e in range(2)]
    for epoch in epochs:
        assert sorted(torch.cat(epoch).tolist()) == list(range(53))
    assert not torch.equal(torch.cat(epochs[0]), torch.cat(epochs[1]))
    assert torch.equal(Order(protocol(8), need, LENGTHS).at(9), epochs[1][2])
    spread = sum(max(LENGTHS[i] for i in b) - min(LENGTHS[i] for i in b) for b in [b.tolist() for b in epochs[0]])
    assert (spread < 200) == (need == "frames")


def test_balanced_order_draws_every_class_equally_often():
    classes = [0] * 90 + [1] * 9 + [2]
    made = Order(protocol(10), "pooled", [1] * 100, classes=classes)
    drawn = torch.cat([made.at(step) for step in range(300)])
    share = torch.as_tensor(classes)[drawn].bincount() / len(drawn)
    torch.testing.assert_close(share, torch.full((3,), 1 / 3), atol=0.03, rtol=0)


def test_an_unfilled_last_batch_is_dropped_where_superb_drops_it():
    assert Order(protocol(8), "pooled", LENGTHS).per_epoch == 7
    assert Order(protocol(8, drop_last=True), "pooled", LENGTHS).per_epoch == 6
    # 51,094 entries in batches of 32: 1,596 updates per epoch (protocol section 4.3)
    assert Order(KS.protocol, "pooled", [1] * 51_094).per_epoch == 1_596


def test_an_update_is_the_mean_of_its_batches_means():
    made = Order(protocol(8, accumulate=3), "pooled", LENGTHS)
    for step in (0, 1, 5):
        places, weights = made.update(step)
        values = torch.arange(53.0)[places]
        batches = [made.at(3 * step + i) for i in range(3)]
        expected = torch.stack([torch.arange(53.0)[batch].mean() for batch in batches]).mean()
        torch.testing.assert_close((values * weights).sum(), expected)
        assert torch.equal(places, torch.cat(batches))
    sizes = [len(made.at(i)) for i in range(7)]
    assert sizes == [8] * 6 + [5]


def test_an_epoch_takes_one_crop_of_each_utterance_and_all_of_them_in_time():
    groups = [[0, 1, 2, 3], [4], [5, 6]]
    made = Order(protocol(3), "pooled", [1] * 7, groups=groups)
    epochs = [sorted(made.at(e).tolist()) for e in range(200)]
    for epoch in epochs:
        assert [sum(i in group for i in epoch) for group in groups] == [1, 1, 1]
    counts = torch.as_tensor(epochs).flatten().bincount()
    assert counts[4] == 200
    assert (counts[:4] > 30).all()
    assert torch.equal(made.at(7), Order(protocol(3), "pooled", [1] * 7, groups=groups).at(7))


def test_asr_batches_are_superbs_halved_buckets():
    seconds = [float(x) for x in torch.rand(28_539, generator=DRAW)]
    made = Order(ASR.protocol, "frames", [1] * 28_539, seconds)
    assert made.per_epoch == 1_783  # protocol section 4.1
    epoch = [made.at(i).tolist() for i in range(made.per_epoch)]
    assert sorted(len(batch) for batch in epoch) == [16] * 1_782 + [27]
    assert sorted(i for batch in epoch for i in batch) == list(range(28_539))
    falling = sorted(range(28_539), key=lambda i: -seconds[i])
    assert {frozenset(batch) for batch in epoch} >= {frozenset(falling[:16]), frozenset(falling[16:32])}
    again = [made.at(made.per_epoch + i).tolist() for i in range(made.per_epoch)]
    assert epoch != again
    assert {frozenset(batch) for batch in epoch} == {frozenset(batch) for batch in again}


def test_a_single_utterance_that_is_left_over_is_dropped_as_in_s3prl():
    made = order.halved_buckets([5.0, 4.0, 3.0, 2.0, 1.0], 2)
    assert [batch.tolist() for batch in made] == [[0, 1], [2, 3]]


def test_pr_windows_overlap_and_are_moved_back_at_the_end():
    targets, seconds = [3, 9, 5, 7, 1], [1.0] * 5
    made = [batch.tolist() for batch in order.windows(targets, seconds, 3)]
    assert made == [[1, 3, 2], [3, 2, 0], [2, 0, 4], [2, 0, 4], [2, 0, 4]]
    seconds[3] = 19.0  # over 300,000 samples: the window that begins with it is halved
    made = [batch.tolist() for batch in order.windows(targets, seconds, 4)]
    assert made[1] == [3, 2]
    pr = Order(PR.protocol, "frames", [1] * 28_539, [1.0] * 28_539, list(range(28_539)))
    assert (pr.per_epoch, PR.protocol.accumulate) == (28_539, 2)
    times = torch.cat([pr.at(i) for i in range(pr.per_epoch)]).bincount()
    assert int(times.median()) == 16


def test_the_balanced_dev_draw_is_fixed_and_balanced():
    classes = [0] * 900 + [1] * 90 + [2] * 10
    drawn = order.balanced_draw(classes, 600)
    assert drawn == order.balanced_draw(classes, 600)
    assert len(drawn) == 600
    share = torch.as_tensor(classes)[drawn].bincount() / 600
    torch.testing.assert_close(share, torch.full((3,), 1 / 3), atol=0.06, rtol=0)


def test_superbs_effective_batches():
    effective = {task.name: task.protocol.batch * task.protocol.accumulate for task in (ASR, PR, KS)}
    assert effective == {"asr": 16, "pr": 32, "ks": 32}
    assert dataclasses.asdict(PR.protocol)["batching"] == "windows"


@pytest.mark.parametrize("batching", ["halved_buckets", "windows"])
def test_fixed_batches_take_one_crop_of_each_utterance_too(batching):
    groups = [[0, 1, 2], [3], [4, 5], [6]]
    seconds, targets = [9.0, 9.0, 9.0, 1.0, 5.0, 5.0, 3.0], [4, 4, 4, 1, 3, 3, 2]
    made = Order(protocol(2, batching=batching), "pooled", [1] * 7, seconds, targets, groups=groups)
    assert made.per_epoch == (2 if batching == "halved_buckets" else 4)
    of = {place: number for number, group in enumerate(groups) for place in group}
    epoch = [sorted(of[i] for i in made.at(n).tolist()) for n in range(made.per_epoch)]
    assert sorted(map(tuple, epoch)) in ([(0, 2), (1, 3)], [(0, 2), (1, 3), (1, 3), (2, 3)])


def test_one_utterance_makes_no_halved_bucket():
    with pytest.raises(SlimbenchError, match="make no batch"):
        Order(protocol(16, batching="halved_buckets"), "frames", [5], [1.0])

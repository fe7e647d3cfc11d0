"""The same bench on a Ray cluster of two nodes on this machine, undisturbed and disturbed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import ray_toys
import soundfile
import toy_data
from conftest import HELPERS
from same_records import assert_same

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'slimbench[ray]'")

from ray.cluster_utils import Cluster  # noqa: E402

TONES = sum(2 * count for count in toy_data.COUNTS.values())
SHARED_MEMORY = 80_000_000


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return tmp_path_factory.mktemp("ray") / "encoded.log"


@pytest.fixture(scope="module")
def nodes(log):
    """A head that does no jobs, two nodes of one CPU each, and this process in the cluster as a driver."""
    with pytest.MonkeyPatch.context() as patch:
        paths = [str(HELPERS), str(HELPERS.parent.parent), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
        patch.setenv("TOY_LOG", str(log))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        # Two clients on a node of one CPU: else Ray ends the idle worker of one and starts it again for its next job.
        patch.setenv("RAY_num_workers_soft_limit", "8")
        few = {"object_store_memory": SHARED_MEMORY, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **few})
        try:
            for _ in range(2):
                cluster.add_node(num_cpus=1, object_store_memory=SHARED_MEMORY)
            cluster.wait_for_nodes()
            patch.setenv("RAY_ADDRESS", cluster.address)
            ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
            yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()


@pytest.fixture
def on_ray(call):
    def run(place, *more):
        return call("bench", *place.options("--executor", "ray", *more))

    return run


def with_cost_of(finished, place):
    """The cost, which takes seconds to measure, as it is known from another bench."""
    shutil.copytree(finished.folder / "cache" / "cost", place.folder / "cache" / "cost")


def with_adapter(place, name, folder):
    text = place.card.read_text().replace("toy_upstream:load", f"ray_toys:{name}")
    place.card.write_text(f"{text}options:\n  folder: {folder}\n")


def test_two_nodes_make_the_records_of_one_process(nodes, log, place, on_ray, finished, monkeypatch):
    before = ray_toys.encoded_tones(log)
    monkeypatch.chdir(place.folder)  # relative paths, which mean nothing on a node
    status, printed, said = on_ray(RelativePlace(place))
    assert status == 0, said
    assert_same(place, finished)
    assert ray_toys.encoded_tones(log) - before == TONES
    assert "ray: nodes: 3, jobs at once: 2, for each 1 CPU, device cpu" in said
    for title in ("encode part 1 of 2", "train pr", "score asv"):
        assert said.count(f"ray: {title}: started") == said.count(f"ray: {title}: done on") == 1
    assert all(f"{record['value']:.1f}" in printed for record in place.records().values())


class RelativePlace:
    """The options of a place as they are from within its folder."""

    def __init__(self, place):
        self._place = place

    def options(self, *more):
        return [given.replace(f"{self._place.folder}{os.sep}", "") for given in self._place.options(*more)]


def test_an_error_in_a_worker_is_the_same_one_sentence(nodes, place, on_ray):
    with_adapter(place, "coupled", place.folder)
    status, _, said = on_ray(place)
    assert status == 2
    last = said.strip().splitlines()[-1]
    assert last.startswith("slimbench: upstream toy: state 1 depends on what else is in the batch")
    assert said.count("encode part 1 of 2: started") == 1
    assert "Traceback" not in said


def test_broken_audio_and_a_broken_card_end_as_without_ray(nodes, place, on_ray):
    name = place.data / toy_data.read_manifest(place.data, "ks")[-1]["path"]
    wave, rate = soundfile.read(name, dtype="float32")
    wave[7] = float("nan")
    soundfile.write(name, wave, rate, subtype="FLOAT")
    status, _, said = on_ray(place)
    assert status == 2
    assert said.strip().splitlines()[-1].startswith("slimbench: ")
    assert name.name in said
    assert "started" not in said
    place.card.write_text(place.card.read_text() + "wdith: 12\n")
    status, _, said = on_ray(place)
    assert status == 2
    assert said.count("\n") == 1
    assert "wdith" in said


def test_two_clients_encode_once(nodes, log, place, on_ray, finished):
    before = ray_toys.encoded_tones(log)
    with_cost_of(finished, place)
    few = ("--tasks", "ks,pr")
    command = [sys.executable, "-m", "harness", "bench", *place.options("--executor", "ray", *few)]
    other = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        for line in other.stderr:  # it has a head start of what a process needs to come so far
            if "check audio" in line:
                break
        status, _, said = on_ray(place, *few)
        _, rest = other.communicate(timeout=300)
    finally:
        other.kill()
    assert status == 0, said
    assert other.returncode == 0, rest
    assert_same(place, finished, {"ks", "pr"})
    assert ray_toys.encoded_tones(log) - before == TONES


def test_a_lost_node_costs_a_retry_and_nothing_else(nodes, log, place, on_ray, finished):
    before = ray_toys.encoded_tones(log)
    with_cost_of(finished, place)
    hold = place.folder / "hold"
    hold.mkdir()
    with_adapter(place, "held", hold)
    lost = []

    def take_away():
        workers = {node.node_id: node for node in nodes.worker_nodes}
        began = time.monotonic()
        while not lost and time.monotonic() - began < ray_toys.PATIENCE:
            lost.extend(file.name for file in hold.iterdir() if file.name in workers)
            time.sleep(0.05)
        nodes.remove_node(workers[lost[0]], allow_graceful=False)

    taker = threading.Thread(target=take_away)
    taker.start()
    status, _, said = on_ray(place)
    taker.join()
    assert status == 0, said
    assert_same(place, finished)
    assert len(list(hold.iterdir())) == 1 + 2, "the part was begun on one node and done on the other"
    assert ray_toys.encoded_tones(log) - before == TONES
    assert "2 of 3 nodes are left" in said

"""What can be said of jobs on Ray without a cluster."""

from __future__ import annotations

import importlib
import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from harness import ray_executor
from harness.interface import SlimbenchError
from harness.preparing import Options
from harness.ray_executor import Share, absolute, environment, needs, on_cluster, package

OPTIONS = Options("a_card", "a_suite", Path("results"), Path("cache"))
CPU = {"CPU": 8.0, "memory": 1e9}
GPUS = {"CPU": 16.0, "GPU": 4.0}
HEAD = {"memory": 1e9}


def asked(**changes):
    return replace(OPTIONS, **changes)


@pytest.mark.parametrize(
    ("options", "nodes", "device", "share", "at_once"),
    [
        (asked(), [CPU], "cpu", Share(8, 0), 1),
        (asked(workers=4), [CPU], "cpu", Share(2, 0), 4),
        (asked(workers=3), [HEAD, CPU, CPU], "cpu", Share(4, 0), 4),
        (asked(threads=3), [CPU, CPU], "cpu", Share(3, 0), 4),
        (asked(), [HEAD, CPU, {"CPU": 4.0}], "cpu", Share(4, 0), 3),
        (asked(), [CPU, GPUS], "cuda", Share(4, 1), 4),
        (asked(workers=2), [GPUS], "cuda", Share(4, 1), 4),
        (asked(), [GPUS, {"CPU": 6.0, "GPU": 2.0}], "cuda", Share(3, 1), 6),
        (asked(threads=6), [GPUS], "cuda", Share(6, 1), 2),
        (asked(device="cpu"), [GPUS], "cpu", Share(16, 0), 1),
        (asked(device="cuda"), [GPUS, GPUS], "cuda", Share(4, 1), 8),
    ],
)
def test_jobs_divide_the_nodes(options, nodes, device, share, at_once):
    assert needs(options, nodes) == (device, share)
    assert sum(share.fits(node) for node in nodes) == at_once


@pytest.mark.parametrize(
    ("options", "nodes", "said"),
    [
        (asked(device="cuda"), [CPU], "none of the 1 nodes of this Ray cluster has a GPU"),
        (asked(device="cuda:1"), [GPUS], "use auto, cpu or cuda"),
        (asked(threads=9), [CPU, CPU], "no node of this Ray cluster has 9 CPUs for a job; lower the threads"),
        (asked(device="cuda", threads=17), [GPUS], "has 17 CPUs and a GPU for a job"),
        (asked(), [HEAD], "no node of this Ray cluster has 1 CPUs"),
    ],
)
def test_a_job_that_no_node_can_do_is_refused_before_anything_waits_for_it(options, nodes, said):
    with pytest.raises(SlimbenchError, match=said):
        needs(options, nodes)


def test_paths_become_absolute_and_names_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = asked(upstream="cards/x.yaml", suite="s.yml", data=Path("../data"), results=Path("/there/results"))
    sent = absolute(given)
    assert sent.upstream == str(tmp_path / "cards" / "x.yaml")
    assert sent.suite == str(tmp_path / "s.yml")
    assert sent.data == tmp_path / ".." / "data"
    assert sent.results == Path("/there/results")
    assert sent.cache == tmp_path / "cache"
    assert absolute(asked(upstream="x.yaml@half")).upstream == str(tmp_path / "x.yaml@half")
    assert absolute(asked(upstream="name@half", suite="embedded")).upstream == "name@half"
    assert absolute(asked()).data is None


def test_the_variables_of_slimbench_go_along_with_absolute_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cards").mkdir()
    given = {"SLIMBENCH_CARDS": f"cards{os.pathsep}/other", "SLIMBENCH_X": "", "HOME": "cards", "GOMP_SPINCOUNT": "0"}
    assert environment(given) == {
        "SLIMBENCH_CARDS": f"{tmp_path / 'cards'}{os.pathsep}/other",
        "SLIMBENCH_X": "",
        "GOMP_SPINCOUNT": "0",
    }


def test_without_ray_the_remedy_is_named(monkeypatch):
    def missing(name):
        assert name == "ray"
        raise ModuleNotFoundError("No module named 'ray'")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(SlimbenchError, match=r"pip install 'slimbench\[ray\]'"):
        package()


def test_ray_is_imported_by_nobody_before_it_is_wanted():
    source = Path(ray_executor.__file__).read_text()
    assert "import ray\n" not in source
    assert "from ray" not in source


def test_an_address_where_nobody_answers_is_named_at_once(monkeypatch):
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'slimbench[ray]'")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        with (
            pytest.raises(SlimbenchError, match=rf"RAY_ADDRESS={address}: .*cannot be joined"),
            on_cluster(ray, asked(), None),
        ):
            pass

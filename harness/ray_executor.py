"""Jobs on a Ray cluster: the same bench on many machines, or on one machine with several GPUs.

The driver, which is the process of the command, prepares the bench, checks all audio and hands the jobs to Ray, which
decides where they run and repeats those whose worker or node died. A worker prepares the same bench once, sees to it
that it is the same, and does job after job on the shared folders. Nothing but sentences goes back.
"""

from __future__ import annotations

import importlib
import logging
import math
import os
import platform
import socket
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.interface import SlimbenchError
from harness.jobs import Job
from harness.progress import clock, say

if TYPE_CHECKING:
    from harness.extraction.frames import Way
    from harness.preparing import Bench, Options

RETRIES = 3
"""How often Ray repeats a job whose worker or node died; an error that a job raises is never repeated."""

_ADDRESS = "RAY_ADDRESS"
_OBJECTS = 100_000_000
"""Bytes of shared memory of a Ray that is started here: jobs hand each other nothing through it."""
_LOOK = 10.0
"""Seconds between two looks at the nodes while jobs run."""
_CARRIED = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


@dataclass(frozen=True)
class Share:
    """What one job needs of a node."""

    cpus: int
    gpus: int

    def fits(self, node: Mapping[str, float]) -> int:
        """How many such jobs a node can do at once, by what Ray knows of it."""
        count = int(node.get("CPU", 0) // self.cpus)
        return min(count, int(node.get("GPU", 0) // self.gpus)) if self.gpus else count


@dataclass(frozen=True)
class Order:
    """The bench that a worker is to prepare.

    Attributes:
        options: of the driver, without relative paths, with the device and the threads of a job.
        keys: task and key of every record that is to be made.
        ways: task and where its frames come from, which is the driver's to decide.
    """

    options: Options
    keys: tuple[tuple[str, str], ...]
    ways: tuple[tuple[str, Way], ...]


@dataclass(frozen=True)
class Shared:
    """What only the driver can say of the stages that all tasks share: wall time, and the ledger of extraction."""

    seconds: Mapping[str, float]
    features: Mapping[str, float]


class RayExecutor:
    """Does jobs on the Ray cluster that this process has joined.

    Args:
        ray: the package.
        options: what the caller asked for.
        run: the driver's bench.

    Raises:
        SlimbenchError: no node of the cluster can do a job.
    """

    def __init__(self, ray: Any, options: Options, run: Bench) -> None:
        nodes = _nodes(ray)
        device, share = needs(options, nodes)
        self.workers = options.workers or sum(map(share.fits, nodes))
        self._ray, self._run, self._share, self._alive = ray, run, share, len(nodes)
        keys = tuple((item.task.name, item.key) for item in run.plan.todo)
        names = tuple(name for name, _ in keys)
        ways = tuple((name, choice.way) for name, choice in run.plan.frames.items())
        _check_compute(options, run, device)
        self._order = Order(replace(absolute(options), tasks=names, device=device, threads=share.cpus), keys, ways)
        # A GPU's worker ends with its job, which is Ray's way to give the GPU back whole; others go on to the next job.
        self._remote = ray.remote(work).options(
            num_cpus=share.cpus,
            num_gpus=share.gpus,
            max_retries=RETRIES,
            retry_exceptions=False,
            scheduling_strategy="SPREAD",
            runtime_env={"env_vars": environment(os.environ)},
        )
        gpus = f" and {share.gpus} GPU" if share.gpus else ""
        say(f"ray: nodes: {len(nodes)}, jobs at once: {self.workers}, for each {share.cpus} CPU{gpus}, device {device}")

    def run(self, jobs: Sequence[Job]) -> None:
        """Do all jobs, at most :attr:`workers` at once.

        Raises:
            SlimbenchError: a job cannot be done, or its workers died again and again. Other jobs are stopped; what
                they have finished stays.
        """
        shared = Shared(dict(self._run.watch.seconds), dict(self._run.features))
        waiting, running = deque(jobs), dict[Any, tuple[Job, float]]()
        try:
            while waiting or running:
                while waiting and len(running) < self.workers:
                    job = waiting.popleft()
                    say(f"ray: {job.title}: started")
                    running[self._remote.remote(self._order, shared, job)] = job, time.monotonic()
                done, _ = self._ray.wait(list(running), timeout=_LOOK)
                for ref in done:
                    job, began = running.pop(ref)
                    node = self._result(ref, job)
                    say(f"ray: {job.title}: done on {node} in {clock(time.monotonic() - began)}")
                self._look()
        finally:
            for ref in running:
                self._ray.cancel(ref, force=True)

    def _result(self, ref: Any, job: Job) -> str:
        """The node on which a job was done; the job's error is raised as it would be in this process."""
        errors = self._ray.exceptions
        try:
            node: str = self._ray.get(ref)
        except errors.RayTaskError as error:
            if isinstance(error.cause, SlimbenchError | OSError):
                raise error.cause from None
            raise
        except errors.RayError as error:
            reason = str(error).strip().splitlines()[0]
            raise SlimbenchError(
                f"{job.title}: its worker died {RETRIES + 1} times ({reason}); look at the memory and the logs of the "
                "nodes, then repeat the command, it goes on."
            ) from error
        return node

    def _look(self) -> None:
        """Say that nodes came or went."""
        nodes = _nodes(self._ray)
        if len(nodes) < self._alive:
            say(f"ray: {len(nodes)} of {self._alive} nodes are left; the jobs of those that are lost are done again")
        elif len(nodes) > self._alive:
            say(f"ray: {len(nodes)} nodes instead of {self._alive}")
        if len(nodes) != self._alive and not any(map(self._share.fits, nodes)):
            say("ray: no node can do these jobs now; they wait until one joins the cluster")
        self._alive = len(nodes)


def package() -> Any:
    """The package ``ray``.

    Raises:
        SlimbenchError: it is not installed.
    """
    # One job's error ends the bench; those of the jobs that it takes with it are not for the console.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    # Else Ray repeats for ever what it has killed because memory ran out. It reads this when it is imported.
    os.environ.setdefault("RAY_task_oom_retries", str(RETRIES))
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise SlimbenchError(
            f"jobs cannot go to Ray ({error}): install it with pip install 'slimbench[ray]' (in a checkout: "
            ".venv/bin/python -m pip install -e '.[ray]'), or leave EXECUTOR out (slimbench: --executor)."
        ) from error


@contextmanager
def on_cluster(ray: Any, options: Options, run: Bench) -> Iterator[RayExecutor]:
    """An executor on the cluster of ``RAY_ADDRESS``, else on one that runs on this machine, else on one started here.

    A cluster that was started for this is ended with it.

    Args:
        ray: the package.
        options: what the caller asked for.
        run: the driver's bench.

    Raises:
        SlimbenchError: nobody answers at ``RAY_ADDRESS``, or no node can do a job.
    """
    if ray.is_initialized():  # by the program that called us, and it ends it
        yield RayExecutor(ray, options, run)
        return
    _join(ray)
    try:
        yield RayExecutor(ray, options, run)
    finally:
        ray.shutdown()


def _join(ray: Any) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    address = os.environ.get(_ADDRESS, "")
    try:
        if address != "local":
            _check_address(address)
            ray.init(address=address or "auto", **quiet)
            return
    except (ConnectionError, RuntimeError) as error:
        if address:
            reason = str(error).strip().splitlines()[0]
            raise SlimbenchError(
                f"{_ADDRESS}={address}: this Ray cluster cannot be joined ({reason}); correct the address, start the "
                "cluster (docs/cluster.md), or unset the variable to start one on this machine."
            ) from error
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing about a bench leaves the machine
    ray.init(address="local", include_dashboard=False, object_store_memory=_OBJECTS, **quiet)


def _check_address(address: str) -> None:
    """Try the port, because Ray itself tries for minutes and then ends the process.

    Raises:
        ConnectionError: nobody answers there.
    """
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError as error:
        raise ConnectionError(error.strerror or "nobody answers there") from error


def _nodes(ray: Any) -> list[Mapping[str, float]]:
    """The resources of all nodes that are alive."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def needs(options: Options, nodes: Sequence[Mapping[str, float]]) -> tuple[str, Share]:
    """The device of all jobs, and what one job needs of a node.

    A job has one GPU where there are any, and as many CPUs as threads. Where these are not given, the jobs that share
    a node divide its CPUs: as many jobs as it has GPUs, or as ``workers`` asks for, else one.

    Args:
        options: what the caller asked for.
        nodes: resources of all nodes.

    Raises:
        SlimbenchError: another device than auto, cpu or cuda, or one that no node has, or more threads than any has.
    """
    if options.device not in ("auto", "cpu", "cuda"):
        raise SlimbenchError(
            f"device {options.device!r}: on Ray a job is given its device; use auto, cpu or cuda (DEVICE, slimbench: "
            "--device)."
        )
    with_gpu = [node for node in nodes if node.get("GPU", 0) >= 1]
    if options.device == "cuda" and not with_gpu:
        raise SlimbenchError(f"device 'cuda': none of the {len(nodes)} nodes of this Ray cluster has a GPU; use cpu.")
    gpus = int(bool(with_gpu) and options.device != "cpu")
    usable = with_gpu if gpus else [node for node in nodes if node.get("CPU", 0) >= 1]
    threads = options.threads
    if threads is None:
        each = math.ceil((options.workers or len(usable)) / max(len(usable), 1))
        shares = [int(node.get("CPU", 0) // (node["GPU"] if gpus else each)) for node in usable]
        threads = max(1, min(shares, default=1))
    share = Share(threads, gpus)
    if not any(map(share.fits, nodes)):
        raise SlimbenchError(
            f"no node of this Ray cluster has {share.cpus} CPUs{' and a GPU' if gpus else ''} for a job; lower the "
            "threads (slimbench: --threads) or add nodes."
        )
    return ("cuda" if gpus else "cpu"), share


def _check_compute(options: Options, run: Bench, device: str) -> None:
    """Refuse jobs whose records would have other keys than the driver's.

    Raises:
        SlimbenchError: products are computed in another precision on the jobs' device than on the driver's.
    """
    from harness.extraction.extract import compute_type

    usual = compute_type(run.plan.upstream, device, options.compute)
    if usual != run.plan.store.compute:
        raise SlimbenchError(
            f"jobs on {device} compute in {usual} unless they are told how; say --compute {usual} or --compute "
            f"{run.plan.store.compute} (make: COMPUTE=...)."
        )


def absolute(options: Options) -> Options:
    """The options with paths that mean the same in every folder."""
    here = Path.cwd()
    return replace(
        options,
        upstream=_file(options.upstream, here),
        suite=_file(options.suite, here),
        results=here / options.results,
        cache=here / options.cache,
        data=None if options.data is None else here / options.data,
    )


def _file(name: str, here: Path) -> str:
    """A card or suite: a name stays, the path of a file becomes absolute, with ``@variant`` behind it or not."""
    is_file = name.endswith((".yaml", ".yml")) or name.rpartition("@")[0].endswith((".yaml", ".yml"))
    return str(here / name) if is_file else name


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """The variables that a worker needs: those of slimbench, with absolute paths, and how idle threads behave."""
    found = {name: variables[name] for name in _CARRIED if name in variables}
    for name, value in variables.items():
        if name.startswith("SLIMBENCH_"):
            parts = (str(Path(part).absolute()) if Path(part).exists() else part for part in value.split(os.pathsep))
            found[name] = os.pathsep.join(parts) if value else value
    return found


_prepared: dict[Order, Bench] = {}
"""In a worker: the bench of the last order."""


def work(order: Order, shared: Shared, job: Job) -> str:
    """Do one job in a worker of the cluster; returns the name of its node.

    Raises:
        SlimbenchError: it cannot be done.
    """
    from harness import performing

    bench = _prepared.get(order)
    if bench is None:
        _prepared.clear()
        bench = _prepared[order] = _prepare(order)
    bench.plan.store.refresh()
    bench.watch.seconds.update(shared.seconds)
    bench.features = shared.features
    performing.perform(bench, job)
    return platform.node()


def _prepare(order: Order) -> Bench:
    """The driver's bench, made again here.

    Raises:
        SlimbenchError: this node does not see the same weights, data or code.
    """
    from harness import preparing

    try:
        bench = preparing.prepare(order.options, recorded=False, ways=dict(order.ways))
        preparing.survey(bench)
    except SlimbenchError as error:
        raise SlimbenchError(f"on node {platform.node()}, though not where the bench was started: {error}") from error
    here = {item.task.name: item.key for item in bench.plan.tasks}
    other = [name for name, key in order.keys if here[name] != key]
    if other:
        raise SlimbenchError(
            f"node {platform.node()} would make other records of {', '.join(other)} than the machine where the bench "
            "was started: see that both have the same slimbench, suite, weights and data (docs/cluster.md)."
        )
    return bench

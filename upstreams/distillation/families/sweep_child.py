"""One step of a sweep in a process of its own, so that memory does not grow and a crash costs one step.

``python -m upstreams.distillation.families.sweep_child REQUEST ANSWER`` reads a JSON request and writes a JSON answer:
``{"done": ...}``, or ``{"error": sentence}`` with exit status 2.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from harness import claims
from harness.interface import SlimbenchError


def ask(what: str, request: Mapping[str, Any]) -> Any:
    """Have a child do ``what`` (``pool``, ``train`` or ``bench``); its progress goes where this process's goes.

    Raises:
        SlimbenchError: it failed; the message has its sentence, or how the process ended.
    """
    with tempfile.TemporaryDirectory() as folder:
        asked, answer = Path(folder, "request.json"), Path(folder, "answer.json")
        asked.write_text(json.dumps({"what": what, **request}), encoding="utf-8")
        paths = os.pathsep.join(filter(None, sys.path))  # what only this process can import
        command = [sys.executable, "-m", "upstreams.distillation.families.sweep_child", str(asked), str(answer)]
        ended = _wait(command, {**os.environ, "PYTHONPATH": paths})
        said = json.loads(answer.read_text(encoding="utf-8")) if answer.is_file() else {}
    if ended == 0 and "done" in said:
        return said["done"]
    if ended in (-2, 130):
        raise KeyboardInterrupt
    reason = said.get("error") or (
        f"signal {-ended} ended its process" if ended < 0 else f"its process ended with {ended}"
    )
    raise SlimbenchError(str(reason))


def _wait(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a child to its end; returns its exit status. It ends with this process, however that ends."""
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE) as child:  # the pipe says that we live
        return child.wait()


def watch(handle: int, end: Callable[[], Any]) -> threading.Thread:
    """Call ``end`` when the other end of the pipe ``handle`` is closed, which happens when the process there dies.

    Two trainings of one student would write over each other, so none may outlive the sweep that another one continues.
    """

    def wait() -> None:
        while os.read(handle, 4096):  # not through a buffer, whose lock the interpreter would miss when it ends
            pass
        end()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def _pool(request: Mapping[str, Any]) -> None:
    """Fill the pool that the recipes train on, so that cohorts side by side find it there."""
    from upstreams.distillation import recipe

    place = _place(request)
    for name in request["recipes"]:
        found = recipe.load(name)
        place.shards(found.data)


def _train(request: Mapping[str, Any]) -> None:
    """Distil the recipes side by side, unless another sweep is at one of them.

    Raises:
        SlimbenchError: as the training does, or another process trains one of them.
    """
    from upstreams.distillation import train

    files = [Path(name) for name in request["recipes"]]
    with ExitStack() as stack:
        for file in files:
            lock = Path(request["work"], "sweeps", f"{file.stem}{claims.SUFFIX}")
            if not stack.enter_context(claims.claim(lock, wait=False)):
                raise SlimbenchError(f"Another sweep trains {file.stem} in {request['work']}; wait for it, or stop it.")
        train.cohort(files, _place(request))


def _place(request: Mapping[str, Any]) -> Any:
    from upstreams.distillation import train

    data = request["data"]
    device = train.device(request["device"])
    return train.Place(Path(request["work"]), None if data is None else Path(data), Path(request["out"]), device)


def _bench(request: Mapping[str, Any]) -> dict[str, Any]:
    """Run one task of one upstream; says where its record lies and what came out."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    from harness import preparing, records, run, show

    options = dict(request["options"])
    for name in ("results", "cache", "data"):
        options[name] = None if options[name] is None else Path(options[name])
    options["tasks"] = tuple(options["tasks"])
    (record,) = run.bench(preparing.Options(**options))
    file = records.path_of(options["results"], record.suite, record.upstream["name"], record.task, record.key)
    words = f"{record.metric} {show.number(record.value)} {show.interval(record.ci95)}"
    return {"record": str(file.relative_to(options["results"])), "said": words}


def main(request: Path, answer: Path) -> int:
    """Do what a request says and write the answer; returns the exit status."""
    asked = json.loads(request.read_text(encoding="utf-8"))
    doing = {"pool": _pool, "train": _train, "bench": _bench}[asked["what"]]
    try:
        said: dict[str, Any] = {"done": doing(asked)}
    except SlimbenchError as error:
        said = {"error": str(error)}
    except KeyboardInterrupt:
        return 130
    except (FloatingPointError, MemoryError, RuntimeError, OSError) as error:  # one student's, not the sweep's
        said = {"error": f"{type(error).__name__}: {(str(error).splitlines() or ['no reason given'])[0]}"}
    answer.write_text(json.dumps(said), encoding="utf-8")
    return 0 if "done" in said else 2


if __name__ == "__main__":
    watch(sys.stdin.fileno(), lambda: os._exit(137))
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))

"""Each process of a server is killed while a client is in each stage of a request: what the client sees, and what is left.

Also a frozen Triton, and what places.py fills or takes away.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from contract.names import MODEL, UNARY_MODEL
from serving.triton.health import fault
from serving.triton.orphans import marked
from tests.hostile.doors import Doors, Outcome
from tests.hostile.requests import Hostile, as_tensor
from tests.serving.reference import Reference
from tests.serving.test_launcher import guardian_of, processes
from tests.serving.wire import stream, tensors
from tests.waiting import seconds_until

STAGES = ("prompt", "stream", "upload")
VICTIMS = ("tritonserver", MODEL, UNARY_MODEL, "guardian")
AGAIN_SECONDS = 600.0  # a busy machine may take minutes to start a server
FROZEN, PLACES = "frozen", "places"


class Launched:
    """A server of the launcher, as a process of its own."""

    def __init__(self, reference: Reference, *before: str, flags: tuple[str, ...] = (), **environment: str) -> None:
        line = [*before, sys.executable, "-m", "serving", "--model", str(reference.language), "--dtype", "fp32"]
        ports = [word for kind in ("http", "grpc", "metrics") for word in (f"--{kind}-port", "0")]
        self.process = subprocess.Popen(
            [*line, "--threads", "1", *ports, *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | environment,
        )
        assert self.process.stdout is not None
        words = self.process.stdout.readline().split()
        self.http_url, self.grpc_url = words[1].removeprefix("http://"), words[3]
        self.prefix = guardian_of(self.process.pid)[1]

    def pid(self, name: str) -> int:
        if name == "guardian":
            return guardian_of(self.process.pid)[0]
        found = processes()
        for pid in marked(self.prefix):
            words = found.get(pid, [""])
            if words[0].endswith(f"/{name}") or any(f"/{name}/1/" in word for word in words[:2]):
                return pid
        raise LookupError(f"no process {name}")

    def kill(self, name: str, number: int) -> None:
        os.kill(self.pid(name), number)

    def close(self) -> None:
        self.process.terminate()
        self.process.communicate(timeout=60)


def as_request(values: dict[str, Any]) -> Hostile:
    return Hostile(tuple(as_tensor(name, value) for name, value in values.items()))


class Client(threading.Thread):
    """One request that is in the stage when `started` is set; outcome is what it saw, ended_seconds when."""

    def __init__(self, server: Launched, stage: str, reference: Reference) -> None:
        super().__init__(daemon=True)
        self.started, self.outcome = threading.Event(), None
        self.ended_seconds = 0.0
        self._server, self._stage, self._reference = server, stage, reference

    def run(self) -> None:
        doors = Doors(self._server.http_url, self._server.grpc_url)
        case = self._reference.case("long", "x" * (1500 if self._stage == "prompt" else 20), seed=1)
        values = tensors(case, sampling={"max_tokens": 400, "ignore_eos": True})
        if self._stage == "upload":
            self.outcome = self._upload(doors, values)
        else:
            if self._stage == "prompt":
                self.started.set()
            else:
                threading.Timer(0.7, self.started.set).start()
            self.outcome = doors.stream(as_request(values))
        self.ended_seconds = time.monotonic()
        doors.close()

    def _upload(self, doors: Doors, values: dict[str, Any]) -> Outcome:
        """Half of a body, a while, and the rest."""

        def halves() -> Any:
            body = b'{"text_input": "' + b"x" * 1000 + b'", "max_tokens": 400}'
            yield body[:500]
            self.started.set()
            time.sleep(0.5)
            yield body[500:]

        return doors.post(f"{UNARY_MODEL}/generate", halves(), {"Transfer-Encoding": "chunked"})  # type: ignore[arg-type]


def killed(server: Launched, reference: Reference, victim: str, stage: str, number: int) -> dict[str, Any]:
    """Send a signal to one process while a client is in a stage."""
    calm = tensors(reference.cases()["text"])
    expected = stream(server.grpc_url, calm)[0]
    old, pid = set(marked(server.prefix)), server.pid(victim)
    client = Client(server, stage, reference)
    client.start()
    client.started.wait(30)
    time.sleep(0.05)
    os.kill(pid, number)
    begun = time.monotonic()
    client.join(AGAIN_SECONDS)
    seen = client.outcome

    def is_served() -> bool:
        try:
            return stream(server.grpc_url, calm)[0] == expected and fault(server.http_url) is None
        except Exception:  # whatever a client meets while the server starts
            return False

    again = seconds_until(is_served, AGAIN_SECONDS)
    left = sorted(old & set(processes()))
    return {
        "victim": victim,
        "signal": signal.Signals(number).name,
        "stage": stage,
        "client_saw": None if seen is None else f"{seen.kind} {seen.text[:120]}",
        "client_s": None if seen is None else round(client.ended_seconds - begun, 2),
        "served_again_s": None if again is None else round(time.monotonic() - begun, 2),
        "left": len(left) if victim in ("tritonserver", "guardian") else 0,
    }


def chaos(reference: Reference, victims: Sequence[str] = ()) -> dict[str, Any]:
    """Every victim in every stage, a frozen Triton, then what is full or gone.

    Args:
        victims: some of VICTIMS, FROZEN and PLACES; none of them means all.
    """
    from tests.hostile.places import full_disk, full_memory, gone_store  # which use this module

    wanted, rows = victims or (*VICTIMS, FROZEN, PLACES), list[dict[str, Any]]()

    def note(row: dict[str, Any]) -> None:
        rows.append(row)
        print(row, file=sys.stderr, flush=True)

    left: float | None = 0.0
    if set(wanted) - {PLACES}:
        server = Launched(reference)
        try:
            for victim in VICTIMS:
                for stage in STAGES if victim in wanted else ():
                    note(killed(server, reference, victim, stage, signal.SIGKILL))
            if FROZEN in wanted:
                note(killed(server, reference, "tritonserver", "stream", signal.SIGSTOP))
        finally:
            server.close()
        left = seconds_until(
            lambda: not marked(server.prefix) and not list(Path("/dev/shm").glob(f"{server.prefix}*")), 60
        )
    for place in (full_memory, full_disk, gone_store) if PLACES in wanted else ():
        note(place(reference))
    is_sound = left is not None and all(
        row.get("served_again_s", 0) is not None and not row.get("left") for row in rows
    )
    return {"rows": rows, "is_sound": is_sound}

"""Hundreds of callers leave: no thread, descriptor, shared memory or growing memory stays behind them."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from serving.triton.launcher import TritonServer
from tests.gateway.gateway_process import Gateway, gateway_process
from tests.gateway.test_leaving import LONG, sent
from tests.waiting import wait_for

NUM_CALLERS = 300
HELLO = {"messages": [{"role": "user", "content": "How many shapes are there?"}], "stream": True} | LONG


def held(gateway: Gateway) -> dict[str, int]:
    """What the process holds now."""
    process = Path(f"/proc/{gateway.process.pid}")
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    return {
        "threads": int(status["Threads"]),
        "descriptors": len(list((process / "fd").iterdir())),
        "shared": sum("/dev/shm/" in line for line in (process / "maps").read_text().splitlines()),
        "resident": int(status["VmRSS"].split()[0]) * 1024,
    }


def leave(gateway: Gateway) -> None:
    with sent(gateway, HELLO) as caller:
        assert caller.recv(12) == b"HTTP/1.1 200"


def test_callers_who_left_hold_nothing(bundle_folder: Path, server: TritonServer) -> None:
    with gateway_process(bundle_folder, server.grpc_url) as gateway, ThreadPoolExecutor(8) as pool:

        def wave(count: int) -> dict[str, int]:
            list(pool.map(lambda _: leave(gateway), range(count)))
            wait_for(lambda: gateway.counted("requests_running") == 0)
            before = held(gateway)
            wait_for(lambda: held(gateway)["threads"] <= before["threads"])
            return held(gateway)

        warm, after = wave(50), wave(NUM_CALLERS)
        assert after["threads"] <= warm["threads"] + 4, (warm, after)  # pools that were not full yet
        assert after["descriptors"] <= warm["descriptors"] + 8
        assert after["shared"] == warm["shared"] == 0
        assert after["resident"] - warm["resident"] < 24 << 20, (warm, after)

"""First token over a long way: how many round trips a question costs beside the server's own time, and an upload.

A real Triton stands behind a relay that delays every byte by half a round trip in each direction. The picture is on the
server already, so a question is a key and some tokens. The same questions go to the server without the relay; what the
relay adds, in round trips, is what the way costs. Two builds take turns in one run: this one, and an older one in the
tree that --before names, each in a process of its own that asks on command. The last line is JSON.

    git worktree add /tmp/before 69ce114
    python -m benchmarks.first_token --before /tmp/before --out benchmarks/results/first_token.json
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.machine import machine
from benchmarks.relay import Relay
from benchmarks.result import add_out, finish
from benchmarks.serving_checkpoint import WIDE, random_server
from serving.triton.launcher import TritonServer
from tests.edge.grpc_door import certificate

ASKER = Path(__file__).with_name("first_token_asker.py")
UPLOAD_SIDE = 32  # patches: 256 rows of 4 x 2048 numbers in fp16 are 4 MiB


class Asker:
    """A build of the client in a process of its own."""

    def __init__(self, tree: Path, kind: str, url: str, chain: Path | None, card: str) -> None:
        line = [sys.executable, str(ASKER), kind, url, str(chain or ""), card]
        self._process = subprocess.Popen(
            line, cwd=tree, env={"PYTHONPATH": str(tree)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, what: str) -> float:
        """Milliseconds to the first answer of a "question" or an "upload"."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(what, file=self._process.stdin, flush=True)
        return float(self._process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(20)


@contextmanager
def askers(trees: dict[str, Path], server: TritonServer, round_trip_s: float) -> Iterator[dict[str, dict[str, Asker]]]:
    """By way and build; the way "direct" has no relay."""
    card = server.card
    facts = json.dumps(
        {
            "hidden": card.hidden_size,
            "levels": card.num_deepstack_levels,
            "pad": card.image_token_id,
            "fingerprint": card.encoder_fingerprint,
            "upload_side": UPLOAD_SIDE,
        }
    )
    with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        pair = certificate(Path(folder))
        found: dict[str, dict[str, Asker]] = {}
        for kind, target in (("grpc", server.grpc_url), ("http", server.http_url)):
            plain = stack.enter_context(Relay(target, round_trip_s))
            secret = stack.enter_context(Relay(target, round_trip_s, pair))
            secret_url = f"https://{secret.url}" if kind == "http" else secret.url
            for way, url, chain in (("direct", target, None), ("", plain.url, None), ("tls", secret_url, pair[1])):
                name = f"{kind} {way}".strip()
                found[name] = {build: Asker(tree, kind, url, chain, facts) for build, tree in trees.items()}
                for asker in found[name].values():
                    stack.callback(asker.close)
        yield found


def measure(server: TritonServer, trees: dict[str, Path], round_trip_s: float, rounds: int) -> list[dict[str, object]]:
    """A row for each way and task."""
    rows: list[dict[str, object]] = []
    with askers(trees, server, round_trip_s) as ways:
        for what, num_rounds in (("question", rounds), ("upload", max(5, rounds // 3))):
            times = {way: {build: list[float]() for build in trees} for way in ways}
            for turn in range(-3, num_rounds):
                for way, builds in ways.items():
                    for build in list(builds)[:: 1 if turn % 2 else -1]:
                        ms = builds[build].ask(what)
                        if turn >= 0:
                            times[way][build].append(ms)
            medians = {way: {b: statistics.median(ms) for b, ms in builds.items()} for way, builds in times.items()}
            for way, found in medians.items():
                own = medians[f"{way.split()[0]} direct"]
                row: dict[str, object] = {
                    "what": what,
                    "way": way,
                    "median_ms": {build: round(ms, 1) for build, ms in found.items()},
                }
                if not way.endswith("direct"):
                    row["round_trips"] = {b: round((ms - own[b]) / 1e3 / round_trip_s, 2) for b, ms in found.items()}
                if "before" in trees:
                    pairs = zip(times[way]["before"], times[way]["now"], strict=True)
                    row["median_times_faster"] = round(statistics.median(a / b for a, b in pairs), 2)
                rows.append(row)
                print(json.dumps(row), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the first token over a long way.")
    parser.add_argument("--before", type=Path, help="tree of an older build")
    parser.add_argument("--round-trip-ms", type=float, default=80.0)
    parser.add_argument("--rounds", type=int, default=21)
    add_out(parser)
    args = parser.parse_args()
    trees = {"now": Path.cwd()} | ({"before": args.before.absolute()} if args.before else {})
    with random_server(WIDE) as server:
        rows = measure(server, trees, args.round_trip_ms / 1e3, args.rounds)
    facts = {
        "round_trip_ms": args.round_trip_ms,
        "upload_bytes": UPLOAD_SIDE**2 // 4 * 4 * 2048 * 2,
        "machine": machine(),
    }
    result = {"benchmark": "first_token", **facts, "rows": rows}
    finish(result, args.out)


if __name__ == "__main__":
    main()

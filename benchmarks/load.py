"""NVIDIA's own load generator against a real server: `make load`. Streams over gRPC, whole answers over HTTP.

Every request carries the embeddings of one picture, every answer has the same length. The client shares the machine with
the server, so on a CPU the figures are a lower bound. Writes a table, JSON and a picture; the last line is JSON.
"""

import argparse
import json
import tempfile
from dataclasses import asdict, fields
from pathlib import Path

from benchmarks.chart import Panel, draw_chart
from benchmarks.machine import machine
from benchmarks.perf_analyzer import DOORS, REQUIREMENT, Load, run
from contract.limits import Limits
from examples.perf_analyzer.make_inputs import write_inputs
from serving.settings import Settings
from serving.triton.launcher import TritonServer

CONCURRENCIES = (1, 2, 4, 8, 16)


def measure(
    server: TritonServer, grid: tuple[int, int, int], max_tokens: int, concurrencies: list[int], window_ms: int
) -> list[Load]:
    """Load every door at every concurrency."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write_inputs(Path(folder), server.http_url, [grid], max_tokens)
        for concurrency in concurrencies:
            for door in DOORS:
                url = server.grpc_url if DOORS[door][1] == "grpc" else server.http_url
                rows.append(run(door, url, Path(folder), concurrency, window_ms, max_tokens))
                print(_line(rows[-1]), flush=True)
    return rows


def _line(row: Load) -> str:
    return "| " + " | ".join("-" if value is None else str(value) for value in asdict(row).values()) + " |"


def table(rows: list[Load]) -> str:
    """The figures as a Markdown table."""
    names = [field.name for field in fields(Load)]
    head = ["| " + " | ".join(name.replace("_", " ") for name in names) + " |", "|" + "---|" * len(names)]
    return "\n".join([*head, *map(_line, rows)]) + "\n"


def title(grid: str, max_tokens: int) -> str:
    """The title of the picture: what the load was."""
    return f"perf_analyzer, a picture of {grid} patches a request, {max_tokens} tokens an answer"


def draw(rows: list[Load], title: str, path: Path) -> None:
    """Throughput, time to the first token and time between tokens over concurrency."""

    def series(name: str) -> dict[str, list[tuple[float, float]]]:
        made: dict[str, list[tuple[float, float]]] = {}
        for row in rows:
            if (value := getattr(row, name)) is not None:
                made.setdefault(row.door, []).append((row.concurrency, value))
        return made

    panels = {"tokens a second": "tokens_per_second", "whole answer, p50, ms": "latency_p50_ms"}
    panels |= {"first token, p50, ms": "first_token_p50_ms"}
    draw_chart(title, "requests at once", [Panel(title, series(name)) for title, name in panels.items()], path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=".cache/language", help="language checkpoint")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--grid", default="1x32x32", help="frames x height x width of the picture, in patches")
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--concurrency", type=int, nargs="+", default=list(CONCURRENCIES))
    parser.add_argument("--window-ms", type=int, default=4000)
    parser.add_argument("--out", type=Path, help="folder for load.md, load.json and load.png")
    args = parser.parse_args()
    t, h, w = map(int, args.grid.split("x"))
    limits = Limits(max_active=max(args.concurrency))
    with TritonServer(Settings(args.model, num_threads=args.threads, limits=limits)) as server:
        rows = measure(server, (t, h, w), args.max_tokens, args.concurrency, args.window_ms)
    result = {
        "benchmark": "load",
        "tool": f"perf_analyzer of {REQUIREMENT}",
        "model": Path(args.model).name,
        "threads": args.threads,
        "grid": args.grid,
        "max_tokens": args.max_tokens,
        "machine": machine(),
        "rows": [asdict(row) for row in rows],
    }
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "load.json").write_text(json.dumps(result, indent=2) + "\n")
        (args.out / "load.md").write_text(table(rows))
        draw(rows, title(args.grid, args.max_tokens), args.out / "load.png")
    print(json.dumps(result))


if __name__ == "__main__":
    main()

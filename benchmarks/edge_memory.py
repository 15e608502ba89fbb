"""Memory and time of the device's encoder at a real tower's size: `python -m benchmarks.edge_memory`.

For each precision it writes a bundle of the 2B tower's shape with random weights (no gate: memory depends on shapes
alone), then opens it and encodes one 512 x 512 picture in a process of its own. The physics: the tower touches every
weight once, so the resident peak cannot be below the weights; what stands above is onnxruntime's own packed copy, the
activations of 1,024 patches, and Python. Linux counts two kinds of resident pages: anonymous ones are the process's
own, and it can drop and share those of files (the mapped weights). Times are seconds of one core, so that other work on
the machine does not count. The last line is JSON.
"""

import argparse
import json
import platform
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from benchmarks.machine import machine
from benchmarks.random_checkpoint import SHAPES, write_checkpoint
from benchmarks.result import add_out, finish
from contract.fingerprint import GRAPH_VERSION
from contract.manifest import CHAT_TEMPLATE, GRAPH, PRECISIONS, TOKENIZER, Manifest
from export import families
from export.graph.builder import OPSET
from export.graph.loop import write_graph
from export.precision import BY_NAME
from export.source.checkpoint import HAS_OUTER_VIDEO_WRAPPER, Checkpoint

ALLOWED_FACTOR, ALLOWED_BYTES = 1.25, 600 << 20  # the target: 1.25 times the weights and 600 MiB

CHILD = """
import json, re, sys, time
started = time.process_time()
import numpy as np
from edge_runtime import Encoder
from edge_runtime.items.item import Item

def memory():
    text = open("/proc/self/status").read()
    return {name: int(re.search(name + r":\\s+(\\d+)", text)[1]) * 1024 for name in ("VmHWM", "RssAnon", "RssFile")}

imported, before = time.process_time(), memory()
encoder = Encoder.from_bundle(sys.argv[1], threads=1, low_memory=sys.argv[2] == "low")
loaded, after_load = time.process_time(), memory()
slices = np.random.default_rng(0).integers(0, 256, (1024, 3, 1, 256), np.uint8).repeat(2, axis=2)
item = Item(slices.reshape(1024, -1), (1, 32, 32))
assert len(encoder.encode([item]).image_embeds) == 256
first = time.process_time()
again = []
for _ in range(3):
    begun = time.process_time()
    encoder.encode([item])
    again.append(time.process_time() - begun)
after = memory()
print(json.dumps({
    "import_cpu_s": imported - started, "load_cpu_s": loaded - imported, "first_embedding_cpu_s": first - started,
    "encode_cpu_s": sorted(again)[1], "anon_after_import": before["RssAnon"], "anon_after_load": after_load["RssAnon"],
    "anon_after_encode": after["RssAnon"], "file_after_encode": after["RssFile"], "peak_rss": after["VmHWM"],
}))
"""


def write_bundle(source: Path, out: Path, precision: str) -> int:
    """An edge bundle that passed no gate; returns the bytes of its weights."""
    checkpoint = Checkpoint(source)
    out.mkdir(parents=True)
    tower = families.tower(checkpoint.config)
    write_graph(
        families.find(checkpoint.config["model_type"]),
        tower,
        checkpoint.tower_tensor,
        checkpoint.image,
        out / GRAPH,
        BY_NAME[precision].linear,
    )
    shutil.copyfile(source / TOKENIZER, out / TOKENIZER)
    (out / CHAT_TEMPLATE).write_text(checkpoint.chat_template, encoding="utf-8")
    Manifest(
        card=checkpoint.card,
        image=checkpoint.image,
        video=checkpoint.video,
        has_outer_video_wrapper=HAS_OUTER_VIDEO_WRAPPER,
        precision=precision,
        opset=OPSET,
        graph_version=GRAPH_VERSION,
        libraries={},
        parity=[],
    ).write(out)
    return sum(path.stat().st_size for path in out.glob("vision.onnx*"))


def row(bundle: Path, precision: str, weights: int, mode: str) -> dict[str, object]:
    """What one process took; bytes as megabytes."""
    done = subprocess.run([sys.executable, "-c", CHILD, bundle, mode], stdout=subprocess.PIPE, text=True, check=True)
    told = json.loads(done.stdout)
    seconds = {name: round(value, 3) for name, value in told.items() if name.endswith("_s")}
    megabytes = {f"{name}_mb": round(value / 1e6) for name, value in told.items() if not name.endswith("_s")}
    allowed = ALLOWED_FACTOR * weights + ALLOWED_BYTES
    return {
        "precision": precision,
        "mode": mode,
        "weights_mb": round(weights / 1e6),
        "allowed_mb": round(allowed / 1e6),
        "within": told["peak_rss"] <= allowed,
        **megabytes,
        **seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Memory and time of the device's encoder at a real tower's size.")
    parser.add_argument("--size", choices=SHAPES, default="2b")
    parser.add_argument("--precision", choices=PRECISIONS, nargs="+", default=list(PRECISIONS))
    parser.add_argument("--small", type=Path, default=Path("models/tiny"), help="checkpoint whose small files are used")
    parser.add_argument("--work", type=Path, help="where the bundles are written for the time of the run")
    add_out(parser)
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(dir=args.work) as place:
        write_checkpoint(source := Path(place) / "model", args.small, args.size)
        for precision in args.precision:
            bundle = Path(place) / precision
            weights = write_bundle(source, bundle, precision)
            for mode in ("fast", "low"):
                rows.append(row(bundle, precision, weights, mode))
                print(json.dumps(rows[-1]), flush=True)
            shutil.rmtree(bundle)
    result = {
        "benchmark": "edge_memory",
        "tower": args.size,
        "picture": "512x512",
        "threads": 1,
        "machine": machine(),
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in ("onnxruntime", "numpy")},
        "rows": rows,
    }
    finish(result, args.out)


if __name__ == "__main__":
    main()

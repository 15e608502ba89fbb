"""`make demo` goes the whole way on this machine, with a picture that it draws itself.

This process is the edge device. It bars torch and transformers before it imports anything else; the export
and the server run in processes of their own.
"""

import sys

for _heavy in ("torch", "transformers", "torchvision"):
    sys.modules[_heavy] = None  # type: ignore[assignment]

import argparse
import json
import subprocess
import time
from pathlib import Path
from random import Random
from typing import Any

from edge_runtime import Encoder, GrpcClient, HttpClient, Pipeline, Sampling
from edge_runtime.request import Delta
from serving.settings import Settings
from serving.triton.launcher import TritonServer
from tiny_model.questions import Question, about_scene
from tiny_model.scenes import shapes_scene

ROOT = Path(__file__).parent.parent
WORK = ROOT / ".cache" / "demo"
SAMPLING = Sampling(max_tokens=64)
KINDS = ("describe", "count", "what_at")


def shown(path: Path) -> Path:
    """The path from the repository's root on, where it lies in there."""
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def export(model: Path) -> None:
    """Write the edge bundle and the language checkpoint, at once, in processes that may use torch."""
    running = []
    for verb, out in (("vision", WORK / "bundle"), ("language", WORK / "language")):
        print(f"export    python -m export.{verb} {shown(model)} {shown(out)}", flush=True)
        line = [sys.executable, "-m", f"export.{verb}", str(model), str(out)]
        running.append(subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
    said = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        raise SystemExit("".join(said))


def draw(seed: int) -> tuple[Path, list[Question]]:
    """Draw a picture file, and three questions with their answers."""
    random = Random(seed)
    scene = shapes_scene(random, 160, 128, scale=4)
    path = WORK / "picture.png"
    scene.image.save(path)
    print(
        f"picture   {path.relative_to(ROOT)}, {scene.image.width} x {scene.image.height}, {path.stat().st_size} bytes"
    )
    chosen = {q.kind: q for q in about_scene(random, scene)}
    return path, [chosen[kind] for kind in KINDS]


def ask(pipeline: Pipeline, client: GrpcClient, picture: Path, question: Question) -> dict[str, Any]:
    """Ask one question and stream its answer; returns the answer and its timings."""
    started = time.perf_counter()
    request = pipeline.ask(picture, question.text)
    sent = time.perf_counter()
    print(f"\nquestion  {question.text}\nanswer    ", end="", flush=True)
    text, first, delta = "", 0.0, Delta("")
    for delta in client.stream(request, SAMPLING):
        first = first or time.perf_counter()
        text += delta.text
        print(delta.text, end="", flush=True)
    print(f"\nexpected  {question.answer}")
    return {
        "question": question.text,
        "answer": text,
        "expected": question.answer,
        "encode_ms": (sent - started) * 1e3,
        "ttft_ms": (first - sent) * 1e3,
        "upload_bytes": delta.upload_bytes,
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Ask a bundled model about a drawn picture through a real Triton server."
    )
    parser.add_argument("--seed", type=int, default=7, help="another seed, another picture")
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "tiny", help="folder of a bundled model")
    args = parser.parse_args()
    if not (args.model / "config.json").is_file():
        parser.error(f"--model {args.model} has no config.json: give models/tiny or models/tiny-tiles")
    WORK.mkdir(parents=True, exist_ok=True)
    export(args.model.resolve())
    picture, questions = draw(args.seed)
    print("server    starting Triton", flush=True)
    with TritonServer(Settings(model=str(WORK / "language"))) as server:
        pipeline = Pipeline(Encoder.from_bundle(WORK / "bundle"))
        with GrpcClient(server.grpc_url) as client, HttpClient(server.http_url) as http:
            name, version = client.server()
            print(
                f"server    {name} {version} at {server.http_url} (HTTP) and {server.grpc_url} (gRPC): language model only"
            )
            edge_has_torch = sys.modules.get("torch") is not None
            print(
                f"edge      this process, torch loaded: {'yes' if edge_has_torch else 'no'}; the tower runs on onnxruntime"
            )
            answers = [ask(pipeline, client, picture, question) for question in questions]
            whole = http.infer(pipeline.ask(picture, questions[0].text), SAMPLING).text
            print(f"\nthe first again, in one piece over HTTP: {whole}")
    print("server    stopped\n")
    median = {key: sorted(a[key] for a in answers)[1] for key in ("encode_ms", "ttft_ms")}
    first, *later = (a["upload_bytes"] for a in answers)
    summary = {
        "answers": [{key: a[key] for key in ("question", "answer", "expected")} for a in answers],
        "http_answer_is_the_same": whole == answers[0]["answer"],
        "edge_has_torch": edge_has_torch,
        "triton_version": version,
        "encode_ms": round(median["encode_ms"], 2),
        "upload_bytes": first,
        "later_upload_bytes": max(later),
        "ttft_ms": round(median["ttft_ms"], 2),
    }
    print(json.dumps(summary))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The verbs as a user types them: files, video, cache, bench, chat with a real server, Ctrl-C, exit codes."""

import argparse
import io
import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load, load_file

from edge_runtime import Bundle, GrpcClient, Pipeline, Sampling
from edge_runtime.__main__ import main
from edge_runtime.commands.server import add_server_arguments
from serving.triton.launcher import TritonServer
from tests.conftest import ROOT
from tests.edge.grpc_door import Door, certificate
from tests.edge.verbs import command, told
from tests.edge.video_files import write_video
from tests.scrape import at_rest
from tiny_model.scenes import shapes_scene


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("media") / "picture.png"
    shapes_scene(Random(5), 160, 128, 3).image.save(path)
    return path


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("media") / "video.mp4", 27, 10, 96, 96)


def user(*content: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(content)}


@pytest.mark.parametrize("name", ["x.npz", "x.safetensors", "x"])
def test_encode_writes_what_the_pipeline_makes(
    tmp_path: Path, bundle_folder: Path, pipeline: Pipeline, picture: Path, video: Path,
    capsys: pytest.CaptureFixture[str], name: str,
) -> None:  # fmt: skip
    out = tmp_path / name
    report = told(capsys, "encode", bundle_folder, "--out", out, picture, video, "--fps", "1.5", "--max-pixels", 9216)
    here = Pipeline(pipeline.encoder, max_pixels=9216)
    parts = {"type": "image", "image": str(picture)}, {"type": "video", "video": str(video), "fps": 1.5}
    want = pipeline.encoder.encode(here.items([user(*parts)]))
    got = load_file(out) if name.endswith("safetensors") else np.load(out, allow_pickle=False)
    for key in ("image_embeds", "deepstack_embeds", "grid_thw"):
        np.testing.assert_allclose(got[key], getattr(want, key), atol=1e-4)
    assert report["grid_thw"] == want.grid_thw.tolist()
    np.testing.assert_allclose(got["vision_embeddings"], want.image_embeds, rtol=2e-3, atol=1e-3)
    np.testing.assert_allclose(got["deepstack_embeddings"], want.deepstack_embeds, rtol=2e-3, atol=1e-3)
    assert got["vision_embeddings"].dtype == got["deepstack_embeddings"].dtype == np.float16
    assert [*got["image_grid_thw"].tolist(), *got["video_grid_thw"].tolist()] == want.grid_thw.tolist()
    assert got["video_grid_thw"].shape == (1, 3)
    fingerprint = pipeline.encoder.bundle.manifest.card.encoder_fingerprint
    if name.endswith("safetensors"):
        with safe_open(out, "np") as file:
            assert file.metadata() == {"encoder_fingerprint": fingerprint}
    else:
        assert str(got["encoder_fingerprint"]) == fingerprint
    assert report["format"] == ("safetensors" if name.endswith("safetensors") else "npz")
    assert report["timestamps"] == [[], [0.45, 2.15]]  # frames 0, 9, 17, 26 of 10 a second
    assert report["num_encoded"] == 2


def test_who_stops_reading_ends_a_verb_without_a_traceback(bundle_folder: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    run = [sys.executable, "-m", "edge_runtime", *command("inspect", bundle_folder)]
    done = subprocess.run(run, cwd=ROOT, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


FULL = """
import resource, sys
from edge_runtime.__main__ import main
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
sys.exit(main(sys.argv[1:]))
"""


def test_encode_writes_into_a_pipe_and_leaves_it(tmp_path: Path, bundle_folder: Path, picture: Path) -> None:
    """As into a device: /dev/null stays one."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_bytes)
        assert main(command("encode", bundle_folder, "--out", pipe, "--format", "safetensors", picture)) == 0
        assert "image_embeds" in load(read.result(30))
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


@pytest.mark.parametrize("name", ["x.npz", "x.safetensors"])
def test_a_disk_that_is_full_leaves_the_earlier_file(
    tmp_path: Path, bundle_folder: Path, picture: Path, name: str
) -> None:
    out = tmp_path / name
    out.write_bytes(b"earlier")
    args = command("encode", bundle_folder, "--out", out, picture)
    done = subprocess.run([sys.executable, "-c", FULL, *args], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"{out} cannot be written: File too large" in done.stderr
    assert out.read_bytes() == b"earlier"
    assert [path.name for path in tmp_path.glob("x.*")] == [name]


def test_a_cache_folder_outlives_the_run(
    tmp_path: Path, bundle_folder: Path, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ("encode", bundle_folder, "--out", tmp_path / "x.npz", "--cache", tmp_path / "kept", picture)
    assert [told(capsys, *args)["num_encoded"] for _ in range(2)] == [1, 0]


def test_a_folder_of_frames_is_a_video(tmp_path: Path, bundle_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(3):
        shapes_scene(Random(number), 96, 96, 1).image.save(tmp_path / f"{number}.png")
    out = tmp_path.parent / "x.npz"
    report = told(capsys, "encode", bundle_folder, "--out", out, tmp_path, "--sample-fps", 1)
    assert report["grid_thw"] == [[2, 6, 6]]
    assert report["timestamps"] == [[0.5, 2.0]]


@pytest.mark.parametrize("verb", ["serve", "ui"])
def test_what_listens_says_where_and_heeds_control_c(bundle_folder: Path, verb: str) -> None:
    """The line comes once Ctrl-C is heeded: one sent at that moment ends it in order."""
    args = command(verb, bundle_folder, "--port", "0", "--json")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen([sys.executable, "-m", "edge_runtime", *args], cwd=ROOT, **pipes) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(b"{"):
                break
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=30)[0]
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/(v1)?", json.loads(line)["url"])
    assert b"Traceback" not in said
    assert verb == "ui" or b"shutdown complete" in said
    assert process.returncode == 130


def test_exit_codes_and_errors(
    tmp_path: Path, bundle_folder: Path, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.png").write_bytes(picture.read_bytes()[:200])
    (tmp_path / "empty").mkdir()
    out, messages = str(tmp_path / "x.npz"), tmp_path / "messages.json"
    messages.write_text('{"role": "user", "content": "Hello"}')
    cases: list[tuple[list[str], int, str, str]] = [
        (command("encode", bundle_folder, "--out", out, tmp_path / "bad.png"), 2, "INVALID_ARG", "bad.png: picture cannot be decoded"),
        (command("encode", bundle_folder, "--out", out, "http://127.0.0.1/x.png"), 2, "INVALID_ARG", "--fetch allows"),
        (command("encode", bundle_folder, "--out", out, "http://127.0.0.1/x.png", "--fetch"), 2, "INVALID_ARG", "public"),
        (command("encode", bundle_folder, "--out", tmp_path / "no" / "x", picture), 2, "INVALID_ARG", "cannot be written"),
        (command("encode", bundle_folder, "--out", out, picture, "--provider", "x"), 2, "INVALID_ARG", "provider is 'x'"),
        (command("encode", bundle_folder, "--out", out, picture, "--threads", "-1"), 2, "INVALID_ARG", "threads is -1"),
        (command("encode", bundle_folder, "--out", out, picture, "--threads", "100000"), 2, "INVALID_ARG", "0 (all cores) to 1024"),
        (command("encode", bundle_folder, "--out", "", picture), 2, "INVALID_ARG", "names no file"),
        (command("ask", bundle_folder, picture, "Why?", "--timeout", "nan"), 2, "INVALID_ARG", "timeout_s is nan"),
        (command("ask", bundle_folder, picture, "Why?", "--deadline", "-1"), 2, "INVALID_ARG", "deadline_s is -1"),
        (command("inspect", bundle_folder, "--messages", messages), 2, "INVALID_ARG", "messages is dict"),
        (command("inspect", bundle_folder, "--messages", tmp_path / "none.json"), 2, "INVALID_ARG", "none.json cannot be read: No such"),
        (command("encode", bundle_folder, "--out", out, tmp_path / "empty"), 2, "INVALID_ARG", "video has no frames"),
        (command("encode", tmp_path, "--out", out, picture), 2, "INTERNAL", "no edge bundle"),
        (command("encode", bundle_folder, "--out", out, "http://[::1/x.png", "--fetch"), 2, "INVALID_ARG", "cannot be fetched"),
        (command("ask", bundle_folder, picture, "Why?", "--triton", "127.0.0.1:9"), 1, "UNAVAILABLE", "127.0.0.1:9: Failed to connect to remote host: Connection refused: is Triton running"),
        (command("ask", bundle_folder, picture, "Why?", "--triton", "127.0.0.1:9", "--precision", "int8"), 1, "UNAVAILABLE", "Connection refused: is Triton running at this address, with gRPC on this port?"),
    ]  # fmt: skip
    for args, status, code, says in cases:
        assert main([*args, "--json"]) == status
        printed = capsys.readouterr()
        error = json.loads(printed.out)
        assert error["code"] == code
        assert says in error["error"]
        assert printed.err == f"error: {error['error']}\n"
    for wrong in (["encode"], ["serve", "--port", "65536"], ["ui", "--port", "-1"]):
        with pytest.raises(SystemExit) as stop:
            main(wrong)
        assert stop.value.code == 2


@pytest.mark.parametrize("verb", ["ask", "serve", "embed"])
@pytest.mark.parametrize(
    "wrong",
    [
        *(
            ("--triton", url)
            for url in (
                "http://[::1",
                "http://[zz]:80",
                "http://a b:1",
                "",
                ":",
                "localhost",
                "localhost:99999",
                "localhost:abc",
                "a b:1",
                "ftp://a:1",
            )
        ),
        ("--header", "a:b\r\nc: d"),
        ("--header", "\u00e9:b"),
        ("--header", "a:\u00fc"),
    ],
)
def test_wrong_addresses_and_headers_name_their_option(
    verb: str, wrong: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    rest = {"ask": ["picture.png", "Why?"], "serve": [], "embed": ["picture.png"]}[verb]
    with pytest.raises(SystemExit) as stop:
        main([*command(verb, Path("none"), *rest), *wrong])
    assert stop.value.code == 2
    assert f"argument {wrong[0]}: {wrong[1]!r} is no" in capsys.readouterr().err


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8001",
        "[::1]:8001",
        "http://[::1]:80/x",
        "https://a.b",
        "unix:/x",
        "dns:///a:1",
        "dns:8001",
        "ipv4:127.0.0.1:80",
    ],
)
def test_addresses_that_pass(url: str) -> None:
    parser = argparse.ArgumentParser()
    add_server_arguments(parser)
    assert parser.parse_args(["--triton", url]).triton == url


def test_progress_is_for_people(tmp_path: Path, bundle_folder: Path, video: Path) -> None:
    """On a terminal frames are counted; in a pipe standard error stays empty."""
    args = command("encode", bundle_folder, "--out", tmp_path / "x.npz", video)
    run = [sys.executable, "-m", "edge_runtime", *args]
    assert subprocess.run(run, cwd=ROOT, check=True, capture_output=True, timeout=60).stderr == b""
    ours, theirs = pty.openpty()
    subprocess.run(run, cwd=ROOT, check=True, stdout=subprocess.PIPE, stderr=theirs, timeout=60)
    os.close(theirs)
    shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert [int(n) for n in re.findall(r"\rframe (\d) of 5", shown)] == [1, 2, 3, 4, 5]


QUESTIONS = ["How many shapes are there?", "Describe the image."]


@pytest.mark.parametrize("door", ["grpc", "http"])
def test_chat_encodes_and_uploads_once(
    server: TritonServer, pipeline: Pipeline, bundle_folder: Path, picture: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, door: str,
) -> None:  # fmt: skip
    url = server.grpc_url if door == "grpc" else f"http://{server.http_url}"
    args = command("chat", bundle_folder, picture, "--triton", url, "--max-tokens", "16")
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join([QUESTIONS[0], "", QUESTIONS[1]])))
    assert main([*args, "--json"]) == 0
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (first["num_encoded"], second["num_encoded"]) == (1, 0)
    assert (first["ran"], second["ran"]) == (["cpu"], [])
    assert (first["num_uploaded"], second["num_uploaded"]) == (1, 0)
    messages: list[dict[str, Any]] = []
    for report, question in ((first, QUESTIONS[0]), (second, QUESTIONS[1])):
        shown = [] if messages else [{"type": "image", "image": str(picture)}]
        messages.append(user(*shown, {"type": "text", "text": question}))
        request = pipeline.request(messages)
        with GrpcClient(server.grpc_url) as client:
            answer = "".join(delta.text for delta in client.stream(request, Sampling(max_tokens=16)))
        assert report["question"] == question
        assert report["answer"] == answer
        assert report["num_input_tokens"] == len(request.input_ids)
        messages.append({"role": "assistant", "content": answer})
    rows = 2 * (request.main.size + request.deepstack.size)
    assert first["upload_bytes"] > rows
    assert second["upload_bytes"] < 20 * len(request.input_ids) < rows
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(QUESTIONS)))
    assert main(args) == 0
    lines = capsys.readouterr().out
    assert len(re.findall(r"\[encoded 1 in \d+ ms, uploaded 1; sent \d+ bytes, ", lines)) == 1
    assert lines.count("[encoded nothing, uploaded nothing; sent ") == 1
    assert lines.startswith(first["answer"])


def test_ask_takes_every_way_there_is(
    server: TritonServer, bundle_folder: Path, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask = ("ask", bundle_folder, picture, QUESTIONS[1], "--max-tokens", "8", "--triton")
    plain = told(capsys, *ask, server.grpc_url)
    ways = {
        "over HTTP": (f"http://{server.http_url}",),
        "in int8": (server.grpc_url, "--precision", "int8"),
        "in shared memory": (server.grpc_url, "--shared-memory"),
        "in shared memory over HTTP": (f"http://{server.http_url}", "--shared-memory"),
    }
    reports = {name: told(capsys, *ask, *way) for name, way in ways.items()}
    assert {report["answer"] for report in reports.values()} == {plain["answer"]}
    assert {report["num_uploaded"] for report in reports.values()} == {1}
    assert reports["in int8"]["upload_bytes"] < 0.6 * plain["upload_bytes"]
    assert reports["in shared memory"]["upload_bytes"] < 0.1 * plain["upload_bytes"]
    assert (plain["codec"], reports["in int8"]["codec"]) == ("fp16", "int8")
    file = io.BytesIO()
    Image.open(picture).convert("RGB").save(file, "JPEG", quality=90)
    assert 1000 < plain["jpeg_bytes"] < file.tell()  # of the size that the tower sees, which is smaller
    assert plain["upload_to_jpeg"] == round(plain["upload_bytes"] / plain["jpeg_bytes"], 2)


def test_ask_says_what_travels_in_the_place_of_a_codec(
    server: TritonServer, bundle_folder: Path, picture: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """The bundle has other codec numbers than the server: int8 travels, one line and the report say why."""
    bundle = tmp_path / "bundle"
    shutil.copytree(bundle_folder, bundle)
    opened = Bundle.load(bundle)
    numbers = opened.numbers
    assert numbers is not None
    other = replace(numbers, int4_steps=numbers.int4_steps * np.float32(2))
    other.write(bundle)
    opened.manifest.write(bundle)
    ask = ("ask", bundle, picture, QUESTIONS[1], "--max-tokens", "8", "--triton", server.grpc_url, "--precision")
    report = told(capsys, *ask, "int4")
    assert report["codec"] == "int8"
    for name in (other.names["int4"], numbers.names["int4"], "int8 travels in its place"):
        assert name in report["fallback"]
    records = [one for one in caplog.records if one.name == "edge_runtime.clients.connection"]
    assert [one.getMessage() for one in records] == [report["fallback"]]
    same = told(capsys, *ask, "int8")
    assert (report["answer"], report["upload_bytes"]) == (same["answer"], same["upload_bytes"])
    assert same["fallback"] is None


def test_batch_answers_each_and_names_what_has_no_answer(
    server: TritonServer, bundle_folder: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other, damaged = tmp_path / "other.png", tmp_path / "damaged.png"
    shapes_scene(Random(6), 128, 160, 2).image.save(other)
    damaged.write_bytes(picture.read_bytes()[:100])
    where = ("--triton", server.grpc_url, "--max-tokens", "8")
    alone = [told(capsys, "ask", bundle_folder, one, QUESTIONS[0], *where)["answer"] for one in (picture, other)]
    assert main(command("batch", bundle_folder, QUESTIONS[0], picture, other, *where)) == 0
    assert capsys.readouterr().out.splitlines() == [f"{picture}: {alone[0]}", f"{other}: {alone[1]}"]
    assert main(command("batch", bundle_folder, QUESTIONS[0], picture, damaged, other, *where, "--json")) == 2
    *lines, last = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert [line["media"] for line in lines] == [str(picture), str(damaged), str(other)]
    assert [line.get("answer") for line in lines] == [alone[0], None, alone[1]]
    assert "cut short" in lines[1]["error"]
    assert "1 of 3 have no answer" in last["error"]


def test_a_video_is_asked_about(
    server: TritonServer, pipeline: Pipeline, bundle_folder: Path, video: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("--triton", server.grpc_url, "--max-tokens", 12, "--nframes", 4)
    report = told(capsys, "ask", bundle_folder, video, "What appears last?", *where)
    part = {"type": "video", "video": str(video), "nframes": 4}
    request = pipeline.request([user(part, {"type": "text", "text": "What appears last?"})])
    assert report["num_input_tokens"] == len(request.input_ids)
    with GrpcClient(server.grpc_url) as client:
        assert report["answer"] == "".join(d.text for d in client.stream(request, Sampling(max_tokens=12)))


def test_the_server_may_stand_behind_tls_and_a_password(
    server: TritonServer, bundle_folder: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair, question = certificate(tmp_path), QUESTIONS[1]
    plain = told(capsys, "ask", bundle_folder, picture, question, "--triton", server.grpc_url, "--max-tokens", 8)
    with Door(server.grpc_url, pair=pair) as door:
        args = [picture, question, "--triton", door.url, "--max-tokens", 8, "--tls-ca", pair[1]]
        report = told(capsys, "ask", bundle_folder, *args, "--header", "Authorization: Bearer 7", "--header", "x-a:b")
        assert (door.seen[0]["authorization"], door.seen[0]["x-a"]) == ("Bearer 7", "b")
        assert report["answer"] == plain["answer"]
        untrusted = command("ask", bundle_folder, picture, question, "--triton", door.url, "--tls", "--timeout", "10")
        assert main(untrusted) == 1
    with pytest.raises(SystemExit):
        main(command("ask", bundle_folder, picture, question, "--header", "nonsense"))


def test_deadline_and_retry(
    server: TritonServer, bundle_folder: Path, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    late = ["--triton", server.grpc_url, "--deadline", "0.001"]
    assert main(command("ask", bundle_folder, picture, QUESTIONS[1], *late)) == 1
    assert "longer than its deadline of 0.001 s" in capsys.readouterr().err
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    started = time.monotonic()
    nobody = ["--triton", f"127.0.0.1:{port}", "--retry", "1"]
    assert main(command("ask", bundle_folder, picture, QUESTIONS[1], *nobody)) == 1
    assert time.monotonic() - started > 0.5


@pytest.mark.parametrize("verb", ["serve", "ui"])
def test_what_stays_says_what_it_loads(bundle_folder: Path, verb: str) -> None:
    line = [sys.executable, "-m", "edge_runtime", verb, "--bundle", str(bundle_folder), "--port", "0", "--threads", "1"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([*line, "--triton", "127.0.0.1:1"], cwd=ROOT, text=True, **pipes) as process:  # type: ignore[call-overload]
        assert process.stderr.readline() == f"loading {bundle_folder}\n"
        loaded = (
            r"loaded in \d+\.\d s: tower of qwen3_vl, fp32, \d+ MB, (kernels \w+|CPU\w+); answers come from 127.0.0.1:1"
        )
        assert re.match(loaded, said := process.stderr.readline()), said
        process.kill()


@pytest.mark.parametrize("way", ["answer", "prompt"])
def test_control_c_in_a_chat(server: TritonServer, bundle_folder: Path, picture: Path, way: str) -> None:
    """While an answer comes it ends that answer, at the prompt it ends the chat."""
    sampling = ["--max-tokens", "2000", "--temperature", "5", "--seed"] if way == "answer" else ["--json", "--seed"]
    args = command("chat", bundle_folder, picture, "--triton", server.grpc_url, *sampling)
    for seed in range(8):  # an answer may end by itself before the signal arrives
        with subprocess.Popen(
            [sys.executable, "-m", "edge_runtime", *args, str(seed)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as process:  # fmt: skip
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(f"{QUESTIONS[1]}\n".encode())
            process.stdin.flush()
            assert process.stdout.read(1) if way == "answer" else json.loads(process.stdout.readline())["answer"]
            process.send_signal(signal.SIGINT)
            if way == "prompt":
                with suppress(subprocess.TimeoutExpired):
                    process.wait(2)
                if process.poll() is None:  # it met the end of the answer
                    process.send_signal(signal.SIGINT)
                assert process.wait(20) == 130
                return
            _, errors = process.communicate(timeout=20)
        assert b"Traceback" not in errors
        if b"this question is forgotten" in errors:
            break
    assert b"this question is forgotten" in errors
    assert process.returncode == 0  # standard input ended


@pytest.mark.parametrize("door", ["grpc", "http"])
def test_control_c_cancels_on_the_server(server: TritonServer, bundle_folder: Path, picture: Path, door: str) -> None:
    before, url = (
        at_rest(server)["cancelled_requests_total"],
        server.grpc_url if door == "grpc" else f"http://{server.http_url}",
    )
    args = command("ask", bundle_folder, picture, "Describe the image.", "--triton", url)
    run = [sys.executable, "-m", "edge_runtime", *args, "--max-tokens", "2000", "--temperature", "5", "--seed"]
    for seed in range(8):  # an answer may end by itself before the signal arrives
        with subprocess.Popen([*run, str(seed)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.read(1)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=20)
        assert b"Traceback" not in errors
        if (cancelled := at_rest(server)["cancelled_requests_total"]) != before:
            break
    assert process.returncode == 130
    assert cancelled == before + 1

"""The launcher leaves nothing behind, however it ends, and says in one line why it does not start."""

import glob
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml
from tritonclient.utils import InferenceServerException

from contract.errors import BundleError, ServerError
from contract.limits import Limits
from serving.__main__ import _options
from serving.settings import Settings
from serving.triton import stub_environment
from serving.triton.build import IMAGE, WHEEL, Ports, command, wheel_folder
from serving.triton.cache import cache_folder, made_once
from serving.triton.launcher import HOST, TritonServer, _linked_backends
from serving.triton.orphans import marked
from serving.triton.ports import ANY_PORTS, free_ports
from tests.serving.reference import Case, Reference, remove_tensor
from tests.serving.wire import stream, tensors
from tests.waiting import seconds_until, wait_for

ROOT = Path(__file__).parents[2]


def processes() -> dict[int, list[str]]:
    found = {}
    for folder in glob.glob("/proc/[0-9]*"):
        try:
            words = Path(folder, "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if words[0]:
            found[int(folder[6:])] = words
    return found


def guardian_of(launcher: int) -> tuple[int, str]:
    """The guardian of a launcher process, and from its arguments the mark of the server."""
    for pid, words in processes().items():
        status = Path(f"/proc/{pid}/stat").read_text()
        if int(status.rsplit(")", 1)[1].split()[1]) == launcher and any("guardian" in word for word in words):
            return pid, next(word for word in words if word.startswith("edge_vlm_"))
    raise AssertionError("no guardian")


def left_of(prefix: str) -> list[str]:
    names = [" ".join(words) for words in processes().values() if any(prefix in word for word in words)]
    return names + glob.glob(f"/dev/shm/{prefix}*")


def wait_until_gone(prefix: str) -> None:
    assert seconds_until(lambda: not left_of(prefix), 60) is not None, left_of(prefix)


def start(*options: str | Path, **environment: str) -> subprocess.Popen:
    line = [sys.executable, "-m", "serving", "--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"]
    return subprocess.Popen(
        [*line, "--threads", "1", *map(str, options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )


def test_nothing_is_left_of_a_killed_launcher(reference: Reference, cases: dict[str, Case]) -> None:
    """After SIGTERM too: test_health stops a launcher so."""
    with start("--model", reference.language, "--dtype", "fp32") as process:
        words = process.stdout.readline().split()
        assert words[::2] == ["ready", "grpc", "metrics"]
        assert stream(words[3], tensors(cases["text"]))[0] == cases["text"].expected
        prefix = guardian_of(process.pid)[1]
        assert len(left_of(prefix)) >= 4  # guardian, server, two stubs, shared memory
        process.kill()
        out, err = process.communicate(timeout=30)
    assert (out, err) == ("", "")
    assert process.returncode == -signal.SIGKILL
    wait_until_gone(prefix)


def test_a_killed_guardian_is_replaced(reference: Reference, cases: dict[str, Case]) -> None:
    """Nothing of the old server is left, the new one has its ports, and SIGTERM still ends everything."""
    with start("--model", reference.language, "--dtype", "fp32") as process:
        url = process.stdout.readline().split()[3]
        guardian, prefix = guardian_of(process.pid)
        old = set(marked(prefix))
        assert len(old) >= 3  # Triton and two models
        os.kill(guardian, signal.SIGKILL)
        wait_for(lambda: not old & set(processes()), seconds=10)
        wait_for(lambda: is_served(url, tensors(cases["text"]), cases["text"].expected), seconds=60)
        assert guardian_of(process.pid)[0] != guardian
        process.terminate()
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "")
    assert err == "warning: the server is started again: its guardian ended with -9\n"
    wait_until_gone(prefix)


def test_a_crash_says_where(reference: Reference, cases: dict[str, Case]) -> None:
    """The warning has the Python stack of the model's process: without it a crash on somebody's machine is a riddle."""
    with start("--model", reference.language, "--dtype", "fp32") as process:
        url = process.stdout.readline().split()[3]
        prefix = guardian_of(process.pid)[1]
        victim = next(pid for pid, words in processes().items() if prefix in " ".join(words) and "stub" in words[0])
        old = set(marked(prefix))
        os.kill(victim, signal.SIGSEGV)
        wait_for(lambda: not old & set(processes()), seconds=60)  # the guardian has seen it, and ended the server
        wait_for(lambda: is_served(url, tensors(cases["text"]), cases["text"].expected), seconds=120)
        process.terminate()
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "")
    assert err.startswith("warning: the server is started again: ")  # the process is gone, or a request saw it go
    assert "Fatal Python error: Segmentation fault" in err
    assert "door.py" in err
    wait_until_gone(prefix)


def test_nothing_is_left_of_launcher_and_guardian_killed_at_once(reference: Reference) -> None:
    """The models notice that Triton is gone, and take the shared memory with them."""
    with start("--model", reference.language, "--dtype", "fp32") as process:
        process.stdout.readline()
        guardian, prefix = guardian_of(process.pid)
        assert glob.glob(f"/dev/shm/{prefix}*")
        for pid in (process.pid, guardian):
            os.kill(pid, signal.SIGSTOP)
        for pid in (guardian, process.pid):
            os.kill(pid, signal.SIGKILL)
        process.communicate(timeout=30)
    wait_until_gone(prefix)


def is_served(url: str, values: Any, expected: Any) -> Any:
    try:
        return stream(url, values)[0] == expected
    except InferenceServerException:
        return False


@pytest.mark.parametrize("kind", ["absent", "full checkpoint", "no JSON"])
def test_a_folder_that_is_no_language_checkpoint(reference: Reference, tmp_path: Path, kind: str) -> None:
    folder = reference.full if kind == "full checkpoint" else tmp_path / "model"
    if kind == "no JSON":
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        (folder / "edge_vlm.json").write_text("{")
    with start("--model", folder) as process:
        out, err = process.communicate(timeout=30)
    assert process.returncode == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert str(folder) in err


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--max-active", "0", "max_active is 0, a number above 0 is expected"),
        ("--max-waiting", "-1", "max_waiting is -1, 0 or more is expected"),
        ("--threads", "-1", "threads is -1"),
        ("--triton", "/none", "no bin/tritonserver"),
        ("--log-file", "/none/log", "log_file is '/none/log': No such file or directory"),
        ("--engine-args", "/none.json", "/none.json cannot be read: No such file or directory"),
    ],
)
def test_options_that_cannot_be_used(reference: Reference, option: str, value: str, says: str) -> None:
    with start("--model", reference.language, option, value) as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert says in err


def test_damaged_weights(reference: Reference, tmp_path: Path) -> None:
    """Found before anything starts, in one line that names the file."""
    shutil.copytree(reference.language, tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with start("--model", tmp_path / "model") as process:
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (2, "")
    assert err.startswith(f"error: {path} has ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("option", ["--http-port", "--grpc-port", "--metrics-port"])
def test_a_number_that_no_port_has(reference: Reference, option: str) -> None:
    with start("--model", reference.language, option, "70000") as process:
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (2, "")
    assert err.startswith(f"error: the {option[2:6].rstrip('-')}")
    assert "is 70000, numbers from 0 to 65535" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "server.example"])
def test_the_wheels_triton_is_for_this_machine(reference: Reference, host: str) -> None:
    with start("--model", reference.language, "--host", host) as process:
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (2, "")
    assert "published security advisories" in err
    assert "--listen-despite-known-flaws" in err
    TritonServer(Settings(str(reference.language)), host=host, accepts_known_flaws=True)
    for own in ("127.0.0.1", "127.8.0.1", "::1", "localhost"):
        TritonServer(Settings(str(reference.language)), host=own)


def test_the_unit_file_starts_the_launcher_again() -> None:
    text = (ROOT / "deploy" / "edge-vlm-server.service").read_text()
    assert "\nRestart=always\n" in text
    line = re.search(r"^ExecStart=\S+/python -m serving (.*)$", text, re.MULTILINE)
    assert _options().parse_args(line[1].split()).model is not None
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    assert {service["restart"] for service in services.values()} == {"unless-stopped"}


def test_a_model_that_does_not_load(reference: Reference, tmp_path: Path) -> None:
    remove_tensor(reference.language, tmp_path / "model", "layers.1.mlp.up_proj.weight")
    server = TritonServer(Settings(str(tmp_path / "model"), num_threads=1))
    with pytest.raises(ServerError, match=r"layers\.1\.mlp\.up_proj"):
        server.start()
    wait_until_gone(server.shm_prefix)


def test_a_port_in_use(reference: Reference) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServerError, match=f"port {port} of 127.0.0.1"):
            TritonServer(Settings(str(reference.language)), Ports(port, 0, 0)).start()


def test_chosen_ports_are_nobody_elses_until_triton_listens() -> None:
    with free_ports(ANY_PORTS, HOST) as held:
        assert len(set(astuple(held))) == 3
        for port in astuple(held):
            with socket.socket() as other, pytest.raises(OSError, match="in use"):
                other.bind((HOST, port))
            with socket.socket() as listener:  # as Triton's
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind((HOST, port))
                listener.listen()


def test_nothing_starts_for_a_bad_folder(tmp_path: Path) -> None:
    server = TritonServer(Settings(str(tmp_path)))
    with pytest.raises(BundleError):
        server.start()
    server.stop()


def test_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_VLM_CACHE", str(tmp_path))
    made = []

    def make(work: Any) -> None:
        time.sleep(0.05)
        made.append(work)
        (work / "file").write_text("x")

    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(lambda _: made_once("thing", make), range(4)))
    assert folders == {tmp_path / "thing"}
    assert len(made) == 1

    def fail(work: Any) -> NoReturn:
        raise ServerError("no")

    with pytest.raises(ServerError):
        made_once("other", fail)
    assert sorted(os.listdir(tmp_path)) == ["other.lock", "thing", "thing.lock"]


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("EDGE_VLM_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "edge-vlm"


def test_no_shared_libpython_names_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(stub_environment, "SYSTEM_FOLDERS", ())
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path))
    minor = f"{sys.version_info.major}.{sys.version_info.minor}"
    with pytest.raises(ServerError, match=rf"apt-get install libpython{minor}"):
        stub_environment.find_interpreter()


def test_the_image_differs_in_three_flags(tmp_path: Path) -> None:
    wheel, image = (
        set(command(build, tmp_path, tmp_path, Ports(), Limits(), host="127.0.0.1", shm_prefix="p_", backends=tmp_path))
        for build in (WHEEL, IMAGE)
    )
    assert wheel - image == {"--allow-gpu-metrics=false"}
    limit = f"--http-max-input-size={Limits().max_embedding_bytes + (64 << 20)}"
    assert image - wheel == {"--allow-gpu-metrics=true", "--allow-client-shm=true", limit}


def test_the_image_is_pinned_once() -> None:
    dockerfile = (Path(__file__).parents[2] / "Dockerfile.triton").read_text()
    assert f"FROM nvcr.io/nvidia/tritonserver:{IMAGE.release}-py3\n" in dockerfile


def test_the_image_entry_point(reference: Reference, cases: dict[str, Case], tmp_path: Path) -> None:
    """What the image runs, over a stand-in for its Triton: the wheel's, which lacks the newer flags."""
    stub = stub_environment.stub_environment()
    (tmp_path / "bin").mkdir()
    (tmp_path / "caches").symlink_to(wheel_folder() / "caches")
    _linked_backends(wheel_folder(), tmp_path / "backends")
    script = tmp_path / "bin" / "tritonserver"
    script.write_text(f"""#!/bin/bash
export PATH={stub.bin}:$PATH LD_LIBRARY_PATH={stub.library_folder}
for flag in "$@"; do
    case $flag in --http-max-input-size=*|--allow-client-shm=*) ;; *) kept+=("$flag");; esac
done
exec {wheel_folder()}/bin/tritonserver "${{kept[@]}}"
""")
    script.chmod(0o755)
    words = re.findall(r"^ENTRYPOINT (.*)$", (ROOT / "Dockerfile.triton").read_text(), re.MULTILINE)
    assert json.loads(words[0])[:5] == ["python", "-m", "serving", "--triton", "/opt/tritonserver"]
    environment = {"EDGE_VLM_MODEL": str(reference.language), "EDGE_VLM_ENGINE": "transformers"}
    with start("--triton", tmp_path, "--host", "0.0.0.0", "--dtype", "fp32", **environment) as process:
        for line in process.stdout:
            if line.startswith("ready "):
                break
        try:
            assert stream(line.split()[3], tensors(cases["text"]))[0] == cases["text"].expected
        finally:
            process.terminate()
            log = process.communicate(timeout=30)[0]
    assert process.returncode == 0
    assert "Started GRPCInferenceService" not in log  # it came before the line that says ready


def test_every_limit_is_an_option() -> None:
    line = [word for f in fields(Limits) for word in (f"--{f.name.replace('_', '-')}", str(f.default * 2))]
    options = _options().parse_args(["--model", "x", *line])
    assert all(getattr(options, f.name) == f.default * 2 for f in fields(Limits))


def test_stopping_what_was_never_started(tmp_path: Path) -> None:
    server = TritonServer(Settings(model=str(tmp_path)))
    server.stop()
    assert server.poll() == 0

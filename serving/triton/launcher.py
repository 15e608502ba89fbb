"""Starts a real Triton over one language checkpoint, keeps it alive, and takes all of it down again.

The command line, the demo, the tests and NVIDIA's image use it. The server lives in a folder of its own (rendered
repository, links to the wheel's backend, log) and in a process group of its own, which the guardian watches and
removes.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Literal

from contract.card import ModelCard
from contract.errors import InvalidInput, ServerError, shown
from serving.settings import Settings
from serving.triton.build import EXIT_TIMEOUT_SECONDS, IMAGE, WHEEL, Ports, command, wheel_folder
from serving.triton.health import is_ready
from serving.triton.orphans import end_orphans
from serving.triton.ports import ANY_PORTS, free_ports, is_this_machine
from serving.triton.repository import render_repository
from serving.triton.stub_environment import stub_environment
from serving.triton.vllm_environment import vllm_folders

HOST = "127.0.0.1"
ROOT = Path(__file__).parents[2]
LOG_TAIL_CHARACTERS = 4000
RESTART_SECONDS = 1.0  # between two starts of a guardian


class TritonServer:
    """A running server; `with TritonServer(Settings(model=folder)) as server:` is ready inside the block.

    Args:
        ports: zeros choose free ones.
        log_file: keeps Triton's output.
        ready_timeout_seconds: how long Triton may take until it is ready.
        triton: NVIDIA's own installation to run in place of the wheel's; its output then goes to this process's own.
        host: address to listen on.
        accepts_known_flaws: listen beyond this machine with the wheel's Triton, which has published security
            advisories.

    Attributes:
        card: the checkpoint's card.
        ports: the ports in use.
        http_url, grpc_url: "host:port", as tritonclient wants them.
        shm_prefix: names its shared memory and, in their arguments, its processes.
        grace_seconds: how long `stop` lets Triton answer what runs and unload its models; then it is killed.

    Raises:
        InvalidInput: the host is not this machine and the flaws are not accepted.

    Raises (on entering):
        BundleError: settings.model is no language checkpoint; nothing was started.
        InvalidInput: `triton` holds no Triton, or nobody can write log_file.
        ServerError: Triton did not become ready; the message ends with its log.
    """

    grace_seconds: float = EXIT_TIMEOUT_SECONDS + 4

    def __init__(
        self,
        settings: Settings,
        ports: Ports = ANY_PORTS,
        log_file: Path | None = None,
        ready_timeout_seconds: float = 600,
        triton: Path | None = None,
        host: str = HOST,
        accepts_known_flaws: bool = False,
    ) -> None:
        self._build, self._triton, self._host = IMAGE if triton else WHEEL, triton, host
        self._address = HOST if host == "0.0.0.0" else host  # where this process reaches it
        self._settings = replace(
            settings, model=str(Path(settings.model).absolute()), needs_numpy_below_2=self._build.needs_numpy_below_2
        )
        self._wanted, self._log_file, self._ready_timeout_seconds = ports, log_file, ready_timeout_seconds
        self.shm_prefix = f"edge_vlm_{uuid.uuid4().hex[:10]}_"
        if self._build.has_known_flaws and not accepts_known_flaws and not is_this_machine(host):
            raise InvalidInput(
                f"host is {shown(host)}, which others can reach, and Triton {self._build.release} of the wheel has "
                "published security advisories (docs/security.md): use the Docker image, keep 127.0.0.1 behind a proxy, "
                "or say --listen-despite-known-flaws"
            )
        self._guardian: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None
        self._keeper: threading.Thread | None = None
        self._changing, self._is_stopping = threading.Lock(), False

    def __enter__(self) -> "TritonServer":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def http_url(self) -> str:
        return f"{self._address}:{self.ports.http}"

    @property
    def grpc_url(self) -> str:
        return f"{self._address}:{self.ports.grpc}"

    def start(self) -> None:
        """Start Triton and wait until its models are loaded; see the class for the errors."""
        self._is_stopping = False
        folder = self._folder = Path(tempfile.mkdtemp(prefix="edge-vlm-triton-"))
        try:
            self.card: ModelCard = render_repository(folder / "models", self._settings)
            self._log_path = None if self._triton else (self._log_file or folder / "triton.log").absolute()
            self._check_paths()
            with free_ports(self._wanted, self._host) as self.ports:
                self._launch(folder)
                self._wait_ready()
            self._keeper = threading.Thread(target=self._keep, name="keeper", daemon=True)
            self._keeper.start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop Triton and all it started; returns when it is gone. Does nothing when it is not running."""
        with self._changing:
            self._is_stopping = True
        if self._guardian is not None:
            assert self._guardian.stdin is not None  # for mypy: it is a pipe
            self._guardian.stdin.close()
            if self._guardian.wait() < 0:
                end_orphans(self.shm_prefix)
            if self._keeper is not None:
                self._keeper.join()
            self._guardian, self._keeper = None, None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def poll(self) -> int | None:
        """The exit code of a server that ended by itself, None while it runs or is being started again."""
        if self._guardian is None:
            return 0
        code = self._guardian.poll()
        return None if code is not None and code < 0 and self._keeper and self._keeper.is_alive() else code

    def _keep(self) -> None:
        """In a thread: where a killed guardian takes Triton with it, remove what both left, and start them again."""
        while True:
            assert self._guardian is not None  # for mypy: started before
            code = self._guardian.wait()
            with self._changing:
                if self._is_stopping or code >= 0:
                    return
                end_orphans(self.shm_prefix)
                print(
                    f"warning: the server is started again: its guardian ended with {code}", file=sys.stderr, flush=True
                )
                self._guard("ab")
            time.sleep(RESTART_SECONDS)

    def _check_paths(self) -> None:
        if self._triton is not None and not (self._triton / "bin" / "tritonserver").is_file():
            raise InvalidInput(
                f"triton is {shown(str(self._triton))}, which has no bin/tritonserver: give Triton's folder, such as "
                "/opt/tritonserver"
            )
        if self._log_path is not None:
            try:
                self._log_path.touch()
            except OSError as error:
                raise InvalidInput(f"log_file is {shown(str(self._log_path))}: {error.strerror}") from error

    def _launch(self, folder: Path) -> None:
        path, libraries = os.environ.get("PATH", os.defpath), os.environ.get("LD_LIBRARY_PATH", "")
        if self._triton is None:
            folders = vllm_folders() if self._settings.engine == "vllm" else []
            triton, stub = wheel_folder(), stub_environment(*folders)
            backends = _linked_backends(triton, folder / "backends")
            path, libraries = f"{stub.bin}:{path}", f"{stub.library_folder}:{libraries}".rstrip(":")
        else:  # its stub is that of the image's Python, whose environment this process runs in
            triton, backends = self._triton.absolute(), self._triton.absolute() / "backends"
            path = f"{Path(sys.executable).parent}:{path}"
        line = command(
            self._build,
            triton,
            folder / "models",
            self.ports,
            self._settings.limits,
            host=self._host,
            shm_prefix=self.shm_prefix,
            backends=backends,
        )
        guard = [sys.executable, "-E", "-S", "-m", "serving.triton.guardian", self.shm_prefix, str(folder)]
        guard += [str(self.grace_seconds), self.http_url]
        self._command, self._environment = (
            [*guard, *line],
            os.environ
            | {
                "PATH": path,
                "LD_LIBRARY_PATH": libraries,
                "PYTHONFAULTHANDLER": "1",  # a model's process that crashes writes into the log where that was
            },
        )
        self._guard("wb")

    def _guard(self, log_mode: Literal["wb", "ab"]) -> None:
        with self._log_path.open(log_mode) if self._log_path else nullcontext() as log:
            self._guardian = subprocess.Popen(
                self._command,
                cwd=ROOT,  # where -m finds the guardian's package
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=log,
                start_new_session=True,
            )

    def _wait_ready(self) -> None:
        give_up = time.monotonic() + self._ready_timeout_seconds
        while not is_ready(self.http_url):
            if self.poll() is not None:
                raise ServerError(f"Triton ended while it started. Its log: {self.log_tail()}")
            if time.monotonic() > give_up:
                raise ServerError(
                    f"Triton is not ready after {self._ready_timeout_seconds} s. Its log: {self.log_tail()}"
                )
            time.sleep(0.05)

    def log_tail(self) -> str:
        """The errors at the end of Triton's log, or its last lines where it names none."""
        if self._log_path is None:
            return "above"
        lines = self._log_path.read_bytes().decode(errors="replace").splitlines()
        errors = [line for line in lines if re.match(r"E\d{4} |error: ", line)]
        return "\n".join(errors[-5:] or lines[-30:])[-LOG_TAIL_CHARACTERS:]


def _linked_backends(triton: Path, folder: Path) -> Path:
    """A backend directory of links: the wheel keeps one stub a Python version, each where Triton does not look."""
    (folder / "python").mkdir(parents=True)
    minor = f"{sys.version_info.major}.{sys.version_info.minor}"
    for source in (
        triton / "backends/python/libtriton_python.so",
        triton / "backends/python/triton_python_backend_utils.py",
        triton / f"python_backend_stubs/{minor}/triton_python_backend_stub",
    ):
        if not source.exists():
            raise ServerError(f"this Triton has no {source.name} for Python {minor}")
        (folder / "python" / source.name).symlink_to(source)
    return folder

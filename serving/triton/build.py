"""The two Tritons this package runs on, and the command that starts either: the one place for versions and flags.

Both start with the same flags, so that what the tests prove on the wheel holds in the image.
"""

from dataclasses import dataclass
from pathlib import Path

from contract.errors import InvalidInput
from contract.limits import Limits
from serving.triton.cache import made_once
from serving.triton.pip import install_into

WHEEL_REQUIREMENT = "nvidia-pytriton==0.7.0"
EXIT_TIMEOUT_SECONDS = 8


@dataclass(frozen=True)
class TritonBuild:
    """Facts about a release that the launcher must respect."""

    release: str
    version: str
    needs_numpy_below_2: bool  # its stub reads numpy 2 arrays as zeros (fixed in 24.11)
    has_http_limit: bool  # HTTP bodies above 64 MB need a flag (from 25.06)
    has_shm_switch: bool  # clients may register shared memory only where a flag allows it (from 26.05)
    has_gpu: bool  # else it must not look for one: NVML tries cost time
    has_known_flaws: bool  # published security advisories (docs/security.md)


# How long Triton waits for a model's process to start, before it even loads the model. Its own 30 s are not enough on a
# machine that is busy with something else: there Triton aborts, or never becomes ready.
STUB_START_SECONDS = 600

WHEEL = TritonBuild(
    "24.10",
    "2.51.0",
    needs_numpy_below_2=True,
    has_http_limit=False,
    has_shm_switch=False,
    has_gpu=False,
    has_known_flaws=True,
)
IMAGE = TritonBuild(
    "26.08",
    "2.72.0",
    needs_numpy_below_2=False,
    has_http_limit=True,
    has_shm_switch=True,
    has_gpu=True,
    has_known_flaws=False,
)


@dataclass(frozen=True)
class Ports:
    """TCP ports of one server; 0 means: choose a free one.

    Raises:
        InvalidInput: a number that no port has.
    """

    http: int = 8000
    grpc: int = 8001
    metrics: int = 8002

    def __post_init__(self) -> None:
        for name, port in (("http", self.http), ("grpc", self.grpc), ("metrics", self.metrics)):
            if not 0 <= port < 1 << 16:
                raise InvalidInput(
                    f"the {name} port is {port}, numbers from 0 to 65535 are allowed; 0 chooses a free one"
                )


def wheel_folder() -> Path:
    """Triton's folder from the wheel, downloaded (55 MB) on first use.

    Raises:
        ServerError: pip could not install it.
    """
    root = made_once(WHEEL_REQUIREMENT.replace("==", "-"), lambda work: install_into(work, WHEEL_REQUIREMENT))
    return root / "pytriton" / "tritonserver"


def command(
    build: TritonBuild,
    folder: Path,
    repository: Path,
    ports: Ports,
    limits: Limits,
    *,
    host: str,
    shm_prefix: str,
    backends: Path,
) -> list[str]:
    """The tritonserver command line.

    Args:
        folder: Triton's own folder, with bin/ and caches/.
        ports: none of them 0.
        shm_prefix: how the names of Triton's shared memory begin.
        backends: the folder that has python/ with the stub.
    """
    flags = {
        "model-repository": repository,
        "backend-directory": backends,
        "cache-directory": folder / "caches",
        "allow-gpu-metrics": str(build.has_gpu).lower(),
        "pinned-memory-pool-byte-size": "0",
        "exit-timeout-secs": EXIT_TIMEOUT_SECONDS,
    }
    python = {"shm-region-prefix-name": shm_prefix, "stub-timeout-seconds": STUB_START_SECONDS}
    for protocol in ("http", "grpc", "metrics"):
        flags[f"{protocol}-address"] = host
        flags[f"{protocol}-port"] = getattr(ports, protocol)
    if build.has_http_limit:
        flags["http-max-input-size"] = limits.max_embedding_bytes + (64 << 20)
    if build.has_shm_switch:
        flags["allow-client-shm"] = "true"
    options = [f"--{name}={value}" for name, value in flags.items()]
    options += [f"--backend-config=python,{name}={value}" for name, value in python.items()]
    options.append("--disable-auto-complete-config")  # ours are complete; saves a second start of every stub
    return [str(folder / "bin" / "tritonserver"), *options]

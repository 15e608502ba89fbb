"""`python -m serving`: a local Triton over a language checkpoint, or the same inside NVIDIA's image."""

import argparse
import os
import signal
import sys
import threading
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path

from contract.errors import EdgeVlmError
from contract.limits import Limits
from serving.settings import DTYPES, ENGINES, Settings
from serving.triton.build import Ports, wheel_folder
from serving.triton.launcher import HOST, TritonServer
from serving.triton.readiness import Readiness
from serving.triton.stub_environment import stub_environment
from serving.triton.vllm_environment import install_vllm
from serving.vllm.arguments import read_arguments


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m serving", description=__doc__)
    parser.add_argument(
        "--model",
        type=Path,
        default=os.environ.get("EDGE_VLM_MODEL"),
        help="language checkpoint, made by python -m export.language (or $EDGE_VLM_MODEL)",
    )
    parser.add_argument("--prepare", action="store_true", help="only download Triton and make its environment")
    parser.add_argument(
        "--engine",
        default=os.environ.get("EDGE_VLM_ENGINE", ENGINES[0]),
        help=f"{', '.join(ENGINES)} (or $EDGE_VLM_ENGINE)",
    )
    parser.add_argument("--engine-args", type=Path, metavar="JSON", help="vLLM's engine arguments (docs/vllm.md)")
    parser.add_argument(
        "--reuse-store",
        metavar="URL",
        default=os.environ.get("EDGE_VLM_REUSE_STORE"),
        help="redis://host:6379, also Valkey: servers share pictures by key there (or $EDGE_VLM_REUSE_STORE)",
    )
    parser.add_argument("--bundle", type=Path, help="edge bundle: also encode pictures, for clients that cannot")
    parser.add_argument("--dtype", choices=DTYPES, default="auto", help="of the weights (default: the checkpoint's)")
    parser.add_argument(
        "--threads", type=int, default=0, metavar="N", help="threads of torch, 0 for all cores (default: 0)"
    )
    for name in ("http", "grpc", "metrics"):
        about = f"port of {name}, 0 for a free one (default: %(default)s)"
        parser.add_argument(f"--{name}-port", type=int, default=getattr(Ports, name), metavar="N", help=about)
    parser.add_argument(
        "--ready-port", type=int, metavar="N", help="answer balancers here: 200, or 503 before the server stops"
    )
    parser.add_argument(
        "--drain-seconds",
        type=float,
        default=10.0,
        metavar="S",
        help="with --ready-port, serve so long between SIGTERM and the stop (default: %(default)s)",
    )
    parser.add_argument("--log-file", type=Path, help="keep Triton's log here")
    parser.add_argument("--triton", type=Path, metavar="DIR", help="run this installation of Triton, not the wheel's")
    parser.add_argument("--host", default=HOST, help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--listen-despite-known-flaws",
        action="store_true",
        help="allow a --host that others reach, although the wheel's Triton has published security advisories",
    )
    limits = parser.add_argument_group("limits", "published in the model's configuration; more is refused")
    for field in fields(Limits):
        name, kind = f"--{field.name.replace('_', '-')}", type(field.default)
        limits.add_argument(name, type=kind, default=field.default, metavar="N", help="default: %(default)s")
    return parser


def _serve(server: TritonServer, host: str, ready_port: int | None, drain_seconds: float) -> int:
    asked = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: _interrupt(asked))
    try:
        with server, ExitStack() as stack:
            door = None if ready_port is None else stack.enter_context(Readiness(server.http_url, host, ready_port))
            metrics = f"{server.http_url.rpartition(':')[0]}:{server.ports.metrics}"
            print(f"ready http://{server.http_url} grpc {server.grpc_url} metrics {metrics}", flush=True)
            try:
                while server.poll() is None and not asked.wait(0.2):
                    pass
            except KeyboardInterrupt:
                if door is not None:
                    door.leave(drain_seconds)
                raise
            if not asked.is_set():
                print(f"error: Triton ended by itself. Its log: {server.log_tail()}", file=sys.stderr)
                return 1
    except KeyboardInterrupt:
        pass
    return 0


def _interrupt(asked: threading.Event) -> None:
    """The first signal ends the start-up or the wait; more of them must not disturb the clean-up."""
    if not asked.is_set():
        asked.set()
        raise KeyboardInterrupt


def main() -> int:
    """Returns the exit code: 0 stopped as asked, 1 the server failed, 2 the arguments or the checkpoint are wrong."""
    parser = _options()
    options = parser.parse_args()
    if not (options.prepare or options.model):
        parser.error("--model or EDGE_VLM_MODEL is required")
    try:
        if options.prepare:
            folders = install_vllm() if options.engine == "vllm" else []
            print(f"{wheel_folder()}\n{stub_environment(*folders).bin}")
            return 0
        limits = Limits(**{field.name: getattr(options, field.name) for field in fields(Limits)})
        settings = Settings(
            str(options.model.absolute()),
            options.engine,
            options.dtype,
            options.threads or os.cpu_count(),
            limits=limits,
            engine_args=read_arguments(options.engine_args) if options.engine_args else {},
            bundle=str(options.bundle.absolute()) if options.bundle else None,
            reuse_store=options.reuse_store or None,
        )
        ports = Ports(options.http_port, options.grpc_port, options.metrics_port)
        server = TritonServer(
            settings,
            ports,
            options.log_file,
            triton=options.triton,
            host=options.host,
            accepts_known_flaws=options.listen_despite_known_flaws,
        )
        return _serve(server, options.host, options.ready_port, options.drain_seconds)
    except EdgeVlmError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1


if __name__ == "__main__":
    sys.exit(main())

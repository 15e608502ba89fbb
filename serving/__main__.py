"""`python -m serving`: a local Triton over a language checkpoint, or the same inside NVIDIA's image."""

import argparse
import os
import signal
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

from contract.errors import EdgeVlmError
from contract.limits import Limits
from serving.launcher import TritonServer
from serving.repository import render_repository
from serving.settings import DTYPES, ENGINES, Settings
from serving.stub_environment import stub_environment
from serving.triton_build import IMAGE, Ports, command, wheel_folder


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m serving", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", type=Path, help="language checkpoint, made by python -m export.language")
    what.add_argument("--prepare", action="store_true", help="only download Triton and make its environment")
    parser.add_argument("--engine", choices=ENGINES, default=ENGINES[0])
    parser.add_argument("--dtype", choices=DTYPES, default="auto")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch (default: all cores)")
    parser.add_argument("--max-active", type=int, default=Limits.max_active, help="sequences decoded at once")
    parser.add_argument("--max-waiting", type=int, default=Limits.max_waiting, help="requests waiting behind them")
    parser.add_argument("--http-port", type=int, default=Ports.http, help="0 chooses a free one")
    parser.add_argument("--grpc-port", type=int, default=Ports.grpc)
    parser.add_argument("--metrics-port", type=int, default=Ports.metrics)
    parser.add_argument("--log-file", type=Path, help="keep Triton's log here")
    parser.add_argument("--exec-tritonserver", type=Path, metavar="DIR", help="replace this process by DIR's Triton")
    parser.add_argument("--host", default="0.0.0.0", help="address to listen on, with --exec-tritonserver")
    return parser


def _serve(settings: Settings, ports: Ports, log_file: Path | None) -> int:
    asked = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: _interrupt(asked))
    try:
        with TritonServer(settings, ports, log_file) as server:
            p = server.ports
            print(f"ready http://{server.http_url} grpc {server.grpc_url} metrics 127.0.0.1:{p.metrics}", flush=True)
            while server.poll() is None and not asked.wait(0.2):
                pass
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


def _exec(settings: Settings, ports: Ports, triton: Path, host: str) -> None:
    repository = Path(tempfile.mkdtemp(prefix="edge-vlm-models-"))
    settings = replace(settings, needs_numpy_below_2=IMAGE.needs_numpy_below_2)
    render_repository(repository, settings)
    line = command(IMAGE, triton, repository, ports, settings.limits, host=host, shm_prefix="edge_vlm_")
    os.execv(line[0], line)


def main() -> int:
    """Returns the exit code: 0 stopped as asked, 1 the server failed, 2 the arguments or the checkpoint are wrong."""
    options = _options().parse_args()
    try:
        if options.prepare:
            print(f"{wheel_folder()}\n{stub_environment().bin}")
            return 0
        limits = Limits(max_active=options.max_active, max_waiting=options.max_waiting)
        settings = Settings(
            str(options.model.absolute()), options.engine, options.dtype, options.threads, limits=limits
        )
        ports = Ports(options.http_port, options.grpc_port, options.metrics_port)
        if options.exec_tritonserver:
            _exec(settings, ports, options.exec_tritonserver, options.host)
        return _serve(settings, ports, options.log_file)
    except EdgeVlmError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1


if __name__ == "__main__":
    sys.exit(main())

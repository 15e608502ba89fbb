"""What the two command lines share: arguments, exit codes, and errors as one line of text.

Exit codes: 0 the export published, 1 the graph misses its gate, 2 anything else that the user can put right, 130 Ctrl-C
stopped it, 143 SIGTERM stopped it.
"""

import argparse
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from contract.errors import EdgeVlmError, ParityError

ABOUT_OUT = "folder to write; an earlier export there is replaced"


def parser(program: str, description: str, out: str = "OUT", about_out: str = ABOUT_OUT) -> argparse.ArgumentParser:
    """A parser with MODEL, OUT and --json for `python -m PROGRAM`. The help calls OUT `out` and says `about_out`."""
    arguments = argparse.ArgumentParser(
        prog=f"python -m {program}", usage=f"%(prog)s [options] MODEL {out}", description=description
    )
    arguments.add_argument("model", metavar="MODEL", help="checkpoint folder or hub id")
    arguments.add_argument("out", metavar=out, help=about_out)
    arguments.add_argument("--json", action="store_true", help="end with one line of JSON")
    return arguments


def add_adapter(arguments: argparse.ArgumentParser) -> None:
    """Add --adapter to a parser."""
    arguments.add_argument(
        "--adapter",
        type=Path,
        metavar="DIR",
        help="LoRA folder to merge; give it to both exports",
    )


class _Terminated(BaseException):
    """SIGTERM came. Like KeyboardInterrupt it is no Exception, so that nothing on the way takes it for a failure."""


def _terminate(*_: object) -> None:
    raise _Terminated


def run(work: Callable[[], None]) -> int:
    """Run a command in the main thread; returns its exit code. A command that a signal stops leaves nothing behind."""
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        work()
    except (KeyboardInterrupt, _Terminated) as stop:
        print("stopped. Nothing was published", file=sys.stderr)
        return 128 + (signal.SIGINT if isinstance(stop, KeyboardInterrupt) else signal.SIGTERM)
    except ParityError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except EdgeVlmError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error.filename or 'OUT'}: {error.strerror}. Nothing was published", file=sys.stderr)
        return 2
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0

"""Tries grammars beside the engine's loop: a few at a time, each in a process of its own, and remembers the results."""

import asyncio
import importlib.util
import json
import os
import subprocess
import sys
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from contract.errors import InvalidInput, Unavailable, shortened
from serving.grammars.constraint import Constraint

_START = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from serving.grammars.trial import main; main()"
_PACKAGE = "llguidance"


@dataclass(frozen=True)
class TrialLimits:
    """What one trial may take, and how many may run and wait.

    Attributes:
        max_cpu_s: seconds of processor time; on the clock a trial may take ten times as much.
        max_bytes: memory beyond that of the idle process.
        num_workers: trials that run at once.
        max_waiting: trials that wait beside those.
        num_kept: results that `Trials` remembers.
    """

    max_cpu_s: float = 3.0
    max_bytes: int = 64 << 20
    num_workers: int = 2
    max_waiting: int = 16
    num_kept: int = 256


class Trials:
    """Tells which grammars can be compiled within the limits. Safe to use from several event loops."""

    def __init__(self, limits: TrialLimits | None = None) -> None:
        self._limits = limits or TrialLimits()
        self._pool = ThreadPoolExecutor(self._limits.num_workers, "grammar")
        self._num_running = 0
        self._kept: OrderedDict[str, str | InvalidInput] = OrderedDict()

    async def grammar(self, constraint: Constraint) -> str:
        """The text of the grammar, for `serving.grammars.trial.matcher`.

        Raises:
            InvalidInput: the constraint is no grammar, or needs more than the limits (both of which this remembers), or
                the package that compiles grammars is not installed.
            Unavailable: too many trials run or wait.
        """
        if importlib.util.find_spec(_PACKAGE) is None:
            raise _wrong(f"needs the package {_PACKAGE} on the server: pip install 'edge-vlm[server]'")
        text = json.dumps([constraint.kind, constraint.value])
        if (known := self._kept.get(text)) is None:
            limits = self._limits
            if self._num_running >= limits.num_workers + limits.max_waiting:
                raise Unavailable(
                    f"{self._num_running} grammars are tried or wait for it, which is the most: try again later",
                    check="grammars",
                )
            self._num_running += 1
            try:
                known = await asyncio.get_running_loop().run_in_executor(self._pool, self._try, constraint)
            finally:
                self._num_running -= 1
            self._kept[text] = known
            while len(self._kept) > limits.num_kept:
                self._kept.popitem(last=False)
        if isinstance(known, InvalidInput):
            raise InvalidInput(str(known), check=known.check)
        return known

    def close(self) -> None:
        """Drop what waits. A trial that runs ends by its limits."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _try(self, constraint: Constraint) -> str | InvalidInput:
        limits = self._limits
        job = {"kind": constraint.kind, "value": constraint.value}
        job |= {"max_bytes": limits.max_bytes, "max_cpu_s": limits.max_cpu_s}
        command = [sys.executable, "-c", _START, json.dumps(sys.path)]
        try:
            done = subprocess.run(
                command,
                input=json.dumps(job).encode(),
                capture_output=True,
                timeout=10 * max(1.0, limits.max_cpu_s),
                check=False,
                env=os.environ | {"MALLOC_ARENA_MAX": "2", "RUST_BACKTRACE": "0"},
            )
            answer: dict[str, Any] = json.loads(done.stdout)
        except (subprocess.TimeoutExpired, OSError) as error:  # the machine is busy: no verdict on the grammar
            raise Unavailable("a grammar could not be tried in time: try again later", check="grammars") from error
        except ValueError:  # its own limits killed it
            return _wrong(
                f"{constraint.kind} takes more than {limits.max_cpu_s:g} s or {limits.max_bytes >> 20} MiB to compile: "
                "make it smaller"
            )
        if (told := answer.get("error")) is not None:
            return _wrong(f"{constraint.kind} cannot be compiled: {shortened(told, 400)}")
        grammar: str = answer["grammar"]
        return grammar


def _wrong(text: str) -> InvalidInput:
    return InvalidInput(f"sampling_parameters.structured_outputs {text}", check="grammar")

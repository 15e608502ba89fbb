"""Starts vLLM's AsyncLLM in an event loop, and takes it down again.

It is the loop that reads the streams, so that no token goes from thread to thread. This module also sets what vLLM
takes from environment variables only.
"""

import asyncio
import logging
import os
from importlib.metadata import entry_points

import torch
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.v1.engine.async_llm import AsyncLLM

from contract.errors import ServerError
from serving.loop import LoopThread

log = logging.getLogger(__name__)
EXIT_TIMEOUT_SECONDS = 3  # then vLLM kills processes that still unlink shared memory; Triton waits 8 s for everything
PLUGIN = "serving.vllm.plugin:register"


class Host:
    """A running AsyncLLM. llm may only be used in the loop, but for its plain attributes.

    Raises:
        ServerError: vLLM did not start, or the plugin that leaves out the tower is not installed.
    """

    def __init__(self, arguments: AsyncEngineArgs, loop: LoopThread, num_threads: int | None = None) -> None:
        if PLUGIN not in (point.value for point in entry_points(group="vllm.general_plugins")):
            raise ServerError(f"vLLM does not know {PLUGIN}: pip install edge-vlm into the environment that runs it")
        set_environment(num_threads)
        torch.set_num_threads(1)  # this process only packs: OpenMP's others would spin for 8 ms a request
        self._loop = loop
        try:
            self.llm: AsyncLLM = loop.submit(_start(arguments)).result()
        except Exception as error:
            log.exception("vLLM did not start")
            raise ServerError(f"vLLM did not start, the log has its reason: {error}") from error

    def is_dead(self) -> bool:
        return not self._loop.is_alive() or bool(self.llm.errored)

    def close(self) -> None:
        """End vLLM's processes."""
        self._loop.submit(_stop(self.llm)).result()
        del self.llm  # so that its finaliser does not wait for the interpreter's end


async def _start(arguments: AsyncEngineArgs) -> AsyncLLM:
    return AsyncLLM.from_engine_args(arguments)  # in a coroutine, because it looks for the running loop


async def _stop(llm: AsyncLLM) -> None:
    llm.shutdown(timeout=EXIT_TIMEOUT_SECONDS)
    await asyncio.sleep(0)  # its tasks see that they are cancelled


def set_environment(num_threads: int | None) -> None:
    """Have vLLM read no network, report no usage and take num_threads; variables that are set already stay."""
    wanted = {
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # a server has threads
    }
    if num_threads:  # vLLM would pin its threads to the first cores, whatever else runs there
        wanted |= {"OMP_NUM_THREADS": str(num_threads), "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    for name, value in wanted.items():
        os.environ.setdefault(name, value)

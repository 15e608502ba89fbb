"""What the launcher hands to the model: where the checkpoint is, which engine runs it, how much it may take.

The launcher writes them as settings.json beside model.py, in its private copy of the model repository. Triton publishes
its own model configuration to clients, so that must not hold paths.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from contract.errors import BundleError, InvalidInput, MissingExtra
from contract.limits import Limits
from serving.engine import Engine
from serving.loop import LoopThread
from serving.requests.shared_store import SCHEMES
from serving.weights import check_weights

ENGINES = ("transformers", "vllm")
EXTRAS = {"transformers": "server", "vllm": "vllm"}
DTYPES = ("auto", "fp32", "bf16", "fp16")
NAME = "settings.json"


@dataclass(frozen=True)
class Settings:
    """How one server runs one language checkpoint.

    model is the folder of the checkpoint, engine one of ENGINES, dtype one of DTYPES. engine_args are vLLM's engine
    arguments, under its names (serving.vllm.arguments). num_threads counts torch's threads; None means all cores.
    needs_numpy_below_2 is a fact about the Triton that hosts the model. bundle is the edge bundle of the optional
    vision model; None leaves that model out. reuse_store is the URL of a Redis or Valkey that servers share pictures
    through.

    Raises:
        InvalidInput: no engine or number format has this name, num_threads is negative, reuse_store is no URL of a
            store, or engine_args come with another engine than vllm.
    """

    model: str
    engine: str = "transformers"
    dtype: str = "auto"
    num_threads: int | None = None
    needs_numpy_below_2: bool = False
    limits: Limits = field(default_factory=Limits)
    engine_args: dict[str, Any] = field(default_factory=dict)
    bundle: str | None = None
    reuse_store: str | None = None

    def __post_init__(self) -> None:
        for name, value, allowed in (("engine", self.engine, ENGINES), ("dtype", self.dtype, DTYPES)):
            if value not in allowed:
                raise InvalidInput(f"{name} is {value!r}, allowed are {', '.join(allowed)}")
        if self.num_threads is not None and self.num_threads < 0:
            raise InvalidInput(f"threads is {self.num_threads}, 0 (all cores) or more is expected")
        if self.reuse_store is not None and not self.reuse_store.startswith(SCHEMES):
            raise InvalidInput(f"reuse_store is {self.reuse_store!r}, a URL is expected: {', '.join(SCHEMES)}")
        if self.engine_args and self.engine != "vllm":
            raise InvalidInput(f"engine_args are the vllm engine's, engine is {self.engine!r}: leave them out")

    def write(self, folder: Path) -> None:
        (folder / NAME).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "Settings":
        """Read what `write` wrote.

        Raises:
            BundleError: the folder has no settings: this is the template of the repository, not a rendered copy.
        """
        path = folder / NAME
        if not path.is_file():
            raise BundleError(f"{NAME} is missing beside model.py: start the server with python -m serving")
        values = json.loads(path.read_text(encoding="utf-8"))
        return cls(**values | {"limits": Limits(**values["limits"])})

    def load_engine(self, loop: LoopThread) -> Engine:
        """Load the checkpoint into the engine that `engine` names; the caller then reads its streams in the loop.

        Raises:
            MissingExtra: the engine's libraries are not installed.
            BundleError: the checkpoint cannot be used.
            InvalidInput: vLLM does not take engine_args.
            ServerError: vLLM did not start.
        """
        folder, how = Path(self.model), (self.dtype, self.num_threads)
        check_weights(folder)
        try:
            if self.engine == "vllm":
                from serving.vllm.engine import VllmEngine
            else:
                from serving.transformers_engine.engine import TransformersEngine
        except ModuleNotFoundError as error:
            raise MissingExtra(f"the {self.engine} engine", EXTRAS[self.engine]) from error
        if self.engine == "vllm":
            return VllmEngine.load(folder, self.limits, loop, *how, self.engine_args)
        return TransformersEngine.load(folder, self.limits, *how)

"""How the engines serve a family: one module each, found by transformers' `model_type` (contract.families)."""

from contextlib import AbstractContextManager
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

from contract.families import MODULES, module_name

if TYPE_CHECKING:
    import torch


class Family(Protocol):
    """What the engines need to know of a family.

    Attributes:
        ARCHITECTURES: the transformers classes, as config.json names them.
        TOWER: how the names of the tower's parameters begin in transformers' model.
        VLLM: the module whose classes of the same names take the place of vLLM's own.
    """

    ARCHITECTURES: tuple[str, ...]
    TOWER: tuple[str, ...]
    VLLM: str

    def names_taught(self) -> AbstractContextManager[None]:
        """Inside the block transformers knows names of tensors, in checkpoints of this family, that it lacks itself."""

    def shrink_tower(self, config: Any) -> None:
        """Change a transformers config so that the tower, which the checkpoint lacks, is built as small as can be."""

    def parts(self, model: Any) -> tuple[Any, "torch.nn.Module"]:
        """The text model (embeddings and layers) and the output projection of a loaded model, without its tower."""

    def inputs(
        self, positions: "torch.Tensor", is_visual: "torch.Tensor", deepstack: "torch.Tensor | None"
    ) -> dict[str, Any]:
        """What the text model takes beside its embeddings, for T packed tokens.

        Args:
            positions: int64 (axes, T).
            is_visual: bool (T,), the tokens that are embedding rows.
            deepstack: (L, rows, H), what each level adds to those tokens; None where no token is visual.
        """


def find(model_type: object) -> Family:
    """The module of this package for a model_type.

    Raises:
        BundleError: no family has this model_type.
    """
    return cast(Family, import_module(f"{__name__}.{module_name(model_type)}"))


def vllm_classes() -> dict[str, str]:
    """The classes that vLLM must take for its own: architecture to `module:class`."""
    return {
        name: f"{family.VLLM}:{name}" for family in map(find, MODULES) if family.VLLM for name in family.ARCHITECTURES
    }

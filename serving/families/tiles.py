"""What the families of fixed tiles share: the server lacks their tower and connector, and positions have one axis."""

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

TOWER = ("model.vision_tower.", "model.multi_modal_projector.")


def names_taught() -> AbstractContextManager[None]:
    """transformers lacks no names; see serving.families.Family."""
    return nullcontext()


def shrink_tower(config: Any) -> None:
    """No blocks; see serving.families.Family."""
    config.vision_config.num_hidden_layers = 0


def parts(model: Any) -> tuple[Any, "torch.nn.Module"]:
    """See serving.families.Family."""
    return model.model.language_model, model.lm_head


def inputs(positions: "torch.Tensor", is_visual: "torch.Tensor", deepstack: "torch.Tensor | None") -> dict[str, Any]:
    """Positions (1, T); see serving.families.Family."""
    return {"position_ids": positions}

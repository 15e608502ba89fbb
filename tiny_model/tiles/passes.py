"""The parts of one pass through the model with tiles, so that training and evaluation can stand between them."""

from typing import Any

import torch

from tiny_model.tiles.batches import TileBatch


def taken(model: Any, batch: TileBatch) -> torch.Tensor:
    """The tower's states that the model takes, without the class row: float32 (tiles, rows of a tile, width)."""
    states = model.model.vision_tower(batch.pixel_values, output_hidden_states=True).hidden_states
    found: torch.Tensor = states[model.config.vision_feature_layer][:, 1:]
    return found


def packed(model: Any, states: torch.Tensor, batch: TileBatch) -> torch.Tensor:
    """The rows of all pictures in prompt order, unpadded and with newlines: float32 (rows, H)."""
    parts = model.model.multi_modal_projector(states).split(batch.num_tiles)
    rows, _ = model.model.pack_image_features(parts, batch.sizes, "default", model.model.image_newline)
    return torch.cat(rows)


def spoken(model: Any, rows: torch.Tensor, batch: TileBatch) -> torch.Tensor:
    """The language model's last states over the text with the rows in it: float32 (B, S, H)."""
    embeds = model.get_input_embeddings()(batch.input_ids)
    is_row = (batch.input_ids == model.config.image_token_id)[..., None]
    embeds = embeds.masked_scatter(is_row, rows.to(embeds.dtype))
    states: torch.Tensor = model.model.language_model(
        inputs_embeds=embeds,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids[0],
        use_cache=False,
    ).last_hidden_state
    return states

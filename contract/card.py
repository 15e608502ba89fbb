"""The facts about a model that both machines must share, read from its config and never assumed.

The numbers of levels, widths and token ids differ between sizes and families (and in the bundled model on purpose). A
family's module makes the card of a config.json (contract.families).
"""

from dataclasses import dataclass

from contract.families import module_name
from contract.tiles import Tiles


@dataclass(frozen=True)
class ModelCard:
    """Widths, token ids and patch geometry of one checkpoint.

    hidden_size is H, the width of an embedding row and of the language model; num_deepstack_levels is L. family is
    transformers' model_type. A token id is None where the family has no such token, tiles where it has no tiles.

    Raises:
        BundleError: no family has this model_type.
    """

    family: str
    hidden_size: int
    num_deepstack_levels: int
    vocab_size: int
    max_position_embeddings: int
    image_token_id: int
    video_token_id: int | None
    vision_start_token_id: int | None
    vision_end_token_id: int | None
    patch_size: int
    merge_size: int
    temporal_patch_size: int
    encoder_fingerprint: str
    tiles: Tiles | None = None

    def __post_init__(self) -> None:
        module_name(self.family)

    @property
    def pad_token_ids(self) -> tuple[int, ...]:
        """The tokens that stand for an embedding row: of pictures, then of videos."""
        return (self.image_token_id,) if self.video_token_id is None else (self.image_token_id, self.video_token_id)

    @property
    def patch_width(self) -> int:
        """Values of one patch: channels x frames x rows x columns."""
        return 3 * self.temporal_patch_size * self.patch_size**2

"""The facts about a model that both machines must share, read from its config and never assumed.

The numbers of levels, widths and token ids differ between sizes and families (and in the bundled model on purpose). A
family's module (contract.families) makes the card from a config.json.
"""

from dataclasses import dataclass
from typing import Annotated

from contract.errors import BundleError
from contract.families import module_name
from contract.tiles import Tiles
from contract.typed import Between, Size, TokenId, check_fields

Width = Annotated[int, Between(1, 1 << 20)]
Side = Annotated[int, Between(1, 1 << 10)]


@dataclass(frozen=True)
class ModelCard:
    """Widths, token ids and patch geometry of one checkpoint.

    hidden_size is H, the width of an embedding row and of the language model; num_deepstack_levels is L. family is
    transformers' model_type. A token id is None where the family has no such token; tiles is None where the family has
    no tiles. tokens_per_second says how far one second of video moves a position; it is None where time moves none.

    Raises:
        BundleError: no family has this model_type, a value does not fit its field, or the vocabulary has no token of a
            picture.
    """

    family: str
    hidden_size: Width
    num_deepstack_levels: Annotated[int, Between(0, 1 << 10)]
    vocab_size: Size
    max_position_embeddings: Size
    image_token_id: TokenId
    video_token_id: TokenId | None
    vision_start_token_id: TokenId | None
    vision_end_token_id: TokenId | None
    patch_size: Side
    merge_size: Side
    temporal_patch_size: Side
    encoder_fingerprint: str
    tiles: Tiles | None = None
    tokens_per_second: Annotated[float, Between(1e-6, 1e6)] | None = None

    def __post_init__(self) -> None:
        check_fields(self, "card")
        module_name(self.family)
        if max(self.pad_token_ids) >= self.vocab_size:
            raise BundleError(
                f"the tokens of pictures and videos are {list(self.pad_token_ids)}, ids below vocab_size "
                f"{self.vocab_size} are expected: give a complete checkpoint"
            )

    @property
    def pad_token_ids(self) -> tuple[int, ...]:
        """The tokens that stand for an embedding row: the picture's, then the video's where the model has one."""
        return (self.image_token_id,) if self.video_token_id is None else (self.image_token_id, self.video_token_id)

    @property
    def patch_width(self) -> int:
        """Values of one patch: channels x frames x rows x columns."""
        return 3 * self.temporal_patch_size * self.patch_size**2

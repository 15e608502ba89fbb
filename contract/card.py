"""The facts about a model that both machines must share, read from its config and never assumed.

The numbers of levels, widths and token ids differ between sizes and families (and in the bundled model on purpose). A
family's module makes the card of a config.json (contract.families).
"""

from dataclasses import dataclass

from contract.families import module_name


@dataclass(frozen=True)
class ModelCard:
    """Widths, token ids and patch geometry of one checkpoint.

    hidden_size is H, the width of an embedding row and of the language model; num_deepstack_levels is L. family is
    transformers' model_type.

    Raises:
        BundleError: no family has this model_type.
    """

    family: str
    hidden_size: int
    num_deepstack_levels: int
    vocab_size: int
    max_position_embeddings: int
    image_token_id: int
    video_token_id: int
    vision_start_token_id: int
    vision_end_token_id: int
    patch_size: int
    merge_size: int
    temporal_patch_size: int
    encoder_fingerprint: str

    def __post_init__(self) -> None:
        module_name(self.family)

    @property
    def patch_width(self) -> int:
        """Values of one patch: channels x frames x rows x columns."""
        return 3 * self.temporal_patch_size * self.patch_size**2

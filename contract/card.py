"""The facts about a model that both machines must share, read from its config and never assumed.

The numbers of levels, widths and token ids differ between sizes and families (and in the bundled model on purpose).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from contract.errors import BundleError

WITHOUT_DEEPSTACK = ("qwen3_5", "qwen3_5_moe")
FAMILIES = ("qwen3_vl", "qwen3_vl_moe", *WITHOUT_DEEPSTACK)  # transformers' model_type


def deepstack_blocks(config: Mapping[str, Any]) -> tuple[int, ...]:
    """The tower's blocks that deepstack levels are taken from; none in a family that has no deepstack.

    Raises:
        KeyError: the family has deepstack and the config does not say where.
    """
    vision = config["vision_config"]
    if config.get("model_type") in WITHOUT_DEEPSTACK:
        return tuple(vision.get("deepstack_visual_indexes") or ())
    return tuple(vision["deepstack_visual_indexes"])


@dataclass(frozen=True)
class ModelCard:
    """Widths, token ids and patch geometry of one checkpoint.

    hidden_size is H, the width of an embedding row and of the language model; num_deepstack_levels is L.
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
        if self.family not in FAMILIES:
            raise BundleError(f"model family is {self.family!r}, supported are {', '.join(FAMILIES)}")

    @property
    def patch_width(self) -> int:
        """Values of one patch: channels x frames x rows x columns."""
        return 3 * self.temporal_patch_size * self.patch_size**2

    @classmethod
    def from_config(cls, config: dict[str, Any], encoder_fingerprint: str) -> "ModelCard":
        """Read a transformers config.json.

        Raises:
            BundleError: a key is missing, the family is unknown, or tower and language model differ in width.
        """
        try:
            text, vision = config["text_config"], config["vision_config"]
            if vision["out_hidden_size"] != text["hidden_size"]:
                raise BundleError(
                    f"vision_config.out_hidden_size is {vision['out_hidden_size']}, "
                    f"text_config.hidden_size is {text['hidden_size']}: they must be equal"
                )
            return cls(
                family=config["model_type"],
                hidden_size=text["hidden_size"],
                num_deepstack_levels=len(deepstack_blocks(config)),
                vocab_size=text["vocab_size"],
                max_position_embeddings=text["max_position_embeddings"],
                image_token_id=config["image_token_id"],
                video_token_id=config["video_token_id"],
                vision_start_token_id=config["vision_start_token_id"],
                vision_end_token_id=config["vision_end_token_id"],
                patch_size=vision["patch_size"],
                merge_size=vision["spatial_merge_size"],
                temporal_patch_size=vision["temporal_patch_size"],
                encoder_fingerprint=encoder_fingerprint,
            )
        except KeyError as error:
            raise BundleError(f"config.json has no key {error.args[0]!r}: is this a Qwen3-VL checkpoint?") from error

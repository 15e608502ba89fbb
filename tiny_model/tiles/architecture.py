"""The shape of the bundled model with tiles: a real LLaVA-NeXT, only small."""

from tokenizers import Tokenizer
from transformers import CLIPVisionConfig, LlamaConfig, LlavaNextConfig

from contract.tiles import Tiles
from tiny_model.architecture import PATCH_SIZE

SIDE = 96  # pixels of a tile
BOS, IMAGE = "<s>", "<image>"
PINPOINTS = ((96, 192), (192, 96), (192, 192), (288, 96), (96, 288))  # LLaVA-NeXT's, with 96 in place of 336
TILES = Tiles("anyres", SIDE, SIDE, 1, PATCH_SIZE, (0.5, 0.5, 0.5), PINPOINTS, has_newline=True)


def tiles_config(tokenizer: Tokenizer) -> LlavaNextConfig:
    """About 3 million parameters: CLIP's tower, of which the model takes the last layer but one, and a Llama.

    Sizes of blocks are those of tiny_model.architecture, so that training can start from that model's weights.
    """
    return LlavaNextConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=5,
            num_attention_heads=4,
            image_size=SIDE,
            patch_size=PATCH_SIZE,
            projection_dim=128,
        ),
        text_config=LlamaConfig(
            vocab_size=-(-tokenizer.get_vocab_size() // 16) * 16,
            hidden_size=192,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=64,
            max_position_embeddings=4096,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.token_to_id(BOS),
            eos_token_id=tokenizer.token_to_id("<|im_end|>"),
            pad_token_id=tokenizer.token_to_id("<|endoftext|>"),
        ),
        image_token_id=tokenizer.token_to_id(IMAGE),
        image_grid_pinpoints=[list(pair) for pair in PINPOINTS],
        tie_word_embeddings=True,
    )

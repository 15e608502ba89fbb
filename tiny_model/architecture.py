"""The bundled model's shape: a real Qwen3-VL, only small."""

from tokenizers import Tokenizer
from transformers import Qwen3VLConfig

MERGE_SIZE, TEMPORAL_PATCH_SIZE, PATCH_SIZE = 2, 2, 16


def tiny_config(tokenizer: Tokenizer) -> Qwen3VLConfig:
    """About 4.4 million parameters, with three deepstack levels, interleaved M-RoPE and a 12 x 12 position table."""
    ids = {
        name: tokenizer.token_to_id(name)
        for name in ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
    }
    return Qwen3VLConfig(
        text_config={
            "vocab_size": -(-tokenizer.get_vocab_size() // 16) * 16,
            "hidden_size": 192,
            "intermediate_size": 512,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 64,
            "max_position_embeddings": 4096,
            "tie_word_embeddings": True,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [12, 10, 10],
                "mrope_interleaved": True,
            },
        },
        vision_config={
            "depth": 5,
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_heads": 4,
            "patch_size": PATCH_SIZE,
            "spatial_merge_size": MERGE_SIZE,
            "temporal_patch_size": TEMPORAL_PATCH_SIZE,
            "out_hidden_size": 192,
            "num_position_embeddings": 144,
            "deepstack_visual_indexes": [1, 2, 3],
        },
        tie_word_embeddings=True,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )

"""The bundled model's tokenizer: byte-level BPE with Qwen's regex, normaliser and special tokens, a small vocabulary.

The special tokens carry Qwen's names at other ids, so code that hard-codes 151655 fails on this model.
"""

from random import Random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from tiny_model.clips import moving_clip, slideshow_clip
from tiny_model.questions import about_clip, about_scene
from tiny_model.scenes import shapes_scene

PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
PLAIN = (
    "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>",
    "<|repo_name|>", "<|file_sep|>", "<tool_response>", "</tool_response>", "<think>", "</think>",
)  # fmt: skip


def _corpus(random: Random) -> list[str]:
    lines = ["user\n", "assistant\n", "system\nYou are a helpful assistant.", "<0.5 seconds>"] * 50
    lines += ["What text is shown?", "Read the text.", "What does the text say?", "What is written in the image?",
              "What color is the text?", 'The text is ""', 'The red text ""'] * 50  # fmt: skip
    for _ in range(3000):
        questions = about_scene(random, shapes_scene(random, 128, 128))
        questions += about_clip(random, moving_clip(random, 96, 96, 2), ["", ""])
        questions += about_clip(random, slideshow_clip(random, 96, 96, 2), ["", ""])
        lines += [text for q in questions for text in (q.text, q.answer)]
    return lines


def build_tokenizer(vocabulary_size: int = 480, more_special: tuple[str, ...] = ()) -> Tokenizer:
    """Train the tokenizer on generated questions and answers; it comes out the same every time.

    Args:
        more_special: special tokens that stand behind all others, so that the ids of the others stay.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
        min_frequency=5,
    )
    tokenizer.train_from_iterator(_corpus(Random(1)), trainer)
    tokenizer.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in SPECIAL])
    tokenizer.add_tokens([AddedToken(name, normalized=False) for name in PLAIN])
    tokenizer.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in more_special])
    return tokenizer

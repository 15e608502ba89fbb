"""A tiny random Qwen3-VL with weights that keep the signal's variance, and what transformers itself says about prompts.

With transformers' own initialisation every answer is the same token whatever the picture is; here each fault that a
split can have (no deepstack, swapped levels, wrong positions) changes the tokens.
"""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    PreTrainedModel,
    Qwen3_5Config,
    Qwen3_5ForConditionalGeneration,
    Qwen3_5MoeConfig,
    Qwen3_5MoeForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMoeConfig,
    Qwen3VLMoeForConditionalGeneration,
)
from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

from contract.card import ModelCard
from contract.codecs.learn import learn
from contract.codecs.rans import TOTAL
from contract.codecs.transform import Transform
from contract.language import LanguageCheckpoint, read_language_card
from contract.limits import Limits
from contract.prompt import Prompt, check_prompt

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
END, START, IMAGE, VIDEO = 256, 259, 261, 262
FINGERPRINT = "0123456789abcdef0123456789abcdef"
MAX_NEW_TOKENS = 20


def make_tokenizer() -> Tokenizer:
    """One token a byte, and the special tokens behind them."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer


HYBRID = {  # three layers with a state to one of attention
    "layer_types": ["linear_attention", "linear_attention", "linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 128,  # as released; vLLM computes no smaller ones on a CPU
    "linear_value_head_dim": 128,
    "linear_conv_kernel_dim": 4,
}


def make_model(
    *, tied: bool = False, is_moe: bool = False, is_hybrid: bool = False, is_wide: bool = False
) -> PreTrainedModel:
    """is_wide gives every linear layer of the language model multiples of 128 inputs and outputs."""
    text = {
        "vocab_size": 272,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,  # the smallest that vLLM computes on a CPU
        "max_position_embeddings": 2048,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "mrope_section": [8, 4, 4],
            "mrope_interleaved": True,
        },
        "pad_token_id": None,
        "tie_word_embeddings": tied,
    }
    vision = {
        "depth": 4,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": 64,
        "deepstack_visual_indexes": [0, 1, 2],
        "num_position_embeddings": 64,
    }
    if is_wide:
        text |= {"hidden_size": 128, "intermediate_size": 256, "num_key_value_heads": 4}
        vision |= {"out_hidden_size": 128}
    if is_moe:
        text |= {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
        text |= {"shared_expert_intermediate_size": 32} if is_hybrid else {}
    kinds: tuple[Any, Any] = (Qwen3VLMoeConfig, Qwen3VLMoeForConditionalGeneration)
    if not is_moe:
        kinds = Qwen3VLConfig, Qwen3VLForConditionalGeneration
    if is_hybrid:
        kinds = Qwen3_5Config, Qwen3_5ForConditionalGeneration
        if is_moe:
            kinds = Qwen3_5MoeConfig, Qwen3_5MoeForConditionalGeneration
        text |= HYBRID | {
            "rope_parameters": text["rope_parameters"] | {"partial_rotary_factor": 0.5, "mrope_section": [4, 2, 2]}
        }
        del vision["deepstack_visual_indexes"]
    config = kinds[0](
        text_config=text,
        vision_config=vision,
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_start_token_id=START,
        vision_end_token_id=START + 1,
        tie_word_embeddings=tied,
    )
    model = kinds[1](config).eval()
    generator = torch.Generator().manual_seed(17)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if "norm" in name and name.endswith("weight"):
                weight.copy_(1 + 0.2 * noise)
            elif weight.ndim == 1:
                weight.copy_(0.2 * noise)
            elif "embed" in name and "patch" not in name:
                weight.copy_(noise)
            else:
                weight.copy_(noise * weight[0].numel() ** -0.5)
    model.generation_config.eos_token_id = [END, END + 2]
    model.generation_config.do_sample = False
    return model


@dataclass(frozen=True)
class Case:
    """A prompt as the wire has it (ids, rows in prompt order, grids), and what transformers says on the pixels: the tokens
    of its answer, and the state (H,) behind the last token of the prompt."""

    name: str
    input_ids: NDArray[np.int64]
    main: NDArray[np.float32]
    deepstack: NDArray[np.float32]
    image_grid_thw: NDArray[np.int64]
    video_grid_thw: NDArray[np.int64]
    expected: tuple[int, ...]
    state: NDArray[np.float32]

    def prompt(self, card: ModelCard, limits: Limits | None = None, **changed: Any) -> Prompt:
        rows = {
            "vision_embeddings_fp32": changed.pop("vision_embeddings", self.main),
            "deepstack_embeddings_fp32": changed.pop("deepstack_embeddings", self.deepstack),
        }
        values: dict[str, Any] = {
            "input_ids": self.input_ids,
            "embeddings": rows if len(self.main) else {},
            "image_grid_thw": self.image_grid_thw,
            "video_grid_thw": self.video_grid_thw,
            "encoder_fingerprint": FINGERPRINT,
        }
        return check_prompt(card, limits or Limits(), **values | changed)


def transform(width: int) -> Transform:
    """klt's numbers for rows of so many values: the first 16 travel in half steps, half of the symbols zero."""
    some = np.eye(width, 16)
    frequencies = np.full((16, 256), 128, np.uint32)
    frequencies[:, 0] = TOTAL - 255 * 128
    return Transform(
        np.zeros(width, np.float32), (some / 0.5).astype(np.float16), (some.T * 0.5).astype(np.float16), frequencies
    )


class Reference:
    """The full model, its two checkpoint folders, and the cases every engine must answer alike."""

    def __init__(
        self,
        root: Path,
        *,
        tied: bool = False,
        is_moe: bool = False,
        is_hybrid: bool = False,
        is_wide: bool = False,
    ) -> None:
        self.model = make_model(tied=tied, is_moe=is_moe, is_hybrid=is_hybrid, is_wide=is_wide)
        self.tokenizer, self.num_levels = make_tokenizer(), 0 if is_hybrid else 3
        self.full, self.language = root / "full", root / "language"
        self.model.save_pretrained(self.full)
        self.tokenizer.save(str(self.full / "tokenizer.json"))
        self.language.mkdir()
        for name in ("config.json", "generation_config.json", "tokenizer.json"):
            shutil.copyfile(self.full / name, self.language / name)
        tensors = load_file(self.full / "model.safetensors")
        kept = {name: tensor for name, tensor in tensors.items() if ".visual." not in name}
        assert len(kept) < len(tensors)
        save_file(kept, self.language / "model.safetensors", {"format": "pt"})
        LanguageCheckpoint(FINGERPRINT, has_outer_video_wrapper=True).write(self.language)
        self.card = read_language_card(self.language)
        rows = np.random.default_rng(5).standard_normal((4, 200, self.card.hidden_size))
        if is_hybrid:
            return  # codecs have nothing to do with it
        self.numbers = replace(learn(rows), transform=transform(rows[:, 0].size))  # as if the tower's rows were normal
        self.numbers.write(self.language)

    def case(
        self, name: str, *parts: str | tuple[int, int, int], seed: int, is_wrapped: bool = True, between: str = ""
    ) -> Case:
        """A prompt from texts, pictures (1, h, w) and videos (t > 1, h, w); one turn after the other.

        is_wrapped puts vision marks around each frame, `between` is text before each frame of a video.
        """
        generator = torch.Generator().manual_seed(seed)
        ids: list[int] = []
        grids: dict[int, list[tuple[int, int, int]]] = {IMAGE: [], VIDEO: []}
        for part in parts:
            if isinstance(part, str):
                ids += self.tokenizer.encode(part).ids
                continue
            t, h, w = part
            kind = IMAGE if t == 1 else VIDEO
            grids[kind].append(part)
            for frame in range(t):
                ids += self.tokenizer.encode(f"<{frame}.5 seconds>{between}").ids if kind == VIDEO else []
                pads = [kind] * (h * w // 4)
                ids += [START, *pads, START + 1] if is_wrapped else pads
        input_ids = np.array(ids, np.int64)
        inputs, features = {}, {}
        for kind, noun, pixels in ((IMAGE, "image", "pixel_values"), (VIDEO, "video", "pixel_values_videos")):
            if grids[kind]:
                grid = torch.tensor(grids[kind])
                values = torch.randn((int(grid.prod(1).sum()), 1536), generator=generator)
                inputs |= {pixels: values, f"{noun}_grid_thw": grid}
                with torch.no_grad():
                    features[kind] = self.model.model.visual(values, grid)
        pads = input_ids[np.isin(input_ids, (IMAGE, VIDEO))]
        shape = (pads.size, self.card.hidden_size)
        main, deepstack = np.zeros(shape, np.float32), np.zeros((self.num_levels, *shape), np.float32)
        for kind, out in features.items():
            main[pads == kind] = out.pooler_output.numpy()
            for level, feature in enumerate(getattr(out, "deepstack_features", ())):
                deepstack[level, pads == kind] = feature.numpy()
        kinds = torch.tensor((input_ids == IMAGE) * 1 + (input_ids == VIDEO) * 2)[None]
        self.model.model.rope_deltas = None
        tokens = torch.tensor(input_ids)[None]
        inputs |= {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "mm_token_type_ids": kinds}
        with torch.no_grad():
            state = self.model.model(**inputs).last_hidden_state[0, -1].numpy()
        self.model.model.rope_deltas = None
        out = self.model.generate(max_new_tokens=MAX_NEW_TOKENS, do_sample=False, **inputs)
        empty = np.zeros((0, 3), np.int64)
        return Case(
            name,
            input_ids,
            main,
            deepstack,
            np.array(grids[IMAGE], np.int64) if grids[IMAGE] else empty,
            np.array(grids[VIDEO], np.int64) if grids[VIDEO] else empty,
            tuple(out[0, len(ids) :].tolist()),
            state,
        )

    def cases(self) -> dict[str, Case]:
        made = (
            self.case("text", "Tell me something.", seed=1),
            self.case("one image", "See ", (1, 8, 12), " what is it?", seed=2),
            self.case("several sizes", "A", (1, 4, 4), "B", (1, 16, 6), "C", (1, 10, 14), " compare", seed=3),
            self.case("video", "Watch ", (3, 8, 8), " and say.", seed=4),
            self.case("mixed", (1, 6, 6), " then ", (2, 4, 8), " then ", (1, 8, 4), " end", seed=5),
            self.case("multi-turn", "Q1 ", (1, 6, 10), " A1 blue. Q2 ", (1, 4, 8), " A2 red. Q3 again?", seed=6),
            self.case("two videos", (2, 6, 6), "|", (4, 4, 4), " differ?", seed=7),
            self.case("long text", "word " * 60, seed=8),
        )
        return {case.name: case for case in made}


def encoded_inputs(
    prompt: Prompt, card: ModelCard, dtype: torch.dtype, answer: tuple[int, ...] = ()
) -> dict[str, object]:
    """A prompt, and what was answered so far, as transformers takes it when the tower has already run."""
    tokens = torch.tensor([*prompt.input_ids.tolist(), *answer])[None]
    is_image, is_video = tokens == card.image_token_id, tokens == card.video_token_id
    is_video_row = is_video[is_image | is_video]
    main, deepstack = (torch.tensor(rows).to(dtype) for rows in (prompt.main, prompt.deepstack))
    inputs: dict[str, object] = {"input_ids": tokens, "mm_token_type_ids": is_image * 1 + is_video * 2}
    features = {}
    kinds = (("image", prompt.image_grid_thw, ~is_video_row), ("video", prompt.video_grid_thw, is_video_row))
    for noun, grid, rows in kinds:
        if len(grid):
            inputs[f"{noun}_grid_thw"] = torch.tensor(grid)
            features[noun] = BaseModelOutputWithDeepstackFeatures(
                pooler_output=[main[rows]], deepstack_features=[[level[rows]] for level in deepstack]
            )
    return inputs | {"mm_encoder_outputs": features}


@torch.no_grad()
def forced_logprobs(model: PreTrainedModel, prompt: Prompt, card: ModelCard, answer: tuple[int, ...]) -> torch.Tensor:
    """What transformers gives (answer, V) for every token of an answer, all in one pass."""
    model.model.rope_deltas = None
    logits = model(**encoded_inputs(prompt, card, model.dtype, answer)).logits[0]
    return logits[prompt.input_ids.size - 1 : -1].float().log_softmax(-1)


def remove_tensor(folder: Path, target: Path, ending: str) -> None:
    """A copy of a checkpoint that lacks one tensor."""
    shutil.copytree(folder, target)
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if name.endswith(ending))
    del tensors[name]
    save_file(tensors, target / "model.safetensors", {"format": "pt"})


def write_config(folder: Path, **changed: object) -> None:
    """Change keys of a checkpoint's config.json."""
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | changed))

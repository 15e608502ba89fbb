"""`python -m benchmarks.vllm_capacity` computes the capacity table of docs/vllm.md.

It applies formulas to the published shapes of the models, and measures nothing. A test compares the output with the
document.
"""

from dataclasses import dataclass

from serving.vllm.capacity import kv_bytes_per_token

VOCABULARY, HEAD_SIZE, NUM_LEVELS = 151_936, 128, 3
PIXELS_PER_ROW = 32 * 32  # patch 16, merged 2 x 2
GPU_BYTES, GPU_SHARE = 80e9, 0.9  # an 80 GB GPU, and what vLLM takes of it
GPU_FLOPS, UTILISATION = 989e12, 0.4  # H100, bf16 without sparsity; a usual share in prefill
TEXT_TOKENS, ANSWER_TOKENS = 64, 256
SIZES = (256, 512, 1024, 2048)  # pixels a side


@dataclass(frozen=True)
class Shape:
    """A language model. A mixture has num_experts, of which num_active run a token; intermediate is an expert's."""

    name: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    is_tied: bool
    num_experts: int = 1
    num_active: int = 1

    def parameters(self, num_experts: int) -> int:
        """Weights with that many experts counted a layer, without the input embedding (looked up, not multiplied)."""
        attention = self.hidden * HEAD_SIZE * (2 * self.heads + 2 * self.kv_heads)
        return self.layers * (attention + num_experts * 3 * self.hidden * self.intermediate) + VOCABULARY * self.hidden

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights in bf16, with all experts and the input embedding."""
        return 2 * (self.parameters(self.num_experts) + (0 if self.is_tied else VOCABULARY * self.hidden))

    @property
    def kv_bytes(self) -> int:
        """Bytes of one token's keys and values in bf16."""
        config = {
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": HEAD_SIZE,
        }
        return kv_bytes_per_token(config, 2)

    @property
    def num_gpus(self) -> int:
        """The smallest power of two whose memory holds 1.5 times the weights, so that a third is the cache's."""
        count = 1
        while count * GPU_BYTES * GPU_SHARE < 1.5 * self.weight_bytes:
            count *= 2
        return count

    def prefill_flops(self, num_tokens: int) -> float:
        """Floating-point operations: 2 a weight and token, and the causal half of attention's two products."""
        attention = 2 * self.layers * self.heads * HEAD_SIZE * num_tokens**2
        return 2.0 * self.parameters(self.num_active) * num_tokens + attention

    def num_users(self, num_tokens: int) -> int:
        """The number of requests of that length that the cache on num_gpus holds at once."""
        free = self.num_gpus * GPU_BYTES * GPU_SHARE - self.weight_bytes
        return int(free // (num_tokens * self.kv_bytes))


SHAPES = (
    Shape("2B", 2048, 28, 16, 8, 6144, True),
    Shape("4B", 2560, 36, 32, 8, 9728, True),
    Shape("8B", 4096, 36, 32, 8, 12288, False),
    Shape("32B", 5120, 64, 64, 8, 25600, False),
    Shape("30B-A3B", 2048, 48, 32, 4, 768, False, 128, 8),
    Shape("235B-A22B", 4096, 94, 64, 4, 1536, False, 128, 8),
)


def num_rows(side: int) -> int:
    """Embedding rows of a square picture."""
    return side * side // PIXELS_PER_ROW


def tables() -> str:
    """Both tables as Markdown."""
    lines = [
        "| model | weights | GPUs | KV a token | KV a picture of 1024² | its embeddings on the wire, fp16 / int8 | users at once |",
        "|---|---|---|---|---|---|---|",
    ]
    rows = num_rows(1024)
    for s in SHAPES:
        wire = rows * (1 + NUM_LEVELS) * s.hidden
        users = s.num_users(rows + TEXT_TOKENS + ANSWER_TOKENS)
        cells = [
            s.name,
            f"{s.weight_bytes / 1e9:.1f} GB",
            str(s.num_gpus),
            f"{s.kv_bytes / 1024:.0f} KiB",
            f"{rows * s.kv_bytes / 2**20:.0f} MiB",
            f"{2 * wire / 1e6:.1f} / {wire / 1e6:.1f} MB",
            str(users),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        f"| pictures per second and GPU | {' | '.join(f'{side}²' for side in SIZES)} |",
        "|---|---|---|---|---|",
    ]
    for s in SHAPES:
        rates = [
            GPU_FLOPS * UTILISATION / s.prefill_flops(num_rows(side) + TEXT_TOKENS) for side in SIZES
        ]  # seconds of one GPU are shared by all: the number of GPUs cancels out
        lines.append(f"| {s.name} | {' | '.join(f'{rate:.3g}' for rate in rates)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(tables())

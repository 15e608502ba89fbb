"""What vLLM asks of a family's pictures, answered without its image processor: an item may be as long as the prompt."""

from collections.abc import Mapping


class AnySize:
    """A mixin of vLLM's processing infos, which would ask the image processor for its largest picture."""

    def get_mm_max_tokens_per_item(self, seq_len: int, mm_counts: Mapping[str, int]) -> Mapping[str, int]:
        """vLLM's hook: rows of the largest item, by kind."""
        return dict.fromkeys(mm_counts, seq_len)

"""The tokens that end a grammar's answer in vLLM: all of the model's.

vLLM's guidance backend allows the tokenizer's one end token. generation_config.json may name several, and the
transformers engine allows each of them, so the same grammar could end at another place there. The vocabulary is the
other engine's, too, in which <think> and <tool_call> are text.
"""

from pathlib import Path

from vllm.v1.structured_output.backend_guidance import GuidanceBackend

from serving.transformers_engine.checkpoint import end_ids
from serving.transformers_engine.mask import grammar_tokenizer


def allow_every_end() -> None:
    """Put `_with_every_end` in place of the backend's own beginning, in this process."""
    GuidanceBackend.__post_init__ = _with_every_end


_begin = GuidanceBackend.__post_init__


def _with_every_end(self: GuidanceBackend) -> None:
    """Begin as vLLM does, then tell llguidance every end token of a model of ours."""
    _begin(self)
    model = self.vllm_config.model_config
    if getattr(model.hf_config, "text_config", None) is None:  # none of ours
        return
    if ends := sorted(end_ids(Path(model.model), model.hf_config)):
        size = max(self.vocab_size, len(self.tokenizer))
        self.ll_tokenizer = grammar_tokenizer(self.tokenizer.backend_tokenizer, size, frozenset(ends))

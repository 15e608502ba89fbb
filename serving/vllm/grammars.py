"""Grammars in vLLM as in the transformers engine: with all end tokens of a model, and within the server's limits.

vLLM's guidance backend allows the tokenizer's one end token. generation_config.json may name several, and the
transformers engine allows each of them, so the same grammar could end at another place there. The vocabulary is the
other engine's, too, in which <think> and <tool_call> are text. A grammar that becomes too large for a mask allows
nothing but an end from there on.
"""

from pathlib import Path

from vllm.v1.structured_output.backend_guidance import GuidanceBackend, GuidanceGrammar
from vllm.v1.structured_output.backend_types import StructuredOutputOptions

from serving.grammars.trial import matcher
from serving.transformers_engine.checkpoint import end_ids
from serving.transformers_engine.mask import grammar_tokenizer


def as_in_transformers_engine() -> None:
    """Put `_with_every_end` and `_within_limits` in place of the backend's own, in this process."""
    GuidanceBackend.__post_init__ = _with_every_end
    GuidanceBackend.compile_grammar = _within_limits


_begin, _compile = GuidanceBackend.__post_init__, GuidanceBackend.compile_grammar


def _with_every_end(self: GuidanceBackend) -> None:
    """Begin as vLLM does, then tell llguidance every end token of a model of ours."""
    _begin(self)
    model = self.vllm_config.model_config
    if getattr(model.hf_config, "text_config", None) is None:  # none of ours
        return
    if ends := sorted(end_ids(Path(model.model), model.hf_config)):
        size = max(self.vocab_size, len(self.tokenizer))
        self.ll_tokenizer = grammar_tokenizer(self.tokenizer.backend_tokenizer, size, frozenset(ends))


def _within_limits(
    self: GuidanceBackend,
    request_type: StructuredOutputOptions,
    grammar_spec: str,
    stop_token_ids: set[int] | None = None,
) -> GuidanceGrammar:
    """Compile as vLLM does, then once more with limits, which it does not hand on."""
    made = _compile(self, request_type, grammar_spec, stop_token_ids)
    made.ll_matcher = matcher(self.serialized_grammar, self.ll_tokenizer)
    return made

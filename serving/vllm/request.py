"""A request on its way through vLLM, and its sampling under vLLM's own names."""

from dataclasses import dataclass
from typing import Any

from vllm import SamplingParams
from vllm.exceptions import VLLMClientError
from vllm.lora.request import LoRARequest
from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

from contract.errors import InvalidInput
from contract.sampling import Sampling
from serving.vllm.answer import Answer


@dataclass(frozen=True, eq=False)
class VllmRequest:
    """What vLLM gets of a request, and the Answer that makes deltas of its outputs."""

    prompt: Any
    adapter: LoRARequest | None
    params: SamplingParams
    answer: Answer
    num_tokens: int  # tokens of the prompt
    kv_bytes: int


def sampling_params(sampling: Sampling, max_tokens: int, end_ids: frozenset[int]) -> SamplingParams:
    """A request's sampling for vLLM, whose names the contract uses.

    Raises:
        InvalidInput: vLLM refuses a value: a grammar that is none, say.
    """
    try:
        constraint = sampling.structured_outputs
        return SamplingParams(
            max_tokens=max_tokens,
            min_tokens=min(sampling.min_tokens, max_tokens),
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            min_p=sampling.min_p,
            repetition_penalty=sampling.repetition_penalty,
            presence_penalty=sampling.presence_penalty,
            frequency_penalty=sampling.frequency_penalty,
            logprobs=sampling.logprobs,
            seed=sampling.seed,
            stop_token_ids=sorted(end_ids),
            ignore_eos=True,  # end_ids holds what ends
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
            thinking_token_budget=sampling.thinking_token_budget,
            structured_outputs=StructuredOutputsParams(**constraint) if constraint is not None else None,
        )
    except (TypeError, ValueError, VLLMClientError) as error:
        raise InvalidInput(f"sampling_parameters: {error}") from error

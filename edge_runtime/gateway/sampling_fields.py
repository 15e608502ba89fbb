"""The fields of a body that say how the server samples, with OpenAI's and vLLM's names."""

from typing import Any

from contract.errors import shown
from contract.sampling import MAX_LOGPROBS, Sampling
from edge_runtime.gateway.failures import Failure
from edge_runtime.gateway.fields import check_keys, flag, mapping, whole

PASSED = (
    "temperature", "top_p", "seed", "stop", "presence_penalty", "frequency_penalty",  # OpenAI's
    "top_k", "min_p", "repetition_penalty", "min_tokens", "stop_token_ids", "ignore_eos", "structured_outputs",
    "skip_special_tokens", "thinking_token_budget",  # vLLM's
)  # fmt: skip


def sampling_of(given: dict[str, Any], defaults: Sampling, schema: dict[str, Any] | None) -> Sampling:
    """How the server shall choose tokens.

    Args:
        given: the body's fields that have a value.
        defaults: what holds where the body says nothing.
        schema: the JSON schema of the call that the model must make; it stands in for response_format.

    Raises:
        Failure: 400; it names the field.
        InvalidInput: a sampling value is out of its range.
    """
    values = {name: given[name] for name in PASSED if name in given}
    values["max_tokens"] = max_tokens_of(given, ("max_tokens", "max_completion_tokens"), defaults.max_tokens)
    if values.get("seed") == -1:  # llama.cpp's value for a random seed
        del values["seed"]
    if (penalty := given.get("repeat_penalty")) is not None:
        if values.get("repetition_penalty", penalty) != penalty:
            other = values["repetition_penalty"]
            raise Failure(
                400,
                f"repeat_penalty is {shown(penalty)} and repetition_penalty is {shown(other)}: give one of them",
                param="repeat_penalty",
            )
        values["repetition_penalty"] = penalty
    if values.get("thinking_token_budget") == -1:  # vLLM's value for no budget
        del values["thinking_token_budget"]
    if (budget := given.get("thinking_budget")) is not None:  # the name in Qwen's own service
        if (other := values.get("thinking_token_budget", budget)) != budget:
            raise Failure(
                400,
                f"thinking_budget is {shown(budget)} and thinking_token_budget is {shown(other)}: give one of them",
                param="thinking_budget",
            )
        values["thinking_token_budget"] = whole(given, "thinking_budget", 0, 1 << 20)
    top = whole(given, "top_logprobs", 0, MAX_LOGPROBS)
    if flag(given, "logprobs"):
        values["logprobs"] = top or 0
    elif top:
        raise Failure(400, f"top_logprobs is {top} without logprobs: set logprobs to true", param="top_logprobs")
    form = mapping(given, "response_format")
    outputs = structured(form) if schema is None else {"json": schema}
    if outputs is not None:
        if schema is None and "structured_outputs" in values:
            raise Failure(
                400,
                f"response_format and structured_outputs were both sent, {shown(form)} and "
                f"{shown(values['structured_outputs'])}: an answer has one form, send one of them",
                param="structured_outputs",
            )
        values["structured_outputs"] = outputs
    return Sampling.from_dict(values, defaults)


def max_tokens_of(given: dict[str, Any], names: tuple[str, ...], default: int) -> int:
    """The limit in the last of the named fields that has one, else `default`.

    The value -1 means the most that the server gives, which this call does not know: it also gives `default`.

    Raises:
        Failure: 400, a value is 0, below -1, above 2^20 or no whole number.
    """
    chosen = default
    for name in names:
        if (value := whole(given, name, -1, 1 << 20)) is None:
            continue
        if value == 0:
            raise Failure(400, f"{name} is 0, a whole number from 1 is expected, or -1 for the most", param=name)
        chosen = value if value > 0 else default
    return chosen


def structured(form: dict[str, Any], param: str = "response_format") -> dict[str, Any] | None:
    """OpenAI's response_format as vLLM's structured_outputs; None for plain text.

    Raises:
        Failure: 400, the object has another form.
    """
    kind = form.get("type", "text")
    check_keys(form, ("type", "json_schema"), param)
    if kind == "text":
        return None
    if kind == "json_object":
        return {"json": {"type": "object"}}
    named = form.get("json_schema")
    schema = named.get("schema") if isinstance(named, dict) else None
    if kind != "json_schema" or not isinstance(named, dict) or not isinstance(schema, dict):
        raise Failure(
            400,
            f"{param} is {shown(form)}, type text, json_object, or json_schema with json_schema.schema is expected",
            param=param,
        )
    check_keys(named, ("name", "schema", "strict", "description"), f"{param}.json_schema")
    return {"json": schema}

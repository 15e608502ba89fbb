"""The tools of a request: which functions the model may call, and whether it must call one."""

import json
from typing import Any

from contract.errors import shown
from edge_runtime.gateway.failures import Failure
from edge_runtime.gateway.fields import check_keys


def read_tools(given: dict[str, Any]) -> tuple[list[Any] | None, str]:
    """The functions, and tool_choice: auto, none, required, or the name of a function.

    Raises:
        Failure: 400; it names the field.
    """
    tools = given.get("tools")
    for index, tool in enumerate(tools if isinstance(tools, list) else [] if tools is None else [None]):
        param = f"tools.[{index}]"
        function = tool.get("function") if isinstance(tool, dict) and tool.get("type") == "function" else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise Failure(400, f"tools is {shown(tools)}, a list of functions with a name is expected", param="tools")
        check_keys(tool, ("type", "function"), param)
        check_keys(function, ("name", "description", "parameters", "strict"), f"{param}.function")
        if not isinstance(function.get("parameters", {}), dict):
            where = f"{param}.function.parameters"
            raise Failure(400, f"{where} is {shown(function['parameters'])}, an object is expected", param=where)
    return tools or None, _choice(given.get("tool_choice", "auto"), [tool["function"]["name"] for tool in tools or []])


def _choice(choice: Any, names: list[str]) -> str:
    if choice in ("auto", "none"):
        return str(choice)
    if choice == "required" and names:
        return "required"
    function = choice.get("function") if isinstance(choice, dict) and choice.get("type") == "function" else None
    if isinstance(function, dict) and function.get("name") in names:
        return str(function["name"])
    raise Failure(
        400, f"tool_choice is {shown(choice)}, auto, none, required or one of the tools is expected",
        param="tool_choice",
    )  # fmt: skip


def forced_schema(tools: list[Any] | None, choice: str) -> dict[str, Any] | None:
    """The JSON schema of the call that the model must make; None where the model is free."""
    if choice in ("auto", "none") or tools is None:
        return None
    functions = [tool["function"] for tool in tools if choice in ("required", tool["function"]["name"])]
    return call_schema(functions)


def call_schema(functions: list[dict[str, Any]]) -> dict[str, Any]:
    """The JSON schema of a call of one of the functions.

    Parameters that refer to parts of themselves become definitions of the whole schema; their references lead there.
    """
    calls, definitions = [], {}
    for index, function in enumerate(functions):
        arguments = function.get("parameters") or {"type": "object"}
        if '"$ref"' in json.dumps(arguments):
            definitions[f"f{index}"] = _moved(arguments, f"#/$defs/f{index}")
            arguments = {"$ref": f"#/$defs/f{index}"}
        calls.append(
            {
                "type": "object",
                "properties": {"name": {"const": function["name"]}, "arguments": arguments},
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
        )
    whole: dict[str, Any] = calls[0] if len(calls) == 1 else {"anyOf": calls}
    return whole | {"$defs": definitions} if definitions else whole


def _moved(schema: Any, place: str) -> Any:
    """A schema whose references to its own root lead to `place`."""
    if isinstance(schema, list):
        return [_moved(part, place) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: place + value[1:]
        if key == "$ref" and isinstance(value, str) and value.startswith("#")
        else _moved(value, place)
        for key, value in schema.items()
    }

"""What vLLM calls in each of its processes (entry point `vllm.general_plugins`): our model under the usual names.

Imported by name only, so that a process that loads another model pays nothing.
"""

NAMES = ("Qwen3VLForConditionalGeneration", "Qwen3VLMoeForConditionalGeneration")


def register() -> None:
    """Put serving.vllm.model in place of vLLM's own classes."""
    from vllm import ModelRegistry

    for name in NAMES:
        ModelRegistry.register_model(name, f"serving.vllm.model:{name}")

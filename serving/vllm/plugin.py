"""What vLLM calls in each of its processes (entry point `vllm.general_plugins`): our model under the usual names, waiting asleep.

Imported by name only, so that a process that loads another model pays nothing.
"""

NAMES = ("Qwen3VLForConditionalGeneration", "Qwen3VLMoeForConditionalGeneration")


def register() -> None:
    """Put serving.vllm.model in place of vLLM's own classes, and serving.vllm.waiting in place of its busy wait."""
    from vllm import ModelRegistry

    from serving.vllm.waiting import sleep_while_waiting

    sleep_while_waiting()
    for name in NAMES:
        ModelRegistry.register_model(name, f"serving.vllm.model:{name}")

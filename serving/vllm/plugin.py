"""What vLLM calls in each of its processes (entry point `vllm.general_plugins`).

It registers our models under the usual names, and our wait in place of vLLM's busy wait. It registers models by name,
so that a process that loads another model pays nothing.
"""

from serving.families import vllm_classes


def register() -> None:
    """Put the families' classes in place of vLLM's own, and serving.vllm.waiting in place of its busy wait."""
    from vllm import ModelRegistry

    from serving.vllm.waiting import sleep_while_waiting

    sleep_while_waiting()
    for name, where in vllm_classes().items():
        ModelRegistry.register_model(name, where)

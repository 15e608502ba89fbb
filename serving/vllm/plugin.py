"""What vLLM calls in each of its processes (entry point `vllm.general_plugins`).

It registers our models under the usual names, our wait in place of vLLM's busy wait, and every end token for grammars.
It registers models by name, so that a process that loads another model pays nothing.
"""

from serving.families import vllm_classes


def register() -> None:
    """Put the families' classes in place of vLLM's own, serving.vllm.waiting in place of its busy wait, and
    serving.vllm.grammar_ends in place of the beginning of its grammars."""
    from vllm import ModelRegistry

    from serving.vllm.grammar_ends import allow_every_end
    from serving.vllm.waiting import sleep_while_waiting

    sleep_while_waiting()
    allow_every_end()
    for name, where in vllm_classes().items():
        ModelRegistry.register_model(name, where)

"""What vLLM calls in each of its processes (entry point `vllm.general_plugins`).

It registers our models under the usual names, our wait in place of vLLM's busy wait, and every end token for grammars.
It registers models by name, so that a process that loads another model pays nothing. And it asks for AMX, which vLLM
0.32 does not.
"""

import torch

from serving.families import vllm_classes


def register() -> None:
    """Put the families' classes in place of vLLM's own, serving.vllm.waiting in place of its busy wait, and
    serving.vllm.grammars in place of the beginning of its grammars."""
    from vllm import ModelRegistry

    from serving.vllm.grammars import as_in_transformers_engine
    from serving.vllm.waiting import sleep_while_waiting

    ask_for_amx()
    sleep_while_waiting()
    as_in_transformers_engine()
    for name, where in vllm_classes().items():
        ModelRegistry.register_model(name, where)


def ask_for_amx() -> None:
    """Ask Linux for the processor's AMX registers where it has them. A process that has not asked dies at its first AMX
    instruction, and vLLM's attention in bfloat16 begins with one (Linux: ARCH_REQ_XCOMP_PERM of arch_prctl)."""
    if torch.cpu._is_amx_tile_supported():
        torch.cpu._init_amx()

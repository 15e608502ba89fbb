"""How this project asks onnxruntime to run a graph: the settings that every session of this project shares.

On x86 without VNNI onnxruntime multiplies unsigned by signed bytes with an instruction that cuts sums of two products
off at 16 bits: sums are then wrong, no error says so, and they are worst in rows of large values. onnxruntime has a
switch for exact products, which are a quarter slower there; with VNNI, which cuts nothing off, the switch would halve
the speed.
"""

import onnxruntime

from edge_runtime.tower import kernels
from edge_runtime.tower.processor import cuts_sums_off

EXACT_PRODUCTS = "session.x64quantprecision"  # onnxruntime_session_options_config_keys.h
NO_COPIES = "session.disable_prepacking"


def session_options(
    threads: int = 0, *, use_kernels: bool = False, low_memory: bool = False
) -> onnxruntime.SessionOptions:
    """Options for `threads` cores (0 takes all), with integer products that are exact on every processor.

    Args:
        use_kernels: the project's own operators replace the standard ones in the graph, where this processor has them.
        low_memory: onnxruntime and the project's operators do not repack weights; else they repack where that pays.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry(EXACT_PRODUCTS, str(int(cuts_sums_off())))
    options.add_session_config_entry(NO_COPIES, str(int(low_memory)))
    if use_kernels and (operators := kernels.library()) is not None:
        options.register_custom_ops_library(str(operators))
    return options

"""Opens a graph of a bundle on onnxruntime, with the provider that the caller names and no other."""

import onnxruntime

from contract.errors import BundleError, InvalidInput
from edge_runtime.tower.linked_graph import GraphFiles, graph_source
from edge_runtime.tower.mapped_pages import given_back
from edge_runtime.tower.session_options import session_options

CPU = "CPUExecutionProvider"
MAX_THREADS = 1024


def check_provider(provider: str, threads: int) -> None:
    """Refuse a provider or a number of threads that no session can have.

    Raises:
        InvalidInput: this onnxruntime lacks the provider, or threads is below 0 or above MAX_THREADS.
    """
    if not 0 <= threads <= MAX_THREADS:
        raise InvalidInput(f"threads is {threads}, 0 (all cores) to {MAX_THREADS} is expected")
    if provider not in (available := onnxruntime.get_available_providers()):
        raise InvalidInput(f"provider is {provider!r}, this onnxruntime has {', '.join(available)}")


def open_session(
    files: GraphFiles, *, provider: str, threads: int, use_kernels: bool, low_memory: bool
) -> onnxruntime.InferenceSession:
    """A session over a graph and its weights.

    Args:
        files, provider, threads, use_kernels, low_memory: as Encoder.from_bundle; kernels run on the CPU alone.

    Raises:
        BundleError: onnxruntime cannot load the graph.
        InvalidInput: onnxruntime cannot bind the provider.
    """
    options = session_options(threads, use_kernels=use_kernels and provider == CPU, low_memory=low_memory)
    try:
        with given_back(files.weights):
            source = graph_source(files, options)
            session = onnxruntime.InferenceSession(source, options, providers=[provider])
    except BundleError:
        raise
    except Exception as error:  # onnxruntime's exceptions have no public root
        if "hard link" in str(error):
            raise BundleError(
                f"{files.weights} has {files.weights.stat().st_nlink} names in its file system (hard links), and onnxruntime "
                f"{onnxruntime.__version__} reads no such weights: copy the bundle (cp -r) and open the copy"
            ) from error
        raise BundleError(
            f"{files.graph} cannot be loaded by onnxruntime {onnxruntime.__version__}: {error}; install the version that "
            "the manifest names, or export the bundle again"
        ) from error
    if (bound := session.get_providers()[0]) != provider:
        raise InvalidInput(
            f"provider {provider!r} did not bind, onnxruntime fell back to {bound}: name that one, or install what the "
            "provider needs"
        )
    return session

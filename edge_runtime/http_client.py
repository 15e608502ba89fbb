"""One answer over HTTP from the unary model, tensors in KServe's binary form."""

from types import TracebackType
from typing import Any

import numpy as np

from contract.errors import MissingExtra, Unavailable, from_wire
from contract.sampling import Sampling
from contract.tensors import OUTPUTS, UNARY_MODEL
from edge_runtime.request import Delta, Precision, Request, read_delta

try:
    import tritonclient.http as triton
    from tritonclient.utils import InferenceServerException, np_to_triton_dtype
except ImportError as error:
    raise MissingExtra("the HTTP client", "client") from error


class HttpClient:
    """A connection to Triton's HTTP port.

    Args:
        url: host:port.
        timeout_s: longest wait for an answer, in seconds.
        precision: type the embeddings travel in.
    """

    def __init__(self, url: str = "127.0.0.1:8000", *, timeout_s: float = 60.0, precision: Precision = "fp16") -> None:
        self._url, self._precision = url, precision
        self._client = triton.InferenceServerClient(url, network_timeout=timeout_s, connection_timeout=timeout_s)

    def __enter__(self) -> "HttpClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def infer(self, request: Request, sampling: Sampling | None = None) -> Delta:
        """Send a request and wait for its whole answer.

        Raises:
            InvalidInput: the server refuses the request; NotFound, Unavailable, ServerError likewise.
        """
        inputs = []
        for name, array in request.tensors(sampling or Sampling(), self._precision, stream=False).items():
            datatype = "BYTES" if array.dtype == np.object_ else np_to_triton_dtype(array.dtype)
            tensor = triton.InferInput(name, list(array.shape), datatype)
            tensor.set_data_from_numpy(np.ascontiguousarray(array), binary_data=True)
            inputs.append(tensor)
        try:
            result: Any = self._client.infer(UNARY_MODEL, inputs)
        except InferenceServerException as error:
            raise from_wire(error.message() or str(error)) from error
        except OSError as error:
            raise Unavailable(f"{self._url}: {error}: is Triton running at this address?") from error
        outputs = {spec.name: result.as_numpy(spec.name) for spec in OUTPUTS}
        return read_delta({name: array for name, array in outputs.items() if array is not None})

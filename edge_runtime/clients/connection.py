"""Where a server is, how it is spoken to, and what it is believed to hold: the arguments of the four clients, once."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from os import PathLike, fspath
from pathlib import Path

from contract.errors import InvalidInput
from edge_runtime.clients.held_keys import HeldKeys
from edge_runtime.clients.patience import Patience
from edge_runtime.clients.shared_regions import SharedRegions
from edge_runtime.request import PRECISIONS, Precision

DATATYPES = {"fp16": "FP16", "fp32": "FP32", "int8": "INT8"}


@dataclass(frozen=True)
class Tls:
    """Files in PEM form: whom to trust (None: the usual list), and who we are where the server asks."""

    root_certificates: str | PathLike[str] | None = None
    private_key: str | PathLike[str] | None = None
    certificate_chain: str | PathLike[str] | None = None

    def names(self) -> list[str | None]:
        """The three file names.

        Raises:
            InvalidInput: one of them cannot be read.
        """
        files = (self.root_certificates, self.private_key, self.certificate_chain)
        names = [None if file is None else fspath(file) for file in files]
        for name in filter(None, names):
            try:
                Path(name).read_bytes()
            except OSError as error:
                raise InvalidInput(f"{name} cannot be read: {error.strerror}") from error
        return names


@dataclass(eq=False)
class Connection:
    """A way to a server. Requests follow each other on the same network connection, which stays open for a while.

    Args:
        url: host:port; for HTTP also http://host:port/prefix and https://host.
        timeout_s: longest wait for the next piece of an answer, in seconds.
        precision: how the embeddings travel: fp16, fp32, int8 (half the bytes of fp16, not exact), or a learned codec
            that bundle and server have the same numbers of: int8c, int4, ecq (see contract.codecs).
        retry_s: how long to keep trying while nobody listens at the address (a server that starts); what a server
            has received is never sent twice.
        tls: encrypt, with these certificates; None speaks plain text, except to https:// URLs.
        headers: sent with every request, such as authorization.
        shared_memory: hand the embeddings over in this machine's shared memory; for a server on the same machine that
            allows it. Close the client to give it back.

    Raises:
        InvalidInput: the precision is unknown, or a certificate file cannot be read.
    """

    url: str
    _: KW_ONLY
    timeout_s: float = 60.0
    precision: Precision = "fp16"
    retry_s: float = 0.0
    tls: Tls | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)  # may hold a password
    shared_memory: bool = False
    held: HeldKeys = field(default_factory=HeldKeys, init=False, repr=False)
    regions: SharedRegions = field(default_factory=SharedRegions, init=False, repr=False)
    is_checked: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise InvalidInput(f"precision is {self.precision!r}, allowed are {', '.join(PRECISIONS)}")
        if self.tls is not None:
            self.tls.names()
        self.is_checked = self.precision == "fp16"  # every server takes it

    def patience(self, deadline_s: float | None) -> Patience:
        """The clock of a request that begins now."""
        return Patience(self.url, self.timeout_s, deadline_s, self.retry_s)

    def check(self, parameters: Mapping[str, str]) -> None:
        """Hold the precision against what the server publishes.

        Raises:
            InvalidInput: the server does not take it.
        """
        types = parameters.get("embedding_datatypes", "").split(",")
        older = [name for name, datatype in DATATYPES.items() if datatype in types]  # it publishes no codecs
        accepted = [name.partition(":")[0] for name in parameters.get("embedding_codecs", "").split()] or older
        if self.precision not in accepted:
            allowed = ", ".join(name for name in PRECISIONS if name in accepted) or "none of ours"
            raise InvalidInput(f"precision is {self.precision!r}, {self.url} accepts {allowed}")
        self.is_checked = True


def refused_region(url: str, why: object) -> str:
    """What to say when a server does not register a region."""
    return (
        f"shared_memory=True, and {url} cannot open this machine's shared memory: {why}; it must run on this machine "
        "(in a container with --ipc=host), newer Tritons with --allow-client-shm=true"
    )

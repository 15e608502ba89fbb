"""Where a server is, how a client speaks to it, and what it probably holds: the arguments of all four clients."""

import logging
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from os import PathLike, fspath
from pathlib import Path
from typing import Literal

from contract.errors import InvalidInput
from contract.files import read_regular
from edge_runtime.clients.choice import AUTO, QUALITIES, Quality, Uplink, choose, published, taken
from edge_runtime.clients.held_keys import HeldKeys
from edge_runtime.clients.patience import Patience, check_seconds
from edge_runtime.clients.shared_regions import SharedRegions
from edge_runtime.encoded_item import PRECISIONS, Precision
from edge_runtime.request import Request

log = logging.getLogger(__name__)
CODEC_REFUSED = "vision_codec is "  # how a server begins that has other numbers than it published, or none


@dataclass(frozen=True)
class Tls:
    """Files in PEM form.

    Attributes:
        root_certificates: the authorities that the client trusts; None for the system's usual list.
        private_key, certificate_chain: who the client is, where the server asks.
    """

    root_certificates: str | PathLike[str] | None = None
    private_key: str | PathLike[str] | None = None
    certificate_chain: str | PathLike[str] | None = None

    def names(self) -> list[str | None]:
        """The names of the three files; None for a file that is not set.

        Raises:
            InvalidInput: a file cannot be read.
        """
        files = (self.root_certificates, self.private_key, self.certificate_chain)
        names = [None if file is None else fspath(file) for file in files]
        for name in filter(None, names):
            try:
                read_regular(Path(name))
            except OSError as error:
                raise InvalidInput(f"{name} cannot be read: {error.strerror}") from error
        return names


@dataclass(eq=False)
class Connection:
    """The way to a server. Requests follow each other on the same network connection, which stays open for a while.

    Args:
        url: host:port; for HTTP also http://host:port/prefix and https://host.
        timeout_s: longest wait for the next piece of an answer, in seconds.
        precision: how the embeddings travel: fp16, fp32, int8 (half the bytes of fp16, not exact), a learned codec
            (int8c, int4, ecq, klt: see contract.codecs), or auto. Where the server does not take a codec, or has other
            numbers for it, int8 travels, and fp16 where it takes no int8; a warning in the log and the answer's Delta
            say so. With auto the client takes the most exact one that travels within budget_s, and never one below
            `quality`.
        quality: what auto may take: exact (fp16), close (also int8c, int8), small (also int4, ecq), least (any).
        budget_s: seconds that an upload may take, at the speed of this client's last uploads.
        retry_s: how many seconds to keep trying while nobody listens at the address (a server that starts).
        tls: encrypt, with these certificates; None speaks plain text, except to https:// URLs.
        headers: what the client sends with every request, such as authorization.
        shared_memory: hand the embeddings over in this machine's shared memory, to a server on the same machine that
            allows it. Close the client to give the memory back.

    Raises:
        InvalidInput: precision or quality is unknown, a number of seconds is none, or a certificate file cannot be read.
    """

    url: str
    _: KW_ONLY
    timeout_s: float = 60.0
    precision: Precision | Literal["auto"] = "fp16"
    quality: Quality = "close"
    budget_s: float = 0.5
    retry_s: float = 0.0
    tls: Tls | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)  # may hold a password
    shared_memory: bool = False
    held: HeldKeys = field(default_factory=HeldKeys, init=False, repr=False)
    regions: SharedRegions = field(default_factory=SharedRegions, init=False, repr=False)
    uplink: Uplink = field(default_factory=Uplink, init=False, repr=False)
    facts: Mapping[str, str] | None = field(default=None, init=False, repr=False)  # what the server publishes
    _logged: set[str] = field(default_factory=set, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.precision not in (*PRECISIONS, AUTO):
            raise InvalidInput(f"precision is {self.precision!r}, allowed are {', '.join((*PRECISIONS, AUTO))}")
        if self.quality not in QUALITIES:
            raise InvalidInput(f"quality is {self.quality!r}, allowed are {', '.join(QUALITIES)}")
        for name in ("timeout_s", "budget_s"):
            check_seconds(name, getattr(self, name))
        check_seconds("retry_s", self.retry_s, may_be_zero=True)
        if self.tls is not None:
            self.tls.names()

    def patience(self, deadline_s: float | None) -> Patience:
        """The clock of a request that begins now."""
        return Patience(self.url, self.timeout_s, deadline_s, self.retry_s)

    def needs_facts(self, request: Request) -> bool:
        """Whether the client must ask what the server takes before it sends this request: all take whole fp16 rows."""
        if self.facts is not None or not request.items:
            return False
        return self.precision != "fp16" or any(item.masks("fp16") for item in request.items)

    def note(self, parameters: Mapping[str, str]) -> None:
        """Remember what the server publishes."""
        self.facts = parameters

    def is_outdated(self, refusal: object) -> bool:
        """Whether a server refuses a codec that it has published: another server answers there now. The client forgets
        what it knows of the server, and asks again."""
        if self.facts is None or CODEC_REFUSED not in str(refusal):
            return False
        self.facts = None
        return True

    def prepared(self, request: Request) -> tuple[Request, Precision, str]:
        """A request as this server takes it, the precision in which its rows travel, and why that is not the one asked
        for ("" where it is). The log has each reason once.

        Raises:
            InvalidInput: the request drops rows and the server cannot take that, or it takes no precision that serves.
        """
        facts = self.facts or {}
        rows = facts.get("rows", "").split()
        if not request.is_whole and "kept" not in rows and self.facts is not None:
            raise InvalidInput(f"{self.url} takes no prompt with dropped rows: ask for rows='copy' or rows='all'")
        if "copied" not in rows and request.is_whole and any(item.masks("fp16") for item in request.items):
            request = request.whole()
        if self.precision == AUTO:
            return request, choose(request, published(facts), self.quality, self.budget_s, self.uplink, self.held), ""
        if self.facts is None:
            return request, self.precision, ""
        precision, fallback = taken(request, self.precision, published(facts), self.url)
        if fallback and fallback not in self._logged:
            self._logged.add(fallback)
            log.warning("%s", fallback)
        return request, precision, fallback


def refused_region(url: str, why: object) -> str:
    """The message of the error when a server does not register a region."""
    return (
        f"shared_memory=True, and {url} cannot open this machine's shared memory: {why}; it must run on this machine "
        "(in a container with --ipc=host), newer Tritons with --allow-client-shm=true"
    )

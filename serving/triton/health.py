"""Whether a running server still answers: one tiny inference a model, for which no engine has to work.

Triton stays "ready" when a model's Python process is killed, and knows nothing of an engine that died inside one. So
the probe asks each model for something that it refuses in its own words (to cancel a request that does not exist); no
answer, or one in Triton's words, means that the model is gone. The guardian asks every second, and the image's health
check runs `python -m serving.health`. This module imports only what needs no package, because the guardian runs without
any.
"""

import argparse
import http.client
import json
import sys
import urllib.error
import urllib.request
import uuid

from contract.names import MODEL, OLD_NAMES, UNARY_MODEL, VISION_MODEL

HTTP_URL = "127.0.0.1:8000"
TIMEOUT_SECONDS = 10  # a live model may be busy reading large tensors
PROBES: dict[str, dict[str, object]] = {
    MODEL: {"cancel": True},
    UNARY_MODEL: {"cancel": True},
    VISION_MODEL: {"image": ""},
}
PROBES |= {old: PROBES[model] for old, model in OLD_NAMES.items()}
REFUSALS = ("[NOT_FOUND]", "[INVALID_ARG]")
SILENCE = "no answer in time"  # how `fault` ends where a server took the question and said nothing


def is_ready(http_url: str) -> bool:
    """Whether Triton itself says that it is ready: it listens, and has loaded its models."""
    try:
        return _ask(http_url, "health/ready", None, TIMEOUT_SECONDS)[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def fault(http_url: str = HTTP_URL, timeout_seconds: float = TIMEOUT_SECONDS) -> str | None:
    """What is wrong with the server at "host:port", in one line; None when every model answers."""
    where = "the server"
    try:
        _, index = _ask(http_url, "repository/index", {}, timeout_seconds)
        for entry in json.loads(index):
            where = entry["name"]
            if entry.get("state") != "READY":
                return f"{where} is {entry.get('state', 'unknown')}: {entry.get('reason', 'no reason given')}"
            if where not in PROBES:
                continue
            probe = PROBES[where] | {"id": f"health-{uuid.uuid4().hex}"}  # no request has this id
            status, answer = _ask(http_url, f"models/{where}/generate", probe, timeout_seconds)
            if not any(refusal in answer for refusal in REFUSALS):
                return f"{where} answers {status} {answer[:200]}"
    except TimeoutError:
        return f"{where} does not answer: {SILENCE}"
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)  # what urllib has wrapped
        if isinstance(reason, TimeoutError):
            return f"{where} does not answer: {SILENCE}"
        return f"{where} does not answer at {http_url}: {getattr(reason, 'strerror', None) or repr(reason)}"
    return None


_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open  # past the environment's proxy


def _ask(http_url: str, path: str, body: object, timeout_seconds: float) -> tuple[int, str]:
    """Status and text of one answer; GET where there is no body."""
    data = None if body is None else json.dumps(body).encode()
    try:
        with _open(f"http://{http_url}/v2/{path}", data, timeout_seconds) as answer:
            return answer.status, answer.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")


def main() -> int:
    """Exit code 0 when healthy, 1 when not, for Docker's HEALTHCHECK and Kubernetes' exec probes."""
    parser = argparse.ArgumentParser(prog="python -m serving.health", description="Whether a running server answers.")
    about = "address of its HTTP port, host:port (default %(default)s)"
    parser.add_argument("url", nargs="?", default=HTTP_URL, metavar="HOST:PORT", help=about)
    url: str = parser.parse_args().url
    found = fault(url.removeprefix("http://").rstrip("/"))
    print(found or "healthy")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

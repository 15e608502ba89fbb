"""What a turn costs and who does the work, and the facts of the bundle and of the server, as HTML."""

from html import escape

from contract.errors import EdgeVlmError
from contract.manifest import Manifest
from edge_runtime.ui.conversation import Turn

EMPTY = '<p class="quiet">Ask something, and each piece of the work stands here.</p>'


def costs(turn: Turn, server: str) -> str:
    """A table of the pieces of a turn: where each one runs and what it takes."""
    media = "no picture"
    if turn.num_encoded:
        media = f"{turn.num_encoded} of {turn.num_media} encoded by {', '.join(dict.fromkeys(turn.ran))}"
    elif turn.num_media:
        media = f"{turn.num_media} known: nothing encoded"
    upload = f"{turn.num_uploaded} uploaded in {turn.codec}" if turn.num_uploaded else "nothing uploaded"
    if turn.jpeg_bytes:
        upload += f", {turn.upload_bytes / turn.jpeg_bytes:.1f} times the JPEG"
    first = "…" if turn.first_token_ms is None else f"{turn.first_token_ms:.0f} ms"
    speed = "…" if turn.tokens_per_s is None else f"{turn.tokens_per_s:.0f} / s"
    rows = [
        ("Picture to embeddings", "this device", f"{turn.encode_ms:.0f} ms", media),
        ("Embeddings to the server", "network", _bytes(turn.upload_bytes), upload),
        ("Prompt", server, f"first token {first}", f"{turn.num_input_tokens} tokens, {turn.num_visual_tokens} visual"),
        ("Answer", server, speed, f"{turn.num_tokens} tokens"),
    ]
    body = "".join(
        f'<tr><th scope="row">{escape(what)}<small>{escape(where)}</small></th>'
        f"<td>{escape(figure)}<small>{escape(note)}</small></td></tr>"
        for what, where, figure, note in rows
    )
    note = f'<p class="quiet">{escape(turn.fallback)}</p>' if turn.fallback else ""
    return f'<table class="costs"><tbody>{body}</tbody></table>{note}'


def against_jpeg(turn: Turn) -> str:
    """Two bars: the bytes of the embeddings that travelled, and the bytes of the same pictures as JPEG files."""
    if not turn.upload_bytes or not turn.jpeg_bytes:
        return ""
    most = max(turn.upload_bytes, turn.jpeg_bytes)
    bars = "".join(
        f'<dt>{name}</dt><dd><span style="width:{100 * count / most:.1f}%"></span>{_bytes(count)}</dd>'
        for name, count in (("embeddings, once", turn.upload_bytes), ("JPEG, each time", turn.jpeg_bytes))
    )
    return f'<dl class="bars">{bars}</dl>'


def size_note(max_pixels: float, manifest: Manifest, ms_per_token: float | None) -> str:
    """What a picture of this size takes: tokens, bytes in fp16 and, once the tower has encoded a picture, time."""
    card = manifest.card
    tokens = int(max_pixels) // (card.patch_size * card.merge_size) ** 2
    size = _bytes(tokens * card.hidden_size * (1 + card.num_deepstack_levels) * 2)
    time = "" if ms_per_token is None else f", about {tokens * ms_per_token / 1e3:.1f} s on this device"
    return f'<p class="quiet">up to {tokens} tokens, {size} in fp16{time}</p>'


def bundle_card(manifest: Manifest, threads: int) -> str:
    """The facts of the bundle on this device."""
    card = manifest.card
    return _facts(
        {
            "family": card.family,
            "precision": manifest.precision,
            "embedding": f"{card.hidden_size} wide, {card.num_deepstack_levels} deepstack levels",
            "encoder": card.encoder_fingerprint[:16],
            "threads": str(threads or "all"),
        }
    )


def server_card(url: str, facts: dict[str, str]) -> str:
    """What the served model says of itself."""
    wanted = ("engine", "dtype", "max_prompt_tokens", "max_output_tokens", "max_active", "embedding_codecs", "rows")
    shown = {name.replace("_", " "): facts[name] for name in wanted if name in facts}
    return _facts({"address": url} | shown | {"encoder": facts.get("encoder_fingerprint", "")[:16]})


def failure(error: EdgeVlmError) -> str:
    """An error, to show in the place of the answer or of the server's card."""
    return f'<p class="failure" role="alert">{escape(str(error))}</p>'


def _facts(facts: dict[str, str]) -> str:
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    return f'<dl class="facts">{items}</dl>'


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"

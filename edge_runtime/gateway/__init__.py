"""The device's OpenAI-compatible gateway: it encodes a request's pictures here and streams the server's answer back."""

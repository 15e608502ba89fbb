"""The device's OpenAI-compatible door: HTTP requests in, pictures encoded here, answers of the server behind streamed back."""

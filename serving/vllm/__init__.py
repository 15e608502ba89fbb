"""The engine for more than one machine's worth of users: vLLM without a vision tower, fed with finished embeddings."""

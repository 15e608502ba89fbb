"""The server's half: engines that turn arrays into token streams, and the launcher that puts a real Triton before them."""

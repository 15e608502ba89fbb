"""The server's half: engines that turn arrays into token streams, and a launcher that puts Triton before them."""

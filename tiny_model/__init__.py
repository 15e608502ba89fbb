"""The bundled model: the pictures and questions it learns from, its training and its evaluation."""

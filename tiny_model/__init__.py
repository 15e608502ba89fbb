"""The bundled model: what it is shown, what it is asked, how it is trained and measured."""

"""A page to try a model with: pictures, webcam, videos, chat, and what each piece cost. Needs the extra `ui`."""

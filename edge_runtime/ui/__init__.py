"""A page to try a model with: pictures, webcam, videos, chat, and what each piece costs. It needs the extra `ui`."""

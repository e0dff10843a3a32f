"""The HTTP side: OpenAI's API over the kernel. Not for the rules of batches, which are in `batchord`."""

from app.main import create_app

__all__ = ["create_app"]

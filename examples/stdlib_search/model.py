"""The embedding model that the `wordllama` wheel carries, loaded without any network. Knows nothing of HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import wordllama

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NAME = "wordllama-l2-supercat-256"


class Model:
    """Turns a text into a vector of 256 float32 of length 1, so that a dot product is the cosine similarity."""

    def __init__(self) -> None:
        # wordllama 0.4 looks for its own tokenizer in a folder `tokenizer`, and ships it in `tokenizers`: as its
        # cache folder, the package itself has both files where they are looked for.
        package = Path(wordllama.__file__).parent
        self._inference = wordllama.WordLlama.load(cache_dir=package, disable_download=True)

    def embed(self, text: str) -> NDArray[np.float32]:
        """Give the text's vector."""
        vector: NDArray[np.float32] = self._inference.embed(text, norm=True)[0]
        return vector

    def tokens(self, text: str) -> int:
        """Count the text's tokens."""
        return len(self._inference.tokenize(text)[0].ids)

"""Embedders turn texts into vectors; a setting names the one to use.

This module decides which names are valid, and checks that every vector is finite, non-zero and of
one size. It uses no store.
"""

import importlib
import math
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from memsync.errors import InvalidInput, MemsyncError, SettingsError
from memsync.model.records import Vector

Embed = Callable[[Sequence[str]], Sequence[Sequence[float]]]

_WORDLLAMA_DIMS = 256


class LangChainEmbeddings(Protocol):
    """The interface of LangChain's embedders; any object with these methods will do."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """The vectors of texts that will be stored."""
        ...

    def embed_query(self, text: str) -> list[float]:
        """The vector of a text to search for."""
        ...


class Embedder:
    """Turns texts into vectors. `name`, the model and its size, is stored with every vector."""

    def __init__(self, model: str, documents: Embed, query: Embed | None = None) -> None:
        self._documents = documents
        self._query = query or documents
        try:
            self.dims = len(documents(["dimensions"])[0])
        except Exception as error:
            raise SettingsError(
                f"embedder {model!r} does not turn texts into vectors: "
                f"{type(error).__name__}: {error}"
            ) from error
        self.name = f"{model}/{self.dims}"

    def documents(self, texts: Sequence[str]) -> list[Vector]:
        """One vector of `dims` floats for each text.

        Raises: InvalidInput when the model fails, or returns a vector that is zero, not finite or
        of another size.
        """
        try:
            raw = self._documents(texts)
        except MemsyncError:
            raise
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            raise InvalidInput(f"embedder {self.name} failed: {why}") from error
        return self._checked(raw, texts)

    def query(self, text: str) -> Vector:
        """The vector of a text to search for."""
        return self._checked(self._query([text]), [text])[0]

    def _checked(self, raw: Sequence[Sequence[float]], texts: Sequence[str]) -> list[Vector]:
        vectors = [tuple(map(float, each)) for each in raw]
        if len(vectors) != len(texts):
            raise InvalidInput(
                f"embedder {self.name} returned {len(vectors)} vectors for {len(texts)} texts"
            )
        for vector, text in zip(vectors, texts, strict=True):
            norm = math.fsum(value * value for value in vector)
            if len(vector) != self.dims or not math.isfinite(norm) or norm == 0:
                raise InvalidInput(
                    f"embedder {self.name} returned {len(vector)} values with squared length "
                    f"{norm} for a text of {len(text)} characters; a vector must have {self.dims} "
                    "finite values and not be zero"
                )
        return vectors


def load_embedder(name: str) -> Embedder:
    """The embedder that the settings name.

    Raises: SettingsError when there is none of that name, or its package is not installed.
    """
    if name == "wordllama":
        return _wordllama()
    module, colon, attribute = name.partition(":")
    if not colon:
        raise SettingsError(
            f"embedder {name!r} is not known; write wordllama, or package.module:attribute"
        )
    try:
        target: Any = importlib.import_module(module)
        for part in attribute.split("."):
            target = getattr(target, part)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise SettingsError(f"embedder {name!r} cannot be loaded: {error}") from error
    if hasattr(target, "embed_documents"):
        model: LangChainEmbeddings = target
        return Embedder(
            name,
            lambda texts: model.embed_documents(list(texts)),
            lambda texts: [model.embed_query(text) for text in texts],
        )
    if callable(target):
        return Embedder(name, target)
    raise SettingsError(
        f"embedder {name!r} is neither callable nor has embed_documents and embed_query"
    )


def _wordllama() -> Embedder:
    spec = find_spec("wordllama")
    if spec is None or spec.origin is None:
        raise SettingsError(
            "embedder wordllama is not installed; pip install 'memsync[embedded]', or name another"
        )
    from wordllama import WordLlama  # noqa: PLC0415  optional, and slow to import

    # WordLlama would download its files if the cache folder lacks them; its wheel has them.
    model = WordLlama.load(
        dim=_WORDLLAMA_DIMS, cache_dir=Path(spec.origin).parent, disable_download=True
    )
    return Embedder("wordllama", lambda texts: model.embed(list(texts), norm=True).tolist())

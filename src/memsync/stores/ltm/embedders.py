"""Embedders turn texts into vectors; a setting names the one to use.

This module decides which names are valid, how many texts go into one call, which vectors can be
used, and whether a failure is a text's or the model's. A refused batch is halved until the texts
are found that cannot be embedded. Before a text is blamed, the model must answer to another one:
a model that fails at everything is down, whatever it raises. It uses no store.
"""

import asyncio
import copy
import importlib
import math
import secrets
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, Self

from memsync.errors import (
    EmbedderUnreachable,
    InvalidInput,
    MemsyncError,
    SettingsError,
    StoreUnreachable,
)
from memsync.model.extras import to_install
from memsync.model.records import Vector
from memsync.model.vectors import SHORTEST_SQUARED, squared_length
from memsync.model.wording import count
from memsync.settings import Settings
from memsync.stores.ltm.outages import (
    by_signal,
    described,
    is_outage,
    may_pass,
    retry_after_s,
    tells_of_outage,
    unquoted,
)

Embed = Callable[[Sequence[str]], Sequence[Sequence[float]]]
Failure = InvalidInput | EmbedderUnreachable
"""Of one text: it is refused, or it was not tried because the model is down."""

_FAILURES = (Exception, SystemExit, asyncio.CancelledError)
"""A library that ends the program, for want of a key, or whose own loop was cancelled, failed."""
_WORDLLAMA_DIMS = 256
_PROBE = "dimensions"


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
        """Ask the model once for the size of its vectors.

        Raises: EmbedderUnreachable when it does not answer for now; SettingsError when it turns no
        text into a vector.
        """
        self._documents = documents
        self._query = query or documents
        self._batch_texts: int = Settings.model_fields["embedder_batch_texts"].default
        self._batch_chars: int = Settings.model_fields["embedder_batch_chars"].default
        try:
            self.dims = len(documents([_PROBE])[0])
        except BaseException as error:
            raise _unusable(model, error) from error
        self.name = f"{model}/{self.dims}"

    def within(self, *, batch_texts: int, batch_chars: int) -> Self:
        """The same embedder with other bounds for one call of the model."""
        bounded = copy.copy(self)
        bounded._batch_texts = batch_texts  # noqa: SLF001  a copy of this object
        bounded._batch_chars = batch_chars  # noqa: SLF001
        return bounded

    def each(self, texts: Sequence[str]) -> list[Vector | Failure]:
        """For each text its vector of `dims` floats, or the error that it met.

        InvalidInput means that this text cannot be embedded. EmbedderUnreachable stands for each
        text that was not embedded because the model is down; the first one ends the calls.
        """
        return self._each(self._documents, texts)

    def documents(self, texts: Sequence[str]) -> list[Vector]:
        """One vector of `dims` floats for each text.

        Raises: InvalidInput when a text cannot be embedded; EmbedderUnreachable.
        """
        return list(_vectors(self.each(texts)))

    def query(self, text: str) -> Vector:
        """The vector of a text to search for.

        Raises: InvalidInput when the text cannot be embedded; EmbedderUnreachable.
        """
        [vector] = _vectors(self._each(self._query, [text]))
        return vector

    def _each(self, embed: Embed, texts: Sequence[str]) -> list[Vector | Failure]:
        outcomes: list[Vector | Failure] = []
        for batch in self._batches(texts):
            try:
                found = self._halved(embed, batch)
                if any(isinstance(each, InvalidInput) for each in found):
                    self._require_life(embed)
            except EmbedderUnreachable as outage:
                return [*outcomes, *[outage] * (len(texts) - len(outcomes))]
            outcomes += found
        return outcomes

    def _batches(self, texts: Sequence[str]) -> Iterator[list[str]]:
        batch: list[str] = []
        chars = 0
        for text in texts:
            if batch and (len(batch) == self._batch_texts or chars + len(text) > self._batch_chars):
                yield batch
                batch, chars = [], 0
            batch.append(text)
            chars += len(text)
        if batch:
            yield batch

    def _halved(
        self, embed: Embed, batch: list[str], *, lives: bool = False
    ) -> list[Vector | InvalidInput]:
        """The outcomes of one call; if the model refuses it, those of its halves.

        `lives`: the model has answered to another text since it refused the first call.
        """
        try:
            answer = self._called(embed, batch)
        except SettingsError:
            raise
        except InvalidInput as refusal:
            if len(batch) == 1:
                return [refusal]
            if not lives:
                self._require_life(embed)
            middle = len(batch) // 2
            return self._halved(embed, batch[:middle], lives=True) + self._halved(
                embed, batch[middle:], lives=True
            )
        return [self._checked(each, text) for each, text in zip(answer, batch, strict=True)]

    def _require_life(self, embed: Embed) -> None:
        """Ask for the vector of a short text that no cache has seen.

        Raises: EmbedderUnreachable when there is none: then no text is at fault.
        """
        text = f"{_PROBE} {secrets.token_hex(4)}"
        try:
            [answer] = self._called(embed, [text])
        except SettingsError:
            raise
        except InvalidInput as error:
            cause = error.__cause__
            raise _down(
                self.name, error.message, cause, passes=cause and may_pass(cause)
            ) from cause
        vector = self._checked(answer, text)
        if isinstance(vector, InvalidInput):
            raise _down(self.name, vector.message, None, passes=False)

    def _called(self, embed: Embed, texts: list[str]) -> list[Any]:
        """The answer of the model, one thing for each of the texts.

        Raises: InvalidInput when it refuses them; EmbedderUnreachable when it is down for sure.
        """
        try:
            answer: object = embed(texts)
            vectors: list[object] = [] if isinstance(answer, str | bytes) else list(answer)  # type: ignore[call-overload]  # fails if it is no list
        except SettingsError:
            raise
        except BaseException as error:
            _require_failure_of_the_model(error)
            if is_outage(error):
                said = unquoted(described(error), texts)
                raise _down(self.name, said, error, passes=may_pass(error)) from error
            said = error.message if isinstance(error, InvalidInput) else described(error)
            why = unquoted(said, texts)
            raise InvalidInput(f"embedder {self.name} failed: {why}") from error
        if len(vectors) != len(texts):
            returned = (
                count(len(vectors), "vector") if vectors else f"{type(answer).__name__}, no vector,"
            )
            raise InvalidInput(
                f"embedder {self.name} returned {returned} for {count(len(texts), 'text')}; it "
                "must return one for each"
            )
        return vectors

    def _checked(self, answer: object, text: str) -> Vector | InvalidInput:
        """The answer as a vector, or the error that says why it is none."""
        try:
            if isinstance(answer, str | bytes | bytearray):
                raise TypeError(f"{type(answer).__name__} is no list of numbers")  # noqa: TRY301
            values: Iterable[Any] = answer  # type: ignore[assignment]  # what it is shows below
            vector = tuple(array("d", values))
        except Exception as error:  # noqa: BLE001  a foreign object may raise anything
            # Its words may quote the text: a lazy answer calls the service only now.
            found = f"{type(answer).__name__} ({type(error).__name__})"
        else:
            length = squared_length(vector)
            if len(vector) == self.dims and SHORTEST_SQUARED <= length < math.inf:
                return vector
            found = f"{count(len(vector), 'value')} with squared length {length}"
        return InvalidInput(
            f"embedder {self.name} returned {found} for a text of "
            f"{count(len(text), 'character')}; a vector must have "
            f"{count(self.dims, 'finite 32-bit number')} and not be zero, or almost"
        )


def _vectors(outcomes: Iterable[Vector | Failure]) -> Iterator[Vector]:
    for each in outcomes:
        if isinstance(each, Failure):
            raise each
        yield each


def _is_failure(error: BaseException) -> bool:
    """Whether it may be the model's: Ctrl-C is not, nor is the exit of an app by a signal."""
    # A panic of a tokenizer that is written in Rust is no Exception, yet it is the text's.
    is_panic = type(error).__name__ == "PanicException"
    is_exit = isinstance(error, SystemExit) and by_signal(error)
    return is_panic or (isinstance(error, _FAILURES) and not is_exit)


def _require_failure_of_the_model(error: BaseException) -> None:
    """Raise again what is no failure of the model: Ctrl-C, an app's own exit, a wrong setting."""
    if not _is_failure(error):
        raise error
    if isinstance(error, MemsyncError) and not isinstance(error, InvalidInput | StoreUnreachable):
        raise error


def _down(
    name: str, why: str, cause: BaseException | None, *, passes: object = True
) -> EmbedderUnreachable:
    return EmbedderUnreachable(
        f"embedder {name} does not answer: {why}; check that its service runs and takes the key",
        passes=bool(passes),
        retry_after_s=None if cause is None else retry_after_s(cause),
    )


def _unloadable(name: str, error: BaseException) -> BaseException:
    """The error for a model that cannot be loaded; what is not the model's stays as it is."""
    if not _is_failure(error):
        return error
    if tells_of_outage(error):
        return _down(name, described(error), error)
    return SettingsError(
        f"embedder {name!r} cannot be loaded: {described(error)}", field="embedder"
    )


def _unusable(name: str, error: BaseException) -> BaseException:
    """As `_unloadable`, for a model that gives no vector when it is loaded or first asked."""
    if isinstance(error, SettingsError) or not _is_failure(error):
        return error
    if tells_of_outage(error):
        return _down(name, described(error), error)
    return SettingsError(
        f"embedder {name!r} does not turn texts into vectors: {described(error)}", field="embedder"
    )


def load_embedder(name: str) -> Embedder:
    """The embedder that the settings name.

    Raises: SettingsError when there is none of that name, or it cannot be used;
    EmbedderUnreachable when its service does not answer.
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
    except BaseException as error:
        # The module is the operator's: it may ask a service, or miss a key, when it is imported.
        raise _unloadable(name, error) from error
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
            "the embedder wordllama is not installed. Type this in the environment of memsync, or "
            f"name another embedder:\n  {to_install('embedded')}"
        )
    from wordllama import WordLlama  # noqa: PLC0415  optional, and slow to import

    # WordLlama would download its files if the cache folder lacks them; its wheel has them.
    try:
        model = WordLlama.load(
            dim=_WORDLLAMA_DIMS, cache_dir=Path(spec.origin).parent, disable_download=True
        )
    except BaseException as error:
        raise _unloadable("wordllama", error) from error
    return Embedder("wordllama", lambda texts: model.embed(list(texts), norm=True).tolist())

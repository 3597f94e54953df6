"""Reads from an exception of an embedder's library whether the service is down.

The libraries are many (openai, httpx, requests, aiohttp, cohere, voyageai, google, grpc, botocore,
ollama, …) and none is imported here: an exception is read by the attributes and the names that they
have in common. A wrapper keeps the error that it wraps, so the whole chain is read. This module
decides from one exception alone; `embedders` asks the model once more where that is not enough.
"""

import contextlib
import json
import math
import re
import signal
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from memsync.errors import StoreUnreachable
from memsync.model.secrets import masked

_HTTP = range(100, 600)
_DOWN = frozenset((429, 503, 529))
"""Too many requests, unavailable, overloaded: no text is at fault. Other servers answer 500 to a
text that is too long, and 502 or a timeout when a text ends the model's process."""
_PASSING = frozenset((408, 409, 425, 429))
_GRPC: Mapping[str, int] = {
    "INVALID_ARGUMENT": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
_STATUS_NAMES = ("status_code", "http_status", "status", "code")
_DOWN_NAMES = re.compile(r"RateLimit|TooManyRequests|Throttl|ResourceExhausted|Connect|Unavailable")
_UNSURE_NAMES = re.compile(r"Timeout|Disconnected|NetworkError|TransportError")
_LASTING = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError, ValueError)
_UNSURE = (TimeoutError, ConnectionResetError, ConnectionAbortedError, BrokenPipeError)
_QUOTE_MIN = 12
"""So many characters of a text in a row are a quotation; a shorter text is one in quotes."""
_PIECE_CHARS_MAX = 60
_QUOTED_WORD = re.compile(r"""['"`‘“]([\w\\]{3,})['"`’”]""")
_LETTERS_MIN = 3
_TEXT_CHARS_MAX = 300
_CHAIN_MAX = 10
_RETRY_AFTER_S_MAX = 3600.0
"""A service is asked again after an hour, whatever it says: a date may be wrong by a century."""


def is_outage(error: BaseException) -> bool:
    """Whether the exception alone says that no text is at fault."""
    status = _status(error)
    if status is not None:
        return status in _DOWN
    return any(_is_down(each) for each in _chain(error))


def tells_of_outage(error: BaseException) -> bool:
    """Whether the exception tells of a service, where the text is known to be good."""
    if _status(error) is not None:
        return may_pass(error)
    return any(
        _is_down(each)
        or isinstance(each, _UNSURE)
        or any(_UNSURE_NAMES.search(kind.__name__) for kind in type(each).__mro__)
        for each in _chain(error)
    )


def may_pass(error: BaseException) -> bool:
    """Whether an outage with this exception may end by itself, so that waiting is of use."""
    status = _status(error)
    return status is None or status >= 500 or status in _PASSING


def retry_after_s(error: BaseException) -> float | None:
    """How long the service asks to be left alone, in seconds; None when it does not say."""
    for each in _chain(error):
        for name in ("retry_after", "retry_after_s"):
            if (said := _seconds(_get(each, name))) is not None:
                return said
        for headers in _headers(each):
            if (said := _seconds(headers.get("retry-after-ms"), unit_s=0.001)) is not None:
                return said
            if (said := _seconds(headers.get("retry-after"))) is not None:
                return said
    return None


def by_signal(error: BaseException) -> bool:
    """Whether a handler of signals raised it: an app that ends so is at no model's fault."""
    handlers = (signal.getsignal(each) for each in signal.valid_signals())
    codes = [getattr(each, "__code__", None) for each in handlers if callable(each)]
    return any(frame.f_code in codes for frame, _ in traceback.walk_tb(error.__traceback__))


def described(error: BaseException) -> str:
    """Type and text of the exception for a message, without keys and queries of URLs."""
    text = " ".join(masked(str(error)).split())[:_TEXT_CHARS_MAX]
    said = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return f"it ended the program ({said})" if isinstance(error, SystemExit) else said


def unquoted(message: str, texts: Sequence[str]) -> str:
    """The message up to where it quotes one of the texts, because messages are kept in logs."""
    quoted = [f"{mark}{text}{mark}" for text in texts for mark in "'\"`" if text]
    forms = {form for text in texts for form in _forms(text)}
    words = {
        found.start()
        for found in _QUOTED_WORD.finditer(message)
        if _is_a_word_of(_folded(found.group(1)), forms)
    }
    for at in range(len(message)):
        piece = _folded(message[at : at + _PIECE_CHARS_MAX])[:_QUOTE_MIN]
        is_long = len(piece) == _QUOTE_MIN and any(piece in form for form in forms)
        is_quoted = at in words or any(message.startswith(each, at) for each in quoted)
        if is_quoted or (is_long and not message[at].isspace()):
            return f"{message[:at]}… (the rest quotes a text)"
    return message


def _forms(text: str) -> Iterator[str]:
    """The text as services and libraries write it: as it is, and escaped in three ways."""
    yield _folded(text)
    yield _folded(json.dumps(text)[1:-1])
    yield _folded(repr(text)[1:-1])
    yield _folded(repr(text.encode(errors="replace"))[2:-1])


def _folded(text: str) -> str:
    """The text without what a quotation may change: spaces, capitals, how often it is escaped."""
    return " ".join(text.replace("\\", "").split()).casefold()


def _is_a_word_of(word: str, forms: Iterable[str]) -> bool:
    if sum(each.isalpha() for each in word) < _LETTERS_MIN:
        return False
    whole = re.compile(rf"(?<!\w){re.escape(word)}(?!\w)")
    return any(whole.search(form) for form in forms)


def _is_down(error: BaseException) -> bool:
    if isinstance(error, StoreUnreachable):
        return True
    # requests derives all its errors from OSError, also that of a URL that is none (ValueError).
    if isinstance(error, (*_LASTING, *_UNSURE)):
        return False
    for each in type(error).__mro__:
        if _DOWN_NAMES.search(each.__name__):
            return True
        if _UNSURE_NAMES.search(each.__name__):
            return False
    return isinstance(error, OSError)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception, and those that it wraps."""
    found: BaseException | None = error
    for _ in range(_CHAIN_MAX):
        if found is None:
            return
        yield found
        hidden = found.__suppress_context__
        found = found.__cause__ or (None if hidden else found.__context__)


def _status(error: BaseException) -> int | None:
    """The HTTP status that the exception, or the first that has one below it, carries."""
    for each in _chain(error):
        for holder in (each, _get(each, "response")):
            for name in _STATUS_NAMES:
                if (status := _as_status(_get(holder, name))) is not None:
                    return status
        if (status := _as_status(_botocore(each).get("HTTPStatusCode"))) is not None:
            return status
    return None


def _as_status(value: object) -> int | None:
    if callable(value):  # grpc's code() returns a member of an enum
        with contextlib.suppress(Exception):
            value = _GRPC.get(str(value().name))
    if isinstance(value, int) and not isinstance(value, bool) and value in _HTTP:
        return int(value)
    return None


def _headers(error: BaseException) -> Iterator[Mapping[str, object]]:
    """The headers of the answer that the exception tells of, names in lower case."""
    response = _get(error, "response")
    places = (
        _get(error, "headers"),
        _get(response, "headers"),
        _botocore(error).get("HTTPHeaders"),
    )
    for headers in places:
        with contextlib.suppress(Exception):  # a foreign object that looks like a mapping
            yield {str(name).lower(): value for name, value in headers.items()}  # type: ignore[attr-defined]


def _botocore(error: BaseException) -> Mapping[str, object]:
    response = _get(error, "response")
    metadata = response.get("ResponseMetadata") if isinstance(response, dict) else None
    return metadata if isinstance(metadata, dict) else {}


def _get(holder: object, name: str) -> object:
    # An attribute of a foreign exception may be a property that raises anything.
    try:
        return getattr(holder, name, None)
    except Exception:  # noqa: BLE001
        return None


def _seconds(value: object, *, unit_s: float = 1) -> float | None:
    """The seconds, an hour at most, that a number or a date as HTTP writes it stands for."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            with contextlib.suppress(ValueError, TypeError):
                at = parsedate_to_datetime(value)  # type: ignore[arg-type]  # still a string
                at = at if at.tzinfo else at.replace(tzinfo=UTC)
                value = max(0.0, (at - datetime.now(UTC)).total_seconds())
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        seconds = float(value) * unit_s
    except OverflowError:  # an int may have any number of digits
        return None
    return min(seconds, _RETRY_AFTER_S_MAX) if math.isfinite(seconds) and seconds >= 0 else None

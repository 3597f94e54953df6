"""Translates the failures of qdrant-client into memsync's errors.

REST, gRPC and the local mode report the same failure in three ways. Each is first turned into an
HTTP status and a text, and these into an error. The translation does not depend on which call
failed.
"""

import re
import sqlite3
from collections.abc import Mapping
from json import JSONDecodeError

import grpc  # type: ignore[import-untyped]  # ships no types
from pydantic import ValidationError
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from memsync.errors import (
    DimensionMismatch,
    InvalidInput,
    MemsyncError,
    SchemaMismatch,
    SettingsError,
    StoreUnreachable,
)

DRIVER_ERRORS = (
    AssertionError,
    grpc.RpcError,
    QdrantException,
    ResponseHandlingException,
    UnexpectedResponse,
    sqlite3.Error,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)

_UNREACHABLE = 503
_TEXT_CHARS_MAX = 300
_LIMIT_REACHED = re.compile(r"\bMax .+ limit (of \S+ )?reached")
_TOO_OFTEN = "Rate limiting exceeded"
_NOT_FOUND_LOCALLY = re.compile(r"Collection .* not found")
_HTTP: Mapping[grpc.StatusCode, int] = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
}


def meaning(
    error: Exception, *, label: str, collection: str | None, secret: str | None
) -> MemsyncError:
    """The error that `error` of the driver means. Its text never holds `secret`."""
    status, text = _status(error)
    if secret:
        text = text.replace(secret, "***")
    text = text[:_TEXT_CHARS_MAX]
    if "expected dim:" in text:
        return DimensionMismatch(
            f"vectors for {collection!r} differ in size from those it holds ({text}); use the "
            "embedder that it was made with",
            collection=collection,
        )
    if "Index required" in text:
        return SchemaMismatch(
            f"{label} refuses to filter {collection!r} by a key without an index ({text}); "
            "create the missing indexes",
            collection=collection,
        )
    if status in {401, 403}:
        return SettingsError(
            f"{label} refuses the API key ({text}); set MEMSYNC_QDRANT_API_KEY",
            field="qdrant_api_key",
        )
    if status == 404 and collection is not None:
        return SchemaMismatch(
            f"{label} has no collection {collection!r}; check the URL and the name, or create it",
            collection=collection,
        )
    if _LIMIT_REACHED.search(text):
        # It answers 400, as to a bad request. No point is at fault.
        return StoreUnreachable(
            f"{label} takes no more points or collections: {text.rstrip('!')}. Raise this "
            "limit of the server's, or remove what is not needed"
        )
    if _TOO_OFTEN in text:
        return StoreUnreachable(
            f"{label} takes no more requests for now: {text}. Try again later; where that does not "
            "help, raise this limit of the server's"
        )
    if 400 <= status < 500 and status not in {404, 408, 429}:
        return InvalidInput(f"{label} cannot do that: {text}")
    return StoreUnreachable(
        f"{label} does not answer: {text}; check that it runs and that the URL is right"
    )


def is_not_found(error: Exception) -> bool:
    """Whether the driver's error says that something does not stand."""
    return _status(error)[0] == 404


def _status(error: Exception) -> tuple[int, str]:
    match error:
        case UnexpectedResponse():
            return error.status_code or _UNREACHABLE, _server_text(error)
        case grpc.RpcError() if isinstance(error, grpc.Call):
            return _HTTP.get(error.code(), _UNREACHABLE), error.details() or error.code().name
        # The client does not wrap the error of its decoder when an answer is not JSON.
        case (
            ResponseHandlingException(source=ValidationError())
            | JSONDecodeError()
            | UnicodeDecodeError()
            | AssertionError()
        ):
            return _UNREACHABLE, "its answer is not one of Qdrant's"
        case ResponseHandlingException():
            # httpx raises timeouts without a text.
            return _UNREACHABLE, str(error.source) or type(error.source).__name__
        case ValueError() | TypeError():
            return 404 if _NOT_FOUND_LOCALLY.match(str(error)) else 400, str(error)
        case _:
            return _UNREACHABLE, str(error) or type(error).__name__


def _server_text(error: UnexpectedResponse) -> str:
    try:
        return str(error.structured()["status"]["error"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {error.status_code} {error.reason_phrase}"

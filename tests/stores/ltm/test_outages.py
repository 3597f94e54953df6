"""Tests how exceptions of embedders' libraries are read; each stands for a library's own form."""

import time
import urllib.error
from datetime import UTC, datetime, timedelta
from email.message import Message
from email.utils import format_datetime
from types import SimpleNamespace
from typing import Any

import pytest

from memsync.errors import StoreUnreachable
from memsync.stores.ltm import outages


def named(name: str, *bases: type, **attributes: object) -> BaseException:
    """An exception whose class has this name, with these attributes."""
    error: BaseException = type(name, bases or (Exception,), {})("no")
    for attribute, value in attributes.items():
        setattr(error, attribute, value)
    return error


def caused(error: BaseException, cause: BaseException) -> BaseException:
    """The error as it is when it wraps the cause."""
    error.__cause__ = cause
    return error


def grpc(name: str) -> Any:
    """The attribute of grpc's errors: a method that returns a member of an enum."""
    return lambda: SimpleNamespace(name=name)


def http(status: int, **headers: str) -> SimpleNamespace:
    """A response of requests or httpx."""
    return SimpleNamespace(status_code=status, headers=headers)


THROTTLED = {"ResponseMetadata": {"HTTPStatusCode": 429, "HTTPHeaders": {"retry-after": "3"}}}
UNKNOWN_HOST = urllib.error.URLError("unknown host")


@pytest.mark.parametrize(
    "error",
    [
        named("RateLimitError", status_code=429, code="insufficient_quota"),
        named("HTTPStatusError", response=http(503)),
        named("HTTPError", OSError, response=http(429)),
        urllib.error.HTTPError("http://x", 529, "overloaded", Message(), None),
        named("ClientResponseError", status=429),
        named("RateLimitError", http_status=429),
        named("ResourceExhausted", code=429),
        named("InactiveRpcError", code=grpc("RESOURCE_EXHAUSTED")),
        named("InactiveRpcError", code=grpc("UNAVAILABLE")),
        named("ClientError", response=THROTTLED),
        named("EndpointConnectionError"),
        named("APIConnectionError"),
        named("ConnectError", type("TransportError", (Exception,), {})),
        named("ConnectTimeout", type("TimeoutException", (Exception,), {})),
        ConnectionRefusedError(111, "refused"),
        ConnectionError("refused"),
        UNKNOWN_HOST,
        StoreUnreachable("down"),
        caused(ValueError("Error raised by inference endpoint"), named("ConnectionError", OSError)),
        caused(RuntimeError("gave up"), named("RateLimitError", status_code=429)),
    ],
    ids=repr,
)
def test_an_outage_for_sure(error: BaseException) -> None:
    """Rate limits, unavailable services and refused connections blame no text, and may pass."""
    assert (True, True) == (outages.is_outage(error), outages.may_pass(error))
    assert outages.tells_of_outage(error)


@pytest.mark.parametrize(
    ("error", "passes", "tells"),
    [
        (named("InternalServerError", status_code=500), True, True),
        (named("BadGateway", status_code=502), True, True),
        (named("InactiveRpcError", code=grpc("DEADLINE_EXCEEDED")), True, True),
        (TimeoutError(), True, True),
        (named("APITimeoutError", type("APIConnectionError", (Exception,), {})), True, True),
        (named("ReadTimeout", type("Timeout", (OSError,), {})), True, True),
        (named("ReadError", type("NetworkError", (Exception,), {})), True, True),
        (ConnectionResetError(104, "reset"), True, True),
        (RuntimeError("CUDA out of memory"), True, False),
        (named("BadRequestError", status_code=400), False, False),
        (named("AuthenticationError", status_code=401), False, False),
        (named("RequestEntityTooLarge", response=http(413)), False, False),
        (named("InactiveRpcError", code=grpc("INVALID_ARGUMENT")), False, False),
        (ValueError("too many tokens"), True, False),
        (named("InvalidURL", OSError, ValueError), True, False),
        (FileNotFoundError("model.onnx"), True, False),
        (named("Odd", status_code=7, status="429", code=True), True, False),
        (caused(named("BadRequestError", status_code=400), ConnectionError()), False, False),
    ],
    ids=repr,
)
def test_what_the_model_must_be_asked_about(
    error: BaseException, passes: bool, tells: bool
) -> None:
    """Nothing else is an outage for sure: servers answer 500 to a text that is too long."""
    assert not outages.is_outage(error)
    assert (passes, tells) == (outages.may_pass(error), outages.tells_of_outage(error))


@pytest.mark.parametrize(
    ("error", "expected_s"),
    [
        (named("RateLimitError", response=http(429, **{"Retry-After": "20"})), 20.0),
        (named("RateLimitError", response=http(429, **{"retry-after-ms": "1500"})), 1.5),
        (named("TooManyRequestsError", headers={"retry-after": "7.5"}), 7.5),
        (named("ClientError", response=THROTTLED), 3.0),
        (named("RateLimited", retry_after=4), 4.0),
        (caused(RuntimeError("x"), named("E", headers={"Retry-After": "9"})), 9.0),
        (named("E", headers={"Retry-After": "1e12"}), 3600.0),
        (named("E", headers={"retry-after-ms": "1e12"}), 3600.0),
        (named("E", headers={"retry-after-ms": "5000000"}), 3600.0),
        (named("E", headers={"Retry-After": "Fri, 31 Dec 9999 23:59:59 GMT"}), 3600.0),
        (named("RateLimited", retry_after=1e12), 3600.0),
        (named("RateLimited", retry_after=10**400), None),
        (named("E", headers={"Retry-After": "soon"}), None),
        (named("E", headers={"Retry-After": "-1"}), None),
        (named("E", headers={"Retry-After": "nan"}), None),
        (named("E", headers="Retry-After: 1"), None),
        (RuntimeError("x"), None),
    ],
    ids=repr,
)
def test_how_long_a_service_asks_to_be_left_alone(
    error: BaseException, expected_s: float | None
) -> None:
    """Retry-After is read wherever an exception carries it; what is no time is left out."""
    assert expected_s == outages.retry_after_s(error)


def test_a_date_to_retry_after() -> None:
    """Retry-After may be a date."""
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    said = outages.retry_after_s(named("E", headers={"Retry-After": at}))
    assert said is not None
    assert 80 < said <= 90


def test_an_exception_that_fails_when_it_is_looked_at() -> None:
    """A property that raises is as good as none."""

    class Odd(Exception):
        @property
        def response(self) -> object:
            raise RuntimeError("the request has not been set")

    assert not outages.is_outage(Odd())
    assert outages.retry_after_s(Odd()) is None


def test_a_description_holds_no_key() -> None:
    """The key in a URL's query is not said, nor is a text without end."""
    url = "https://host/v1/models/embed:batch?key=AIzaSecret"
    said = outages.described(RuntimeError(f"429 for url: {url}\nmore " + "x" * 9999))
    assert "AIzaSecret" not in said
    assert said.startswith("RuntimeError: 429 for url: https://host/v1/models/embed:batch more x")
    assert len(said) < 400
    assert "TimeoutError" == outages.described(TimeoutError())


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "Max retries exceeded with url: /v1/models/embed?key=AIzaSecret12 (Caused by x)",
            "Max retries exceeded with url: /v1/models/embed (Caused by x)",
        ),
        ("what is it? nothing", "what is it? nothing"),
        ("Bad API key provided: sk-proj-abcdefgh. See", "Bad API key provided: *** See"),
        ("{'Authorization': 'Bearer abc.def'}", "{'Authorization': '***'}"),
        ("Authorization: Bearer abc.def", "Authorization: ***"),
        ("api_key=abc123, model=x", "api_key=***, model=x"),
        ('{"x-goog-api-key": "abc123"}', '{"x-goog-api-key": "***"}'),
        ("password='my secret'", "password='***'"),
        ("no such thing: hf_abcdefghij", "no such thing: ***"),
        ("pk-12345678 and voy-12345678", "*** and ***"),
        ("'utf-8' codec, 8192 tokens, max_tokens: too many", None),
        ("KeyError: 'embedding'", None),
    ],
)
def test_keys_are_masked(text: str, shown: str | None) -> None:
    """A key is not said wherever libraries put it; what is none stays."""
    assert f"E: {shown or text}" == outages.described(type("E", (Exception,), {})(text))


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("BadRequest: input 'my doctor says it is benign' is refused", "BadRequest: input '"),
        ("BadRequest: 'Bob' is refused", "BadRequest: "),
        ("BadRequest: {'input': ['\\nmy doctor says it'…", "BadRequest: {'input': ['"),
        ("E: {'input': 'der Bl\\u00e4schenausschl", "E: {'input': '"),
        ("E: b'der Bl\\xc3\\xa4schenausschl", "E: b'"),
        ('E: "say \\"hello\\" to her"', 'E: "'),
        ("E at MY DOCTOR   SAYS no", "E at "),
        ("E at my doctor\nsays it", "E at "),
        ("KeyError: \"Key 'nobody' not present in vocabulary\"", 'KeyError: "Key '),
        ("KeyError: 'Nobody'", "KeyError: "),
    ],
)
def test_a_message_that_quotes_a_text_ends_there(message: str, shown: str) -> None:
    """Services repeat what they were given; a log must not keep it."""
    texts = [
        "user: \nmy doctor says it is benign",
        "Bob",
        "der Bläschenausschlag",
        'say "hello" to her',
        "nobody's here",
    ]

    assert f"{shown}… (the rest quotes a text)" == outages.unquoted(message, texts)


def test_a_message_that_quotes_nothing_stays_whole() -> None:
    """A short text that is a word of the message is no quotation."""
    texts = ["model", "", "user: how long is 8192? is it in there", "data"]
    for message in (
        "BadRequest: this model's maximum context length is 8192 tokens",
        "TypeError: 'NoneType' object is not iterable",
        "KeyError: 'is'",
    ):
        assert message == outages.unquoted(message, texts)


def test_a_long_message_and_long_texts_are_compared_at_once() -> None:
    """A batch has many texts of many characters."""
    texts = ["ä é word " * 8000] * 64
    began = time.monotonic()
    assert "E: x" * 70 == outages.unquoted("E: x" * 70, texts)
    assert time.monotonic() - began < 5

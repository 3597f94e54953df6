"""Models that fail as real ones do, and the exceptions that the libraries of real ones raise."""

import time
from collections.abc import Callable, Sequence
from threading import Event
from types import SimpleNamespace
from typing import Any

from support.lab import embed


class Status(Exception):
    """An answer with an HTTP status, as an attribute of the exception."""

    def __init__(self, status_code: int, text: str = "no", **headers: str) -> None:
        super().__init__(text)
        self.status_code = status_code
        self.response = SimpleNamespace(
            status_code=status_code,
            headers={name.replace("_", "-"): value for name, value in headers.items()},
        )


class Model:
    """Embeds, but raises `error` at each call for which `at` says so. `calls` are the texts."""

    def __init__(
        self, error: BaseException | None = None, at: Callable[[Sequence[str]], bool] | None = None
    ) -> None:
        self.error = error
        self.at = at or (lambda _: True)
        self.calls: list[list[str]] = []

    def __call__(self, texts: Sequence[str]) -> Any:
        self.calls.append(list(texts))
        if self.error is not None and self.at(texts):
            raise self.error
        return embed(texts)


def holding(*words: str) -> Callable[[Sequence[str]], bool]:
    """Whether one of the texts has one of the words."""
    return lambda texts: any(word in text for text in texts for word in words)


def unreachable(_: Sequence[str]) -> Any:
    """A model whose service does not answer."""
    raise ConnectionRefusedError("refused")


def exits(_: Sequence[str]) -> Any:
    """A model whose library ends the process, for want of a key."""
    raise SystemExit("no key")


begun = Event()


def takes_a_second(texts: Sequence[str]) -> Any:
    """A model that says that it has begun with a memory, and then takes its time."""
    if any("reply" in text for text in texts):
        begun.set()
        time.sleep(1)
    return embed(texts)

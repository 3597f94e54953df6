"""Tests the embedder: bounds of a call, refused texts, bad vectors, and a model that is down."""

import asyncio
import math
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

import pytest

from memsync.errors import EmbedderUnreachable, InvalidInput, MemsyncError, SettingsError
from memsync.settings import Settings
from memsync.stores.ltm.embedders import Embedder, load_embedder
from support.lab import DIMS, embed
from support.models import Model, Status, holding

TEXTS = [f"text {number}" for number in range(64)]


def refused(outcomes: Sequence[object]) -> list[int]:
    """Which outcomes are refusals; all others must be vectors."""
    found = [at for at, each in enumerate(outcomes) if isinstance(each, InvalidInput)]
    assert all(at in found or isinstance(each, tuple) for at, each in enumerate(outcomes))
    return found


def made(model: Callable[[Sequence[str]], Any], **bounds: int) -> Embedder:
    """An embedder of this model; without bounds everything goes in one call."""
    return Embedder("test", model).within(**{"batch_texts": 999, "batch_chars": 9999, **bounds})


@pytest.mark.parametrize("bound", [1, 10, 32, 64, 96])
def test_a_call_has_at_most_so_many_texts(bound: int) -> None:
    """No call has more texts than the bound, and none is left out or sent twice."""
    model = Model()
    vectors = made(model, batch_texts=bound).documents(TEXTS)
    calls = model.calls[1:]
    assert TEXTS == [text for call in calls for text in call]
    assert math.ceil(64 / bound) == len(calls)
    assert list(map(tuple, embed(TEXTS))) == vectors


def test_a_call_has_at_most_so_many_characters() -> None:
    """Texts share a call up to the bound of characters; a longer one goes alone."""
    model = Model()
    made(model, batch_chars=10).documents(["aaaa", "bbbb", "cccc", "d" * 50, "e"])
    assert [["aaaa", "bbbb"], ["cccc"], ["d" * 50], ["e"]] == model.calls[1:]


def test_without_bounds_those_of_the_settings_hold() -> None:
    """An embedder that nobody bounded goes by the defaults of the settings."""
    model = Model()
    Embedder("test", model).documents(["x"] * 100)
    bound = Settings.model_fields["embedder_batch_texts"].default
    assert bound == max(map(len, model.calls))


@pytest.mark.parametrize(
    "error",
    [ValueError("too many tokens"), Status(400), Status(413), Status(422), Status(500),
     RuntimeError("x"), TimeoutError()],
    ids=repr,
)  # fmt: skip
def test_one_bad_text_costs_few_calls(error: Exception) -> None:
    """Of n texts with a bad one the others get vectors, for 2 log2 n calls more and two probes."""
    for bad in (0, 37, 63):
        model = Model(error, holding(f"text {bad}!"))
        texts = [f"{text}!" for text in TEXTS]
        assert [bad] == refused(made(model).each(texts))
        assert 1 + 1 + 2 * 6 + 1 == len(model.calls) - 1


def test_several_bad_texts_are_all_found() -> None:
    """Each bad text is refused, in a batch of bad ones alone too; the message says why."""
    model = Model(ValueError("too long"), holding("text 3", "text 61"))
    outcomes = made(model).each(TEXTS)
    assert [3, *range(30, 40), 61] == refused(outcomes)
    assert "too long" in str(outcomes[3])
    assert list(range(64)) == refused(made(Model(ValueError(), holding("text"))).each(TEXTS))


def test_a_bound_that_a_provider_enforces_is_found_by_halving() -> None:
    """Where the setting is too large, a provider's limit of 10 refuses no text."""
    model = Model(Status(400, "batch size is invalid"), lambda texts: len(texts) > 10)
    assert [] == refused(made(model, batch_texts=32).each(TEXTS))


@pytest.mark.parametrize(
    ("error", "passes", "calls"),
    [(Status(429), True, 1), (Status(503), True, 1), (ConnectionError("refused"), True, 1),
     (Status(500), True, 2), (TimeoutError(), True, 2), (RuntimeError("x"), True, 2),
     (Status(401), False, 2), (Status(402), False, 2), (Status(404), False, 2)],
    ids=repr,
)  # fmt: skip
def test_a_model_that_is_down_blames_no_text(error: Exception, passes: bool, calls: int) -> None:
    """A model that fails at everything is down, whatever it raises; it is asked once or twice."""
    model = Model(error, lambda texts: ["dimensions"] != list(texts))
    outcomes = made(model, batch_texts=8).each(TEXTS)
    assert {EmbedderUnreachable} == set(map(type, outcomes))
    assert calls == len(model.calls) - 1
    outage = outcomes[0]
    assert isinstance(outage, EmbedderUnreachable)
    assert passes == outage.passes
    with pytest.raises(EmbedderUnreachable):
        made(model).documents(TEXTS)


def test_what_was_made_before_an_outage_is_kept() -> None:
    """The vectors of earlier calls stand; the outage stands for the others, without more calls."""
    model = Model(Status(429, retry_after="7"), holding("text 20"))
    outcomes = made(model, batch_texts=16).each(TEXTS)
    assert [tuple] * 16 + [EmbedderUnreachable] * 48 == list(map(type, outcomes))
    assert 2 == len(model.calls) - 1
    outage = outcomes[-1]
    assert isinstance(outage, EmbedderUnreachable)
    assert 7.0 == outage.retry_after_s


def test_a_model_that_goes_down_while_texts_are_judged_blames_none() -> None:
    """Refusals of a call count only if the model answers after them."""
    model = Model(RuntimeError("x"))
    model.at = lambda texts: "bad" in texts or len(model.calls) > 5
    outcomes = made(model).each(["bad", "a", "b", "c"])
    assert {EmbedderUnreachable} == set(map(type, outcomes))


BAD: list[object] = [
    None, [], [0.0] * DIMS, [math.nan] * DIMS, [math.inf] + [0.0] * (DIMS - 1),
    [1e39] + [0.0] * (DIMS - 1), [1e30] * DIMS, [1e-40] * DIMS, [1.0] * (DIMS - 1),
    [1.0] * (DIMS + 1), [None] * DIMS, ["1"] * DIMS, "1" * DIMS, b"1" * DIMS, 7, [[1.0] * DIMS],
    [1 + 2j] * DIMS, {}, object,
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: repr(bad)[:24])
def test_a_bad_vector_costs_its_text_alone(bad: object) -> None:
    """A vector that no store can use is named, in one call; the others stand."""
    model = Model()

    def spoiled(texts: Sequence[str]) -> list[Any]:
        return [bad if "text 5" == text else v for text, v in zip(texts, model(texts), strict=True)]

    outcomes = made(spoiled).each(TEXTS)
    assert [5] == refused(outcomes)
    assert "finite 32-bit numbers and not be zero" in str(outcomes[5])
    assert 1 + 1 == len(model.calls) - 1


def test_a_lazy_answer_that_fails_quotes_nothing() -> None:
    """A vector that is computed when it is read may fail with the text in its words."""

    def lazily(text: str) -> Iterator[float]:
        if "text 5" == text:
            raise ValueError(f"too odd: {text}")
        yield from embed([text])[0]

    model = made(lambda texts: embed(texts) if len(texts) == 1 else [*map(lazily, texts)])
    outcomes = model.each(TEXTS)
    assert [5] == refused(outcomes)
    assert "generator (ValueError)" in str(outcomes[5])
    assert "too odd" not in str(outcomes[5])


class Row:
    """A vector as numpy or torch have it: no list, and its numbers are no floats."""

    class Number:
        """A scalar."""

        def __init__(self, value: float) -> None:
            self._value = value

        def __float__(self) -> float:
            return self._value

    def __init__(self, values: Sequence[float]) -> None:
        self._values = values

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, at: int) -> "Row.Number":
        return Row.Number(self._values[at])


@pytest.mark.parametrize(
    "form",
    [
        lambda vectors: map(tuple, vectors),
        lambda vectors: tuple(Row(each) for each in vectors),
        lambda vectors: [[round(value * 1000) for value in each] for each in vectors],
    ],
    ids=["iterator", "arrays", "integers"],
)
def test_other_forms_of_vectors(form: Callable[[list[list[float]]], Any]) -> None:
    """Rows of an array, scalars of its library and integers make a vector, too."""
    answers = iter([embed(["dimensions"])])
    embedder = made(lambda texts: next(answers, None) or form(embed(texts)))
    expected = [tuple(map(float, each)) for each in form(embed(TEXTS))]
    assert expected == embedder.documents(TEXTS)
    assert {float} == {type(value) for value in embedder.documents(["x"])[0]}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda vectors: vectors[:-1],
        lambda vectors: [*vectors, vectors[0]],
        lambda _: [],
        lambda _: None,
        lambda _: 7,
        lambda _: "x" * 64,
    ],
    ids=["too few", "too many", "none", "None", "number", "string"],
)
def test_a_wrong_number_of_vectors_is_a_refused_batch(
    spoil: Callable[[list[list[float]]], Any],
) -> None:
    """Where vectors and texts differ in number no text is given another's: the batch is halved."""

    def spoiled(texts: Sequence[str]) -> Any:
        return spoil(embed(texts)) if len(texts) > 1 or "text 9" in texts else embed(texts)

    outcomes = made(spoiled).each(TEXTS)
    assert [9] == refused(outcomes)
    assert list(map(tuple, embed(TEXTS)))[10:] == outcomes[10:]


def test_a_query_fails_as_a_document_does() -> None:
    """No foreign exception comes out of a query."""
    for error, expected in (
        (ValueError("too long"), InvalidInput),
        (Status(429), EmbedderUnreachable),
    ):
        model = Model(error, holding("long"))
        with pytest.raises(expected, match=r"no|too long"):
            Embedder("test", embed, model).query("long")
    with pytest.raises(InvalidInput):
        Embedder("test", embed, lambda texts: [[0.0] * DIMS if "x" in texts else embed(texts)[0]]
                 ).query("x")  # fmt: skip
    with pytest.raises(EmbedderUnreachable):
        Embedder("test", embed, Model(KeyError("embedding"))).query("x")


def test_a_panic_of_a_tokenizer_is_the_texts() -> None:
    """A panic of Rust code is no Exception, and refuses its text all the same."""
    panic = type("PanicException", (BaseException,), {})("byte index 3 is not a char boundary")
    assert [7] == refused(made(Model(panic, holding("text 7!"))).each([f"{t}!" for t in TEXTS]))


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SettingsError("no key")])
def test_what_is_no_failure_of_the_model_passes(error: BaseException) -> None:
    """Ctrl-C and a bad setting are raised as they are, at any call."""
    with pytest.raises(type(error)):
        made(Model(error, holding("text"))).each(TEXTS)
    with pytest.raises(type(error)):
        made(Model(error))


@pytest.mark.parametrize("error", [SystemExit(0), SystemExit("no key"), asyncio.CancelledError()])
def test_a_model_that_ends_the_program_has_failed(error: BaseException) -> None:
    """The program is memsync's or the app's: an exit or a cancelled task is the model's failure."""
    assert [7] == refused(made(Model(error, holding("text 7!"))).each([f"{t}!" for t in TEXTS]))
    model = Model(error, lambda texts: texts != ["dimensions"])
    with pytest.raises(EmbedderUnreachable, match=type(error).__name__):
        made(model).documents(TEXTS)


def test_an_app_that_exits_by_a_signal_exits() -> None:
    """Its handler may run while a model is asked; the model has not failed."""

    def embed_until_told(texts: Sequence[str]) -> Any:
        if "text 7" in texts:
            signal.raise_signal(signal.SIGUSR1)
        return embed(texts)

    def leave(_number: int, _frame: object) -> None:
        sys.exit(3)

    before = signal.signal(signal.SIGUSR1, leave)
    try:
        with pytest.raises(SystemExit):
            made(embed_until_told).each(TEXTS)
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize(
    ("error", "expected"),
    [(Status(429), EmbedderUnreachable), (Status(503), EmbedderUnreachable),
     (Status(500), EmbedderUnreachable), (ConnectionError(), EmbedderUnreachable),
     (TimeoutError(), EmbedderUnreachable), (Status(401), SettingsError),
     (SystemExit(0), SettingsError), (asyncio.CancelledError(), SettingsError),
     (TypeError("x"), SettingsError), (FileNotFoundError("model"), SettingsError)],
    ids=repr,
)  # fmt: skip
def test_a_model_that_fails_when_it_is_loaded(
    error: BaseException, expected: type[MemsyncError], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An outage while an embedder is loaded is no bad setting, at import or at the first call."""
    module = ModuleType("failing_embedders")
    module.__dict__["model"] = Model(error)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    with pytest.raises(expected) as first_call:
        load_embedder("failing_embedders:model")
    assert (10 if expected is EmbedderUnreachable else 2) == first_call.value.exit_status

    def fail(_: str) -> object:
        raise error

    monkeypatch.setattr("importlib.import_module", fail)
    with pytest.raises(expected):
        load_embedder("failing_embedders:model")

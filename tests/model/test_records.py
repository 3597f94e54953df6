"""Places are read from texts that anybody may have written."""

import pytest

from memsync.model.records import Place


@pytest.mark.parametrize("place", [Place("persona-x", 7), Place("a/b", 2**64 - 1)])
def test_a_place_is_read_as_it_was_written(place: Place) -> None:
    """The name of a collection may hold a slash."""
    assert place == Place.read(str(place))


@pytest.mark.parametrize(
    "text",
    ["", "7", "persona-x/", "persona-x/8.5", "a\0b/7", "\ud800/7", "persona-x/-1", f"x/{2**64}"],
)
def test_what_is_no_place(text: str) -> None:
    """A text that Postgres does not take is one: it would end the whole audit that asks for it."""
    assert Place.read(text) is None

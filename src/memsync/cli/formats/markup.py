"""Makes HTML of values. Everything is escaped, but what this module has made itself."""

from collections.abc import Collection, Sequence
from html import escape

from memsync.cli.formats.pieces import safe

_VOID = frozenset(("br", "meta"))


class Markup(str):
    """HTML in which every text has been escaped."""

    __slots__ = ()


def text(value: object) -> Markup:
    """A value as text of a page; markup stays as it is."""
    if isinstance(value, Markup):
        return value
    return Markup(escape(safe(value)))


def begin(name: str, /, **attributes: object) -> Markup:
    """The begin of an element. In the name of an attribute `_` stands for `-`; None leaves it out.

    An attribute that is True has no value.
    """
    said = "".join(
        f" {key.strip('_').replace('_', '-')}" + ("" if value is True else f'="{text(value)}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    return Markup(f"<{name}{said}>")


def end(name: str) -> Markup:
    """The end of an element."""
    return Markup(f"</{name}>\n")


def tag(name: str, /, *content: object, **attributes: object) -> Markup:
    """An element with its content."""
    inside = "".join(map(text, content))
    if name in _VOID:
        return begin(name, **attributes)
    return Markup(f"{begin(name, **attributes)}{inside}</{name}>")


def join(*parts: object) -> Markup:
    """Several parts, one behind the other."""
    return Markup("".join(map(text, parts)))


def table(
    caption: str,
    head: Sequence[object],
    rows: Sequence[Sequence[object]],
    numbers: Collection[int] = (),
) -> Markup:
    """A table whose first column names its rows. The columns `numbers` are set to the right."""

    def cell(place: int, value: object) -> Markup:
        of = "number" if place in numbers else None
        if place:
            return tag("td", value, class_=of)
        return tag("th", value, scope="row", class_=of)

    heads = (
        tag("th", each, scope="col", class_="number" if place in numbers else None)
        for place, each in enumerate(head)
    )
    body = (tag("tr", *(cell(*each) for each in enumerate(row))) for row in rows)
    return tag(
        "table",
        tag("caption", caption),
        tag("thead", tag("tr", *heads)),
        tag("tbody", *body),
    )

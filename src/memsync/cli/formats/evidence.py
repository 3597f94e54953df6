"""The evidence of a finding as HTML: what the row says beside what the memory says.

Of a text that people wrote there are length and digest, and the words only where they were asked
for, with a mark at the first place that differs.
"""

from collections.abc import Iterator

from memsync.cli.formats.markup import Markup, join, tag
from memsync.cli.formats.pieces import sides
from memsync.reconcile.findings import Finding, Words

_HEADS = {"point": "memory"}


def evidence(finding: Finding, *, show_text: bool) -> Markup:
    """The evidence of one finding."""
    row, memory, rest = sides(finding.evidence)
    at = rest.get("differs_at")
    place = at if show_text and isinstance(at, int) else None
    parts = []
    if row or memory:
        heads = (_name(next(iter(side), "")) for side in (row, memory))
        cells = (
            tag("td", *_values(side, place, show_text=show_text)) if side else tag("td", "–")
            for side in (row, memory)
        )
        parts.append(
            tag(
                "table",
                tag("caption", f"{finding.code}: both sides"),
                tag("thead", tag("tr", *(tag("th", each or "–", scope="col") for each in heads))),
                tag("tbody", tag("tr", *cells)),
                class_="sides",
            )
        )
    if rest:
        said = (
            join(tag("dt", _name(name)), tag("dd", _value(value, None, show_text=show_text)))
            for name, value in rest.items()
        )
        parts.append(tag("dl", *said))
    return join(*parts)


def _name(name: str) -> str:
    return _HEADS.get(name, name).replace("_", " ")


def _values(side: dict[str, object], at: int | None, *, show_text: bool) -> Iterator[Markup]:
    """The first value is named by the column's head, the others by themselves."""
    for number, (name, value) in enumerate(side.items()):
        said = _value(value, at, show_text=show_text)
        yield tag("p", f"{_name(name)}: ", said) if number else tag("p", said)


def _value(value: object, at: int | None, *, show_text: bool) -> Markup:
    if not isinstance(value, Words):
        return tag("bdi", "none" if value is None else value if value != "" else "(empty)")
    if not show_text:
        return tag("bdi", value)
    text = value.text
    words = [text] if at is None or at >= len(text) else [text[:at], tag("mark", text[at]), ""]
    if len(words) > 1 and at is not None:
        words[2] = text[at + 1 :]
    return join(tag("bdi", value), tag("q", *words))

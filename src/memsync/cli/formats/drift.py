"""How the findings went over the recorded audits, as HTML: a bar for each audit, and a table."""

from collections.abc import Iterator, Sequence

from memsync.cli.formats.markup import Markup, table, tag
from memsync.model.wording import count
from memsync.reconcile.recorded import Recorded

_HEIGHT, _STEP, _BAR = 60, 12, 9
"""The height of the picture, and the width of a bar with its gap and alone, in units of its own."""


def past(audits: Sequence[Recorded]) -> Markup:
    """The section about recorded audits, which are given the newest first; empty without any."""
    if not audits:
        return Markup("")
    rows: list[tuple[object, ...]] = [
        (
            f"{each.begun_at:%Y-%m-%d %H:%M}",
            f"{each.total:,}",
            "; ".join(_of_which(each)),
        )
        for each in audits
    ]
    return tag(
        "section",
        tag("h2", "Recorded audits", id="past"),
        _bars(audits),
        tag(
            "details",
            tag("summary", "the numbers"),
            table("The newest first", ("begun, UTC", "findings", "of which"), rows, (1,)),
            class_="past",
        ),
        aria_labelledby="past",
    )


def _of_which(audit: Recorded) -> Iterator[str]:
    if not audit.complete:
        yield "INCOMPLETE"
    if audit.total:
        yield ", ".join(f"{n:,} {code}" for code, n in audit.counts.items() if n)
    if audit.acknowledged:
        yield f"{audit.acknowledged:,} acknowledged"


def _bars(audits: Sequence[Recorded]) -> Markup:
    most = max(1, *(each.total for each in audits))
    bars = []
    for place, each in enumerate(reversed(audits)):
        height = 2 + round((_HEIGHT - 2) * each.total / most)
        stands = "unknown" if not each.complete else "faulty" if each.total else "clean"
        box = {"x": place * _STEP, "y": _HEIGHT - height, "width": _BAR, "height": height}
        bars.append(tag("rect", class_=f"bar {stands}", **box))
    said = (
        f"Findings of the last {count(len(audits), 'recorded audit')}, the newest at the right: "
        f"at most {most:,}, at last {audits[0].total:,}"
    )
    view = f"0 0 {len(audits) * _STEP} {_HEIGHT}"
    return tag("svg", *bars, role="img", aria_label=said, viewBox=view, class_="bars")

"""The formats of a report of an audit, each made from one `Report` by a module of its own.

`FORMATS` has them by name, with the mark that a file of each begins with.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from memsync.cli.formats import as_html, as_json, as_junit, as_prometheus, as_text
from memsync.cli.formats.report import Made, Report

Write = Callable[[Report, Callable[[str], object]], None]


class Format(NamedTuple):
    """A format: what its files begin with, and what writes one."""

    mark: str
    write: Write


def _of(pieces: Callable[[Report], Iterator[str]]) -> Write:
    def write(report: Report, into: Callable[[str], object]) -> None:
        for piece in pieces(report):
            into(piece)

    return write


FORMATS: Mapping[str, Format] = {
    "text": Format(as_text.MARK, as_text.write),
    "json": Format(as_json.MARK, _of(as_json.file)),
    "json-lines": Format(as_json.LINES_MARK, _of(as_json.lines_file)),
    "junit": Format(as_junit.MARK, _of(as_junit.pieces)),
    "prometheus": Format(as_prometheus.MARK, _of(as_prometheus.pieces)),
    "html": Format(as_html.MARK, _of(as_html.pieces)),
}

__all__ = ["FORMATS", "Format", "Made", "Report"]

"""The order of findings in a report, and how many of each code are shown where not all are.

Severity comes first, then the number of people concerned.
"""

from collections import Counter
from collections.abc import Iterator

from memsync.reconcile.findings import Chosen, Finding, Kind, Severity


def codes_of(found: Chosen) -> dict[str, list[Kind]]:
    """The kinds by code, the most frequent first.

    The most severe codes come first, then those that concern most people.
    """
    codes: dict[str, list[Kind]] = {}
    for kind in sorted(found.kinds, key=lambda each: -found.kinds[each]):
        codes.setdefault(kind.code, []).append(kind)
    severities = list(Severity)

    def order(code: str) -> tuple[int, int, str]:
        severity = min(severities.index(kind.severity) for kind in codes[code])
        return severity, -found.people(code), code

    return {code: codes[code] for code in sorted(codes, key=order)}


def in_order(found: Chosen) -> Iterator[Finding]:
    """The findings, in the order of `codes_of`."""
    for code in codes_of(found):
        yield from found.of(code)


def shares_of(found: Chosen, most: int) -> dict[str, int]:
    """How many of each code are among the first, in the order of `codes_of`."""
    numbers = by_code(found)
    shares = dict.fromkeys(codes_of(found), 0)
    while most > 0 and (more := [each for each in shares if shares[each] < numbers[each]]):
        for code in more[:most]:
            shares[code] += 1
        most -= len(more)
    return shares


def by_code(found: Chosen) -> Counter[str]:
    """How many findings of each code there are."""
    numbers: Counter[str] = Counter()
    for kind, number in found.kinds.items():
        numbers[kind.code] += number
    return numbers

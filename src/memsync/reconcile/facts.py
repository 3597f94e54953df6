"""Facts are findings that are no faults: all of one code are one finding, which counts them."""

from dataclasses import replace

from memsync.reconcile.findings import Finding


class Fact:
    """All findings of one code that are facts and no faults: how many, and the first of them by
    its place.
    """

    def __init__(self, first: Finding) -> None:
        self._first = first
        self._points = 0
        self._collections: set[str] = set()

    def add(self, finding: Finding, alike: int) -> None:
        """Count so many more in the finding's collection."""
        self._first = min(self._first, finding, key=lambda each: (each.store, each.key))
        self._points += alike
        self._collections.add(finding.store)

    def finding(self) -> Finding:
        """The one finding that stands for all."""
        first = self._first
        evidence = {"points": self._points, "collections": len(self._collections)}
        return replace(
            first,
            store="qdrant",
            key=f"{first.store.removeprefix('qdrant:')}/{first.key}",
            persona_id=None,
            evidence=evidence,
        )

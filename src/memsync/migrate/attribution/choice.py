"""Decides whether evidence is wanted, which store holds it, and what the operator must say first.

Evidence that was not read is not evidence that there is none. So the operator names the store, or
says that the settings alone decide. A store without a point is a
mistake as often as not, so it must be confirmed.
"""

import contextlib
from collections.abc import Callable, Iterator

from memsync.errors import MemsyncError
from memsync.migrate.attribution.evidence import Evidence, EvidenceReport, required
from memsync.migrate.attribution.settings import fragments
from memsync.migrate.checks import BEFORE_CONTRACT, Check, blocker, fine, not_applicable
from memsync.migrate.options import RunOptions
from memsync.model.progress import Tell, silent
from memsync.model.wording import count
from memsync.settings import Settings, how_to_name
from memsync.stores.history.catalog import Catalog
from memsync.stores.history.phases import Phase
from memsync.stores.postgres import Session
from memsync.stores.vectors import VectorStore, open_vectors

OpenMemories = Callable[[], VectorStore]

CHECK = "evidence"
UNNAMED = "no vector store is named: qdrant_url is not set"
BLOCKERS_FIRST = "the blockers of a run come first"
NAME_IT = how_to_name("qdrant_url")
IGNORED = "ignored: the settings alone decide who spoke"


@contextlib.contextmanager
def memories_of(settings: Settings) -> Iterator[OpenMemories | None]:
    """The way to open the vector store that the settings name; None when they name none.

    It is opened when it is first asked for, and closed with the block.
    """
    if settings.qdrant_url is None:
        yield None
        return
    with contextlib.ExitStack() as opened:

        def memories() -> VectorStore:
            return opened.enter_context(contextlib.closing(open_vectors(settings)))

        yield memories


def awaited(catalog: Catalog) -> bool:
    """Whether there may be messages left for evidence to decide."""
    return Phase.BACKFILL not in catalog.done


def is_due(session: Session, catalog: Catalog) -> bool:
    """Whether there is a message left for evidence to decide."""
    if not awaited(catalog) or "user_id" not in catalog.columns:
        return False
    still_open = {"open": fragments(catalog)["open"]}
    return bool(session.rows_with(still_open, "any_open")[0].found)


def read_for_run(
    evidence: Evidence,
    options: RunOptions,
    settings: Settings,
    memories: OpenMemories | None,
    tell: Tell = silent,
) -> Check:
    """Read the evidence for a run that decides messages; the check says whether it may go on.

    Raises: the store's error as `required` words it, before anything is changed.
    """
    if options.evidence == "ignore":
        return check(options, None)
    if memories is None:
        return check(options, EvidenceReport(not_read=UNNAMED))
    try:
        vectors = memories()
    except MemsyncError as error:
        raise required(error) from error
    evidence.read(vectors, settings, tell)
    return check(options, evidence.counted())


def report_of(
    evidence: Evidence, settings: Settings, memories: OpenMemories | None, tell: Tell = silent
) -> EvidenceReport:
    """The same for a look that changes nothing: a store that was not read is said in the report."""
    if memories is None:
        return EvidenceReport(not_read=UNNAMED)
    try:
        evidence.read(memories(), settings, tell)
        return evidence.report()
    except MemsyncError as error:
        # Keep the store's own message; the advice that `required` adds is for a run.
        cause = error.__cause__
        evidence.drop()
        return EvidenceReport(not_read=str(cause if isinstance(cause, MemsyncError) else error))


def check(options: RunOptions, report: EvidenceReport | None) -> Check:
    """Whether a run has the evidence that it needs; `report` is None when none is due or wanted."""
    if options.evidence == "ignore":
        return not_applicable(CHECK, IGNORED)
    if report is None:
        return not_applicable(CHECK, "no message is left for it to decide")
    if report.not_read == BLOCKERS_FIRST:
        return not_applicable(CHECK, f"not read: {BLOCKERS_FIRST}")
    if report.not_read is not None:
        ignore = options.command(to=Phase.BACKFILL, evidence="ignore")
        mend = NAME_IT if report.not_read == UNNAMED else "mend it"
        return blocker(
            CHECK,
            f"not read: {report.not_read}",
            f"{mend}; or {ignore} to go by the settings alone",
            BEFORE_CONTRACT,
        )
    if report.points:
        return fine(CHECK, f"{count(report.points, 'point')} read in {report.store}")
    if options.evidence == "none-expected":
        return fine(CHECK, f"{emptiness(report)}, as expected")
    confirm = options.command(to=Phase.BACKFILL, evidence="none-expected")
    return blocker(
        CHECK,
        f"no evidence of who spoke: {emptiness(report)}",
        f"check qdrant_url and collection; where the app never made a memory, {confirm}",
        BEFORE_CONTRACT,
        ("evidence", "none-expected"),
    )


def emptiness(report: EvidenceReport) -> str:
    """The words for a store that was read and has no point."""
    collections = sum(each.collections for each in report.kinds)
    return (
        f"{report.store} has 0 points in {count(collections, 'collection')} of memories, and "
        f"{count(report.left_out, 'other collection')}"
    )

"""The state of both stores as a whole, for the rules that look at more than one case.

A value that needs a query is read when the first rule uses it, and only once. The module decides
nothing.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from memsync.errors import SchemaMismatch
from memsync.reconcile.sources import Unjudged
from memsync.reconcile.undoable import Undoable, undoable
from memsync.settings import Settings
from memsync.stores.history import exchanges, outbox
from memsync.stores.history.catalog import Catalog
from memsync.stores.history.exchanges import MessageWithoutPersona, UnreadableMessage
from memsync.stores.history.outbox import LateEntry
from memsync.stores.ltm import CollectionInfo, Embedder, LongTermMemory
from memsync.stores.ltm.marks import NO_MARKS, Marks
from memsync.stores.postgres import Session

HISTORY = "postgres:conversation_history"
OUTBOX = "postgres:memsync.outbox"
QUARANTINE = "postgres:memsync.quarantine"

SHOWN_MAX = 500
"""At most so many messages or entries become findings; each finding tells the total number."""


@dataclass(frozen=True)
class State:
    """The input of a StateRule.

    `homes` are the collections where the layout in force keeps memories, `elsewhere` those of
    memories that it does not read. `embedder` is the one that the settings name, where it could be
    loaded and there is something to compare. `missing_with_collection` is how many memories are
    missing because the shared collection is. `marks` tell whether the stores are of one time.
    `noted` is how many memories of this layout the ledger has.
    `unjudged` are the memories that nobody can judge.
    `count_outdated` counts the acknowledgements that no finding so far matched.
    """

    session: Session
    ltm: LongTermMemory
    settings: Settings
    catalog: Catalog
    homes: Collection[str]
    elsewhere: Collection[str]
    embedder: Embedder | None = None
    missing_with_collection: int = 0
    marks: Marks = NO_MARKS
    noted: int = 0
    unjudged: Unjudged = field(default_factory=Unjudged)
    count_outdated: Callable[[], int] = int

    @cached_property
    def messages_without_persona(self) -> Sequence[MessageWithoutPersona]:
        """The first messages that have no persona."""
        return exchanges.messages_without_persona(self.session, SHOWN_MAX)

    @cached_property
    def messages_of_unknown_personas(self) -> Sequence[MessageWithoutPersona]:
        """The first messages that have a persona which does not exist."""
        return exchanges.messages_of_unknown_personas(self.session, SHOWN_MAX)

    @cached_property
    def unreadable_messages(self) -> Sequence[UnreadableMessage]:
        """The first messages whose time cannot be read."""
        return exchanges.unreadable_messages(self.session, SHOWN_MAX)

    @cached_property
    def late_entries(self) -> Sequence[LateEntry]:
        """The first entries of the outbox that are dead, and the first older than the alarm age."""
        if not self.catalog.has_own_table("outbox"):
            return []
        return outbox.late(self.session, alarm_s=self.settings.outbox_alarm_s, limit=SHOWN_MAX)

    @cached_property
    def undoable(self) -> Undoable:
        """The kept runs that cannot be undone whole."""
        return undoable(self.session, self.ltm, self.settings.quarantine_days)

    @cached_property
    def _described(self) -> tuple[Mapping[str, CollectionInfo | None], Mapping[str, str]]:
        """The homes' forms, and why a home has none that memsync can use."""
        forms: dict[str, CollectionInfo | None] = {}
        why: dict[str, str] = {}
        for home in {*self.homes, self.ltm.collection}:
            try:
                forms[home] = self.ltm.describe(home)
            except SchemaMismatch as error:
                why[home] = str(error.fields.get("form", error.message))
        return forms, why

    def form_of(self, home: str) -> CollectionInfo | None:
        """The form of a collection; None where there is none, or one that memsync cannot use."""
        return self._described[0].get(home)

    @property
    def misformed(self) -> Mapping[str, str]:
        """The collections of another form than one vector for each point, and what they hold."""
        return self._described[1]

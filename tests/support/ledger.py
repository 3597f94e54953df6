"""What tests of the ledger share: adopting, ageing, importing, and what the ledger says."""

from __future__ import annotations

from datetime import timedelta

from memsync import reconcile
from memsync.memory import NewExchange
from memsync.model.ids import point_id_of
from memsync.stores.ltm.layouts import Layout
from memsync.stores.ltm.ledger import standing_digest
from support.lab import ADA, CHANNEL, LONG_AGO, A, Lab
from support.releasing import released

ENTRIES = """SELECT collection, point_id, anchor_id, state, encode(stored, 'hex'), removed
FROM memsync.memories ORDER BY 1, 2"""


def adopt(lab: Lab, *, anew: bool = False) -> reconcile.Adopted:
    with released(lab.url):
        return reconcile.adopt(lab.postgres, lab.ltm, lab.settings, anew=anew)


def other_words(lab: Lab) -> dict[str, str]:
    """What a payload says where somebody has changed it."""
    deployed = lab.ltm.layout is Layout.PER_PERSONA
    return {"content": "User (Al): x\nAda: y"} if deployed else {"user_text": "x"}


def states(lab: Lab) -> list[str]:
    return sorted(row[3] for row in lab.sql(ENTRIES))


def agrees(lab: Lab) -> int:
    """See that every memory of the ledger stands as it was written down. Returns how many."""
    standing = [row[:5] for row in lab.sql(ENTRIES) if not row[5]]
    for collection, point_id, _, _, stored in standing:
        point = lab.point(point_id_of(point_id), collection)
        memory = lab.ltm.codec_of(collection).decode(point.payload).memory
        assert standing_digest(point.id, memory) == stored
    return len(standing)


def aged(lab: Lab, until: timedelta) -> None:
    """Remove the rows that are older, as retention does."""
    cut = (LONG_AGO + until).replace(tzinfo=None)
    lab.sql("DELETE FROM conversation_history WHERE created_at < %(cut)s", cut=cut)


def imported(lab: Lab) -> None:
    """Write an exchange that is older than all others into the same thread, with its memory."""
    at = LONG_AGO - timedelta(days=30)
    lab.memory.remember(NewExchange(CHANNEL, ADA, A, "old", "older", at, at))
    [made] = [each for each in lab.exchanges() if each.user_text == "old"]
    if lab.ltm.layout is Layout.SHARED:
        lab.sync()
    else:
        lab.deploy(made)
        lab.sql("DELETE FROM memsync.outbox")

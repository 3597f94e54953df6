"""Decides which of several memories of one exchange stays, and what the others are beside it."""

from collections.abc import Mapping, Sequence

from memsync.model.digests import point_state
from memsync.model.ids import point_order
from memsync.model.records import Exchange, Place
from memsync.reconcile.cases import Case, Found, Role, says
from memsync.reconcile.matching import Match
from memsync.reconcile.sources import Sources
from memsync.stores.ltm.texts import Said


def cases_of_exchange(
    sources: Sources,
    matches: Sequence[Match],
    standing: Place | None,
    states: Mapping[Place, str | None],
) -> tuple[Place, list[Case]]:
    """The cases of all points at home that were matched with one exchange. `states` are those
    of memories that stand.

    Of several of the right persona one stays: that of the anchor's id in the shared layout,
    else the one that the app can read and that is the oldest by id.
    """
    exchange = matches[0].exchange
    right = {None, exchange.persona_id}
    own = (each.found for each in matches if each.found.persona_id in right)
    best = min(own, key=lambda each: _preference(each, exchange), default=None)
    kept = standing or (best.place if best else None)
    state = None
    if best and kept == best.place:
        state = point_state(best.point)
    elif kept:
        state = states.get(kept)
    cases = []
    for each in (match.found for match in matches):
        if each.place == kept:
            cases.append(sources.case(Role.MEMORY, exchange, each))
        else:
            role = Role.DUPLICATE if each.persona_id in right else Role.FOREIGN
            cases.append(sources.case(role, exchange, each, kept=kept, kept_state=state))
    # A memory that another persona has is not missing; see the rule persona-mismatch.
    return kept or matches[0].found.place, cases


def _preference(found: Found, exchange: Exchange) -> tuple[object, ...]:
    """The sort key of the memories of one exchange: the one to keep comes first.

    The anchor's id is what memsync gives, and where the app wrote a memory too, the app's stays.
    """
    reading = found.reading
    readable = not (reading.wrong_keys or reading.wrong_unit or found.contradicts_itself)
    readable = readable and not (found.names_unknown or found.is_left_out)
    order = {Said.THE_SAME: 0, Said.MORE: 0, None: 1}[says(found, exchange)]
    is_ours = found.point.id == exchange.anchor_id
    return (not readable, order, is_ours, point_order(found.point.id))

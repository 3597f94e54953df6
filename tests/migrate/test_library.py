"""The library while the history is migrated: by user until contract, by persona from backfill."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from memsync import Memory, NewExchange
from memsync.errors import InvalidInput, SchemaMismatch
from memsync.stores.history.phases import Phase
from support.roles import APP_GRANTS, LIBRARY_GRANTS, at_url, role

if TYPE_CHECKING:
    from support.app import App

THREADS = """
    SELECT channel_id, personality_id, user_id, count(*) FROM conversation_history
    GROUP BY 1, 2, 3 ORDER BY 4 DESC, 3 LIMIT 1"""


def texts(messages: list[Any]) -> list[str]:
    return [each.content for each in messages]


def test_one_users_thread_reads_the_same_up_to_contract(app: App) -> None:
    """At each phase before contract, user_id reads exactly that user's rows, in their order."""
    channel, personality, user, count = app.query(THREADS)[0]
    expected = [
        content
        for (content,) in app.query(
            "SELECT content FROM conversation_history WHERE channel_id = %s"
            " AND personality_id = %s AND user_id = %s ORDER BY created_at, role <> 'user', id",
            channel,
            personality,
            user,
        )
    ]
    assert len(expected) == count
    for phase in (None, Phase.ISOLATE, Phase.REDESIGN, Phase.EXPAND, Phase.BACKFILL):
        if phase:
            app.run(phase)
        with Memory.open(app.settings()) as memory:
            window = memory.get_recent_history(channel, personality, user_id=user, limit=1000)
            newest = memory.get_recent_history(channel, personality, user_id=str(user), limit=3)
        assert expected == texts(window), phase
        assert expected[-3:] == texts(newest), phase
        assert {user} == {each.user_id for each in window}


def test_by_persona_only_when_every_message_has_one(app: App) -> None:
    """Reading by persona is refused until backfill, because the thread would have holes."""
    channel, personality, user, _ = app.query(THREADS)[0]
    persona = app.world.resolved(user, personality) or user
    for phase in (None, Phase.ISOLATE, Phase.REDESIGN, Phase.EXPAND):
        if phase:
            app.run(phase)
        with (
            Memory.open(app.settings()) as memory,
            pytest.raises(SchemaMismatch, match="user_id until"),
        ):
            memory.get_recent_history(channel, personality, persona_id=persona)
    with Memory.open(app.settings()) as memory:
        for phase in (Phase.BACKFILL, Phase.CONTRACT):
            app.run(phase)
            assert memory.get_recent_history(channel, personality, persona_id=persona)


def test_by_user_after_contract_says_so(app: App) -> None:
    """Reading by user is refused after contract, and the error says what to give instead."""
    app.run()
    channel, personality = app.query(
        "SELECT channel_id, personality_id FROM conversation_history LIMIT 1"
    )[0]
    user = app.world.cast.users[0].id
    with Memory.open(app.settings()) as memory:
        with pytest.raises(SchemaMismatch, match="read by persona_id"):
            memory.get_recent_history(channel, personality, user_id=user)
        with pytest.raises(InvalidInput, match="user_id"):
            memory.get_recent_history(channel, personality, user_id="somebody")


@pytest.mark.parametrize("phase", [Phase.BACKFILL, Phase.CONTRACT])
def test_a_role_of_the_app_needs_no_more_than_is_said(app: App, phase: Phase) -> None:
    """Grants on the app's tables, and those on ours that the README names, are enough."""
    app.run(phase)
    channel, personality, persona = app.query(
        "SELECT channel_id, personality_id, persona_id FROM conversation_history LIMIT 1"
    )[0]
    with (
        role(app, *APP_GRANTS, *LIBRARY_GRANTS) as url,
        Memory.open(at_url(app, url).settings()) as memory,
    ):
        before = memory.get_recent_history(channel, personality, persona_id=persona)
        memory.remember(
            NewExchange(
                channel_id=channel,
                personality_id=personality,
                persona_id=persona,
                user_text="What may I read?",
                assistant_text="Your own.",
            )
        )
        after = memory.get_recent_history(channel, personality, persona_id=persona, limit=1000)
    assert before
    assert ["What may I read?", "Your own."] == texts(after)[-2:]

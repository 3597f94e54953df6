"""Processes that nothing orders, killed with their stores: no audit has a false finding of them.

`test_live_traffic.py` lets a seed order every step. Here a seed draws who is killed, and when; the
rest comes as it comes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from support.crowd import Crowd, crowd_of
from support.lab import A, B
from support.traffic import Kind

if TYPE_CHECKING:
    from pathlib import Path

LOOKS, MANY_LOOKS = 2, 12

pytestmark = pytest.mark.server


def plant(crowd: Crowd) -> dict[str, set[str]]:
    """Spoil memories of the past; by the names of the findings, the ids that they may be of."""
    lab = crowd.lab
    lost, edited, unsaid, doubled, given_away = crowd.chance.sample(
        [each for each in lab.said if each.persona_id == A], 5
    )
    lab.lose(lost)
    twin, orphan = lab.new_id(), lab.new_id()
    if crowd.kind is Kind.SHARED:
        payload = dict(lab.point(lab.place(doubled).point_id).payload)
        lab.put(twin, payload)
        lab.put(orphan, {**payload, "user_text": "unsaid", "assistant_text": "unheard"})
        lab.respell(edited, user_text="never said")
        moved = lab.respell(given_away, persona_id=str(B)).id
    else:
        lab.deploy(doubled, point_id=twin)
        lab.deploy(unsaid, point_id=orphan, content="User (Al): unsaid\nAda: unheard")
        lab.respell(edited, content="User (Al): never said\nAda: never heard")
        lab.lose(given_away)
        moved = lab.deploy(given_away, collection=f"persona-{B}", personaId=str(B)).id
    return {
        "missing-point": {str(lost.anchor_id)},
        "stale-content": {str(edited.anchor_id), str(lab.place(edited).point_id)},
        "orphan-point": {str(orphan)},
        "duplicate-point": {str(doubled.anchor_id), str(lab.place(doubled).point_id), str(twin)},
        "persona-mismatch": {str(given_away.anchor_id), str(moved)},
    }


def named(findings: tuple[dict[str, Any], ...], planted: dict[str, set[str]]) -> set[str]:
    """The names of the planted faults that were found. Nothing else may have been."""
    for each in findings:
        assert each["key"] in planted.get(each["name"], ()), each
    return {each["name"] for each in findings}


def live(crowd: Crowd, looks: int) -> None:
    """Disturb everybody in each look but the last two, which must find what was planted."""
    ways: tuple[tuple[str, ...], ...] = ((), ("--deep",))
    crowd.begin()
    for number in range(looks):
        look = crowd.look(*ways[number % 2], is_disturbed=True)
        assert not look.findings, look.said
        assert look.status in {0, 3, 10, 15}, look.said
    planted = plant(crowd)
    seen = crowd.look(*ways[looks % 2], is_disturbed=True)
    found = named(seen.findings, planted)
    for _ in range(2):
        seen = crowd.look("--deep")
        assert seen.is_whole, seen.said
        found |= named(seen.findings, planted)
    assert found == set(planted)
    crowd.rest()
    for how in ways:
        seen = crowd.look(*how)
        assert seen.is_whole, seen.said
        missed = set(planted) - named(seen.findings, planted)
        assert missed <= ({"stale-content"} if not how and crowd.kind is Kind.SHARED else set())


def test_no_audit_is_wrong_of_a_crowd(reachable_dir: Path, seed: int) -> None:
    """Whoever is killed, and whatever store goes away."""
    with crowd_of(Kind.SHARED, reachable_dir, seed) as crowd:
        live(crowd, LOOKS)
        assert crowd.done.total() >= 2 * LOOKS


@pytest.mark.slow
@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("number", range(1, 6))
def test_many_seeds(reachable_dir: Path, seed: int, kind: Kind, number: int) -> None:
    """The same for each who writes memories, for longer, from five seeds."""
    with crowd_of(kind, reachable_dir, seed + number) as crowd:
        live(crowd, MANY_LOOKS)

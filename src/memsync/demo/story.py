"""The story of `memsync demo`: it makes a legacy app, migrates it, and reconciles both stores.

It decides the scenes, their order, and what must be true after each. A scene that has a command is
played by the caller, who runs the command itself and shows what it prints; so no scene can say
anything that the command does not. The story then looks into the stores for what must be true.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from uuid import UUID

from memsync import migrate, reconcile
from memsync.demo.world import World, load
from memsync.errors import GateClosed
from memsync.memory import Memory, NewExchange, outbox_status
from memsync.model.wording import count
from memsync.settings import Settings
from memsync.stores.ltm import LongTermMemory
from memsync.stores.postgres import Postgres, open_postgres
from memsync.stores.vectors import open_vectors

FAULTS: Mapping[str, int] = {
    "missing-point": 4,
    "orphan-point": 3,
    "duplicate-point": 5,
    "persona-mismatch": 4,
    "unknown-persona": 3,
    "stale-content": 4,
    "wrong-payload-key": 4,
    "wrong-time-unit": 3,
    "missing-persona": 2,
    "misplaced-point": 3,
    "older-layout": 3,
}

PLAN = "plan.json"
QUESTION = "what about peanuts for breakfast?"
_SAID = (
    ("I am allergic to peanuts, please remember.", "No peanuts for you, ever. Noted."),
    ("Peanut butter toast is my favourite breakfast.", "Peanut butter toast every morning, then!"),
)
_FINDINGS = 1
_NOT_CLEAR = GateClosed.exit_status


def _nothing() -> list[str]:
    return []


@dataclass(frozen=True, slots=True)
class Scene:
    """One step of the story: a command to run and the exit status it must have, or facts to show.

    `unmet` is called afterwards, and returns what did not come true.
    """

    title: str
    command: str = ""
    status: int = 0
    facts: Sequence[tuple[str, object]] = ()
    unmet: Callable[[], Sequence[str]] = _nothing


@dataclass(frozen=True, slots=True)
class Stage:
    """The settings that name the story's two stores. Scenes open them; between scenes they are free
    for commands, because an embedded store serves one opener.
    """

    settings: Settings

    @contextmanager
    def opened(self) -> Iterator[tuple[Postgres, LongTermMemory]]:
        """Both stores, while the block runs."""
        with open_postgres(self.settings) as postgres:
            with postgres.session() as session:
                ltm = LongTermMemory.open(self.settings, session)
            with closing(ltm):
                yield postgres, ltm


@dataclass(frozen=True, slots=True)
class Speakers:
    """Two personas of one user, with one personality in one channel."""

    channel_id: str
    personality_id: UUID
    persona_ids: Sequence[UUID]


def play(stage: Stage, world: World) -> Iterator[Scene]:
    """Play the whole story on two empty stores, scene by scene.

    Effects: both stores.
    """
    yield begin(stage, world)
    yield from _migrate(stage, world)
    yield from _reconcile(stage, world)
    yield from _hand_over(stage)
    yield _remember(stage, speakers(world))
    yield Scene(
        "The relay carries it from the outbox to Qdrant",
        "memsync sync run",
        unmet=partial(_of_relay, stage),
    )
    yield _recall(stage, speakers(world))
    yield Scene("The gate for CI and cron", "memsync check")


def begin(stage: Stage, world: World) -> Scene:
    """Load the legacy app, which is the first scene."""
    with (
        open_postgres(stage.settings) as postgres,
        postgres.session() as session,
        closing(open_vectors(stage.settings, create=True)) as vectors,
    ):
        embedder = LongTermMemory(vectors, stage.settings).embedder
        load(world, session, vectors, embedder.documents)
    made = world.manifest
    return Scene(
        "A legacy app: history by user, memories by persona",
        facts=[
            ("embedder", embedder.name),
            ("users", f"{made.users}, {made.unresolved_users} of them without any persona"),
            ("personas", made.personas),
            ("messages", made.messages),
            ("points", f"{made.points:,} in {count(made.collections, 'collection')}"),
            ("faults planted in points", sum(world.recipe.faults.values())),
        ],
    )


def speakers(world: World) -> Speakers:
    """Two personas of one user, who talk to one personality."""
    by_owner: dict[UUID, list[UUID]] = {}
    for persona in world.cast.personas:
        by_owner.setdefault(persona.owner_id, []).append(persona.id)
    several = next(personas for personas in by_owner.values() if len(personas) > 1)
    return Speakers("demo", world.cast.personalities[0].id, several[:2])


def _migrate(stage: Stage, world: World) -> Iterator[Scene]:
    yield Scene(
        "The plan of the migration. Some users have no persona, so it asks for a decision",
        "memsync migrate plan",
        status=_NOT_CLEAR,
        unmet=partial(_of_plan, stage, world),
    )
    yield Scene(
        "The migration, online, phase by phase. `Prisma:` is what the app's ORM is to be told",
        "memsync migrate run --unresolved create --quiet-minutes 0 --backup-confirmed demo",
    )
    yield Scene(
        "The proof", "memsync migrate verify", unmet=partial(_of_verification, stage, world)
    )


def _of_plan(stage: Stage, world: World) -> list[str]:
    with open_postgres(stage.settings) as postgres, migrate.memories_of(stage.settings) as memories:
        ahead = migrate.plan(postgres, stage.settings, memories)
    evidence = ahead.evidence or migrate.EvidenceReport(not_read="nothing was asked")
    return [
        *_unless("evidence not read", None, evidence.not_read),
        *_unless("disagreements", 0, evidence.disagreeing),
        *_unless("users without a persona", world.manifest.unresolved_users, len(ahead.unresolved)),
    ]


def _of_verification(stage: Stage, world: World) -> list[str]:
    with open_postgres(stage.settings) as postgres:
        proof = migrate.verify(postgres)
    return [
        *_unless("stage", "contracted", proof.stage.value),
        *_unless("messages", world.manifest.messages, proof.rows_total),
        *proof.problems,
    ]


def _remember(stage: Stage, both: Speakers) -> Scene:
    with Memory.open(stage.settings) as memory:
        for persona_id, (said, answered) in zip(both.persona_ids, _SAID, strict=True):
            memory.remember(
                NewExchange(
                    channel_id=both.channel_id,
                    personality_id=both.personality_id,
                    persona_id=persona_id,
                    user_text=said,
                    assistant_text=answered,
                )
            )
    return Scene(
        "Two personas of one user say something new",
        facts=[
            (f"persona {str(persona_id)[:8]}", said)
            for persona_id, (said, _) in zip(both.persona_ids, _SAID, strict=True)
        ],
    )


def _reconcile(stage: Stage, world: World) -> Iterator[Scene]:
    yield Scene(
        "The morning after: the audit finds the planted faults where the app reads, nothing else",
        "memsync reconcile",
        status=_FINDINGS,
        unmet=partial(_of_audit, stage, dict(world.manifest.expected)),
    )
    yield Scene("The plan of the repairs, a file", f"memsync reconcile plan --unsafe --out {PLAN}")
    yield Scene("What it would do", f"memsync reconcile show {PLAN}")
    yield Scene(
        "The plan is carried out exactly; what is removed or overwritten goes to quarantine",
        f"memsync reconcile apply {PLAN}",
        unmet=partial(_of_audit, stage, {}),
    )
    yield Scene("The audit again", "memsync reconcile")


def _hand_over(stage: Stage) -> Iterator[Scene]:
    """The app stops writing memories itself: they come into one collection."""
    yield Scene(
        "Later, no version of the app reads a collection for each persona: they become one",
        "memsync reconcile layout set shared --app-stopped",
        unmet=partial(_of_audit, stage, {}),
    )


def _of_relay(stage: Stage) -> list[str]:
    with stage.opened() as (postgres, _):
        left = outbox_status(postgres)
    return _unless("outbox entries left", 0, left.pending + left.dead)


def _of_audit(stage: Stage, expected: Mapping[str, int]) -> list[str]:
    with stage.opened() as (postgres, ltm), reconcile.audit(postgres, ltm, stage.settings) as found:
        return [*_unless("findings", expected, found.counts), *found.not_checked]


def _recall(stage: Stage, both: Speakers) -> Scene:
    answers = []
    with Memory.open(stage.settings) as memory:
        for persona_id in both.persona_ids:
            best = memory.recall(QUESTION, persona_id=persona_id, limit=1)
            answers.append(best[0].text if best else "")
    expected = [f"user: {said}\nassistant: {answered}" for said, answered in _SAID]
    return Scene(
        f"One user, two personas, one question: {QUESTION!r}",
        facts=[
            (f"persona {str(persona_id)[:8]}", answer.replace("\n", " / "))
            for persona_id, answer in zip(both.persona_ids, answers, strict=True)
        ],
        unmet=partial(_unless, "recalled", expected, answers),
    )


def _unless(what: str, expected: object, actual: object) -> list[str]:
    return [] if expected == actual else [f"{what}: expected {expected}, got {actual}"]

"""The story of `memsync demo`: it makes a legacy app, migrates it, and reconciles both stores.

It decides the steps, their order, and the result that each step must have. A step calls the same
library functions as the commands do, and yields a `Scene` with its results.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from memsync import migrate, reconcile
from memsync.demo.world import Recipe, World, load, make_world
from memsync.memory import Memory, NewExchange, drain
from memsync.model.progress import Tell
from memsync.reconcile.findings import Audit
from memsync.reconcile.plans import Plan
from memsync.settings import Settings
from memsync.stores.history.catalog import instance_id
from memsync.stores.ltm import LongTermMemory
from memsync.stores.postgres import Postgres
from memsync.stores.vectors import VectorStore

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

_SAID = (
    ("I am allergic to peanuts, please remember.", "No peanuts for you, ever. Noted."),
    ("Peanut butter toast is my favourite breakfast.", "Peanut butter toast every morning, then!"),
)
_QUESTION = "what about peanuts for breakfast?"


@dataclass(frozen=True, slots=True)
class Scene:
    """One step of the story: its title, command and results, and each expectation that failed."""

    title: str
    command: str
    facts: Sequence[tuple[str, object]]
    failed: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Stage:
    """The stores and settings that the story uses. `ltm` is the long-term memory in `vectors`."""

    postgres: Postgres
    vectors: VectorStore
    ltm: LongTermMemory
    settings: Settings
    tell: Tell


def play(stage: Stage, recipe: Recipe) -> Iterator[Scene]:
    """Play the story on two empty stores, scene by scene.

    Effects: both stores.
    """
    world = make_world(recipe)
    yield from _build(stage, world)
    yield from _migrate(stage, world)
    speakers = _two_personas_of_one_user(world)
    yield _remember_and_sync(stage, speakers)
    yield from _reconcile(stage, world)
    yield _recall(stage, speakers)


def _build(stage: Stage, world: World) -> Iterator[Scene]:
    yield Scene(
        "Two stores, started for this story",
        "",
        [
            ("Postgres", stage.postgres.label),
            ("Qdrant", stage.vectors.label),
            ("embedder", stage.ltm.embedder.name),
        ],
    )
    with stage.postgres.session() as session:
        load(world, session, stage.vectors, stage.ltm.embedder.documents)
    made = world.manifest
    yield Scene(
        "A legacy app: history by user, memories by persona",
        "",
        [
            ("users", f"{made.users}, {made.unresolved_users} of them without any persona"),
            ("personas", made.personas),
            ("messages", made.messages),
            ("points", f"{made.points} in {made.collections} collections"),
            ("faults planted in points", sum(world.recipe.faults.values())),
        ],
    )


def _migrate(stage: Stage, world: World) -> Iterator[Scene]:
    ahead = migrate.plan(stage.postgres, stage.settings, lambda: stage.vectors)
    evidence = ahead.evidence or migrate.EvidenceReport(not_read="nothing was asked")
    yield Scene(
        "The plan of the migration",
        "memsync migrate plan",
        [
            ("stage", ahead.stage),
            *_decisions(ahead),
            ("messages where evidence and settings disagree", evidence.disagreeing),
            ("users without a persona", len(ahead.unresolved)),
        ],
        [
            *_unless("evidence not read", None, evidence.not_read),
            *_unless("disagreements", 0, evidence.disagreeing),
            *_unless(
                "users without a persona", world.manifest.unresolved_users, len(ahead.unresolved)
            ),
        ],
    )
    options = migrate.RunOptions(unresolved="create", quiet_minutes=0, backup_confirmed="demo")
    reached = migrate.run(
        stage.postgres, stage.settings, options, memories=lambda: stage.vectors, tell=stage.tell
    )
    yield Scene(
        "The migration, online, phase by phase",
        "memsync migrate run --unresolved create --quiet-minutes 0 --backup-confirmed demo",
        [("stage", reached)],
        _unless("stage", "contracted", reached.value),
    )
    proof = migrate.verify(stage.postgres)
    yield Scene(
        "The proof",
        "memsync migrate verify",
        [
            ("messages", proof.rows_total),
            ("unique personas", proof.unique_personas),
            ("messages without a persona", proof.null_persona_ids),
            ("problems", len(proof.problems)),
        ],
        [*_unless("messages", world.manifest.messages, proof.rows_total), *proof.problems],
    )


def _remember_and_sync(stage: Stage, speakers: "_Speakers") -> Scene:
    memory = Memory(stage.postgres, stage.settings, stage.ltm)
    for persona_id, (said, answered) in zip(speakers.persona_ids, _SAID, strict=True):
        memory.remember(
            NewExchange(
                channel_id=speakers.channel_id,
                personality_id=speakers.personality_id,
                persona_id=persona_id,
                user_text=said,
                assistant_text=answered,
            )
        )
    drained = drain(stage.postgres, stage.ltm, stage.tell)
    return Scene(
        "Two personas of one user say something new; the relay carries it to Qdrant",
        "memsync sync run",
        [("outbox entries drained", drained.entries), ("memories written", drained.memories)],
        _unless("memories written", len(_SAID), drained.memories),
    )


def _reconcile(stage: Stage, world: World) -> Iterator[Scene]:
    found = reconcile.audit(stage.postgres, stage.ltm, stage.settings, stage.tell)
    yield Scene(
        "The audit finds the planted faults and those of the old layout, and nothing else",
        "memsync reconcile",
        [*_read(found), *found.counts.items()],
        _unless("findings", dict(world.manifest.expected), found.counts),
    )
    with stage.postgres.session() as session:
        plan = reconcile.make_plan(
            found,
            instance_id=instance_id(session),
            home=stage.settings.collection,
            embedder=stage.ltm.embedder.name,
            unsafe=True,
        )
    yield Scene(
        "The plan, a file",
        "memsync reconcile plan --unsafe --out plan.json",
        _actions(plan),
        _unless("findings left unrepaired", {}, plan.left),
    )
    applied = reconcile.apply(plan, stage.postgres, stage.ltm, stage.tell)
    yield Scene(
        "The plan is carried out exactly; removed points are kept in quarantine",
        "memsync reconcile apply plan.json",
        [("actions carried out", applied.done)],
        _unless("actions", len(plan.actions), applied.done),
    )
    again = reconcile.audit(stage.postgres, stage.ltm, stage.settings, stage.tell)
    yield Scene(
        "The audit again: clean",
        "memsync reconcile",
        [*_read(again), ("findings", len(again.findings))],
        _unless("findings", {}, again.counts),
    )
    gate = reconcile.check(stage.postgres, stage.ltm, stage.settings, stage.tell)
    yield Scene(
        "The gate for CI and cron",
        "memsync check",
        [("clean", "yes" if gate.ok else "no")],
        [*_unless("findings", {}, gate.counts), *gate.not_checked],
    )


def _recall(stage: Stage, speakers: "_Speakers") -> Scene:
    memory = Memory(stage.postgres, stage.settings, stage.ltm)
    answers = []
    for persona_id in speakers.persona_ids:
        best = memory.recall(_QUESTION, persona_id=persona_id, limit=1)
        answers.append(best[0].text if best else "")
    expected = [f"user: {said}\nassistant: {answered}" for said, answered in _SAID]
    return Scene(
        f"One user, two personas, one question: {_QUESTION!r}",
        "",
        [
            (f"persona {str(persona_id)[:8]}", answer.replace("\n", " / "))
            for persona_id, answer in zip(speakers.persona_ids, answers, strict=True)
        ],
        _unless("recalled", expected, answers),
    )


@dataclass(frozen=True, slots=True)
class _Speakers:
    """Two personas of one user, with one personality in one channel."""

    channel_id: str
    personality_id: UUID
    persona_ids: Sequence[UUID]


def _two_personas_of_one_user(world: World) -> _Speakers:
    by_owner: dict[UUID, list[UUID]] = {}
    for persona in world.cast.personas:
        by_owner.setdefault(persona.owner_id, []).append(persona.id)
    several = next(personas for personas in by_owner.values() if len(personas) > 1)
    return _Speakers("demo", world.cast.personalities[0].id, several[:2])


def _decisions(ahead: migrate.Plan) -> list[tuple[str, object]]:
    by_rule = ahead.rows_by_decision or {}
    return [(f"messages decided by {rule}", rows) for rule, rows in by_rule.items()]


def _read(audit: Audit) -> list[tuple[str, object]]:
    return [("exchanges read", audit.rows_checked), ("points read", audit.points_checked)]


def _actions(plan: Plan) -> list[tuple[str, object]]:
    kinds = dict.fromkeys(action.kind for action in plan.actions)
    return [(kind.value, sum(a.kind is kind for a in plan.actions)) for kind in kinds]


def _unless(what: str, expected: object, actual: object) -> list[str]:
    return [] if expected == actual else [f"{what}: expected {expected}, got {actual}"]

"""Makes the users, personas, personalities and settings of a legacy world.

It decides which users have several personas, which of them override their default, and which have
no persona. It also knows the right answer that the migration must find: the persona of each (user,
personality) pair. It must not know messages or memories.
"""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from memsync.demo.world.recipe import Recipe, random_uuid, snowflake
from memsync.demo.world.rows import (
    LlmConfig,
    Persona,
    Personality,
    PersonalityOwner,
    SystemPrompt,
    User,
    UserPersonalitySettings,
)
from memsync.model.records import from_ms

_PEOPLE = (
    "Alice", "Bob", "Chloé", "Dmitri", "Eun-ji", "Farid", "Grace", "Håkon", "Inês", "Jonas",
    "Kwame", "Lina", "Mateo", "Nadia", "O'Brien", "Priya", "Quentin", "Rosa", "Søren", "Tomás",
)  # fmt: skip
_FACES = ("the Captain", "Night Owl", "Professor", "Wanderer", "Ghost", "Mx. Green", "星")
_CHARACTERS = ("Ada", "Basil", "Cosima", "Dr. Pepperwood", "Elka", "Fenwick", "Gilda", "Horatio")
_PRONOUNS = ("she/her", "he/him", "they/them", None)
_WINDOWS = (20, 30, 40)


@dataclass(frozen=True)
class Cast:
    """The rows that exist before any message is written.

    `defaults` maps users to their default persona, `overrides` maps (user, personality) to the
    persona chosen for it. `by_scenario` is empty unless the recipe gives dialogues.
    """

    users: Sequence[User]
    personas: Sequence[Persona]
    system_prompts: Sequence[SystemPrompt]
    llm_configs: Sequence[LlmConfig]
    personalities: Sequence[Personality]
    personality_owners: Sequence[PersonalityOwner]
    settings: Sequence[UserPersonalitySettings]
    defaults: Mapping[UUID, UUID]
    overrides: Mapping[tuple[UUID, UUID], UUID]
    by_scenario: Mapping[str, Personality]

    def resolved(self, user_id: UUID, personality_id: UUID) -> UUID | None:
        """The persona that the user has with the personality; None when the user has none."""
        chosen = self.overrides.get((user_id, personality_id))
        return chosen or self.defaults.get(user_id)


def make_cast(recipe: Recipe) -> Cast:
    """The cast that `recipe` describes."""
    rng = recipe.rng("cast")
    born = from_ms(recipe.history_ms[0]).replace(tzinfo=None) - timedelta(days=30)
    prompts = [
        SystemPrompt(random_uuid(rng), name, None, text, name == "plain", born, born)
        for name, text in (("plain", "Stay in character."), ("terse", "Answer briefly."))
    ]
    configs = [
        LlmConfig(
            random_uuid(rng), name, model, Decimal("0.80"), Decimal("0.25"), 1024, 10,
            name == "standard", born, born,
        )
        for name, model in (("standard", "acme/large"), ("fast", "acme/small"), ("odd", "zeta/1"))
    ]  # fmt: skip
    scenarios = list(dict.fromkeys(each.scenario for each in recipe.source))
    names = scenarios or [_numbered(_CHARACTERS, at) for at in range(recipe.personalities)]
    personalities = [
        _personality(rng, at, name, prompts, configs, born) for at, name in enumerate(names)
    ]
    users, personas = _people(recipe, rng, born)
    settings = _settings(recipe, rng, users, personas, personalities, configs)
    return Cast(
        users=users,
        personas=personas,
        system_prompts=prompts,
        llm_configs=configs,
        personalities=personalities,
        personality_owners=[
            PersonalityOwner(each.id, rng.choice(users).id, "owner", born) for each in personalities
        ],
        settings=settings,
        defaults={each.id: each.global_persona_id for each in users if each.global_persona_id},
        overrides={
            (each.user_id, each.personality_id): each.persona_id
            for each in settings
            if each.persona_id
        },
        by_scenario=dict(zip(scenarios, personalities, strict=False)),
    )


def _numbered(names: Sequence[str], at: int) -> str:
    lap, place = divmod(at, len(names))
    return f"{names[place]} {lap + 1}" if lap else names[place]


def _personality(
    rng: random.Random,
    at: int,
    name: str,
    prompts: Sequence[SystemPrompt],
    configs: Sequence[LlmConfig],
    born: datetime,
) -> Personality:
    # Personalities of one config have one window, so moving the window to the config loses nothing.
    config = at % (len(configs) + 1)
    return Personality(
        id=random_uuid(rng),
        name=name,
        display_name=_numbered(_CHARACTERS, at) if at % 3 else None,
        slug=f"character-{at + 1}",
        system_prompt_id=rng.choice((None, *(each.id for each in prompts))),
        llm_config_id=configs[config].id if config < len(configs) else None,
        character_info=f"{name} has lived in the harbour town for years.",
        personality_traits=rng.choice(("warm, curious", "dry, exact", 'loud, "honest"')),
        custom_fields=json.dumps({"likes": ["tea", "crème"], "level": at}) if at % 2 else None,
        context_window_size=_WINDOWS[config % len(_WINDOWS)],
        created_at=born,
        updated_at=born,
    )


def _people(recipe: Recipe, rng: random.Random, born: datetime) -> tuple[list[User], list[Persona]]:
    """Users with several personas first, those without any last."""
    users: list[User] = []
    personas: list[Persona] = []
    accounts: dict[str, None] = {}
    while len(accounts) < recipe.users:
        accounts[snowflake(rng)] = None
    for at, account in enumerate(accounts):
        user_id, username = random_uuid(rng), f"{_numbered(_PEOPLE, at).lower()}_{at}"
        if at >= recipe.users - recipe.unresolved_users:
            count = 0
        else:
            count = rng.randint(2, 3) if at < recipe.several_users else 1
        own = [_persona(rng, at, face, user_id, born) for face in range(count)]
        personas += own
        default = own[0].id if own else None
        users.append(User(user_id, account, username, default, born, born))
    return users, personas


def _persona(rng: random.Random, at: int, face: int, owner: UUID, born: datetime) -> Persona:
    person = _numbered(_PEOPLE, at)
    name = f"{person} as {_FACES[(at + face) % len(_FACES)]}" if face else person
    return Persona(
        id=random_uuid(rng),
        name=name,
        description=None if rng.random() < 0.5 else f"{name}, told in a sentence",
        content=f"I am {name}.\nI like {rng.choice(('rain', 'trains', 'chess', 'ñandúes'))}.",
        preferred_name=f"{person[:3]}{face or ''}" if rng.random() < 0.5 else None,
        pronouns=rng.choice(_PRONOUNS),
        owner_id=owner,
        is_global=not face,
        created_at=born,
        updated_at=born,
    )


def _settings(
    recipe: Recipe,
    rng: random.Random,
    users: Sequence[User],
    personas: Sequence[Persona],
    personalities: Sequence[Personality],
    configs: Sequence[LlmConfig],
) -> list[UserPersonalitySettings]:
    others: dict[UUID, list[UUID]] = {}
    for persona in personas:
        if not persona.is_global:
            others.setdefault(persona.owner_id, []).append(persona.id)
    rows = []
    for at, user in enumerate(users):
        shuffled = rng.sample(personalities, len(personalities))
        half = (len(shuffled) + 1) // 2 if at < recipe.override_users else 0
        chosen: list[tuple[Personality, UUID | None]] = [
            (each, rng.choice(others[user.id])) for each in shuffled[:half]
        ]
        # A row that names a model but no persona must leave the default persona in force.
        if at % 2 and half < len(shuffled):
            chosen.append((shuffled[half], None))
        for personality, persona_id in chosen:
            config = rng.choice(configs).id if persona_id is None or rng.random() < 0.3 else None
            rows.append(
                UserPersonalitySettings(
                    random_uuid(rng), user.id, personality.id, persona_id, config,
                    user.created_at, user.updated_at,
                )
            )  # fmt: skip
    return rows

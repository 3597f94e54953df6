"""Writes the page of commands of `memsync demo --keep DIR` and `--legacy DIR`, beside the stores.

The texts are kept.md and legacy.md. A hole in braces is filled here; a line of a shell block whose
command is meant to end with another status than 0 says so in its comment.
"""

from importlib import resources
from pathlib import Path

from memsync.demo.story import QUESTION, speakers
from memsync.demo.world import World
from memsync.model.wording import count

NAME = "COMMANDS.md"


def write(folder: Path, world: World, *, migrated: bool) -> None:
    """Write the page for an app that the story has migrated, or left as it was."""
    both = speakers(world)
    holes = {
        "messages": count(world.manifest.messages, "message"),
        "faults": count(sum(world.recipe.faults.values()), "fault was", "faults were"),
        "unresolved": count(world.manifest.unresolved_users, "user has", "users have"),
        "question": QUESTION,
        "channel": both.channel_id,
        "personality": str(both.personality_id),
        "first": str(both.persona_ids[0]),
        "second": str(both.persona_ids[1]),
    }
    name = "kept.md" if migrated else "legacy.md"
    text = resources.files("memsync.demo").joinpath(name).read_text(encoding="utf-8")
    for hole, value in holes.items():
        text = text.replace(f"{{{hole}}}", value)
    (folder / NAME).write_text(text, encoding="utf-8")

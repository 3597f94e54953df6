"""A plan is a list of ordered actions, with the states that they rely on, saved as a JSON file.

This module decides the file's format, and refuses a file that was changed by hand: a checksum
covers it. It does not know how an action is carried out.
"""

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self
from uuid import UUID

from memsync.errors import InvalidInput
from memsync.model.digests import json_digest
from memsync.model.ids import PointId

SCHEMA_VERSION = 1


class ActionKind(StrEnum):
    """The kinds of actions, in the order of a plan: memories are written before points go."""

    PUT = "put"
    MOVE = "move"
    REMOVE = "remove"
    RETIRE = "retire"


@dataclass(frozen=True, slots=True)
class Action:
    """One step. `point_state` and `row_digest` must still hold when it is carried out.

    For PUT, `point_id` is the anchor's id, and `point_state` is the state of the point that has
    this id now, or None when there is no such point. `reason` is the finding's name. For a REMOVE
    of a point whose memory is made anew, `replaced_by` is the anchor of the new one.
    """

    kind: ActionKind
    collection: str
    reason: str
    point_id: PointId | None = None
    point_state: str | None = None
    row_digest: str | None = None
    replaced_by: UUID | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """The actions for `reconcile apply`, and the database and collection that they are for.

    `left` counts the findings that the plan does not repair, by name.
    """

    plan_id: UUID
    instance_id: UUID
    collection: str
    embedder: str
    actions: tuple[Action, ...]
    left: dict[str, int]

    def to_json(self) -> str:
        """The plan as the text of a file."""
        body = self._body()
        return json.dumps({**body, "checksum": json_digest(body)}, indent=1) + "\n"

    def _body(self) -> dict[str, object]:
        actions = [
            {name: _plain(value) for name, value in asdict(each).items() if value is not None}
            for each in self.actions
        ]
        return {
            "schema_version": SCHEMA_VERSION,
            "plan_id": str(self.plan_id),
            "instance_id": str(self.instance_id),
            "collection": self.collection,
            "embedder": self.embedder,
            "actions": actions,
            "left": self.left,
        }

    @classmethod
    def from_json(cls, text: str, source: str) -> Self:
        """Read a saved plan; `source` names it in errors.

        Raises: InvalidInput when the text is no plan, has another version, or was changed.
        """
        try:
            body = json.loads(text)
            checksum = body.pop("checksum")
            version = body["schema_version"]
            if version == SCHEMA_VERSION and checksum == json_digest(body):
                return cls(
                    plan_id=UUID(body["plan_id"]),
                    instance_id=UUID(body["instance_id"]),
                    collection=body["collection"],
                    embedder=body["embedder"],
                    actions=tuple(_action(each) for each in body["actions"]),
                    left=body["left"],
                )
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise InvalidInput(
                f"{source} is no plan: {type(error).__name__} {error}. Make one with "
                "`memsync reconcile plan`"
            ) from None
        if version != SCHEMA_VERSION:
            raise InvalidInput(
                f"{source} has schema_version {version}, this memsync reads {SCHEMA_VERSION}. "
                "Make a new plan with `memsync reconcile plan`"
            )
        raise InvalidInput(
            f"{source} was changed after it was made (its checksum is not that of its actions). "
            "Make a new plan with `memsync reconcile plan`"
        )


def _plain(value: object) -> object:
    return str(value) if isinstance(value, UUID) else value


def _action(fields: dict[str, Any]) -> Action:
    kind = ActionKind(str(fields.pop("kind")))
    point_id = fields.pop("point_id", None)
    if isinstance(point_id, str):
        point_id = UUID(point_id)
    if "replaced_by" in fields:
        fields["replaced_by"] = UUID(fields["replaced_by"])
    return Action(kind, point_id=point_id, **fields)  # the checksum vouches for them

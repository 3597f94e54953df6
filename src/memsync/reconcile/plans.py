"""A plan is a list of ordered actions, with the states that they rest on, saved as a JSON file.

Each action is a transition of one point. This module decides the file's format, and what a file may
hold: a checksum finds a change by accident, and `plan_values` checks every value besides. The
module does not know how an action is carried out.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import groupby
from sys import intern
from typing import Any, Self
from uuid import UUID

from memsync.errors import InvalidInput
from memsync.model.digests import json_digest, json_digest_with_list
from memsync.model.records import Place
from memsync.model.sequences import batched
from memsync.model.wording import listed
from memsync.reconcile.plan_values import (
    counts_of,
    digest_of,
    fields_of,
    name_of,
    optional,
    point_id_of,
    text_of,
    uuid_of,
)
from memsync.stores.ltm.layouts import Layout

SCHEMA_VERSION = 2


class ActionKind(StrEnum):
    """The kinds of actions, in the order of a plan: memories are written before points go.

    Copies come first, because the point that is copied may be overwritten in the same plan.
    """

    COPY = "copy"
    """A point is made from the point at `source`, with its vector."""
    PUT = "put"
    """A point is made from an exchange, or replaced by one that is."""
    PATCH = "patch"
    """A point's payload is mended; its vector and its id stay."""
    REMOVE = "remove"
    """A point goes to quarantine."""


@dataclass(frozen=True, slots=True)
class Action:
    """The transition of the point at `place`, whose state is `state`; None: there is no point.

    It rests on the states given here. `vector` is the state of its vector, where that is to be made
    anew: the point keeps its text, and its payload is mended. `anchor_id` and `row_digest` are the
    exchange's, `source` the point that is copied, `replaced_by` the memory for whose sake a point
    is removed. That one's state is None where the plan writes it. `reason` is the finding's name,
    `persona_id` its persona.
    """

    kind: ActionKind
    place: Place
    reason: str
    state: str | None = None
    vector: str | None = None
    anchor_id: UUID | None = None
    row_digest: str | None = None
    source: Place | None = None
    source_state: str | None = None
    replaced_by: Place | None = None
    replaced_state: str | None = None
    persona_id: UUID | None = None

    def fields(self) -> dict[str, object]:
        """The values for JSON; those that are None are left out."""
        by = self.replaced_by
        fields: dict[str, object | None] = {
            "kind": self.kind.value,
            **_place_fields(self.place, self.state),
            "reason": self.reason,
            "vector": self.vector,
            "anchor_id": self.anchor_id and str(self.anchor_id),
            "row_digest": self.row_digest,
            "source": self.source and _place_fields(self.source, self.source_state),
            "replaced_by": by and _place_fields(by, self.replaced_state),
            "persona_id": self.persona_id and str(self.persona_id),
        }
        return {name: value for name, value in fields.items() if value is not None}

    @property
    def is_only_copy(self) -> bool:
        """Whether the action removes a memory that nothing replaces."""
        return self.kind is ActionKind.REMOVE and self.replaced_by is None


@dataclass(frozen=True, slots=True)
class Target:
    """The stores that a plan is for. `vectors` is the vector store in words, without secrets.

    `embedder` is None for a plan that makes no vector, `mark` for a vector store without a mark,
    and in plans of earlier versions.
    """

    instance_id: UUID
    vectors: str
    layout: Layout
    collection: str
    payload_style: str
    embedder: str | None
    mark: str | None = None

    def fields(self) -> dict[str, object]:
        """The values for JSON."""
        return {
            "instance_id": str(self.instance_id),
            "vectors": self.vectors,
            "layout": self.layout.value,
            "collection": self.collection,
            "payload_style": self.payload_style,
            "embedder": self.embedder,
            "mark": self.mark,
        }

    @classmethod
    def read(cls, value: object) -> Self:
        """Read what `fields` gave. Raises: ValueError."""
        fields = fields_of(value, "instance_id", "vectors", "layout", "collection", "payload_style")
        return cls(
            instance_id=uuid_of(fields["instance_id"]),
            vectors=text_of(fields["vectors"]),
            layout=Layout(text_of(fields["layout"])),
            collection=text_of(fields["collection"]),
            payload_style=text_of(fields["payload_style"]),
            embedder=optional(text_of, fields, "embedder"),
            mark=optional(text_of, fields, "mark"),
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """The actions for `reconcile apply`, and the stores that they are for.

    `left` counts the findings that the plan does not repair, by name, and `spared` those that it
    leaves because another finding of the same point is acknowledged. `plan_id` is the id of the run
    that carries it out. A plan that was just made has its actions on disk.
    """

    plan_id: UUID
    target: Target
    actions: Sequence[Action]
    left: Mapping[str, int]
    spared: Mapping[str, int] = field(default_factory=dict)

    @property
    def reasons(self) -> frozenset[str]:
        """The names of all findings that the plan is about, repaired or not."""
        return frozenset((*(each.reason for each in self.actions), *self.left, *self.spared))

    def to_json(self) -> str:
        """The plan as the text of a file."""
        return "".join(self.pieces())

    def pieces(self) -> Iterator[str]:
        """The same in pieces, of which none has more than one action. Goes through them twice."""
        body = {
            "schema_version": SCHEMA_VERSION,
            "plan_id": str(self.plan_id),
            "target": self.target.fields(),
            "left": dict(self.left),
        }
        if self.spared:
            body["spared"] = dict(self.spared)
        actions = (each.fields() for each in self.actions)
        body["checksum"] = json_digest_with_list(body, "actions", actions)
        yield json.dumps(body, indent=1).removesuffix("\n}") + ',\n "actions": ['
        for number, each in enumerate(self.actions):
            text = json.dumps(each.fields(), indent=1).replace("\n", "\n  ")
            yield f"{',' if number else ''}\n  {text}"
        yield "\n ]\n}\n" if self.actions else "]\n}\n"

    @classmethod
    def from_json(cls, text: str, source: str) -> Self:
        """Read a saved plan; `source` names it in errors.

        Raises: InvalidInput when the text is no plan, has another version, or was changed.
        """
        try:
            body = json.loads(text, object_hook=_as_action)
            version = body["schema_version"]
            if version != SCHEMA_VERSION or isinstance(version, bool):
                raise _of_another_version(source, version)
            if body.pop("checksum") != _digest_of(body):
                raise _changed(source)
            return cls(
                plan_id=uuid_of(body["plan_id"]),
                target=Target.read(body["target"]),
                actions=_actions(body["actions"]),
                left=counts_of(body["left"]),
                spared=counts_of(body.get("spared", {})),
            )
        except InvalidInput:
            raise
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise InvalidInput(
                f"{source} is no plan: {_why_none(error)}. Make one with `memsync reconcile plan`"
            ) from None


def _why_none(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"it is not JSON ({error})"
    if isinstance(error, KeyError):
        return f"it has no {listed(map(str, error.args))}"
    return f"{type(error).__name__} {error}"


def _of_another_version(source: str, version: object) -> InvalidInput:
    return InvalidInput(
        f"{source} has schema_version {version!r:.40}, this memsync reads {SCHEMA_VERSION}. Make a "
        "new plan with `memsync reconcile plan`"
    )


def _changed(source: str) -> InvalidInput:
    return InvalidInput(
        f"{source} was changed after it was made (its checksum is not that of its content). Make a "
        "new plan with `memsync reconcile plan`"
    )


def _place_fields(place: Place, state: str | None) -> dict[str, object]:
    point_id = place.point_id
    fields: dict[str, object] = {
        "collection": place.collection,
        "point_id": point_id if isinstance(point_id, int) else str(point_id),
    }
    return fields if state is None else {**fields, "state": state}


# ---------------------------------------------------------------------- reading


def _as_action(value: dict[str, Any]) -> object:
    """The action that this object of the file is, where that says all of it; else the object.

    An object of JSON takes twice the memory of its action, and a plan has many.
    """
    if "kind" not in value:
        return value
    try:
        action = _action(value)
    except (ValueError, TypeError, KeyError):
        return value
    return action if action.fields() == value else value


def _digest_of(body: Mapping[str, object]) -> str:
    """The checksum of a plan's content."""
    actions = body.get("actions")
    if not isinstance(actions, list):
        return json_digest(body)
    rest = {name: value for name, value in body.items() if name != "actions"}
    given = (each.fields() if isinstance(each, Action) else each for each in actions)
    return json_digest_with_list(rest, "actions", given)


def _actions(value: object) -> tuple[Action, ...]:
    if not isinstance(value, list):
        raise TypeError("actions is no list")
    actions = tuple(each if isinstance(each, Action) else _action(each) for each in value)
    places = {each.place: each for each in actions}
    if len(places) < len(actions):
        raise ValueError("two actions for one point")
    for action in actions:
        if action.replaced_by is None:
            continue
        kept = places.get(action.replaced_by)
        if kept and kept.kind is ActionKind.REMOVE:
            raise ValueError(f"{action.place} is replaced by {kept.place}, which is removed")
        if (kept is None) is not (action.replaced_state is not None):
            raise ValueError(f"the state of what replaces {action.place} is not that of the plan")
    return actions


_PLACE = ("collection", "point_id")


def _action(value: object) -> Action:
    fields = fields_of(value, "kind", "reason", *_PLACE)
    place, state = _place(fields)
    source, source_state = _nested(fields, "source")
    replaced_by, replaced_state = _nested(fields, "replaced_by")
    action = Action(
        kind=ActionKind(text_of(fields["kind"])),
        place=place,
        reason=name_of(fields["reason"]),
        state=state,
        vector=optional(digest_of, fields, "vector"),
        anchor_id=optional(uuid_of, fields, "anchor_id"),
        row_digest=optional(digest_of, fields, "row_digest"),
        source=source,
        source_state=source_state,
        replaced_by=replaced_by,
        replaced_state=replaced_state,
        persona_id=optional(uuid_of, fields, "persona_id"),
    )
    _require_whole(action)
    return action


def _require_whole(action: Action) -> None:
    """Refuse an action that lacks what its kind rests on, or has what its kind does not."""
    of_row = action.anchor_id is not None, action.row_digest is not None
    all_or_nothing = of_row[0] is of_row[1]
    whole = {
        ActionKind.PUT: all(of_row),
        ActionKind.PATCH: action.state is not None and all_or_nothing,
        ActionKind.COPY: action.state is None
        and action.source_state is not None
        and all_or_nothing,
        ActionKind.REMOVE: action.state is not None,
    }[action.kind]
    strange = (
        (action.source is not None) is not (action.kind is ActionKind.COPY)
        or (action.replaced_by is not None and action.kind is not ActionKind.REMOVE)
        or action.place in {action.source, action.replaced_by}
        or (
            action.vector is not None
            and (action.kind is not ActionKind.PUT or action.state is None)
        )
    )
    if not whole or strange:
        raise ValueError(f"the {action.kind} of {action.place} does not say what it rests on")


def _nested(fields: Mapping[str, Any], name: str) -> tuple[Place | None, str | None]:
    return (None, None) if name not in fields else _place(fields_of(fields[name], *_PLACE))


def _place(fields: Mapping[str, Any]) -> tuple[Place, str | None]:
    place = Place(intern(text_of(fields["collection"])), point_id_of(fields["point_id"]))
    return place, optional(digest_of, fields, "state")


def counted(actions: Sequence[Action]) -> dict[ActionKind, dict[str, int]]:
    """How many actions of each kind and reason there are, in the order of the plan."""
    counts: dict[ActionKind, dict[str, int]] = {}
    for each in actions:
        of_kind = counts.setdefault(each.kind, {})
        of_kind[each.reason] = of_kind.get(each.reason, 0) + 1
    return counts


def in_batches(actions: Sequence[Action], most: int) -> list[list[Action]]:
    """The actions in batches of at most that many; each batch has one kind and one collection."""
    return [
        list(some)
        for _, run in groupby(actions, key=lambda each: (each.kind, each.place.collection))
        for some in batched(run, most)
    ]

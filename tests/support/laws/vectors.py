"""Laws of vectors: a memory cannot be found by its vector. The audit looks at all of them."""

from functools import partial

from memsync.model.records import Exchange
from memsync.reconcile.seen_vectors import Verify
from support.lab import DIMS, Lab, as_told, embed
from support.laws.base import OLD_MS, Planted, key, law, one
from support.raw_vectors import INFINITE, NONE, ZERO, with_vector

UNNAMED = "none of this size is named"

VERIFY = "memsync reconcile plan --verify-vectors all --out plan-vectors.json"


def named(lab: Lab) -> None:
    """Let the settings name the embedder, as an operator does whose app used it."""
    lab.settings = lab.settings.model_copy(update={"embedder": "test"})


def _spoilt(
    code: str, vector: list[float], evidence: dict[str, object], lab: Lab, said: list[Exchange]
) -> Planted:
    """A memory with a vector that recall cannot find it by."""
    lab.verify = Verify()
    with_vector(lab, said[0], vector)
    if not lab.deployed:
        return Planted(one(key(lab, said[0]), **evidence), next_command=VERIFY)
    # Nothing says which embedder is the app's.
    report = {**evidence, "embedder": UNNAMED}
    return Planted(one(key(lab, said[0]), **report), next_command=f"memsync rules {code}")


def _spoilt_and_named(
    vector: list[float], evidence: dict[str, object], lab: Lab, said: list[Exchange]
) -> Planted:
    """The same, where the settings name the embedder."""
    lab.verify = Verify()
    named(lab)
    with_vector(lab, said[0], vector)
    return Planted(one(key(lab, said[0]), **evidence), next_command=VERIFY)


_SPOILT: tuple[tuple[str, str, list[float], dict[str, object]], ...] = (
    ("MSD009", "no vector", NONE, {"expected": DIMS, "found": 0}),
    ("MSD010", "zeros", ZERO, {"squared_length": 0.0}),
    ("MSD011", "NaN", INFINITE, {"components": DIMS}),
)
for _code, _name, _vector, _evidence in _SPOILT:
    law(_code, "home", "deployed", name=_name)(partial(_spoilt, _code, _vector, _evidence))
    law(_code, "home", "deployed", name=f"{_name}-named")(
        partial(_spoilt_and_named, _vector, _evidence)
    )


@law("MSD010", "deployed")
def enriched_and_found_by_nothing(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory with what the app had added to its text, and a key of others, keeps both."""
    lab.verify = Verify()
    named(lab)
    content = as_told(said[0], user=" [a cat]")
    lab.respell(said[0], content=content, senders=["2"])
    with_vector(lab, said[0], ZERO)
    return Planted(
        one(key(lab, said[0]), squared_length=0.0),
        facts={"enriched-content": 1},
        next_command=VERIFY,
    )


@law("MSD010", "home", "deployed")
def archived_and_found_by_nothing(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory without rows cannot be made anew from them."""
    lab.verify = Verify()
    named(lab)
    point = lab.deploy(
        said[0], collection=lab.place(said[0]).collection, createdAt=OLD_MS, content="of old"
    )
    codec = lab.ltm.codec_of(lab.place(said[0]).collection)
    if not lab.deployed:
        payload = codec.archived(point, persona_id=said[0].persona_id, embedder="test/8")
        lab.put(point.id, payload)
    lost = lab.place(said[0])._replace(point_id=point.id)
    old = lab.point(lost.point_id, lost.collection)
    lab.vectors.upsert(lost.collection, [type(old)(old.id, old.payload, tuple(ZERO))])
    return Planted(one(point.id, squared_length=0.0), next_command="memsync rules MSD010")


@law("MSD012", "home")
def of_another_text(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory with the vector of another one."""
    lab.verify = Verify()
    named(lab)
    with_vector(lab, said[0], list(embed([said[1].text])[0]))
    return Planted(one(said[0].anchor_id, at_least=0.999), next_command=VERIFY)


@law("MSD012", "deployed")
def of_another_text_of_the_apps(lab: Lab, said: list[Exchange]) -> Planted:
    """The app's memory with the vector of another one: no plan embeds it anew."""
    lab.verify = Verify()
    named(lab)
    with_vector(lab, said[0], list(embed([as_told(said[1])])[0]))
    return Planted(one(key(lab, said[0]), at_least=0.999), next_command="memsync rules MSD012")


@law("MSD012", "home")
def of_the_other_form_of_the_text(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory with the app's text, brought here, and the vector of the text of two fields."""
    lab.verify = Verify()
    named(lab)
    payload = lab.ltm.codec.encode_deployed(said[0], as_told(said[0]))
    lab.put(said[0].anchor_id, {**payload, "embedder": "test/8"})
    assert lab.check().ok, "the vector of the app's text belongs to the app's text"
    with_vector(lab, said[0], list(embed([said[0].text])[0]))
    return Planted(one(said[0].anchor_id, at_least=0.999), next_command=VERIFY)

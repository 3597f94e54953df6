"""Tests dialogues: those made from a seed, and those read from a file, whose errors are named."""

import gzip
import json
import random
from itertools import pairwise
from pathlib import Path

import pytest

from memsync.demo.world import Dialogue, Recipe, Turn, made_dialogues, make_world, read_dialogues
from memsync.errors import InvalidInput

REAL = Path(__file__).parents[4] / "shared" / "data" / "dialogs" / "dialogs.jsonl.gz"


def write(path: Path, *lines: str) -> Path:
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    return path


def line(**changes: object) -> str:
    turns = [{"role": "user", "text": "hi"}, {"role": "assistant", "text": 'so "you" say\n'}]
    return json.dumps({"id": "x", "scenario": "greeting", "turns": turns} | changes)


def test_equal_seeds_make_equal_dialogues() -> None:
    made = [made_dialogues(random.Random(seed), 50) for seed in (7, 7, 8)]
    assert made[0] == made[1]
    assert made[0] != made[2]


def test_made_dialogues_have_the_oddities_of_real_ones() -> None:
    dialogues = made_dialogues(random.Random(1), 300)
    roles = [[turn.role for turn in each.turns] for each in dialogues]
    text = "".join(turn.text for each in dialogues for turn in each.turns)
    assert 300 == len(dialogues)
    assert any(set(each) == {"user"} for each in roles)
    assert any(set(each) == {"assistant"} for each in roles)
    assert any("system" in each for each in roles)
    assert any(each[0] == "assistant" and "user" in each for each in roles)
    assert any(a == b for each in roles if len(set(each)) > 1 for a, b in pairwise(each))
    assert {"\n", '"', "'", "\\", "😅", "京"} <= set(text)


def test_a_file_is_read_as_it_stands(tmp_path: Path) -> None:
    path = write(tmp_path / "d.gz", line(), line(scenario="other"))
    turns = (Turn("user", "hi"), Turn("assistant", 'so "you" say\n'))
    assert (Dialogue("greeting", turns), Dialogue("other", turns)) == read_dialogues(path)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("{", "not JSON"),
        ("[]", "must be an object"),
        (line(turns=[]), "turns must be a list with at least one turn"),
        (line(turns=["hi"]), "turn 1: must be an object"),
        (line(turns=[{"role": "system", "text": "x"}]), "turn 1: role must be user or assistant"),
        (line(turns=[{"role": "user", "text": 5}]), "turn 1: text must be text"),
        (line(turns=[{"role": "user", "text": "a\0"}]), "NUL"),
        (line(turns=[{"role": "user", "text": "\ud83d"}]), "surrogate"),
        (line(scenario=None), "scenario must be text"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, bad: str, why: str) -> None:
    path = write(tmp_path / "d.gz", line(), bad)
    with pytest.raises(InvalidInput) as raised:
        read_dialogues(path)
    assert f"{path}, line 2" in str(raised.value)
    assert why in str(raised.value)


def test_a_plain_file_is_read_as_well(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text(line())
    assert read_dialogues(write(tmp_path / "d.gz", line())) == read_dialogues(plain)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    cut, latin = tmp_path / "cut", tmp_path / "latin"
    cut.write_bytes(write(tmp_path / "whole", line()).read_bytes()[:-12])
    latin.write_bytes(gzip.compress(b"\xe9"))
    for path in (cut, latin, tmp_path / "none", write(tmp_path / "empty")):
        with pytest.raises(InvalidInput, match=path.name):
            read_dialogues(path)


@pytest.mark.skipif(not REAL.exists(), reason="the dialogues are not part of the project")
def test_real_dialogues_make_a_world_with_a_personality_per_scenario() -> None:
    dialogues = read_dialogues(REAL)
    world = make_world(Recipe(source=dialogues, faults={"missing-point": 50}))
    assert 3000 == len(dialogues)
    assert 32 == world.manifest.personalities
    assert sum(len(each.turns) for each in dialogues) == world.manifest.messages
    names = {each.id: each.name for each in world.cast.personalities}
    lines = {(each.scenario, turn.text) for each in dialogues for turn in each.turns}
    assert lines == {(names[row.personality_id], row.content) for row in world.history()}

"""Tests the lint of memsync's own SQL: each rule finds a planted fault, wherever SQL may stand."""

from __future__ import annotations

from pathlib import Path

import pytest

from lint_sql import ROOT, lint, main
from sql_rules import CODES
from sql_sources import shipped

HEAD = "\\set ON_ERROR_STOP on\n"

FAULTS = [
    ("INDEX-BLOCKS", "CREATE INDEX i ON conversation_history (user_id)"),
    ("INDEX-BLOCKS", "CREATE UNIQUE INDEX i ON public.users (id)"),
    ("NOT-VALID", "ALTER TABLE users ADD CONSTRAINT c FOREIGN KEY (p) REFERENCES personas (id)"),
    ("NOT-VALID", "ALTER TABLE users ADD CHECK (a > 0)"),
    ("NOT-VALID", "ALTER TABLE users ADD COLUMN p uuid REFERENCES personas (id)"),
    ("NOT-VALID", "ALTER TABLE users ADD UNIQUE (p)"),
    ("NOT-VALID", "ALTER TABLE users ADD PRIMARY KEY (p)"),
    ("SET-NOT-NULL", "ALTER TABLE conversation_history ALTER COLUMN persona_id SET NOT NULL"),
    ("STRONG-LOCK", "VACUUM FULL users"),
    ("STRONG-LOCK", "VACUUM (FULL, ANALYZE) users"),
    ("STRONG-LOCK", "CLUSTER users USING users_pkey"),
    ("STRONG-LOCK", "LOCK TABLE users IN SHARE MODE"),
    ("STRONG-LOCK", "TRUNCATE conversation_history"),
    ("NO-WHERE", "UPDATE memsync.backfill SET next_block = 0"),
    ("NO-WHERE", "DELETE FROM users"),
    ("NO-WHERE", "WITH gone AS (DELETE FROM users RETURNING id) SELECT id FROM gone"),
    ("SELECT-STAR", "SELECT * FROM users"),
    ("SELECT-STAR", "SELECT u.* FROM users u JOIN personas p ON p.owner_id = u.id"),
    ("SELECT-STAR", "CREATE VIEW memsync.v AS SELECT * FROM users"),
    ("NOT-IN", "SELECT id FROM users WHERE id NOT IN (SELECT owner_id FROM personas)"),
    ("NOT-IN", "DELETE FROM users WHERE id <> ALL (SELECT owner_id FROM personas)"),
    ("ADVISORY-WAIT", "SELECT pg_advisory_lock(1)"),
    ("ADVISORY-WAIT", "SELECT pg_catalog.pg_advisory_lock_shared(1)"),
    ("CASCADE", "DROP TABLE memsync.runs CASCADE"),
    ("CASCADE", "ALTER TABLE users DROP COLUMN a CASCADE"),
    ("CASCADE", "ALTER TABLE users DROP CONSTRAINT a CASCADE"),
    ("CASCADE", "TRUNCATE memsync.runs CASCADE"),
    ("UTC", "INSERT INTO users (id, updated_at) VALUES (gen_random_uuid(), now())"),
    ("UTC", "INSERT INTO users (id, updated_at) SELECT id, CURRENT_TIMESTAMP FROM personas"),
    ("UTC", "UPDATE users SET updated_at = now() WHERE id IS NULL"),
    ("UTC", "UPDATE users SET updated_at = clock_timestamp() - interval '1 s' WHERE id IS NULL"),
    ("UTC", "SELECT id FROM users WHERE created_at < now() - interval '1 day'"),
    (
        "UTC",
        "INSERT INTO users (id) VALUES (NULL) ON CONFLICT (id) DO UPDATE SET updated_at = now()",
    ),
    (
        "SEARCH-PATH",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'",
    ),
    ("TEMP", "CREATE TEMP TABLE t (a int)"),
    ("TEMP", "CREATE TEMP TABLE t AS SELECT 1 AS a"),
    ("TEMP", "CREATE TEMP VIEW t AS SELECT 1 AS a"),
    ("TEMP", "SELECT 1 AS a INTO TEMP t"),
    ("UNREADABLE", "SELECT FROM WHERE"),
]

CLEAN = [
    "CREATE INDEX CONCURRENTLY i ON conversation_history (user_id)",
    "CREATE INDEX i ON memsync.outbox (point_id)",
    "CREATE TABLE fresh (id uuid); CREATE INDEX i ON fresh (id); TRUNCATE fresh",
    "ALTER TABLE users ADD CONSTRAINT c FOREIGN KEY (p) REFERENCES personas (id) NOT VALID",
    "ALTER TABLE users ADD CONSTRAINT c CHECK (p IS NOT NULL) NOT VALID",
    "ALTER TABLE users ADD CONSTRAINT c UNIQUE USING INDEX i",
    "ALTER TABLE users VALIDATE CONSTRAINT c",
    "VACUUM (TRUNCATE false, SKIP_LOCKED) users",
    "TRUNCATE memsync.persona_map",
    "UPDATE users SET username = 'x' WHERE id IS NULL",
    "SELECT count(*) FROM users",
    "SELECT e.* FROM (SELECT id FROM users) e",
    "SELECT id FROM users u WHERE NOT EXISTS (SELECT FROM personas p WHERE p.owner_id = u.id)",
    "SELECT id FROM users WHERE id NOT IN ('a', 'b')",
    "SELECT pg_try_advisory_lock(1), pg_advisory_xact_lock(2)",
    "DROP TABLE memsync.runs",
    "UPDATE users SET updated_at = now() AT TIME ZONE 'UTC' WHERE id IS NULL",
    "UPDATE users SET updated_at = timezone('UTC', clock_timestamp()) WHERE id IS NULL",
    "UPDATE memsync.backfill SET updated_at = now() WHERE fill = 'users'",
    "SELECT id FROM users WHERE created_at < now() AT TIME ZONE 'UTC' - interval '1 day'",
    "CREATE FUNCTION f() RETURNS int LANGUAGE sql SECURITY DEFINER SET search_path = public"
    " AS 'SELECT 1'",
    "CREATE FUNCTION f() RETURNS int LANGUAGE sql SECURITY INVOKER AS 'SELECT 1'",
]


def codes(text: str, name: str = "x.sql") -> list[tuple[str, int]]:
    """The faults in a file of this name and text, each as (rule, line)."""
    return [(fault.code, fault.line) for fault in lint(Path(name), text)]


def test_what_is_shipped_is_clean(capsys: pytest.CaptureFixture[str]) -> None:
    """All SQL that memsync ships is found, can be read and has no fault."""
    names = {str(file.relative_to(ROOT)) for file in shipped(ROOT)}
    assert {
        "src/memsync/migrate/backfill/fill.sql",
        "src/memsync/migrate/expand/sync_triggers.sql",
        "src/memsync/migrate/isolate/own_schema.sql",
        "sql/ops/locks.sql",
    } <= names
    assert (0, f"{len(names)} files with SQL: clean\n") == (main([]), capsys.readouterr().out)


def test_a_fault_ends_with_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A fault is printed with file, line and rule, and the exit status is 1."""
    file = tmp_path / "x.sql"
    file.write_text(f"{HEAD}SELECT 1;\n\nDELETE\nFROM users;\n")
    assert 1 == main([str(file)])
    assert f"{file}:4: NO-WHERE DELETE without WHERE\n" == capsys.readouterr().out


def test_every_rule_has_a_planted_fault() -> None:
    """Every rule is broken by one of FAULTS, but ERROR-STOP, which has a test of its own."""
    assert CODES == {code for code, _ in FAULTS} | {"ERROR-STOP"}


@pytest.mark.parametrize(("code", "fault"), FAULTS)
def test_in_a_script(code: str, fault: str) -> None:
    """A fault in a script is reported on its own line."""
    assert (code, 4) in codes(f"{HEAD}-- Says ünïcode.\nSELECT 1;\n{fault};\nSELECT 2;\n")


@pytest.mark.parametrize("statement", CLEAN)
def test_what_is_right_is_left_alone(statement: str) -> None:
    """A statement without a fault is not reported."""
    assert [] == codes(f"{HEAD}{statement};\n")


# PL/pgSQL cannot hold an unreadable statement, and SELECT INTO assigns variables there, so that
# INTO TEMP can only stand in an EXECUTE.
HIDDEN = [(code, fault) for code, fault in FAULTS if code != "UNREADABLE"]


@pytest.mark.parametrize(("code", "fault"), [each for each in HIDDEN if "INTO TEMP" not in each[1]])
def test_in_a_do_block(code: str, fault: str) -> None:
    """A fault inside a DO block is found and reported on its own line."""
    planted = fault.replace("SELECT", "PERFORM", 1) if fault.startswith("SELECT") else fault
    block = f"DO $$\nBEGIN\n    IF true THEN\n        {planted};\n    END IF;\nEND $$;\n"
    assert (code, 5) in codes(HEAD + block)


@pytest.mark.parametrize(("code", "fault"), HIDDEN)
def test_in_the_text_of_execute(code: str, fault: str) -> None:
    """A fault in EXECUTE is found in a literal, in format(), before a ||, and in a FOR loop."""
    quoted = fault.replace("'", "''")
    for said in (
        f"EXECUTE '{quoted}'",
        f"EXECUTE format('{quoted}', 1)",
        f"EXECUTE '{quoted}' || ' '",
        f"FOR r IN EXECUTE '{quoted}' LOOP NULL; END LOOP",
    ):
        block = f"DO $x$\nDECLARE r record;\nBEGIN\n    {said};\nEND $x$;\n"
        assert (code, 5) in codes(HEAD + block)


@pytest.mark.parametrize(("code", "fault"), [each for each in HIDDEN if "INTO TEMP" not in each[1]])
def test_in_functions(code: str, fault: str) -> None:
    """A fault is found in functions of both languages, and in an exception handler."""
    planted = fault.replace("SELECT", "PERFORM", 1) if fault.startswith("SELECT") else fault
    plpgsql = (
        "CREATE FUNCTION g() RETURNS trigger LANGUAGE plpgsql AS $f$\nBEGIN\n    NULL;\n"
        f"EXCEPTION WHEN others THEN\n    {planted};\n    RETURN NEW;\nEND $f$;\n"
    )
    assert (code, 6) in codes(HEAD + plpgsql)
    language_sql = f"CREATE FUNCTION g() RETURNS void LANGUAGE sql AS $f$\n{fault};\n$f$;\n"
    assert (code, 3) in codes(HEAD + language_sql)


def test_in_an_expression_of_plpgsql() -> None:
    """A fault is found in a declaration, a condition, an assignment and a RETURN QUERY."""
    text = (
        f"{HEAD}CREATE FUNCTION g() RETURNS SETOF int LANGUAGE plpgsql AS $f$\n"
        "DECLARE n int := (SELECT 1 WHERE 1 NOT IN (SELECT 2));\nBEGIN\n"
        "    IF EXISTS (SELECT * FROM users) THEN\n"
        "        n := (SELECT 1 FROM users WHERE id NOT IN (SELECT owner_id FROM personas));\n"
        "    END IF;\n    RETURN QUERY SELECT * FROM users;\n"
        "    RETURN QUERY EXECUTE 'SELECT * FROM users';\nEND $f$;\n"
    )
    assert [
        ("NOT-IN", 3),
        ("SELECT-STAR", 5),
        ("NOT-IN", 6),
        ("SELECT-STAR", 8),
        ("SELECT-STAR", 9),
    ] == codes(text)


def test_format_with_unknown_parts() -> None:
    """Names that format() fills in do not hide the statement around them."""
    text = "DO $$ BEGIN\nEXECUTE format('CREATE INDEX %I ON %I (id)', 'a', 'b');\nEND $$;\n"
    assert [("INDEX-BLOCKS", 3)] == codes(HEAD + text)


@pytest.mark.parametrize(("code", "fault"), FAULTS)
def test_in_python(code: str, fault: str) -> None:
    """A fault is found in string literals, also those of several parts, and in f-strings."""
    if code == "UNREADABLE" or fault.startswith("WITH"):
        fault = f"{fault} "
    head, _, tail = fault.partition(" ")
    text = (
        f'"""Doc."""\n\nX = 1\n\ndef up():\n    run(\n        "{head}"\n        " {tail}"\n    )\n'
    )
    assert (code, 7) in codes(text, "0009_x.py")
    assert (code, 1) in codes(f'S = f"{fault}"\n', "0009_x.py")


def test_python_that_only_talks_is_no_sql() -> None:
    """Docstrings and messages are not taken for statements."""
    assert [] == codes('"""Drop the index."""\nX = "Create what is missing"\n', "x.py")


def test_names_in_f_strings_are_filled_in() -> None:
    """A variable of an f-string is read as a name, even if SQL has a keyword like it."""
    text = 'S = f"ALTER TABLE {table} DROP CONSTRAINT {check} CASCADE"\n'
    assert [("CASCADE", 1)] == codes(text, "x.py")


@pytest.mark.parametrize(("code", "fault"), FAULTS)
def test_in_named_queries(code: str, fault: str) -> None:
    """A fault in a file of named statements is reported on the file's line, despite any holes."""
    text = (
        "-- name: first\n-- Says.\nSELECT id FROM ({exchange}) e WHERE id = %(id)s;\n\n"
        "-- fragment: exchange\n-- Says.\nSELECT id FROM users;\n\n"
        f"-- name: planted\n-- Says.\n{fault};\n"
    )
    assert (code, 11) in codes(text, "x.sql")


def test_a_hole_that_callers_fill() -> None:
    """A hole that callers fill is read as one of the fragments made for it."""
    text = (
        "-- name: first\n-- Says.\nDELETE FROM users WHERE id NOT IN ({open});\n\n"
        "-- fragment: open_all\n-- Says.\nSELECT id\nFROM users;\n"
    )
    assert [("NOT-IN", 3)] == codes(text, "x.sql")


def test_psql_commands_and_variables() -> None:
    """Commands and variables of psql are taken out, and every line keeps its number."""
    text = (
        f"{HEAD}SELECT to_regclass(:'name') IS NOT NULL AS there, :limit AS l \\gset\n"
        '\\if :there\n    \\echo it\'s there\nSELECT id::text FROM :"name" LIMIT :limit;\n'
        "\\else\nDELETE FROM users;\n\\endif\nSELECT '12:30'::time, a[1:2] FROM b;\n"
    )
    assert [("NO-WHERE", 7)] == codes(text)


@pytest.mark.parametrize("first", ["SELECT 1;", "BEGIN;", r"\set ON_ERROR_STOP off", r"\timing"])
def test_scripts_stop_at_the_first_error(first: str) -> None:
    """A script's first command must set ON_ERROR_STOP; only comments may stand above it."""
    assert [("ERROR-STOP", 2)] == codes(f"-- Says.\n{first}\n\\set ON_ERROR_STOP on\n")
    assert [] == codes(f"-- Says.\n\n{HEAD}")


MARKED = "-- lint: allow NO-WHERE the table has one row\n"


def test_a_mark_waives_its_rule_on_its_statement_only() -> None:
    """A mark with a reason, above or beside a statement, waives its rule for that one only."""
    assert [] == codes(f"{HEAD}{MARKED}UPDATE users SET a = 1;\n")
    assert [] == codes(f"{HEAD}UPDATE users SET a = 1; {MARKED}")
    assert [("NO-WHERE", 4)] == codes(f"{HEAD}{MARKED}DELETE FROM users;\nDELETE FROM users;\n")
    assert [] == codes('# lint: allow NO-WHERE one row\nrun("DELETE FROM users")\n', "x.py")
    inside = f"DO $$\nBEGIN\n    {MARKED}    DELETE FROM users;\nEND $$;\n"
    assert [] == codes(HEAD + inside)


@pytest.mark.parametrize(
    "mark",
    [
        "-- lint: allow NO-WHERE\n",
        "-- lint: allow WHERE it is fine\n",
        "-- lint: allow CASCADE x\n",
    ],
)
def test_a_mark_without_reason_or_use_is_a_fault(mark: str) -> None:
    """A mark without a reason, or without a use, is itself a fault and waives nothing."""
    assert [("IDLE-MARK", 2), ("NO-WHERE", 3)] == codes(f"{HEAD}{mark}DELETE FROM users;\n")

"""Reads everything attached to the history table, to compare a cut-over with a fill in place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, LiteralString

if TYPE_CHECKING:
    from support.app import App

COPY = {"method": "copy"}
IN_PLACE = {"method": "in-place"}

# ruff: noqa: S608  the queries are made of constants
H: LiteralString = "to_regclass('conversation_history')"
HANGING: dict[str, LiteralString] = {
    "table": f"""
        SELECT c.relkind, c.relpersistence, c.relowner::regrole::text, c.relreplident,
               c.relrowsecurity, c.relforcerowsecurity, c.relnamespace::regnamespace::text,
               (SELECT array_agg(o ORDER BY o) FROM unnest(c.reloptions) o), t.reloptions
        FROM pg_class c JOIN pg_class t ON t.oid = c.reltoastrelid WHERE c.oid = {H}""",
    "columns": f"""
        SELECT rank() OVER (ORDER BY attnum), attname, format_type(atttypid, atttypmod),
               attnotnull, pg_get_expr(adbin, adrelid), attstorage, attcompression, attoptions,
               attstattarget, attcollation, col_description(attrelid, attnum)
        FROM pg_attribute LEFT JOIN pg_attrdef ON (adrelid, adnum) = (attrelid, attnum)
        WHERE attrelid = {H} AND attnum > 0 AND NOT attisdropped""",
    "grants": f"""
        SELECT '', grantee::regrole::text, grantor::regrole::text, privilege_type, is_grantable
        FROM pg_class, aclexplode(relacl) WHERE oid = {H}
        UNION ALL
        SELECT attname, grantee::regrole::text, grantor::regrole::text, privilege_type,
               is_grantable
        FROM pg_attribute, aclexplode(attacl) WHERE attrelid = {H}""",
    "indexes": f"""
        SELECT i.relname, pg_get_indexdef(i.oid), indisvalid, indisready, indisprimary,
               indisclustered, indisreplident, i.relowner::regrole::text,
               obj_description(i.oid, 'pg_class'),
               (SELECT array_agg(attstattarget ORDER BY attnum) FROM pg_attribute
                WHERE attrelid = i.oid)
        FROM pg_index JOIN pg_class i ON i.oid = indexrelid WHERE indrelid = {H}""",
    "constraints": f"""
        SELECT conrelid::regclass::text, conname, contype, pg_get_constraintdef(oid),
               convalidated, connoinherit, obj_description(oid, 'pg_constraint')
        FROM pg_constraint WHERE {H} IN (conrelid, confrelid)""",
    "key triggers": f"""
        SELECT tgrelid::regclass::text, tgenabled, conname, tgfoid::regproc::text
        FROM pg_trigger JOIN pg_constraint k ON k.oid = tgconstraint
        WHERE {H} IN (conrelid, confrelid)""",
    "triggers": f"""
        SELECT tgname, pg_get_triggerdef(oid), tgenabled, obj_description(oid, 'pg_trigger')
        FROM pg_trigger WHERE tgrelid = {H} AND NOT tgisinternal""",
    "policies": f"""
        SELECT polname, polcmd, polpermissive, polroles::regrole[]::text,
               pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid),
               obj_description(oid, 'pg_policy')
        FROM pg_policy WHERE polrelid = {H}""",
    "statistics": f"""
        SELECT pg_get_statisticsobjdef(oid), stxowner::regrole::text, stxstattarget,
               obj_description(oid, 'pg_statistic_ext'),
               EXISTS (SELECT FROM pg_statistic_ext_data WHERE stxoid = oid)
        FROM pg_statistic_ext WHERE stxrelid = {H}""",
    "publications": """
        SELECT pubname, tablename, attnames::text, rowfilter FROM pg_publication_tables""",
    "comment": f"SELECT obj_description({H}, 'pg_class')",
    "schemas": r"""
        SELECT nspname, nspacl::text FROM pg_namespace WHERE nspname NOT LIKE 'pg\_%'""",
}


def hanging(app: App) -> dict[str, set[tuple[Any, ...]]]:
    """Everything attached to the history table, by kind of object."""
    found = {kind: app.query(text) for kind, text in HANGING.items()}
    return {
        kind: {tuple(str(value) for value in row) for row in rows} for kind, rows in found.items()
    }

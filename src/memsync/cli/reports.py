"""Prints the reports of `migrate plan` and `migrate status` as text.

It decides their layout. The figures and the next command come with the reports.
"""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from memsync import migrate
from memsync.cli import control, resolving
from memsync.cli.checks import print_checks_in_short, print_gates
from memsync.cli.output import print_facts, print_table, say, say_next
from memsync.migrate import prisma
from memsync.migrate.redesign import Prospect
from memsync.model.wording import about, count, size

_SHOWN_MAX = 10
_RULES = {
    "evidence": "persona by evidence",
    "override": "persona by override",
    "default": "persona by default",
    "unresolved": "without a persona",
}


def plan_fields(ahead: migrate.Plan, *, show_text: bool = False) -> dict[str, Any]:
    """The plan for a program. Names of people are left out unless they were asked for."""
    fields = asdict(ahead)
    if show_text:
        return fields
    redesign = fields["redesign"] or {"quarantine": None, "orphans": ()}
    users = (redesign["quarantine"] or {"left": ()})["left"]
    for user in (*fields["unresolved"], *users):
        del user["username"]
    for persona in redesign["orphans"]:
        del persona["name"]
    return fields


def print_plan(ahead: migrate.Plan, *, show_text: bool = False, verbose: bool = False) -> None:
    """Print where the database stands, what a run would do, and what is in the way."""
    say(f"stage: {ahead.stage}")
    _print_steps(ahead.steps)
    print_facts(
        [
            *([("run", control.described(ahead.run))] if ahead.run.pid else []),
            ("messages" if ahead.rows_exact else "messages (about)", f"{ahead.rows_estimated:,}"),
            ("table and indexes", size(ahead.bytes_total)),
            *([("backfill", ahead.method)] if ahead.method else []),
            *(
                (_RULES[rule], count(n, "message"))
                for rule, n in (ahead.rows_by_decision or {}).items()
            ),
        ]
    )
    for line in _evidence_lines(ahead.evidence) if ahead.evidence else ():
        say(line)
    _print_prospect(ahead.redesign, show_text=show_text)
    if ahead.unresolved:
        say(f"users with messages, but without a persona: {len(ahead.unresolved):,}")
        print_table(
            (str(user.user_id), count(user.rows, "message"), user.username if show_text else "")
            for user in ahead.unresolved[:_SHOWN_MAX]
        )
        _print_rest(len(ahead.unresolved))
    print_checks_in_short(ahead.checks, every=verbose)
    print_gates(ahead.gates)
    if not ahead.ok:
        closed = [f"gate {gate.name}" for gate in ahead.gates if gate.state == "closed"]
        named = [*(check.name for check in ahead.blockers), *closed]
        say(f"NOT clear: {', '.join(named)}; the line `do:` of each says what mends it")
    elif not ahead.next and all(step.done for step in ahead.steps):
        say("nothing is ahead: every step is done")
    say_next(ahead.next, ahead.first)


def print_status(now: migrate.Status, told: prisma.Told) -> None:
    """Print how far the migration is, what it waits for, and what Prisma's history says."""
    say(f"stage: {now.stage}")
    _print_steps(now.steps)
    facts: list[tuple[str, object]] = [
        ("run", control.described(now.run)),
        *_fill_facts(now),
    ]
    facts += [(f"Prisma: {name}", state) for name, state in prisma.states(told.rows).items()]
    if told.unknown:
        facts.append(("Prisma", told.unknown))
    print_facts(facts)
    resolving.print_differences(told)
    print_gates(now.gates)
    say_next(now.next, now.first)


def _fill_facts(now: migrate.Status) -> Iterator[tuple[str, object]]:
    """How far the fill is, its rate, and how long the rest takes."""
    total = f"{'' if now.rows_exact else 'about '}{count(now.rows_total, 'message')}"
    what = "filled" if now.filling == "persona_id" else f"filled {now.filling}"
    if now.rows_done is None:
        yield what, f"a part of {total}; memsync migrate verify counts them"
        return
    yield what, f"{now.rows_done:,} of {total}"
    if not 0 < now.rows_done < now.rows_total:
        return
    rate = "not known yet" if now.rows_per_s is None else f"{now.rows_per_s:,.0f} messages/s"
    yield "rate", f"{rate}, without pauses"
    idle = {"idle": ", once it goes on", "paused": ", once it is resumed"}.get(now.run.state, "")
    yield "left", f"{about(now.eta_s)} of the fill{idle}; indexes and key come after it"


def _evidence_lines(evidence: migrate.EvidenceReport) -> Iterator[str]:
    """Which store was read, and what its memories decide, as lines."""
    if evidence.not_read is not None:
        yield f"evidence: not read: {evidence.not_read}"
        yield "the counts above follow from the settings alone"
        return
    others = count(evidence.left_out, "other collection holds", "other collections hold")
    without = f"; {others} no memories" if evidence.left_out else ""
    yield f"evidence: {evidence.store}, {count(evidence.points, 'point')}{without}"
    for kind in evidence.kinds:
        yield (
            f"  {kind.kind}: {count(kind.collections, 'collection')}, "
            f"{count(kind.points, 'point')}, {kind.unusable:,} of them unusable; "
            f"{kind.matched:,} match an exchange, {kind.contradicting:,} of these contradict the "
            "settings"
        )
    yield (
        f"of the exchanges that they tell of, {evidence.ambiguous:,} are ambiguous, "
        f"{evidence.repeated:,} repeated, {evidence.foreign:,} foreign, {evidence.vanished:,} of "
        "personas that are gone"
    )
    yield f"evidence and settings disagree on {count(evidence.disagreeing, 'message')}"
    for each in evidence.samples:
        yield f"  message {each.message_id}, memory {each.collection}/{each.point_id}"
        yield f"    by evidence  {each.persona_by_evidence}"
        yield f"    by settings  {each.persona_by_settings}"


def _print_rest(number: int) -> None:
    if number > _SHOWN_MAX:
        say(f"  … {number - _SHOWN_MAX:,} more; --json lists all")


def _print_prospect(ahead: Prospect | None, *, show_text: bool) -> None:
    if ahead is None:
        return
    if ahead.orphans:
        say(f"personas without an owner: {len(ahead.orphans):,}")
        rows = []
        for orphan in ahead.orphans[:_SHOWN_MAX]:
            users = count(len(orphan.users), "user uses it", "users use it")
            owner = f"goes to {orphan.owner}" if orphan.owner else f"{users}: run --orphan-owners"
            name = f"  {orphan.name}" if show_text else ""
            rows.append((str(orphan.persona_id), f"{owner}{name}"))
        print_table(rows)
        _print_rest(len(ahead.orphans))
    if ahead.forks:
        say(f"configs that are forked, because their windows differ: {len(ahead.forks):,}")
        print_table(
            (str(fork.config_id), f"windows {', '.join(map(str, fork.windows))}")
            for fork in ahead.forks[:_SHOWN_MAX]
        )
        _print_rest(len(ahead.forks))
    counts = (
        ("choices that take their config's window", ahead.windows_taken),
        ("windows kept in the archive only", ahead.windows_unused),
    )
    print_facts([each for each in counts if each[1]])


def _print_steps(steps: tuple[migrate.Step, ...]) -> None:
    marks = ("-" if step.left_out else "x" if step.done else " " for step in steps)
    print_table(
        (f"[{mark}]", step.phase.value, step.what) for mark, step in zip(marks, steps, strict=True)
    )
    if any(step.left_out for step in steps):
        say("  ([-] was left out: a later step takes its place)")

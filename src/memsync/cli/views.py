"""What a command shows of an audit: the options that choose findings, and the view they make.

It decides which findings were asked for, and prints nothing. A fault that may be the cause of all
others belongs to every choice: without it no part of the findings can be judged.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Self
from uuid import UUID

import typer

from memsync.cli.reading import (
    USUAL,
    DeepOption,
    FingerprintOption,
    RateOption,
    Reading,
    SchedulerOption,
    StateOption,
    WorkersOption,
    reading_of,
)
from memsync.cli.rules import no_finding, words_for
from memsync.cli.targets import FORMAT_NAMES, Target, targets_of
from memsync.cli.vectors import SeedOption, VectorsOption, verify_of
from memsync.errors import InvalidInput
from memsync.model import ids
from memsync.reconcile import RULES
from memsync.reconcile.deep import How
from memsync.reconcile.findings import Audit, Chosen, Kind, Severity
from memsync.reconcile.seen_vectors import Verify

LIMIT = 10

SelectOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="CODE",
        help="Look at these findings only, by code, name or family, such as MSC; repeatable.",
    ),
]
PersonaOption = Annotated[
    str | None, typer.Option(metavar="UUID", help="Look at the findings of one persona only.")
]
LimitOption = Annotated[
    int, typer.Option(metavar="N", min=0, help="Print so many findings at most; 0: all.")
]
SummaryOption = Annotated[
    bool, typer.Option("--summary", help="Print the table and the verdict, no single finding.")
]
TextOption = Annotated[
    bool,
    typer.Option("--show-text", help="Print what people wrote, not only its length and digest."),
]
KnownOption = Annotated[
    bool,
    typer.Option("--acknowledged", help="List the findings that are acknowledged as well."),
]
ReportOption = Annotated[
    list[str] | None,
    typer.Option(
        "--report",
        metavar="FORMAT=FILE",
        help=f"Also write a report: {', '.join(FORMAT_NAMES)}; repeatable.",
    ),
]
LinesOption = Annotated[
    bool,
    typer.Option(
        "--json-lines", help="Print one JSON object a line: each finding, then the summary."
    ),
]


@dataclass(frozen=True, slots=True)
class View:
    """Which findings of an audit are looked at, and how they are printed.

    `verify` says which vectors the audit looks at, and `reading` how much it reads, and by whom.
    `reports` go into files.
    """

    select: frozenset[str] = frozenset()
    persona: UUID | None = None
    limit: int = LIMIT
    summary: bool = False
    show_text: bool = False
    as_lines: bool = False
    acknowledged: bool = False
    verify: Verify | None = None
    reading: Reading = USUAL
    reports: tuple[Target, ...] = ()

    @classmethod
    def of(
        cls,
        select: Sequence[str] | None = None,
        persona: str | None = None,
        limit: int = LIMIT,
        *,
        verify: Verify | None = None,
        **more: bool,
    ) -> Self:
        """The view that the options ask for. Raises: InvalidInput for a code that is none."""
        known = {word.lower(): word for rule in RULES for word in words_for(rule.code, rule.name)}
        wanted = {each: known.get(each.lower()) for each in select or ()}
        for each, word in wanted.items():
            if word is None:
                raise InvalidInput(no_finding(each))
        whose = None if persona is None else ids.persona_id(persona)
        chosen = frozenset(word for word in wanted.values() if word)
        return cls(chosen, whose, limit, verify=verify, reports=(), reading=USUAL, **more)

    def of_audit(self, audit: Audit) -> Chosen:
        """The faults that were asked for, without those that are acknowledged."""
        return audit.findings.chosen(self._wants, self.persona)

    def of_known(self, audit: Audit) -> Chosen:
        """The acknowledged findings that were asked for."""
        return audit.acknowledged.chosen(self._wants, self.persona)

    @property
    def codes(self) -> frozenset[str] | None:
        """The codes that were selected; None for all."""
        if not self.select:
            return None
        return frozenset(each.code for each in RULES if self._selects(each.code, each.name))

    def _wants(self, kind: Kind) -> bool:
        is_asked_for = kind.is_cause or self._selects(kind.code, kind.name)
        return is_asked_for and kind.severity is not Severity.INFO

    def _selects(self, code: str, name: str) -> bool:
        return not self.select or not self.select.isdisjoint(words_for(code, name))

    @property
    def is_narrow(self) -> bool:
        """Whether findings may be left out of the verdict."""
        return bool(self.select or self.persona)


EVERYTHING = View()


def viewed(run: Callable[..., int]) -> Callable[..., int]:
    """A command that takes the options of a view, and gives them to `run` as one value.

    `run` takes the context, the view, and by name the options that are its own.
    """

    def command(
        ctx: typer.Context,
        *,
        select: SelectOption = None,
        persona: PersonaOption = None,
        limit: LimitOption = LIMIT,
        summary: SummaryOption = False,
        show_text: TextOption = False,
        as_lines: LinesOption = False,
        acknowledged: KnownOption = False,
        deep: DeepOption = False,
        by_fingerprint: FingerprintOption = False,
        workers: WorkersOption = 1,
        scheduler: SchedulerOption = None,
        max_points_per_s: RateOption = None,
        state: StateOption = None,
        report: ReportOption = None,
        verify_vectors: VectorsOption = None,
        verify_seed: SeedOption = None,
        **own: object,
    ) -> int:
        view = View.of(
            select,
            persona,
            limit,
            summary=summary,
            show_text=show_text,
            as_lines=as_lines,
            acknowledged=acknowledged,
            verify=verify_of(verify_vectors, verify_seed),
        )
        reading = reading_of(
            How(workers, scheduler, max_points_per_s, state),
            deep=deep,
            by_fingerprint=by_fingerprint,
            vectors=view.verify is not None,
        )
        asked = replace(view, reading=reading, reports=targets_of(report or ()))
        return run(ctx, asked, **own)

    # typer reads the options from signature and annotations.
    of_run = inspect.signature(run).parameters.values()
    own = [each for each in of_run if each.kind is inspect.Parameter.KEYWORD_ONLY]
    *declared, _ = inspect.signature(command).parameters.values()
    command.__signature__ = inspect.Signature([*declared, *own])  # type: ignore[attr-defined]
    command.__annotations__.update({each.name: each.annotation for each in own})
    command.__name__, command.__doc__ = run.__name__, run.__doc__
    return command

"""All rules, one per finding code. A code that was retired is never given to another rule."""

from memsync.reconcile.rules import (
    coverage,
    data,
    isolation,
    schema,
    times,
    vector_store,
    vectors,
)
from memsync.reconcile.rules.base import CaseRule, Rule, StateRule

RULES: tuple[Rule, ...] = (
    coverage.MissingPoint(),
    coverage.OrphanPoint(),
    coverage.DuplicatePoint(),
    coverage.ForeignPointId(),
    coverage.UnacknowledgedOutbox(),
    coverage.DeadOutboxEntry(),
    coverage.NewerThanHistory(),
    coverage.LegacyCopy(),
    coverage.RowVanished(),
    coverage.ArchivedMissing(),
    isolation.PersonaMismatch(),
    isolation.UnknownPersona(),
    isolation.MissingPersona(),
    isolation.MisplacedPoint(),
    isolation.BelongsToNobody(),
    isolation.HistoryWithoutPersona(),
    isolation.HistoryWithUnknownPersona(),
    data.StaleContent(),
    data.PayloadDrift(),
    data.WrongPayloadKey(),
    data.WrongTimeUnit(),
    data.UnreadableTime(),
    data.EnrichedContent(),
    data.ArchivedTampered(),
    data.TimeSkew(),
    vectors.NotAVector(),
    vectors.VectorZero(),
    vectors.VectorNotFinite(),
    vectors.VectorDrift(),
    schema.MigrationBehind(),
    schema.InvalidIndex(),
    schema.MissingIndex(),
    schema.MissingPayloadIndex(),
    schema.LegacyLayout(),
    schema.DimensionMismatch(),
    schema.EmbedderMismatch(),
    schema.WrongDistance(),
    schema.CollectionMissing(),
    schema.UndoNotPossible(),
    schema.UnsearchableVectors(),
    times.StoreRewound(),
    times.CollectionRecreated(),
    schema.BaselineOutdated(),
    schema.UnfinishedLayoutChange(),
    vector_store.AliasOfMemories(),
    vector_store.VectorIndexDisabled(),
)

CASE_RULES = tuple(rule for rule in RULES if isinstance(rule, CaseRule))
# BaselineOutdated comes last, because it tells what no finding of the others matched.
STATE_RULES = tuple(
    sorted(
        (rule for rule in RULES if isinstance(rule, StateRule)),
        key=lambda rule: isinstance(rule, schema.BaselineOutdated),
    )
)

__all__ = ["CASE_RULES", "RULES", "STATE_RULES", "Rule"]

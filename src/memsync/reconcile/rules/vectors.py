"""MSD rules about vectors: recall can find a memory only by a vector that is of its text.

They judge the memories whose vectors the audit looked at; see `reconcile/verifying.py`.

What Qdrant does with a vector that is none, seen on a server (1.18.3), on its engine in process
(0.7) and in the local mode of its client (1.18):

- All take a vector of zeros. Its score is 0 for every question.
- They bring vectors to the length 1 when they are written, but not one whose squared length is
  below 2^-23 (the local mode: whose length is). So its score is almost 0, whatever it says.
- By gRPC the server takes NaN and infinity, and so does the engine; the local mode takes infinity.
  JSON has neither, but the server and the engine make infinity of a number such as 1e39, which is
  finite in 64 bits only. What is kept is NaN.
- The server returns a point with NaN first, with the score NaN. By REST the score is null, at which
  the client refuses the whole answer: every recall of that persona fails. The local mode returns it
  first, too. The engine never returns it. A vector is read by REST with null for NaN.
- A point without a vector is kept, and is in no result of a query.
- A vector of another size is refused, so a point cannot have one.
"""

from dataclasses import replace
from typing import ClassVar

from memsync.model.vectors import SHORTEST_SQUARED
from memsync.reconcile.cases import Case, Role
from memsync.reconcile.findings import Finding, Grade, Repair
from memsync.reconcile.rules.base import CaseRule, Evidence
from memsync.reconcile.seen_vectors import SeenVector
from memsync.stores.ltm.layouts import Layout

LEAST_COSINE = 0.999
"""Below it a vector is not that of its text.

Measured with wordllama, as 1 - cosine: one text in batches of 1 to 256 texts 2e-16, kept as 32 bits
2e-16, as 16 bits 3e-8, as 16 bits of a service that computes so 2e-6, as 8 bits 4e-5. Another
exchange of the same few words has 0.03 or more.
"""


class VectorRule(CaseRule):
    """A rule about a vector that was looked at. `sees` says what is wrong with it.

    The repair makes the vector anew from the text of the memory, and mends the payload on the way.
    It is for a memory that has its rows, and in the per-persona layout only where the settings name
    an embedder that makes vectors of the collection's size: nothing else says which one is the
    app's.
    """

    mends_in: ClassVar[frozenset[Layout]] = frozenset(Layout)
    look_with = " --verify-vectors all"

    @classmethod
    def grade_in(cls, layout: Layout) -> Grade:
        """Report-only where no plan makes the vector anew."""
        return super().grade_in(layout) if layout in cls.mends_in else Grade.REPORT_ONLY

    @classmethod
    def command(cls, grade: Grade) -> str:
        """The plan that looks at vectors too, in a file of its own, where one repairs it."""
        if grade is Grade.SAFE:
            return "memsync reconcile plan --verify-vectors all --out plan-vectors.json"
        return super().command(grade)

    def sees(self, vector: SeenVector) -> Evidence | None:
        """The evidence when the vector breaks the rule, else None."""
        raise NotImplementedError

    def look(self, case: Case) -> Evidence | None:
        """A memory whose vector was looked at and breaks the rule."""
        evidence = None if case.vector is None else self.sees(case.vector)
        if evidence is None or case.vector is None or case.vector.can_be_made:
            return evidence
        return {**evidence, "embedder": "none of this size is named"}

    def mended_by(self, case: Case) -> tuple[Repair, Grade]:
        """Made anew, where there is a row and an embedder; see the class."""
        can_be_made = case.vector is not None and case.vector.can_be_made
        # Of a further memory, or another persona's, the repair is what that finding says.
        if case.role is not Role.MEMORY or not can_be_made or case.layout not in self.mends_in:
            return Repair.NONE, Grade.REPORT_ONLY
        return super().mended_by(case)

    def judge(self, case: Case) -> Finding | None:
        """The finding, which rests on the vector too."""
        finding = super().judge(case)
        if finding is None or case.vector is None:
            return finding
        return replace(finding, witness=replace(finding.witness, vector=case.vector.state))


class NotAVector(VectorRule):
    """A memory has no vector, or one of another size than its collection's.

    Why it matters: recall never finds it. It is looked for only with `--verify-vectors`.
    Repair: the vector is made anew from the memory's text, where it has its rows. In the
    per-persona layout the settings must name the app's embedder. The text and the id stay.
    """

    code, name = "MSD009", "not-a-vector"

    def sees(self, vector: SeenVector) -> Evidence | None:
        """Another number of components than the collection's."""
        if vector.size == vector.expected:
            return None
        return {"expected": vector.expected, "found": vector.size}


class VectorZero(VectorRule):
    """A memory's vector is zero, or so short that the store does not bring it to the length 1.

    Why it matters: its score is 0, or almost, whatever is asked, so recall does not find it. It is
    looked for only with `--verify-vectors`.
    Repair: the vector is made anew from the memory's text, where it has its rows. In the
    per-persona layout the settings must name the app's embedder. The text and the id stay.
    """

    code, name = "MSD010", "vector-zero"

    def sees(self, vector: SeenVector) -> Evidence | None:
        """A whole vector that is too short."""
        if vector.size != vector.expected or vector.not_finite or not vector.size:
            return None
        if vector.squared_length >= SHORTEST_SQUARED:
            return None
        return {"squared_length": vector.squared_length}


class VectorNotFinite(VectorRule):
    """A memory's vector has numbers that are NaN or infinite.

    Why it matters: cosine cannot be computed. A Qdrant server returns the memory first for every
    question, and by REST in a form in which every recall of its persona fails. It is looked for
    only with `--verify-vectors`.
    Repair: the vector is made anew from the memory's text, where it has its rows. In the
    per-persona layout the settings must name the app's embedder. The text and the id stay. An undo
    does not bring such a vector back.
    """

    code, name = "MSD011", "vector-not-finite"

    def sees(self, vector: SeenVector) -> Evidence | None:
        """Components that are no numbers."""
        if not vector.not_finite:
            return None
        return {"components": vector.size, "not_finite": vector.not_finite}


class VectorDrift(VectorRule):
    """A memory's vector is not the one that its embedder makes of its text.

    Why it matters: recall finds it for the wrong questions. It was made from another text, or the
    model changed behind its name. It is looked for only with `--verify-vectors`, and where the
    settings name an embedder: in memories that say that it made them, and in all of the per-persona
    layout.
    Repair: in the shared layout the vector is made anew from the memory's text, where it has a row.
    Without one it is only reported, adopted or not: no row shows which of the two was changed, and
    the vector may be the last trace of what was said. The app's own are left as they are: see first
    that the settings name the app's embedder, and its very model. `memsync reconcile baseline
    --verify-vectors all` lets be what stays.
    """

    code, name = "MSD012", "vector-drift"
    moving = frozenset(("cosine",))
    mends_in = frozenset({Layout.SHARED})

    def sees(self, vector: SeenVector) -> Evidence | None:
        """A vector in another direction than that of its text embedded anew."""
        if vector.cosine is None or vector.cosine >= LEAST_COSINE:
            return None
        return {"cosine": round(vector.cosine, 6), "at_least": LEAST_COSINE}

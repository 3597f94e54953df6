"""Laws of how the vector store keeps collections."""

from memsync.model.records import Exchange
from support.failing import Failing
from support.lab import B, Lab
from support.laws.base import Planted, law, one


class _Aliased(Failing):
    """A store with aliases, two of which are no names of the app's collections."""

    def aliases(self) -> dict[str, str]:
        return {f"persona-{B}": "other", "memories": "memories-2", "unused": "other"}


@law("MSS022", "home", "deployed")
def another_collection(lab: Lab, _: list[Exchange]) -> Planted:
    """A persona's name stands for a collection of others."""
    lab.ltm = lab.with_store(_Aliased(lab.vectors))
    return Planted(one("alias", found="other"), next_command="memsync rules MSS022")

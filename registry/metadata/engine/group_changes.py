"""The changes of the transactions that are committed together (SQLite)."""

from typing import Protocol

from msgspec import Struct, field

from registry.metadata.engine.transaction import Change, RowChange, Transaction
from registry.oci.names import RepositoryName

_CHANGES_SESSIONS = Change.REPOSITORY_DELETE.value


class GroupChanges(Struct):
    """What the transactions of a group commit changed.

    `repositories` has the repository of each row of the change feed, and `policy` is whether the
    policy changed. `rows` and `may_change_others` are those of the transactions.
    """

    repositories: list[RepositoryName] = field(default_factory=list)
    policy: bool = False
    rows: list[RowChange] = field(default_factory=list)
    may_change_others: bool = False

    def add(self, tx: Transaction) -> None:
        """Add a transaction that has written its changes."""
        self.repositories += [change["repository"] for change in tx.changes]
        self.policy = self.policy or bool(tx.policy_changes)
        self.rows += tx.row_changes
        if tx.may_change_others or any(each["kind"] == _CHANGES_SESSIONS for each in tx.changes):
            self.may_change_others = True


class CommitListener(Protocol):
    """Learns of the commits of a writer, on its thread."""

    def before_commit(self, tx: Transaction, changes: GroupChanges) -> None:
        """Receive the transaction of a group, whose statements are done."""

    def after_commit(self) -> None:
        """Note that the group is committed, before any caller learns of it."""

"""Rows of recent failed sign-ins, counted for rate limits."""

import sqlalchemy as sa
from msgspec import Struct

from registry.metadata.engine.transaction import Transaction
from registry.metadata.tables import sign_in_failures

_f = sign_in_failures.c


class FailureCounts(Struct, frozen=True):
    """The number of failures since a time, and the time of the oldest in microseconds."""

    count: int
    oldest: int


def count(
    tx: Transaction, since: int, *, address: str | None = None, account: str | None = None
) -> FailureCounts:
    """Return the failures after `since`, in microseconds, from the address and for the account."""
    query = sa.select(sa.func.count(), sa.func.coalesce(sa.func.min(_f.at), 0))
    query = query.where(_f.at > since)
    if address is not None:
        query = query.where(_f.address == address)
    if account is not None:
        query = query.where(_f.account == account)
    return FailureCounts(*tx.execute(query).one())


def insert(tx: Transaction, address: str, account: str) -> None:
    tx.execute(sa.insert(sign_in_failures).values(at=tx.now, address=address, account=account))


def delete_before(tx: Transaction, moment: int) -> int:
    """Delete failures before `moment`, in microseconds, and return their number."""
    return tx.execute(sa.delete(sign_in_failures).where(_f.at < moment)).rowcount

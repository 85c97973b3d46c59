"""Delete the accounts of limits that have not changed for two months, such as those of limits that
were deleted."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Final

from ....management.pruning import BasePruner, Pruning
from ..models import LimitAccount
from ..stores._base import now

__all__ = ["LimitPruner"]

BATCH: Final = 1_000
#: Longer than any period of a limit: what an account has counted before is of no concern.
AGE: Final = timedelta(days=62)


class LimitPruner(BasePruner):
    """Deletes accounts in the database; Redis forgets its own."""

    name = "limits"

    def prunings(self, older_than: timedelta | None) -> Iterable[Pruning]:
        rows = LimitAccount.objects.filter(seen__lt=now() - AGE // timedelta(microseconds=1))

        def delete_batch() -> int:
            keys = list(rows.order_by().values_list("pk", flat=True)[:BATCH])
            LimitAccount.objects.filter(pk__in=keys).delete()
            return len(keys)

        yield Pruning("accounts of limits", rows.count, delete_batch)

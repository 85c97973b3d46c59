"""Delete the accounts of limits that have not changed for two months, such as those of limits that
were deleted."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Final

from django.db import router, transaction
from django.db.models import F, Q

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
        before = now() - AGE // timedelta(microseconds=1)
        # Only buckets have ``seen``, and only calendar periods ``period``. Concurrency has neither:
        # its account is as a new one while nothing is held.
        rows = LimitAccount.objects.filter(
            Q(held=0) | Q(period__gt=0), seen__lt=before, period__lt=before
        )

        def delete_batch() -> int:
            keys = list(rows.order_by().values_list("pk", flat=True)[:BATCH])
            batch = rows.filter(pk__in=keys)
            with transaction.atomic(using=router.db_for_write(LimitAccount)):
                # Locks them: those that a request has used meanwhile are no longer among them.
                batch.update(seen=F("seen"))
                batch.delete()
            return len(keys)

        yield Pruning("accounts of limits", rows.count, delete_batch)

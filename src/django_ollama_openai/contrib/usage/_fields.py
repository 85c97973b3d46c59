"""The field for amounts of money."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from django.core.exceptions import ValidationError
from django.db.models import BigIntegerField

__all__ = ["DECIMALS", "MoneyField", "MoneySumField"]

#: The decimal places of an amount: a token at a price per million with six decimals needs them all.
DECIMALS: Final = 12


if TYPE_CHECKING:
    _Base = BigIntegerField[Any, Any]
else:
    _Base = BigIntegerField


class MoneyField(_Base):
    """An exact amount of money, a :class:`~decimal.Decimal` with up to twelve decimal places.

    It is stored as an integer, since SQLite has no decimal numbers and would add up floating-point
    ones. So do sums: ``Sum("cost")`` returns an exact amount.
    """

    if TYPE_CHECKING:
        _pyi_private_set_type: Any
        _pyi_private_get_type: Any

    def from_db_value(self, value: int | None, *args: Any) -> Decimal | None:
        """Return the amount of an integer of the database."""
        # PostgreSQL and MariaDB return sums of integers as decimals.
        return None if value is None else Decimal(int(value)).scaleb(-DECIMALS)

    def to_python(self, value: Any) -> Decimal | None:
        """Return ``value``, a number or its text, as an amount."""
        if value is None or isinstance(value, Decimal):
            return value
        try:
            return Decimal(value)
        except (ArithmeticError, TypeError, ValueError) as error:
            raise ValidationError(f"{value!r} is not an amount.") from error

    def get_prep_value(self, value: Any) -> Any:
        """Return the integer for an amount; an expression stays as it is.

        Raises:
            ValueError: It has more than twelve decimal places.
        """
        if value is None or hasattr(value, "resolve_expression"):
            return value
        scaled = Decimal(value).scaleb(DECIMALS)
        if scaled != int(scaled):
            raise ValueError(f"{value} has more than {DECIMALS} decimal places.")
        return int(scaled)


class MoneySumField(MoneyField):
    """An exact sum of amounts, which may have more digits than a 64-bit integer. SQLite, which has
    no greater integers, keeps sums up to nine million exact."""

    def db_type(self, connection: Any) -> str | None:
        """Return the type of the column."""
        types = {"postgresql": "numeric(38, 0)", "mysql": "decimal(38, 0)"}
        return types.get(connection.vendor) or super().db_type(connection)

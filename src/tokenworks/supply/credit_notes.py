"""Credit notes of suppliers: we owe them less, and what they served has cost us less. Nothing posted is edited."""

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from tokenworks.core.commands import invalid
from tokenworks.core.corrections import Head
from tokenworks.ledger import corrections
from tokenworks.ledger.correction_rows import Correction
from tokenworks.supply import suppliers

Connection = AsyncConnection[TupleRow]


async def credit(connection: Connection, head: Head, currency: str, amount: int) -> Correction:
    """Book the credit note `head.reference` of the supplier `head.about`, in the currency it is paid in."""
    supplier = await suppliers.get(connection, head.about, "supplier")
    if currency != supplier.currency:
        raise invalid(f"The supplier {supplier.id!r} is paid in {supplier.currency}.", "amount")
    if not head.reference:
        raise invalid("A credit note has the supplier's number for it.", "reference")
    return await corrections.credit_supplier(connection, head, currency, amount)

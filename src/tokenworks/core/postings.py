"""Named postings: every business event that moves value, as balanced transfers between accounts.

Two books move together. In a bucket's own unit: issued → available → leased → spent, expired or withdrawn. In money:
a sale credits the bucket's contract liability and output tax; use turns liability into revenue; each served attempt
books a cost against what is owed to its supplier. Of a credit bucket nothing is paid before: use itself debits what its
payer owes, and credits revenue and tax. Only the ledger carries postings out; it adds nothing to them.
"""

from typing import Literal

import msgspec

Side = Literal["debit", "credit"]


class Transfer(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`amount` > 0 of `unit` from the credit account to the debit account, in the bookkeeping sense."""

    debit: str
    credit: str
    unit: str
    amount: int


class Posting(msgspec.Struct, frozen=True):
    """One business event. `event_id` makes it happen once; `used_at_ns` is when it economically happened."""

    kind: str
    event_id: str
    legal_entity_id: str
    used_at_ns: int
    transfers: tuple[Transfer, ...]
    detail: dict[str, str | int] = {}


_DEBIT_NORMAL = frozenset({"issued", "receivable", "cash", "cost", "loss"})


def normal_side(code: str) -> Side:
    """The side on which an account's balance grows; on that side no balance is ever below zero."""
    head, _, rest = code.partition("/")
    return "debit" if head in _DEBIT_NORMAL or (head == "bucket" and rest.endswith("/issued")) else "credit"


def issued(bucket_id: str) -> str:
    """All that was ever granted to a bucket (the counter-account of its unit book)."""
    return f"bucket/{bucket_id}/issued"


def available(bucket_id: str) -> str:
    """What can be leased."""
    return f"bucket/{bucket_id}/available"


def spent(bucket_id: str) -> str:
    """What was charged for use."""
    return f"bucket/{bucket_id}/spent"


def expired(bucket_id: str) -> str:
    """What ran out of validity unused."""
    return f"bucket/{bucket_id}/expired"


def withdrawn(bucket_id: str) -> str:
    """What was taken back from the customer: for money, or into another bucket."""
    return f"bucket/{bucket_id}/withdrawn"


def lease(lease_id: int) -> str:
    """What is with a worker."""
    return f"lease/{lease_id}"


def liability(bucket_id: str) -> str:
    """What was paid for and is not yet delivered."""
    return f"contract_liability/{bucket_id}"


def receivable(payer: str) -> str:
    """What a payer owes us: `carrier/{id}`, `credit/{agreement}`, `customer/{billing account}` after a chargeback."""
    return f"receivable/{payer}"


def refund_due(payer: str) -> str:
    """What we owe back through a payer."""
    return f"refund_due/{payer}"


def credit_payer(agreement_id: str) -> str:
    """Who owes for use under a credit agreement: the agreement's customer, apart from all else it may owe."""
    return f"credit/{agreement_id}"


def cost(supplier_id: str) -> str:
    """What a supplier's served attempts cost us."""
    return f"cost/tokens/{supplier_id}"


def payable(supplier_id: str) -> str:
    """What we owe a supplier."""
    return f"payable/{supplier_id}"


CASH_CLEARING = "cash/clearing"
TAX_OUTPUT = "tax/output"
REVENUE_TOKENS = "revenue/tokens"
REVENUE_BREAKAGE = "revenue/breakage"
LOSS_UNPROVEN = "loss/unproven"
UNPROVEN = "unproven/delivered"
LOSS_BAD_DEBT = "loss/bad_debt"


def package_sold(
    order_id: str,
    legal_entity_id: str,
    at_ns: int,
    *,
    bucket_id: str,
    unit: str,
    granted: int,
    payer: str,
    currency: str,
    net: int,
    tax: int,
) -> Posting:
    """A paid order: the bucket gets its amount, the payer owes the price, we owe the tokens and the tax."""
    transfers = (
        Transfer(issued(bucket_id), available(bucket_id), unit, granted),
        Transfer(receivable(payer), liability(bucket_id), currency, net),
        Transfer(receivable(payer), TAX_OUTPUT, currency, tax),
    )
    return Posting("package_sold", f"order/{order_id}", legal_entity_id, at_ns, nonzero(transfers), {"order": order_id})


def credit_granted(
    bucket_id: str, legal_entity_id: str, at_ns: int, *, agreement_id: str, unit: str, granted: int
) -> Posting:
    """A period's limit under a credit agreement: it can be spent from now on, and nobody owes anything yet."""
    transfers = (Transfer(issued(bucket_id), available(bucket_id), unit, granted),)
    detail: dict[str, str | int] = {"agreement": agreement_id}
    return Posting("credit_granted", f"credit/{bucket_id}", legal_entity_id, at_ns, transfers, detail)


def credit_collected(
    collection_id: str, legal_entity_id: str, at_ns: int, *, agreement_id: str, payer: str, currency: str, amount: int
) -> Posting:
    """A payer, for example a carrier, has taken over what is owed under a credit agreement."""
    transfers = (Transfer(receivable(payer), receivable(credit_payer(agreement_id)), currency, amount),)
    detail: dict[str, str | int] = {"agreement": agreement_id}
    return Posting("credit_collected", f"collection/{collection_id}", legal_entity_id, at_ns, transfers, detail)


def payment_received(
    payment_id: str, legal_entity_id: str, at_ns: int, *, payer: str, currency: str, amount: int
) -> Posting:
    """Money has come from whoever owed it; it waits in clearing to be matched with the bank."""
    transfers = (Transfer(CASH_CLEARING, receivable(payer), currency, amount),)
    detail: dict[str, str | int] = {"payer": payer}
    return Posting("payment_received", f"payment/{payment_id}", legal_entity_id, at_ns, transfers, detail)


def leased(lease_id: int, bucket_id: str, legal_entity_id: str, at_ns: int, unit: str, amount: int) -> Posting:
    """A slice moves from available to a lease of its own."""
    transfers = (Transfer(available(bucket_id), lease(lease_id), unit, amount),)
    return Posting("lease_granted", f"lease/{lease_id}", legal_entity_id, at_ns, transfers, {"lease": lease_id})


def lease_registered(
    lease_id: int, bucket_id: str, legal_entity_id: str, at_ns: int, unit: str, amount: int, epoch: int = 0
) -> Posting:
    """A lease whose grant the ledger lost, in a failover or a restore, takes out of available again.

    `epoch` is the one that was settled by it; 0 when its journal said so.
    """
    transfers = (Transfer(available(bucket_id), lease(lease_id), unit, amount),)
    event = f"lease/{lease_id}/registered/{epoch}"
    return Posting("lease_registered", event, legal_entity_id, at_ns, transfers, {"lease": lease_id})


def lease_reclaimed(lease_id: int, bucket_id: str, legal_entity_id: str, at_ns: int, unit: str, left: int) -> Posting:
    """A lease whose worker stayed silent past every deadline goes back to available."""
    transfers = nonzero((Transfer(lease(lease_id), available(bucket_id), unit, left),))
    return Posting("lease_reclaimed", f"reclaim/{lease_id}", legal_entity_id, at_ns, transfers, {"lease": lease_id})


def bucket_expired(
    bucket_id: str, legal_entity_id: str, at_ns: int, *, unit: str, amount: int, currency: str, earned: int, serial: int
) -> Posting:
    """What is left available after a bucket's validity expires; its share of the liability becomes breakage.

    A credit bucket has no liability: nothing is `earned` by its expiry.
    """
    transfers = (
        Transfer(available(bucket_id), expired(bucket_id), unit, amount),
        Transfer(liability(bucket_id), REVENUE_BREAKAGE, currency, earned),
    )
    return Posting("bucket_expired", f"expiry/{bucket_id}/{serial}", legal_entity_id, at_ns, nonzero(transfers))


def corrected(
    kind: str, correction_id: str, legal_entity_id: str, used_at_ns: int, transfers: tuple[Transfer, ...]
) -> Posting:
    """A correction, whose transfers `core.corrections` decides; `kind` is its stable code."""
    detail: dict[str, str | int] = {"correction": correction_id}
    return Posting(kind, f"correction/{correction_id}", legal_entity_id, used_at_ns, nonzero(transfers), detail)


def nonzero(transfers: tuple[Transfer, ...]) -> tuple[Transfer, ...]:
    """Transfers of nothing are not booked."""
    return tuple(transfer for transfer in transfers if transfer.amount)

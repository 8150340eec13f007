"""Arithmetic of a sale: tax out of a gross price, revenue recognised as a bucket is consumed, use sold on credit."""

from tokenworks.core.amounts import divide

BASIS_POINTS = 10_000


def net_of_tax(gross: int, tax_basis_points: int) -> tuple[int, int]:
    """(net, tax) of a price that includes tax; they add up to it exactly. RMB 9.90 at 6 % → 9.339623 + 0.560377."""
    net = divide(gross * BASIS_POINTS, BASIS_POINTS + tax_basis_points, "half_up")
    return net, gross - net


def recognised(net: int, consumed: int, granted: int) -> int:
    """Revenue earned when `consumed` of `granted` is spent or expired: rounded once, exactly `net` at the end."""
    return divide(net * consumed, granted, "half_up") if granted else net


def owed(net: int, tax: int, spent: int, granted: int) -> tuple[int, int]:
    """(net, tax) owed for `spent` of a credit bucket whose whole limit `granted` costs `net` + `tax` > 0.

    The price of what was spent is rounded once; tax is then taken out of it in the proportion of the whole. Neither
    ever shrinks as more is spent, and both end at exactly `net` and `tax`.
    """
    price = net + tax
    gross = divide(price * spent, granted, "half_up")
    earned = divide(gross * net, price, "half_up")
    return earned, gross - earned


def still_sold(price: int, withdrawn: int, granted: int) -> int:
    """The part of a bucket's price (net or tax) for what has not been withdrawn: rounded once, zero at the end."""
    return recognised(price, granted - withdrawn, granted)

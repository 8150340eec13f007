"""Arithmetic of a sale: tax out of a gross price, and revenue recognised as a bucket is consumed."""

from tokenworks.core.amounts import divide

BASIS_POINTS = 10_000


def net_of_tax(gross: int, tax_basis_points: int) -> tuple[int, int]:
    """(net, tax) of a price that includes tax; they add up to it exactly. RMB 9.90 at 6 % → 9.339623 + 0.560377."""
    net = divide(gross * BASIS_POINTS, BASIS_POINTS + tax_basis_points, "half_up")
    return net, gross - net


def recognised(net: int, consumed: int, granted: int) -> int:
    """Revenue earned when `consumed` of `granted` is spent or expired: rounded once, exactly `net` at the end."""
    return divide(net * consumed, granted, "half_up") if granted else net

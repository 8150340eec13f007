"""Shop: parties, tariffs, offers, orders, payment, statements, bills. Balances are the ledger's, usage the meter's."""

"""Access: who may use the customers' API and the management API. Balances and prices are not known here."""

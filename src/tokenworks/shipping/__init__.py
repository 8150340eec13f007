"""Shipping: what goes between a gateway worker and the office; see README.md."""

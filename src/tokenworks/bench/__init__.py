"""Bench: measures the product as it is sold, on this machine. See README.md of this room."""

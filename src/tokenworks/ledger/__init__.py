"""Ledger: accounts, postings, buckets, leases and their seals in PostgreSQL. See README.md of this room."""

"""Meter: usage from the workers' journals into the ledger, exactly once. See README.md of this room."""

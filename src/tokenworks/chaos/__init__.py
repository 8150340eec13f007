"""Chaos: the whole product on real processes under load, its parts killed in turn. See README.md of this room."""

"""Tokenworks: software that runs a token utility."""

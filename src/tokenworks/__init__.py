"""Tokenworks: software that runs a token utility."""

__version__ = "0.1.0"

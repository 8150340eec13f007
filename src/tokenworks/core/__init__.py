"""Core: the words and the arithmetic of a token utility, pure.

Imports the standard library and msgspec only; reads no clock, no random source and no environment. Every decision about
value is made here, from plain records to plain records; the rooms around it do the I/O.
"""

"""The whole factory in virtual time, from a seed: real gateway workers against a world that breaks in every way."""

"""The command line: one operator at a terminal, or one script, talking to the office over its management API.

It holds no business rule: commands parse words, call the office and show the answer.
"""

from tokenworks.cli.root import main

__all__ = ["main"]

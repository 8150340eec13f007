"""The collector of cycles, in processes that serve: it looks rarely.

A request of a gateway worker leaves no cycle behind, and usage records are structures that cannot be in one, but both
make many objects, and by default the collector looks after every 700: about 8 % of the samples of a busy worker were
in it.
"""

import gc

_YOUNG_OBJECTS = 200_000


def look_rarely() -> None:
    """To be called once, when everything is loaded: what is there now is never looked at again."""
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS)

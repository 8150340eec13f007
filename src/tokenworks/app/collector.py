"""The collector of cycles, in processes that serve: it looks rarely.

A request of a gateway worker leaves no cycle behind, and usage records are structures that cannot be in one, but both
make many objects, and by default the collector looks after every 700: about 8 % of the samples of a busy worker were
in it.
"""

import gc

_YOUNG_OBJECTS = 200_000


def look_rarely(young_objects: int = _YOUNG_OBJECTS) -> None:
    """To be called once, when everything is loaded: what is there now is never looked at again.

    `young_objects`: how many must have been made and kept since the last look before there is another.
    """
    gc.freeze()
    gc.set_threshold(young_objects)

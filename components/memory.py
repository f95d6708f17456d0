"""How this process deals with memory that a batch has used."""

import ctypes

# Parameters of mallopt(3), from glibc's malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4


def keep_freed_memory() -> bool:
    """Has malloc keep what is freed for the next batch; False, and nothing changes, where the C library is not glibc.

    Left alone, glibc often gives the activations of a batch back to the system and fetches them anew a page at a time:
    3,000 page faults a batch took a quarter to a third of the time of a training of LeNet-5, 130,000 of MobileNet V2
    at 96x96 two fifths, and in its evaluation more than half. What has a mapping of its own is always given back, so
    nothing gets one; what is free at the end of the heap is given back beyond 1 GiB. The price is a heap with gaps: at
    its peak a training holds 3 to 10 % more, an evaluation a quarter to a half.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, 2**30))

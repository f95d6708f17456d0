"""How this process deals with memory that a batch has used."""

import ctypes

# Parameters of mallopt(3), from glibc's malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3


def keep_freed_memory() -> bool:
    """Has malloc keep what is freed for the next batch; False, and nothing changes, where the C library is not glibc.

    Left alone, glibc often gives the activations of a batch, some 15 MB, back to the system and fetches them anew a
    page at a time: 3,000 page faults a batch, which took a quarter to a third of the time of a training of LeNet-5.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, 32 * 2**20) and mallopt(M_TRIM_THRESHOLD, 2**30))

"""Which code this is."""

import hashlib
from pathlib import Path


def code_digest() -> str:
    """SHA-256 over the sources of the steps, by name and content: it changes when what a step does may have changed."""
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(root).as_posix()} {content}\n".encode())
    return digest.hexdigest()

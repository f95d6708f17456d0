"""Tar archives as others write them."""

import io
import tarfile


def tar(
    members: dict[str, bytes] | list[tuple[str, bytes]], mode: str = "w", format: int = tarfile.PAX_FORMAT
) -> bytes:
    """An archive of files; with the mode `w:gz` a compressed one."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode=mode, format=format) as archive:  # type: ignore[call-overload]
        for name, data in members.items() if isinstance(members, dict) else members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return content.getvalue()


def tar_of(*members: tarfile.TarInfo) -> bytes:
    """An archive of members without content."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for member in members:
            archive.addfile(member)
    return content.getvalue()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    """A member that is no file."""
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member

"""Downloads that go on where they broke off."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from components.progress import Progress

ANSWER_SECONDS = 5.0
"""How long a server may take to answer."""

SILENCE_SECONDS = 20.0
"""How long a transfer may stand still."""

CHUNK = 256 * 1024


class Unusable(Exception):
    """A server cannot be reached, or does not have what it should."""


def complete(url: str, part: Path) -> None:
    """Appends to the file `part` what it still lacks of the file behind the URL, and shows the progress.

    A transfer that breaks off is taken up again as long as it gets further. Raises Unusable, and leaves what has come,
    so that the next call goes on from there. Does not know whether the bytes are right: their reader has to check.
    """
    while True:
        size = _size(part)
        try:
            return _transfer(url, part)
        except Unusable:
            if _size(part) <= size:
                raise


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _transfer(url: str, part: Path) -> None:
    response = _ask(Request(url, headers={"User-Agent": "retrain", "Range": f"bytes={_size(part)}-"}))
    if response is None:
        return part.touch()
    with response, part.open("ab" if response.status == 206 else "wb") as file:
        total = response.length or 0
        progress = Progress(f"download {url.rpartition('/')[2]}", total, "bytes")
        for chunk in _chunks(response):
            file.write(chunk)
            progress.advance(len(chunk))
    if progress.done < total:
        raise Unusable(f"the transfer broke off after {progress.done} of {total} bytes")


def _ask(request: Request) -> HTTPResponse | None:
    """The answer of a server; None where it says that nothing is left to send."""
    answer: Future[HTTPResponse] = Future()

    def ask() -> None:
        try:
            answer.set_result(urlopen(request, timeout=SILENCE_SECONDS))
        except Exception as error:
            answer.set_exception(error)

    # In a thread, because a time limit of urlopen counts anew for each address of a host, and not for finding them.
    threading.Thread(target=ask, daemon=True).start()
    try:
        return answer.result(ANSWER_SECONDS)
    except HTTPError as error:
        error.close()
        if error.code == 416:  # the range starts at the end of the file (RFC 9110, section 15.5.17)
            return None
        raise Unusable(f"HTTP {error.code} {error.reason}") from None
    except URLError as error:
        raise Unusable(getattr(error.reason, "strerror", None) or error.reason) from None
    except TimeoutError:
        raise Unusable(f"no answer in {ANSWER_SECONDS:.0f} s") from None
    except (OSError, HTTPException, ValueError) as error:  # ValueError: the URL is none
        raise Unusable(str(error) or type(error).__name__) from None


def _chunks(response: HTTPResponse) -> Iterator[bytes]:
    try:
        # read1 gives what is there, where read would lose it when the next bytes do not come.
        while chunk := response.read1(CHUNK):
            yield chunk
    except (OSError, HTTPException) as error:
        raise Unusable(f"the transfer broke off ({error})") from None

"""An S3 bucket of any number of objects that exist in its listing alone."""

from xml.sax.saxutils import escape

from tests.servers.loopback import Loopback, Reply, Request

PAGE = 1000
"""Objects of an answer, as S3 has it."""
CLASSES = 100
BYTES = 250_000
"""Of each object: 5,000 are too many to be looked at before they are planned."""


class Bucket(Loopback):
    """A tree of images by class, in the bucket `images`, which is made up page by page as it is asked for."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    @property
    def environment(self) -> dict[str, str]:
        """The variables through which a process finds it."""
        credentials = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
        return {"AWS_ENDPOINT_URL": self.url, "AWS_REGION": "us-east-1", "no_proxy": "127.0.0.1", **credentials}

    def key(self, number: int) -> str:
        return f"class {number * CLASSES // self.count:02}/{number:012}.jpg"

    def answer(self, request: Request) -> Reply:
        """ListObjectsV2, and nothing else: a continuation token is the number of the next object."""
        if request.method != "GET" or request.query.get("list-type") != "2":
            return Reply(404, "")
        start = int(request.query.get("continuation-token", 0))
        end = min(start + PAGE, self.count)
        contents = "".join(
            f"<Contents><Key>{escape(self.key(number))}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            f"<ETag>&quot;{number:032x}&quot;</ETag><Size>{BYTES}</Size><StorageClass>STANDARD</StorageClass></Contents>"
            for number in range(start, end)
        )
        more = f"<NextContinuationToken>{end}</NextContinuationToken>" if end < self.count else ""
        return Reply(
            200,
            '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>images</Name><Prefix></Prefix>'
            f"<MaxKeys>{PAGE}</MaxKeys><KeyCount>{end - start}</KeyCount>"
            f"<IsTruncated>{'true' if more else 'false'}</IsTruncated>{more}{contents}</ListBucketResult>",
        )

"""Make the lake's bucket where it is missing; waits for the object store. ``python -m deploy.compose.bucket``."""

import sys
import time

from components.config import Settings
from components.errors import LakeError

PATIENCE_S = 60.0


def make(settings: Settings, patience_s: float = PATIENCE_S) -> str:
    """Make the bucket that the lake lies in.

    Args:
        settings: The lake is ``s3://bucket/…``.
        patience_s: How long to wait for the store to come up.

    Returns:
        The bucket's name.

    Raises:
        LakeError: When the lake is no object store, or the store does not answer in time.
    """
    from pyarrow.fs import FileType, S3FileSystem

    if not settings.lake_root.startswith("s3://"):
        raise LakeError(f"{settings.lake_root} is no object store: only a bucket has to be made")
    bucket = settings.lake_root.removeprefix("s3://").split("/")[0]
    store = S3FileSystem(
        endpoint_override=settings.lake_endpoint or None,
        scheme="http" if settings.lake_endpoint.startswith("http://") else "https",
        access_key=settings.lake_access_key or None,
        secret_key=settings.lake_secret_key or None,
        allow_bucket_creation=True,
        connect_timeout=5,
    )
    deadline = time.monotonic() + patience_s
    while True:
        try:
            if store.get_file_info(bucket).type is FileType.NotFound:
                store.create_dir(bucket)
        except OSError as error:
            if time.monotonic() > deadline:
                where = settings.lake_endpoint or "AWS"
                raise LakeError(f"the object store at {where} does not take the bucket {bucket!r}: {error}") from error
            time.sleep(1)
        else:
            return bucket


if __name__ == "__main__":
    print(f"the bucket {make(Settings())!r} is there")
    sys.exit(0)

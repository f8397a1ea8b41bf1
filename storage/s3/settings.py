"""Settings of a bucket."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Settings:
    """Location and options of a bucket. Sizes are in bytes."""

    bucket: str
    prefix: str = ""
    endpoint: str = ""
    region: str = ""
    access_key: str = ""
    secret_key: str = field(default="", repr=False)
    path_style: bool = False
    sse: str = ""
    storage_class: str = ""
    part_size: int = 16 << 20
    upload_concurrency: int = 4

    redirect: bool = False
    redirect_lifetime: float = 1200.0
    """Lifetime of a presigned URL, in seconds."""
    redirect_endpoint: str = ""

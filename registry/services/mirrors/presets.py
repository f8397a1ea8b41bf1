"""Well-known registries, for which `moorage mirror add` needs only the name."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Preset:
    """A public registry. `hosts` are the names under which clients know it."""

    url: str
    hosts: tuple[str, ...]


PRESETS = {
    "docker.io": Preset(
        "https://registry-1.docker.io", ("docker.io", "index.docker.io", "registry-1.docker.io")
    ),
    **{
        host: Preset(f"https://{host}", (host,))
        for host in (
            "gcr.io",
            "ghcr.io",
            "mcr.microsoft.com",
            "nvcr.io",
            "public.ecr.aws",
            "quay.io",
            "registry.k8s.io",
        )
    },
}
"""The presets by name, which is also the default prefix of their repositories."""

DOCKER_HUB = "docker.io"

LIBRARY = "library/"
"""The namespace of Docker Hub's official images, which clients leave out."""

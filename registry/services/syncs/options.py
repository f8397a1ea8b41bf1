"""The options of a sync: which images it copies, and what it may delete."""

from typing import Annotated, Self

from msgspec import Meta, Struct
from msgspec.structs import replace

from registry.auth.policy.patterns import PatternScope, RepositoryPattern
from registry.errors import InputInvalidError
from registry.oci.platforms import Platform
from registry.services.syncs.selectors import TagSelector

_Text = Annotated[str, Meta(max_length=512, pattern=r"^[^\x00-\x1f\x7f]*$")]
_Texts = Annotated[tuple[_Text, ...], Meta(max_length=100)]
_Removals = Annotated[tuple[_Text, ...], Meta(max_length=10_000)]


class SyncOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The options of a sync."""

    repositories: Annotated[
        _Texts,
        Meta(description="Patterns of repositories at the source. Empty: all that it lists."),
    ] = ()
    tags: Annotated[
        _Texts,
        Meta(
            description="Tag patterns, ranges of versions (`>=1.20 <2`, `^1.4`, `~3.19`) or "
            "`newest:N`; a tag that one of them selects is copied. Empty: all tags."
        ),
    ] = ()
    platforms: Annotated[
        _Texts,
        Meta(
            description="Platforms that are copied of an image for several, such as `linux/arm64`. "
            "Empty: those of the mirror, or all if it has none."
        ),
    ] = ()
    referrers: Annotated[
        bool, Meta(description="Whether signatures, attestations and other referrers are copied.")
    ] = False
    prune: Annotated[
        bool,
        Meta(
            description="Whether tags are deleted that a sync has set and the source has deleted."
        ),
    ] = False
    removals: Annotated[
        _Removals | None,
        Meta(
            description="The only tags that `prune` may delete, as `repository:tag` from a plan. "
            "Null: all that it finds."
        ),
    ] = None

    def normalize(self) -> Self:
        """Return the same options without repetitions.

        Raises InputInvalidError and PatternInvalidError if a value is invalid.
        """
        self.parse_repositories()
        self.parse_tags()
        self.parse_platforms()
        if self.removals is not None and not self.prune:
            raise InputInvalidError("`removals` requires `prune`")
        texts = {name: getattr(self, name) for name in ("repositories", "tags", "platforms")}
        return replace(self, **{name: tuple(dict.fromkeys(each)) for name, each in texts.items()})

    def parse_repositories(self) -> tuple[RepositoryPattern, ...]:
        return tuple(map(RepositoryPattern.parse, self.repositories))

    def parse_tags(self) -> tuple[TagSelector, ...]:
        return tuple(map(TagSelector.parse, self.tags))

    def parse_platforms(self, default: tuple[str, ...] = ()) -> tuple[Platform, ...]:
        """Parse the platforms, or those of `default` if there are none."""
        return tuple(map(Platform.parse, self.platforms or default))

    @property
    def needs_catalog(self) -> bool:
        """Whether the repositories must be listed, because not all of them are named."""
        patterns = self.parse_repositories()
        return not patterns or any(each.reach is not PatternScope.EXACT for each in patterns)

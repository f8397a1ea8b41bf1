"""Lists of tags and referrers of mirrored repositories."""

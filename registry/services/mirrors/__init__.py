"""Mirrors: other registries whose content this one fetches when it is pulled, and keeps."""

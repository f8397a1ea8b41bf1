"""May she? The one place that decides."""

from registry.auth.actions import Action
from registry.auth.principals import ANONYMOUS, Principal
from registry.oci.names import RepositoryName


class OpenPolicy:
    """Everybody is let in and may do everything: a registry on loopback, or `mode = "none"`."""

    def authenticate(self) -> Principal:
        """Who sent the request."""
        return ANONYMOUS

    def may(self, principal: Principal, action: Action, name: RepositoryName | None) -> bool:
        """Whether the principal may do `action` in the repository, or, for None, at all."""
        del principal, action, name
        return True

"""An open registry."""

from msgspec import Struct

from registry.auth.keys.keyring import Keyring
from registry.metadata.engine.database import Database
from registry.metadata.revisions.watch import RevisionWatch
from registry.services.access.access import AccessServices
from registry.services.maintenance.leases import Leases
from registry.services.services import Services
from storage.driver import Driver
from storage.stores import Stores


class Runtime(Struct, frozen=True):
    """An open registry with its database, stores and keys."""

    database: Database
    watch: RevisionWatch
    stores: Stores
    registry: Services
    access: AccessServices
    keyring: Keyring
    leases: Leases

    @property
    def driver(self) -> Driver:
        """Storage driver for new blobs."""
        return self.stores.current.driver

    async def close(self) -> None:
        await self.registry.fills.close()
        await self.access.authenticator.close()
        await self.registry.mirrored_manifests.close()
        await self.registry.mirrored_lists.close()
        await self.registry.upstreams.close()
        await self.registry.healer.close()
        self.watch.close()
        await self.stores.close()
        await self.database.close()

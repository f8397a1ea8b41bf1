"""OCI concepts as values without I/O: names, references, descriptors, manifests."""

"""The field's vocabulary as pure values: names, references, descriptors, manifests. No I/O."""

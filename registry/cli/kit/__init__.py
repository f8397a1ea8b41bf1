"""What commands share: options, output, and access to a local or remote registry."""

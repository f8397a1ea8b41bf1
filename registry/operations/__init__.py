"""The operations of the admin API, without HTTP: inputs, outputs, permissions and handlers."""

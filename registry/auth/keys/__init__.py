"""Signing keys: JOSE, the keyring and where keys are stored."""

"""The ASGI extension for servers that send files themselves."""

SENDFILE = "http.response.zerocopysend"
"""The name of the extension in the ASGI specification, and of its message."""

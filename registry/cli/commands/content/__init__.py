"""Commands for repositories, tags and images."""

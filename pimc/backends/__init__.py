"""IR to instructions, commands and memory images."""

"""Check and time the engine on a GPU: one command, at most eight minutes, nothing to install. README.md shows how."""

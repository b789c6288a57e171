"""The model registry: models that outlive their runs, with versions, cards, aliases, search and sharing."""

"""The registry: models that outlive their runs, with cards, aliases, search and sharing. Rooms as in any app."""

"""From requests to decisions, a batch at a time: sources → hydrate → filters → features → score → explore → rules →
respond."""

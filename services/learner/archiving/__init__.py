"""From topics to the archive: each example once, whatever dies."""

"""From scores to a choice: explorations give each candidate its probability, `choice` draws and says the propensity."""

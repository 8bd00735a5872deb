"""What a retriever knows, as numbers: vectors of contents and users, and the density of clicks near a user. No I/O."""

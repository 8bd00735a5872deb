"""The Learner: turns examples into models, and publishes them."""

"""The Event Tracker: what apps report about what they showed, checked and handed to Kafka."""

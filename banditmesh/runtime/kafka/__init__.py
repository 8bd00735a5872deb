"""Adapters to Kafka (aiokafka 0.14): topics, producer, consumer, transactions."""

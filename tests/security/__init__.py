"""A secured Kafka: who may do what."""

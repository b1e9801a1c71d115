"""Kafka as a way in: topics are consumed by a group, and offsets are committed behind what is durable."""

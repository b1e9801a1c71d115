"""Pulsar as a way in: topics are consumed by a subscription, and a message is acknowledged after it is durable."""

"""RabbitMQ as a way in (AMQP 0-9-1): a queue is consumed, and a message is acknowledged after it is durable."""

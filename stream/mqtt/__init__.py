"""Pictures and metadata over MQTT: broker, publisher, subscriber, what comes over the wire."""

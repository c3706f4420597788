"""Events and the pictures their labels name, from marker streams and trigger channels alike."""

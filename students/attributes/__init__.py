"""Published systems that extract attribute values."""

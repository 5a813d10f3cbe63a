"""Published systems that extract relations; those that do entities as well stand here, too."""

"""Published systems that recognise entities."""

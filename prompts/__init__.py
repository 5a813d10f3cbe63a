"""Floor 2: how a task is asked - versioned templates, rendering, parsing, linting."""

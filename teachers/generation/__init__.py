"""From examples and templates to a corpus folder: planned, asked, paid for, built."""

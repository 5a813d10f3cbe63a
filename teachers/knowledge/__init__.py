"""What becomes of answers: verified, compared, kept as a corpus, shown and shared."""

"""The engines that answer: one file each, and what they share."""

"""Floor 4: how students learn - recipes, objectives, batches, one training loop, evaluation and its
records.
"""

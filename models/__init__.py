"""Floor 1: where weights come from - names to local folders, models that ship inside packages, import guards."""

"""The searches: which settings, which treatment of unequal classes, which checkpoint. All are made of trials."""

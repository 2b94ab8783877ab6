"""Normal form: every model is normalised before rules are applied."""

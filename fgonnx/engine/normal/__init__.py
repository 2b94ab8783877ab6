"""Normal form: what every model is brought to before rules are applied."""

"""A service that answers with predictions and explanations: protocol, queue, Explainer, answer, in one direction."""

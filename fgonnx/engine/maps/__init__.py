"""From the terms of the decomposition to the map and the certificate."""

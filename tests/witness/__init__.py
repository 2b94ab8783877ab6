"""Independent witnesses in torch: small networks, autograd and a literal FullGrad."""

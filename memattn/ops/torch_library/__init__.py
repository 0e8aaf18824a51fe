"""What the compiled backends of an operation have in common: schema, fake and autograd."""

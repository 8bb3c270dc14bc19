"""The command line, from a typing error to a whole lease."""

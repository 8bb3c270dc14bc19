"""The codec at the gate: strict, total on hostile bytes, and documented to the byte."""

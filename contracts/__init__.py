"""The Solidity sources and what the compiler made of them, as package data.

``scripts/build_contracts`` writes ``artefacts``; a test compiles again and compares bytes.
"""

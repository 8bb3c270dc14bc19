"""The Solidity contracts of the L1, with their ABI and bytecode."""

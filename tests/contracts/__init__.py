"""The vault's rules, on the in-process EVM with the committed bytecode."""

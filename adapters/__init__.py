"""A module per technology that fulfils a port of the domain; bootstrap, cli and api compose."""

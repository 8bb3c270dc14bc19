"""An import-linter contract: adapters know the inner layers and libraries, but no other adapter.

import-linter's own contract of independence wants every module that composes by its full name and
forbids the chains that run through those. This one goes by direct imports and by patterns, so a
new `adapters.cli_leases` needs no new line in the configuration.
"""

from fnmatch import fnmatchcase

from grimp import ImportGraph
from importlinter.application import output
from importlinter.domain import fields
from importlinter.domain.contract import Contract, ContractCheck


class AdaptersAlone(Contract):
    """No module of `package` imports another one, with two exceptions.

    `composition` are patterns of the modules that compose and so may import all; each line of
    `together` are patterns of modules that are one technology and may import one another.
    """

    type_name = "adapters_alone"

    # import-linter parses each option into an attribute of the same name.
    package: str = fields.StringField()  # type: ignore[assignment]
    composition: list[str] = fields.ListField(  # type: ignore[assignment]
        subfield=fields.StringField()
    )
    together: list[str] = fields.ListField(  # type: ignore[assignment]
        subfield=fields.StringField()
    )

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        """Every import from one adapter to another that neither exception allows."""
        found = [
            (importer, imported)
            for importer in sorted(graph.find_descendants(self.package))
            for imported in sorted(graph.find_modules_directly_imported_by(importer))
            if imported.startswith(f"{self.package}.")
            and not self._allowed(_adapter(importer), _adapter(imported))
        ]
        return ContractCheck(kept=not found, metadata={"found": found})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """One line for each import that is not allowed."""
        for importer, imported in check.metadata["found"]:
            output.print_error(f"{importer} imports {imported}", bold=False)

    def _allowed(self, importer: str, imported: str) -> bool:
        if importer == imported or _matches(importer, self.composition):
            return True
        return any(
            _matches(importer, group.split()) and _matches(imported, group.split())
            for group in self.together
        )


def _adapter(module: str) -> str:
    """The adapter a module belongs to: `adapters.cli.leases` is part of `cli`."""
    return module.split(".")[1]


def _matches(name: str, patterns: list[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)

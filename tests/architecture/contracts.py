"""Two kinds of import contract that import-linter lacks: what a package sees at most, and what stays pure.

Both are named in `pyproject.toml` (`[tool.importlinter] contract_types`). Both accept modules that do not exist yet,
so that a rule of the house stands before the room it is about.
"""

from collections.abc import Iterable, Iterator

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


def _members(graph: ImportGraph, names: Iterable[str]) -> Iterator[str]:
    for name in sorted(names):
        if name in graph.modules:
            yield name
            if not graph.is_module_squashed(name):
                yield from sorted(graph.find_descendants(name))


def _within(module: str, packages: Iterable[str]) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


class OnlySees(Contract):
    """`source_modules` import, of our own packages, only `allowed_modules` and themselves."""

    source_modules = fields.SetField(subfield=fields.StringField())
    allowed_modules = fields.SetField(subfield=fields.StringField())
    ours = fields.SetField(subfield=fields.StringField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        """Look at direct imports: what an allowed package sees is that package's own contract.

        The package around a source (`caa` of `caa.relay`) is imported with it anyway, and holds nothing.
        """
        allowed = {*self.source_modules, *self.allowed_modules}
        around = {name.split(".")[0] for name in self.source_modules}
        broken = [
            f"{importer} imports {imported}"
            for importer in _members(graph, self.source_modules)
            for imported in sorted(graph.find_modules_directly_imported_by(importer))
            if imported not in around and _within(imported, self.ours) and not _within(imported, allowed)
        ]
        return ContractCheck(kept=not broken, metadata={"broken": broken})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """One line an import."""
        for line in check.metadata["broken"]:
            output.print_error(line)


class Pure(Contract):
    """`pure_modules` reach none of `forbidden_modules`, neither directly nor through modules of ours."""

    pure_modules = fields.SetField(subfield=fields.StringField())
    forbidden_modules = fields.SetField(subfield=fields.StringField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        """Follow the shortest chain to each forbidden module that anything in the tree imports."""
        broken = []
        forbidden = sorted(self.forbidden_modules & graph.modules)
        for importer in _members(graph, self.pure_modules):
            for imported in forbidden:
                chain = graph.find_shortest_chain(importer, imported)
                if chain:
                    broken.append(" -> ".join(chain))
        return ContractCheck(kept=not broken, metadata={"broken": broken})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """One line a chain."""
        for line in check.metadata["broken"]:
            output.print_error(line)

from components.export.interface import Export
from components.export.export import export
from components.step import main

main(Export, export)

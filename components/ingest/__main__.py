from components.ingest.interface import Ingest
from components.ingest.ingest import ingest
from components.step import main

main(Ingest, ingest)
